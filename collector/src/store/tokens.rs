//! Tokens in the store. Their uses are counted down in the transaction that makes the identity
//! (see `identities`), so that a crash never yields more identities than uses.

use std::time::SystemTime;

use haidang_proto::model::agency::AgencyId;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit::{self, AuditAction, AuditEntry};
use super::{ROWS_MAX, Store, StoreError, from_unix_ms, parsed, unix_ms};
use crate::token::Token;

const COLUMNS: &str = "id, agency, secret_sha256, uses_total, uses_left, expires_ms, note, \
                       created_ms, revoked_ms";

impl Store {
    /// Keeps a new token.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn insert_token(&self, token: Token) -> Result<(), StoreError> {
        self.write(1, move |connection| {
            let sql = format!(
                "INSERT INTO tokens ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)"
            );
            connection.execute(
                &sql,
                params![
                    token.id,
                    token.agency.as_str(),
                    token.secret_sha256,
                    token.uses_total,
                    token.uses_left,
                    unix_ms(token.expires),
                    token.note,
                    unix_ms(token.created),
                ],
            )?;
            let detail = format!(
                "agency {}, {} uses, until {}: {}",
                token.agency,
                token.uses_total,
                moment_text(token.expires),
                token.note
            );
            let entry = AuditEntry {
                at: token.created,
                action: AuditAction::TokenCreated,
                subject: token.id,
                source: "admin".into(),
                detail,
            };
            audit::insert(connection, &entry)
        })
        .await
    }

    /// The token of an id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn token(&self, id: String) -> Result<Option<Token>, StoreError> {
        self.read(move |connection| find(connection, &id)).await
    }

    /// Tokens, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn tokens(&self, agency: Option<AgencyId>) -> Result<Vec<Token>, StoreError> {
        self.read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM tokens WHERE ?1 IS NULL OR agency = ?1
                 ORDER BY created_ms DESC LIMIT {ROWS_MAX}"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([agency.as_ref().map(AgencyId::as_str)])?;
            let mut tokens = Vec::new();
            while let Some(row) = rows.next()? {
                tokens.push(token(row)?);
            }
            Ok(tokens)
        })
        .await
    }

    /// Withdraws a token. Returns whether there was one that was not withdrawn before.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn revoke_token(&self, id: String, at: SystemTime) -> Result<bool, StoreError> {
        self.write(1, move |connection| {
            let changed = connection.execute(
                "UPDATE tokens SET revoked_ms = ?2 WHERE id = ?1 AND revoked_ms IS NULL",
                params![id, unix_ms(at)],
            )?;
            if changed == 0 {
                return Ok(false);
            }
            let entry = AuditEntry {
                at,
                action: AuditAction::TokenRevoked,
                subject: id,
                source: "admin".into(),
                detail: String::new(),
            };
            audit::insert(connection, &entry)?;
            Ok(true)
        })
        .await
    }
}

pub(super) fn find(connection: &Connection, id: &str) -> Result<Option<Token>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tokens WHERE id = ?1");
    let found =
        connection.prepare_cached(&sql)?.query_row([id], |row| Ok(token(row))).optional()?;
    found.transpose()
}

fn token(row: &Row<'_>) -> Result<Token, StoreError> {
    let agency: String = row.get(1)?;
    Ok(Token {
        id: row.get(0)?,
        agency: parsed(&agency, "token's agency")?,
        secret_sha256: row.get(2)?,
        uses_total: row.get(3)?,
        uses_left: row.get(4)?,
        expires: from_unix_ms(row.get(5)?),
        note: row.get(6)?,
        created: from_unix_ms(row.get(7)?),
        revoked: row.get::<_, Option<i64>>(8)?.map(from_unix_ms),
    })
}

/// RFC 3339, for people.
pub(super) fn moment_text(at: SystemTime) -> String {
    jiff::Timestamp::from_millisecond(unix_ms(at)).unwrap_or(jiff::Timestamp::MAX).to_string()
}
