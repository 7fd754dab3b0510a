//! Rosters that were put in force, whole: the newest is the one in force after a restart.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};

use super::audit::{self, AuditAction, AuditEntry};
use super::{Store, StoreError, schema, unix_ms};

/// Key of the version of the roster file that was last seen.
const FILE_KEY: &str = "roster_file";

/// The content of a roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRoster {
    /// roster.csv.
    pub roster: Vec<u8>,
    /// prefixes.csv.
    pub prefixes: Option<Vec<u8>>,
}

impl Store {
    /// Keeps a roster as the one in force.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn put_roster(
        &self,
        version: String,
        stored: StoredRoster,
        source: &'static str,
        detail: String,
        at: SystemTime,
    ) -> Result<(), StoreError> {
        self.write(1, move |connection| {
            connection.execute(
                "INSERT INTO rosters (version, imported_ms, roster, prefixes)
                 VALUES (?1, ?2, ?3, ?4)",
                params![version, unix_ms(at), stored.roster, stored.prefixes],
            )?;
            let entry = AuditEntry {
                at,
                action: AuditAction::RosterImported,
                subject: version,
                source: source.into(),
                detail,
            };
            audit::insert(connection, &entry)
        })
        .await
    }

    /// Notes which version of the configured file was looked at.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn note_roster_file(&self, version: String) -> Result<(), StoreError> {
        self.version_of(FILE_KEY, version).await.map(|_| ())
    }
}

/// The roster in force.
pub(crate) fn in_force(connection: &Connection) -> Result<Option<StoredRoster>, StoreError> {
    let sql = "SELECT roster, prefixes FROM rosters ORDER BY id DESC LIMIT 1";
    let row = connection
        .query_row(sql, [], |row| Ok(StoredRoster { roster: row.get(0)?, prefixes: row.get(1)? }));
    Ok(row.optional()?)
}

/// The version of the configured file that was last looked at.
pub(crate) fn file_seen(connection: &Connection) -> Result<Option<String>, StoreError> {
    schema::content_of(connection, FILE_KEY)
}
