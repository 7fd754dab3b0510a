//! The audit: who did what, when and from where. It is never pruned, and no secret is in it.

use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::{ROWS_MAX, Store, StoreError, from_unix_ms, unix_ms};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditAction {
    /// A token was made.
    TokenCreated,
    /// A token was withdrawn.
    TokenRevoked,
    /// A machine was enrolled.
    Enrolled,
    /// An attempt to enrol was refused.
    EnrolmentRefused,
    /// A former identity of a machine was replaced by a new enrolment.
    Superseded,
    /// A certificate was renewed.
    Renewed,
    /// An expired certificate was renewed.
    Recovered,
    /// An attempt to renew an expired certificate was refused.
    RecoveryRefused,
    /// An identity was withdrawn.
    Revoked,
    /// Two machines spoke with one identity.
    Cloned,
    /// An operator decided a conflict.
    Decided,
    /// Another roster was put in force.
    RosterImported,
    /// An exception was made or renewed.
    ExceptionAdded,
    /// An exception was removed.
    ExceptionRemoved,
    /// What is asked of an agency was changed.
    PolicySet,
}

impl AuditAction {
    /// The label in the store and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenCreated => "token_created",
            Self::TokenRevoked => "token_revoked",
            Self::Enrolled => "enrolled",
            Self::EnrolmentRefused => "enrolment_refused",
            Self::Superseded => "superseded",
            Self::Renewed => "renewed",
            Self::Recovered => "recovered",
            Self::RecoveryRefused => "recovery_refused",
            Self::Revoked => "revoked",
            Self::Cloned => "cloned",
            Self::Decided => "decided",
            Self::RosterImported => "roster_imported",
            Self::ExceptionAdded => "exception_added",
            Self::ExceptionRemoved => "exception_removed",
            Self::PolicySet => "policy_set",
        }
    }
}

/// An entry to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: SystemTime,
    /// What.
    pub action: AuditAction,
    /// To whom: a token's id, an agent's id, a roster's version.
    pub subject: String,
    /// From where: an address, or `admin` for the local socket.
    pub source: String,
    /// The circumstances, in words.
    pub detail: String,
}

/// An entry as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Grows with every entry.
    pub id: i64,
    /// When.
    pub at: SystemTime,
    /// Label of the action.
    pub action: String,
    /// To whom.
    pub subject: String,
    /// From where.
    pub source: String,
    /// The circumstances.
    pub detail: String,
}

impl Store {
    /// Leaves one entry to be written. A refusal that is not written down was a refusal all the
    /// same, and is counted.
    pub fn post_audit(&self, entry: AuditEntry) {
        self.post("an audit entry", move |connection| insert(connection, &entry));
    }

    /// Entries, newest first, before an id if one is given.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, at_ms, action, subject, source, detail FROM audit
                 WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(
                params![before.unwrap_or(i64::MAX), limit.min(ROWS_MAX)],
                |row| {
                    Ok(AuditRow {
                        id: row.get(0)?,
                        at: from_unix_ms(row.get(1)?),
                        action: row.get(2)?,
                        subject: row.get(3)?,
                        source: row.get(4)?,
                        detail: row.get(5)?,
                    })
                },
            )?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

pub(super) fn insert(connection: &Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    let AuditEntry { at, action, subject, source, detail } = entry;
    connection
        .prepare_cached(
            "INSERT INTO audit (at_ms, action, subject, source, detail)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![unix_ms(*at), action.as_str(), subject, source, detail])?;
    Ok(())
}
