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

/// What is held of a machine while a delivery is applied: read once, and written once.
pub(super) struct Machine<'a> {
    connection: &'a Connection,
    agent: &'a str,
    /// `None` as long as it was not read.
    held: Option<Option<HeldPosture>>,
    is_changed: bool,
}

impl<'a> Machine<'a> {
    pub(super) fn new(connection: &'a Connection, agent: &'a str) -> Self {
        Self { connection, agent, held: None, is_changed: false }
    }

    /// Merges a snapshot into it.
    pub(super) fn merge(
        &mut self,
        snapshot: &PostureSnapshot,
        order: Order,
        written: SystemTime,
        received: SystemTime,
    ) -> Result<(), StoreError> {
        let before = self.read()?.take();
        self.held = Some(Some(HeldPosture::merged(before, snapshot, order, written, received)));
        self.is_changed = true;
        Ok(())
    }

    /// What is held now.
    pub(super) fn held(&mut self) -> Result<Option<&HeldPosture>, StoreError> {
        Ok(self.read()?.as_ref())
    }

    /// Writes what was merged.
    pub(super) fn keep(&mut self) -> Result<(), StoreError> {
        let Some(Some(held)) = self.held.as_ref().filter(|_| self.is_changed) else {
            return Ok(());
        };
        let body = serde_json::to_string(held).map_err(|error| StoreError::Damaged {
            what: "posture that cannot be written",
            value: error.to_string(),
        })?;
        self.connection
            .prepare_cached(
                "INSERT INTO postures (agent, body) VALUES (?1, ?2)
                 ON CONFLICT (agent) DO UPDATE SET body = ?2",
            )?
            .execute(params![self.agent, body])?;
        self.is_changed = false;
        Ok(())
    }

    fn read(&mut self) -> Result<&mut Option<HeldPosture>, StoreError> {
        let known = match self.held.take() {
            Some(known) => known,
            None => held(self.connection, self.agent)?,
        };
        Ok(self.held.insert(known))
    }
}

/// What is held of a machine.
fn held(connection: &Connection, agent: &str) -> Result<Option<HeldPosture>, StoreError> {
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
