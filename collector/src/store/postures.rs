//! The posture of each machine: its last answers, merged in the transaction that takes the record
//! they came in. One row a machine, whatever it sends; what it sent before is in its journal.

use haidang_proto::model::agency::AgentId;
use haidang_proto::model::posture::PostureSnapshot;
use rusqlite::{Connection, OptionalExtension, params};
use std::time::SystemTime;

use super::{Store, StoreError, parsed};
use crate::posture::{HeldPosture, MachinePosture, Order};

impl Store {
    /// What is held of a machine; `None` when it never sent any.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn posture(&self, agent: AgentId) -> Result<Option<HeldPosture>, StoreError> {
        self.read(move |connection| held(connection, &agent.to_string())).await
    }
}

/// Every machine's posture, as the fleet keeps it. One that cannot be read is told, and its machine
/// counts as unread until it sends another.
pub(crate) fn postures(
    connection: &Connection,
) -> Result<Vec<(AgentId, MachinePosture)>, StoreError> {
    let mut statement = connection.prepare("SELECT agent, body FROM postures")?;
    let mut rows = statement.query([])?;
    let mut postures = Vec::new();
    while let Some(row) = rows.next()? {
        let (agent, body): (String, String) = (row.get(0)?, row.get(1)?);
        if let Some(held) = read(&agent, &body) {
            postures.push((parsed(&agent, "posture's agent")?, MachinePosture::from(&held)));
        }
    }
    Ok(postures)
}

/// Merges a snapshot into what is held of its machine.
pub(super) fn merge(
    connection: &Connection,
    agent: &str,
    snapshot: &PostureSnapshot,
    order: Order,
    written: SystemTime,
    received: SystemTime,
) -> Result<(), StoreError> {
    let before = held(connection, agent)?;
    let merged = HeldPosture::merged(before, snapshot, order, written, received);
    let body = serde_json::to_string(&merged).map_err(|error| StoreError::Damaged {
        what: "posture that cannot be written",
        value: error.to_string(),
    })?;
    connection
        .prepare_cached(
            "INSERT INTO postures (agent, body) VALUES (?1, ?2)
             ON CONFLICT (agent) DO UPDATE SET body = ?2",
        )?
        .execute(params![agent, body])?;
    Ok(())
}

/// What is held of a machine.
pub(super) fn held(
    connection: &Connection,
    agent: &str,
) -> Result<Option<HeldPosture>, StoreError> {
    let body: Option<String> = connection
        .prepare_cached("SELECT body FROM postures WHERE agent = ?1")?
        .query_row([agent], |row| row.get(0))
        .optional()?;
    Ok(body.and_then(|body| read(agent, &body)))
}

fn read(agent: &str, body: &str) -> Option<HeldPosture> {
    serde_json::from_str(body)
        .inspect_err(|error| tracing::warn!(agent, %error, "a stored posture cannot be read"))
        .ok()
}

#[cfg(test)]
mod tests;
