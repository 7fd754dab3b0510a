//! What happened to agencies, and when agents were last seen.

use std::time::SystemTime;

use haidang_proto::model::agency::{AgencyId, AgentId};
use rusqlite::{Connection, params};

use super::{ROWS_MAX, Store, StoreError, from_unix_ms, parsed, unix_ms};
use crate::fleet::AgencyTransition;
use crate::snapshot::{AgencyState, Suppression};

/// A transition as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitionRow {
    /// Grows with every transition of the installation.
    pub id: i64,
    /// The agency.
    pub agency: String,
    /// When the fold saw it.
    pub at: SystemTime,
    /// Label of the state before.
    pub from: String,
    /// Label of the state after.
    pub to: String,
    /// Cause of a disconnection, or reason of a clean stop; empty otherwise.
    pub detail: String,
    /// Why alerts about it were held back, if they were.
    pub suppressed: Option<String>,
}

/// The state that an agency was in when the collector stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastState {
    /// The agency.
    pub(crate) agency: AgencyId,
    /// Its state.
    pub(crate) state: AgencyState,
    /// Since when.
    pub(crate) since: SystemTime,
}

/// When an agent was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The agent.
    pub agent: AgentId,
    /// Receipt of its last message.
    pub last_heard: SystemTime,
    /// Receipt of its last verified message.
    pub last_verified: Option<SystemTime>,
}

impl Store {
    /// Keeps transitions.
    ///
    /// # Errors
    /// When the store cannot be written; then none of them was kept.
    pub async fn append_transitions(
        &self,
        transitions: Vec<AgencyTransition>,
    ) -> Result<(), StoreError> {
        self.write(transitions.len(), move |connection| {
            let mut insert = connection.prepare_cached(
                "INSERT INTO agency_transitions
                     (agency, at_ms, from_state, to_state, detail, suppressed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for AgencyTransition { agency, from, to, at, suppressed } in &transitions {
                insert.execute(params![
                    agency.as_str(),
                    unix_ms(*at),
                    from.as_str(),
                    to.as_str(),
                    to.detail(),
                    suppressed.map(Suppression::as_str),
                ])?;
            }
            Ok(())
        })
        .await
    }

    /// Transitions, newest first, of one agency or of all, before a row id if one is given.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn transitions(
        &self,
        agency: Option<AgencyId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<TransitionRow>, StoreError> {
        self.read(move |connection| {
            let of_agency = if agency.is_some() { "agency = ?1 AND" } else { "?1 IS NULL AND" };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, agency, at_ms, from_state, to_state, detail, suppressed
                 FROM agency_transitions WHERE {of_agency} id < ?2 ORDER BY id DESC LIMIT ?3"
            ))?;
            let agency = agency.as_ref().map(AgencyId::as_str);
            let (before, limit) = (before.unwrap_or(i64::MAX), limit.min(ROWS_MAX));
            let rows = statement.query_map(params![agency, before, limit], |row| {
                Ok(TransitionRow {
                    id: row.get(0)?,
                    agency: row.get(1)?,
                    at: from_unix_ms(row.get(2)?),
                    from: row.get(3)?,
                    to: row.get(4)?,
                    detail: row.get(5)?,
                    suppressed: row.get(6)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Keeps when agents were last seen: one write for all that were heard since the last one.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn checkpoint(&self, seen: Vec<Seen>) -> Result<(), StoreError> {
        self.write(1, move |connection| {
            let mut update = connection.prepare_cached(
                "UPDATE identities SET last_heard_ms = ?2,
                     last_verified_ms = coalesce(?3, last_verified_ms)
                 WHERE agent = ?1",
            )?;
            for Seen { agent, last_heard, last_verified } in &seen {
                update.execute(params![
                    agent.to_string(),
                    unix_ms(*last_heard),
                    last_verified.map(unix_ms),
                ])?;
            }
            Ok(())
        })
        .await
    }
}

/// The last transition of every agency that ever changed its state.
pub(crate) fn last_transitions(connection: &Connection) -> Result<Vec<LastState>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT agency, to_state, detail, at_ms FROM agency_transitions
         WHERE id IN (SELECT max(id) FROM agency_transitions GROUP BY agency)",
    )?;
    let mut rows = statement.query([])?;
    let mut states = Vec::new();
    while let Some(row) = rows.next()? {
        let (agency, state, detail): (String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        states.push(LastState {
            agency: parsed(&agency, "transition's agency")?,
            state: AgencyState::from_labels(&state, &detail)
                .ok_or(StoreError::Damaged { what: "transition's state", value: state })?,
            since: from_unix_ms(row.get(3)?),
        });
    }
    Ok(states)
}
