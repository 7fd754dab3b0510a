//! Agents' journals: records by (journal, sequence number), and how far each journal is durable.
//!
//! The acknowledged number is contiguous: every record up to it is in the store, or was declared
//! lost by the agent and is written down as a gap. A record that is delivered again changes
//! nothing, and a record beyond an undeclared hole is not taken. A record whose number stands for
//! another one is a sign that the agent's disk was put back to an older state: nothing is taken of
//! such a delivery, and the agent is told to begin another journal with what is new.

mod body;

use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::AgentId;
use haidang_proto::model::posture::PostureSnapshot;
use haidang_proto::model::record::{Event, Receipt, Record};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::outages::{self, Fold, Step};
use super::postures::Machine;
use super::sqlite::Lane;
use super::{ROWS_MAX, Store, StoreError, from_unix_ms, receipts, unix_ms};
use crate::posture::{MachinePosture, Order};

/// Journals of one agent: a new one is begun only when the former was damaged or the agent
/// enrolled anew. Further ones are not taken.
const JOURNALS_PER_AGENT_MAX: i64 = 256;
/// Rows deleted at a time when old ones are dropped, so that no delivery waits long.
const PRUNE_ROWS: u32 = 5_000;

/// Records of one agent's journal, in the shape that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalDelivery {
    agent: AgentId,
    journal: Uuid,
    first_seq: i64,
    rows: Vec<JournalRow>,
    received: SystemTime,
}

/// One record in the shape that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    seq: i64,
    at_ms: i64,
    boot_id: Uuid,
    boottime_ms: i64,
    kind: &'static str,
    body: String,
    outage: Step,
    /// Merged into what is held of the machine.
    posture: Option<PostureSnapshot>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// What the agent is told.
    pub receipt: Receipt,
    /// What is held of the machine now, when the delivery had something of it. Told again when the
    /// delivery is repeated: the first answer may have been lost on its way to the fleet.
    pub posture: Option<MachinePosture>,
}

/// A record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRow {
    /// Its journal.
    pub journal: Uuid,
    /// Its number in the journal.
    pub seq: i64,
    /// When it was received.
    pub received: SystemTime,
    /// When it was written, on the agent's clock.
    pub at: SystemTime,
    /// `transition`, `started`, `short_outage` or `posture`.
    pub kind: String,
    /// The event as JSON.
    pub body: String,
}

impl JournalDelivery {
    /// Prepares a delivery. `None` when a number is beyond what can be stored: no agent counts
    /// that far.
    pub fn prepare(
        agent: AgentId,
        delivery: &haidang_proto::model::record::Delivery,
        received: SystemTime,
    ) -> Option<Self> {
        let rows = delivery.records.iter().map(JournalRow::from_record);
        Some(Self {
            agent,
            journal: delivery.journal_id,
            first_seq: i64::try_from(delivery.first_seq).ok()?,
            rows: rows.collect::<Option<_>>()?,
            received,
        })
    }
}

impl JournalRow {
    fn from_record(record: &Record) -> Option<Self> {
        let Record { seq, at, event } = record;
        let posture = match event {
            Event::Posture(snapshot) => Some(snapshot.clone()),
            Event::Transition(_) | Event::Started { .. } | Event::ShortOutage { .. } => None,
        };
        Some(Self {
            seq: i64::try_from(*seq).ok()?,
            at_ms: unix_ms(at.wall),
            boot_id: at.boot_id,
            boottime_ms: i64::try_from(millis(at.boottime)).ok()?,
            kind: body::kind(event),
            body: body::body(record),
            outage: Step::of(record),
            posture,
        })
    }
}

impl Store {
    /// Takes records; the answer comes once they are durable.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing of the delivery was taken.
    pub async fn deliver(&self, delivery: JournalDelivery) -> Result<Delivered, StoreError> {
        let records = delivery.rows.len();
        let lane = Lane::of_delivery(records);
        self.write_in(lane, records, move |connection| take(connection, &delivery)).await
    }

    /// Newest records of an agent.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn records(&self, agent: AgentId, limit: u32) -> Result<Vec<RecordRow>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT j.journal, r.seq, r.received_ms, r.at_ms, r.kind, r.body
                 FROM journals j JOIN records r ON r.journal = j.id
                 WHERE j.agent = ?1 ORDER BY j.id DESC, r.seq DESC LIMIT ?2",
            )?;
            let rows =
                statement.query_map(params![agent.to_string(), limit.min(ROWS_MAX)], |row| {
                    Ok(RecordRow {
                        journal: Uuid::from_bytes(row.get(0)?),
                        seq: row.get(1)?,
                        received: from_unix_ms(row.get(2)?),
                        at: from_unix_ms(row.get(3)?),
                        kind: row.get(4)?,
                        body: row.get(5)?,
                    })
                })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// When the oldest record that is kept was received.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn oldest_record(&self) -> Result<Option<SystemTime>, StoreError> {
        self.read(|connection| Ok(receipts::oldest(connection)?.map(from_unix_ms))).await
    }

    /// Drops records, outages and transitions from before `oldest`, some at a time; the last transition
    /// of each agency stays. Drops the posture of machines that are enrolled no more. Returns
    /// whether there may be more.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn prune(&self, oldest: SystemTime) -> Result<bool, StoreError> {
        self.write_in(Lane::Backlog, 1, move |connection| {
            let more = receipts::prune(connection, oldest, PRUNE_ROWS)?;
            let transitions = connection.execute(
                "DELETE FROM agency_transitions WHERE id IN
                     (SELECT t.id FROM agency_transitions t WHERE t.at_ms < ?1 AND t.id <
                          (SELECT max(id) FROM agency_transitions WHERE agency = t.agency)
                      LIMIT ?2)",
                params![unix_ms(oldest), PRUNE_ROWS],
            )?;
            connection.execute(
                "DELETE FROM postures WHERE agent IN
                     (SELECT agent FROM identities WHERE state IN ('revoked', 'superseded'))",
                [],
            )?;
            Ok(more || transitions == PRUNE_ROWS as usize)
        })
        .await
    }
}

pub(super) fn take(
    connection: &Connection,
    delivery: &JournalDelivery,
) -> Result<Delivered, StoreError> {
    let JournalDelivery { agent, journal, first_seq, rows, received } = delivery;
    let agent = agent.to_string();
    let known: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT id, acknowledged_seq FROM journals WHERE agent = ?1 AND journal = ?2",
        )?
        .query_row(params![agent, journal.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (id, before) = match known {
        Some(known) => known,
        None => (begin(connection, &agent, journal, *received)?, 0),
    };
    if let Some(conflicting) = conflict(connection, id, before, rows)? {
        tracing::warn!(
            agent,
            seq = conflicting,
            "the machine's journal is an old copy; what is new in it comes in another one"
        );
        return Ok(Delivered { receipt: receipt(before, Some(conflicting)), posture: None });
    }
    let mut acknowledged = before;
    let mut outages = Fold::begin(connection, id, *received)?;
    let mut machine = Machine::new(connection, &agent);
    if *first_seq > before + 1 {
        acknowledged = first_seq - 1;
        connection
            .prepare_cached(
                "INSERT INTO gaps (journal, first_seq, last_seq, noticed_ms)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![id, before + 1, acknowledged, unix_ms(*received)])?;
        outages.records_lost()?;
    }
    let lost_until = acknowledged;
    let mut insert = connection.prepare_cached(
        "INSERT INTO records (journal, seq, received_ms, at_ms, kind, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for JournalRow { seq, at_ms, kind, body, outage, posture, boot_id: _, boottime_ms: _ } in rows {
        if *seq == acknowledged + 1 {
            insert.execute(params![id, seq, unix_ms(*received), at_ms, kind, body])?;
            outages.apply(*seq, outage)?;
            acknowledged = *seq;
            if let Some(snapshot) = posture {
                let order = Order { journal: id, seq: *seq };
                machine.merge(snapshot, order, from_unix_ms(*at_ms), *received)?;
            }
        }
    }
    if acknowledged > lost_until {
        receipts::insert(connection, *received, id, lost_until + 1, acknowledged)?;
    }
    if acknowledged != before {
        connection
            .prepare_cached("UPDATE journals SET acknowledged_seq = ?2 WHERE id = ?1")?
            .execute([id, acknowledged])?;
    }
    machine.keep()?;
    let has_posture = rows.iter().any(|row| row.posture.is_some());
    let posture = if has_posture { machine.held()?.map(MachinePosture::from) } else { None };
    Ok(Delivered { receipt: receipt(acknowledged, None), posture })
}

fn receipt(acknowledged: i64, conflicting: Option<i64>) -> Receipt {
    // What is stored came from such numbers.
    let seq = |seq: i64| u64::try_from(seq).unwrap_or(0);
    Receipt { acknowledged_seq: seq(acknowledged), conflicting_seq: conflicting.map(seq) }
}

/// The first of those rows that are delivered again whose number stands for another record: one of
/// another kind, or written at another moment. What was pruned meanwhile cannot be compared.
fn conflict(
    connection: &Connection,
    journal: i64,
    acknowledged: i64,
    rows: &[JournalRow],
) -> Result<Option<i64>, StoreError> {
    let mut written = connection.prepare_cached(
        "SELECT at_ms, kind, body ->> '$.boot_id', body ->> '$.boottime_ms' FROM records
         WHERE journal = ?1 AND seq = ?2",
    )?;
    for row in rows.iter().take_while(|row| row.seq <= acknowledged) {
        let is_same = written
            .query_row([journal, row.seq], |held| {
                let (boot_id, boottime_ms): (String, i64) = (held.get(2)?, held.get(3)?);
                let is_same_moment = row.boot_id.to_string() == boot_id
                    && row.boottime_ms == boottime_ms
                    && row.at_ms == held.get::<_, i64>(0)?;
                Ok(is_same_moment && row.kind == held.get::<_, String>(1)?)
            })
            .optional()?;
        if is_same == Some(false) {
            return Ok(Some(row.seq));
        }
    }
    Ok(None)
}

fn begin(
    connection: &Connection,
    agent: &str,
    journal: &Uuid,
    received: SystemTime,
) -> Result<i64, StoreError> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM journals WHERE agent = ?1")?
        .query_row([agent], |row| row.get(0))?;
    if count >= JOURNALS_PER_AGENT_MAX {
        return Err(StoreError::Overloaded);
    }
    outages::journal_begun(connection, agent, received)?;
    connection
        .prepare_cached(
            "INSERT INTO journals (agent, journal, acknowledged_seq) VALUES (?1, ?2, 0)",
        )?
        .execute(params![agent, journal.as_bytes()])?;
    Ok(connection.last_insert_rowid())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
