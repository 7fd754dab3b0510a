//! Policies. Each change and its audit entry are one transaction.

use rusqlite::{Connection, params};

use super::audit::{self, AuditAction, AuditEntry};
use super::{Store, StoreError, from_unix_ms, parsed, unix_ms};
use crate::posture::{Decision, PolicyTerms, Scope};

/// How the scope of all agencies is written; no agency's id has a star.
const ALL: &str = "*";

impl Store {
    /// Puts a decision in the place of the scope's former one. Returns all decisions.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn put_policy(
        &self,
        scope: Scope,
        decision: Decision,
        detail: String,
    ) -> Result<Vec<(Scope, Decision)>, StoreError> {
        self.write(1, move |connection| {
            let Decision { terms, owner, reason, decided, revision } = &decision;
            let terms = serde_json::to_string(terms).map_err(|error| StoreError::Damaged {
                what: "policy's terms",
                value: error.to_string(),
            })?;
            connection.execute(
                "INSERT OR REPLACE INTO policies
                     (scope, terms, owner, reason, decided_ms, revision)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    scope.to_string(),
                    terms,
                    owner,
                    reason,
                    unix_ms(*decided),
                    i64::try_from(*revision).unwrap_or(i64::MAX)
                ],
            )?;
            let entry = AuditEntry {
                at: *decided,
                action: AuditAction::PolicySet,
                subject: scope.to_string(),
                source: "admin".into(),
                detail: format!("owner {owner}; {detail}: {reason}"),
            };
            audit::insert(connection, &entry)?;
            policies(connection)
        })
        .await
    }
}

/// Every decision. One that a later program has written is not guessed at.
pub(crate) fn policies(connection: &Connection) -> Result<Vec<(Scope, Decision)>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT scope, terms, owner, reason, decided_ms, revision FROM policies")?;
    let mut rows = statement.query([])?;
    let mut policies = Vec::new();
    while let Some(row) = rows.next()? {
        let (scope, terms): (String, String) = (row.get(0)?, row.get(1)?);
        let terms: PolicyTerms = serde_json::from_str(&terms)
            .map_err(|_| StoreError::Damaged { what: "policy's terms", value: terms })?;
        let scope = match scope.as_str() {
            ALL => Scope::All,
            agency => Scope::Agency(parsed(agency, "policy's agency")?),
        };
        let revision: i64 = row.get(5)?;
        let decision = Decision {
            terms,
            owner: row.get(2)?,
            reason: row.get(3)?,
            decided: from_unix_ms(row.get(4)?),
            revision: u64::try_from(revision).unwrap_or(0),
        };
        policies.push((scope, decision));
    }
    Ok(policies)
}
