//! Exceptions of agencies. Each change and its audit entry are one transaction.

use std::time::SystemTime;

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::posture::CheckId;
use rusqlite::{Connection, params};

use super::audit::{self, AuditAction, AuditEntry};
use super::{Store, StoreError, from_unix_ms, parsed, unix_ms};
use crate::posture::{EXCEPTIONS_MAX, Exception};

impl Store {
    /// Keeps an exception, in the place of an earlier one for the same agency and check. Returns
    /// all there are.
    ///
    /// # Errors
    /// When the store cannot be written, or holds as many as it may.
    pub async fn put_exception(&self, exception: Exception) -> Result<Vec<Exception>, StoreError> {
        self.write(1, move |connection| {
            let Exception { agency, check, owner, reason, created, expires } = &exception;
            let count: u32 = connection.query_row(
                "SELECT count(*) FROM posture_exceptions WHERE agency <> ?1 OR check_id <> ?2",
                params![agency.as_str(), check.as_str()],
                |row| row.get(0),
            )?;
            if count >= EXCEPTIONS_MAX {
                return Err(StoreError::Overloaded);
            }
            connection.execute(
                "INSERT OR REPLACE INTO posture_exceptions
                     (agency, check_id, owner, reason, created_ms, expires_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    agency.as_str(),
                    check.as_str(),
                    owner,
                    reason,
                    unix_ms(*created),
                    unix_ms(*expires)
                ],
            )?;
            let until = unix_ms(*expires) / 1000;
            let entry = AuditEntry {
                at: *created,
                action: AuditAction::ExceptionAdded,
                subject: format!("{agency} {check}"),
                source: "admin".into(),
                detail: format!("owner {owner}, until unix {until}: {reason}"),
            };
            audit::insert(connection, &entry)?;
            exceptions(connection)
        })
        .await
    }

    /// Every exception.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn exceptions(&self) -> Result<Vec<Exception>, StoreError> {
        self.read(exceptions).await
    }

    /// Removes an exception. Returns all that are left, or `None` when there was none.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn remove_exception(
        &self,
        agency: AgencyId,
        check: CheckId,
        at: SystemTime,
    ) -> Result<Option<Vec<Exception>>, StoreError> {
        self.write(1, move |connection| {
            let removed = connection.execute(
                "DELETE FROM posture_exceptions WHERE agency = ?1 AND check_id = ?2",
                params![agency.as_str(), check.as_str()],
            )?;
            if removed == 0 {
                return Ok(None);
            }
            let entry = AuditEntry {
                at,
                action: AuditAction::ExceptionRemoved,
                subject: format!("{agency} {check}"),
                source: "admin".into(),
                detail: String::new(),
            };
            audit::insert(connection, &entry)?;
            exceptions(connection).map(Some)
        })
        .await
    }
}

/// Every exception. One for a check that this program does not know accepts nothing and is told.
pub(crate) fn exceptions(connection: &Connection) -> Result<Vec<Exception>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT agency, check_id, owner, reason, created_ms, expires_ms FROM posture_exceptions",
    )?;
    let mut rows = statement.query([])?;
    let mut exceptions = Vec::new();
    while let Some(row) = rows.next()? {
        let (agency, check): (String, String) = (row.get(0)?, row.get(1)?);
        let Some(check) = CheckId::from_label(&check) else {
            tracing::warn!(agency, check, "an exception names a check that is not known");
            continue;
        };
        exceptions.push(Exception {
            agency: parsed(&agency, "exception's agency")?,
            check,
            owner: row.get(2)?,
            reason: row.get(3)?,
            created: from_unix_ms(row.get(4)?),
            expires: from_unix_ms(row.get(5)?),
        });
    }
    Ok(exceptions)
}
