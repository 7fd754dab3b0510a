//! Identities in the store: enrolled, renewed, superseded, revoked, blocked.

use std::net::IpAddr;
use std::time::SystemTime;

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::refusal::Refusal;
use rusqlite::{Connection, Row, params};
use zeroize::Zeroizing;

use super::audit::{self, AuditAction, AuditEntry};
use super::{Store, StoreError, from_unix_ms, parsed, tokens, unix_ms};
use crate::identity::{Identity, IdentityState, Recovery, Serial};
use crate::snapshot::Conflict;

const COLUMNS: &str = "agent, agency, state, serial, not_after_ms, next_serial, \
     next_not_after_ms, fingerprint, hostname, token, enrolled_ms, enrolled_from, last_heard_ms, \
     last_verified_ms, pinned, conflict";

/// All that is kept of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRow {
    /// What decides on requests.
    pub identity: Identity,
    /// As the machine named itself when it enrolled.
    pub hostname: String,
    /// Token that it enrolled with.
    pub token: String,
    /// When it enrolled.
    pub enrolled: SystemTime,
    /// From where.
    pub enrolled_from: String,
    /// Last message before the last checkpoint.
    pub last_heard: Option<SystemTime>,
    /// Last verified message before the last checkpoint.
    pub last_verified: Option<SystemTime>,
    /// The two sources of an open conflict.
    pub conflict: Option<Conflict>,
}

/// An enrolment that was checked and is to be made durable.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The new identity.
    pub identity: Identity,
    /// As the machine names itself.
    pub hostname: String,
    /// Its address.
    pub source: IpAddr,
    /// The token's id.
    pub token: String,
    /// The token's secret, checked once more where its use is counted.
    pub secret: Zeroizing<Vec<u8>>,
    /// Former identities of the same machine.
    pub supersedes: Vec<AgentId>,
    /// When.
    pub at: SystemTime,
}

impl Store {
    /// Uses the token and makes the identity, both or neither; `then` runs as soon as that is
    /// durable.
    ///
    /// # Errors
    /// When the store cannot be written. The inner error says why the token does not admit it.
    pub async fn enrol(
        &self,
        enrolment: Enrolment,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let change = move |connection: &Connection| enrol(connection, &enrolment);
        self.write_then(change, move |admitted| {
            if admitted.is_ok() {
                then();
            }
        })
        .await
    }

    /// Keeps a renewed certificate beside the current one.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn renewed(
        &self,
        agent: AgentId,
        serial: Serial,
        not_after: SystemTime,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(1, move |connection| {
            connection.execute(
                "UPDATE identities SET next_serial = ?2, next_not_after_ms = ?3 WHERE agent = ?1",
                params![agent.to_string(), serial.0, unix_ms(not_after)],
            )?;
            audit::insert(connection, &audit)
        })
        .await
    }

    /// Keeps the certificate that replaces an expired one beside it; `then` runs as soon as that
    /// is durable.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn recovered(
        &self,
        recovery: Recovery,
        audit: AuditEntry,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        let change = move |connection: &Connection| {
            let Recovery { agent, presented, next } = recovery;
            connection.execute(
                "UPDATE identities SET serial = ?2, not_after_ms = ?3, next_serial = ?4,
                     next_not_after_ms = ?5
                 WHERE agent = ?1",
                params![
                    agent.to_string(),
                    presented.0.0,
                    unix_ms(presented.1),
                    next.0.0,
                    unix_ms(next.1),
                ],
            )?;
            audit::insert(connection, &audit)
        };
        self.write_then(change, move |()| then()).await
    }

    /// The renewed certificate was used and is current from now on. If this is lost, both
    /// serials are acceptable after a restart, and the first use of the new one ends that.
    pub fn post_promoted(&self, agent: AgentId, serial: Serial) {
        self.post("the promotion of a renewed certificate", move |connection| {
            connection
                .prepare_cached(
                    "UPDATE identities SET serial = next_serial, not_after_ms = next_not_after_ms,
                         next_serial = NULL, next_not_after_ms = NULL
                     WHERE agent = ?1 AND next_serial = ?2",
                )?
                .execute(params![agent.to_string(), serial.0])?;
            Ok(())
        });
    }

    /// Withdraws an identity; `then` runs as soon as that is durable. Returns whether there is
    /// such an identity.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn revoke_identity(
        &self,
        agent: AgentId,
        audit: AuditEntry,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<bool, StoreError> {
        let change = move |connection: &Connection| {
            let changed = connection.execute(
                "UPDATE identities SET state = 'revoked', conflict = NULL WHERE agent = ?1",
                [agent.to_string()],
            )?;
            if changed == 1 {
                audit::insert(connection, &audit)?;
            }
            Ok(changed == 1)
        };
        self.write_then(change, move |found| {
            if *found {
                then();
            }
        })
        .await
    }

    /// Blocks an identity that speaks from two machines. The block holds at once in memory; if
    /// this is lost, the two machines prove their conflict once more after a restart.
    pub fn post_blocked(&self, agent: AgentId, conflict: Conflict, at: SystemTime) {
        self.post("the block of a cloned identity", move |connection| {
            let Conflict { accepted, returned } = conflict;
            let changed = connection.execute(
                "UPDATE identities SET state = 'blocked', conflict = ?2
                 WHERE agent = ?1 AND state = 'active'",
                params![agent.to_string(), format!("{accepted} {returned}")],
            )?;
            if changed == 0 {
                return Ok(());
            }
            let entry = AuditEntry {
                at,
                action: AuditAction::Cloned,
                subject: agent.to_string(),
                source: returned.to_string(),
                detail: format!("the other machine speaks from {accepted}"),
            };
            audit::insert(connection, &entry)
        });
    }

    /// Lets the machine that enrolled go on with its identity after a conflict.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn keep_enrolled_machine(
        &self,
        agent: AgentId,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(1, move |connection| {
            connection.execute(
                "UPDATE identities SET state = 'active', pinned = 1, conflict = NULL
                 WHERE agent = ?1 AND state = 'blocked'",
                [agent.to_string()],
            )?;
            audit::insert(connection, &audit)
        })
        .await
    }

    /// Identities, by agency and time of enrolment.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn identities(
        &self,
        agency: Option<AgencyId>,
    ) -> Result<Vec<IdentityRow>, StoreError> {
        self.read(move |connection| identities(connection, agency.as_ref())).await
    }
}

/// Identities of one agency, or all of them.
pub(crate) fn identities(
    connection: &Connection,
    agency: Option<&AgencyId>,
) -> Result<Vec<IdentityRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM identities WHERE ?1 IS NULL OR agency = ?1
         ORDER BY agency, enrolled_ms"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([agency.map(AgencyId::as_str)])?;
    let mut identities = Vec::new();
    while let Some(row) = rows.next()? {
        identities.push(identity_row(row)?);
    }
    Ok(identities)
}

fn enrol(
    connection: &Connection,
    enrolment: &Enrolment,
) -> Result<Result<(), Refusal>, StoreError> {
    let Enrolment { identity, hostname, source, token, secret, supersedes, at } = enrolment;
    let Some(found) = tokens::find(connection, token)? else {
        return Ok(Err(Refusal::TokenWrong));
    };
    if let Err(refusal) = found.admit(secret, *at) {
        return Ok(Err(refusal));
    }
    connection.execute("UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?1", [token])?;
    for former in supersedes {
        connection.execute(
            "UPDATE identities SET state = 'superseded' WHERE agent = ?1 AND state = 'active'",
            [former.to_string()],
        )?;
        let entry = AuditEntry {
            at: *at,
            action: AuditAction::Superseded,
            subject: former.to_string(),
            source: source.to_string(),
            detail: format!("the same machine enrolled anew as {}", identity.agent),
        };
        audit::insert(connection, &entry)?;
    }
    let sql = format!(
        "INSERT INTO identities ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL, ?6, ?7, ?8, ?9, ?10, NULL, NULL, 0, NULL)"
    );
    connection.execute(
        &sql,
        params![
            identity.agent.to_string(),
            identity.agency.as_str(),
            identity.state.as_str(),
            identity.current.0,
            unix_ms(identity.not_after),
            identity.machine_fingerprint,
            hostname,
            token,
            unix_ms(*at),
            source.to_string(),
        ],
    )?;
    let entry = AuditEntry {
        at: *at,
        action: AuditAction::Enrolled,
        subject: identity.agent.to_string(),
        source: source.to_string(),
        detail: format!("agency {}, token {token}, host {hostname}", identity.agency),
    };
    audit::insert(connection, &entry)?;
    Ok(Ok(()))
}

fn identity_row(row: &Row<'_>) -> Result<IdentityRow, StoreError> {
    let agent: String = row.get(0)?;
    let agency: String = row.get(1)?;
    let state: String = row.get(2)?;
    let next_serial: Option<[u8; 16]> = row.get(5)?;
    let next_not_after: Option<i64> = row.get(6)?;
    let identity = Identity {
        agent: parsed(&agent, "agent")?,
        agency: parsed(&agency, "agency")?,
        state: IdentityState::from_label(&state)
            .ok_or(StoreError::Damaged { what: "identity's state", value: state })?,
        current: Serial(row.get(3)?),
        not_after: from_unix_ms(row.get(4)?),
        next: next_serial
            .zip(next_not_after)
            .map(|(serial, not_after)| (Serial(serial), from_unix_ms(not_after))),
        machine_fingerprint: row.get(7)?,
        pinned: row.get(14)?,
    };
    Ok(IdentityRow {
        identity,
        hostname: row.get(8)?,
        token: row.get(9)?,
        enrolled: from_unix_ms(row.get(10)?),
        enrolled_from: row.get(11)?,
        last_heard: row.get::<_, Option<i64>>(12)?.map(from_unix_ms),
        last_verified: row.get::<_, Option<i64>>(13)?.map(from_unix_ms),
        conflict: row.get::<_, Option<String>>(15)?.and_then(|text| conflict(&text)),
    })
}

fn conflict(text: &str) -> Option<Conflict> {
    let (accepted, returned) = text.split_once(' ')?;
    Some(Conflict { accepted: accepted.parse().ok()?, returned: returned.parse().ok()? })
}
