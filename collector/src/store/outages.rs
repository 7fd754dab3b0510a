//! Outages as intervals: what an agent's records say, folded in the transaction that keeps them,
//! so that each outage is there exactly once whatever was sent again, split or lost on the way.
//!
//! An outage begins with its first bad cycle and ends with the first good one of the transition
//! that ended it. Nothing else ends it: a restart of the agent, a verdict of "unknown" or a lost
//! record leave it open and marked `interrupted`, because nobody saw the path up in between. When
//! what ended it is lost for good, its end is `lost` and not invented. Its cause is the deepest
//! one that was seen, with the evidence of that.
//!
//! Times of day are the agent's own; the duration is counted on its monotonic clock where the
//! machine was not booted anew.

use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::record::{Event, Moment, Record, Transition};
use haidang_proto::model::verdict::{DownCause, Family, Verdict};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::Value;
use uuid::Uuid;

use super::{ROWS_MAX, Store, StoreError, from_unix_ms, parsed, receipts, unix_ms};

#[cfg(test)]
mod tests;

/// An outage as it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct OutageRow {
    /// Grows with every outage of the installation.
    pub id: i64,
    /// The agent that saw it.
    pub agent: AgentId,
    /// Its first bad cycle.
    pub began: SystemTime,
    /// Its end.
    pub end: OutageEnd,
    /// The deepest cause that was seen.
    pub cause: String,
    /// The facts behind that cause, as JSON.
    pub evidence: Value,
    /// It healed before the verdict was committed.
    pub short: bool,
    /// It was not watched all the time.
    pub interrupted: bool,
}

/// How an outage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageEnd {
    /// It has not, as far as is known.
    Open,
    /// The path was seen good again.
    Healed {
        /// The first good cycle.
        at: SystemTime,
        /// From the first bad cycle to that.
        lasted: Duration,
    },
    /// It did, and the record of when was lost.
    Lost,
}

impl OutageEnd {
    /// The label in the store and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Healed { .. } => "healed",
            Self::Lost => "lost",
        }
    }
}

/// Where a page of outages, latest beginning first, goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutageCursor {
    /// Beginning of the last outage of the page before.
    pub began: SystemTime,
    /// Its id.
    pub id: i64,
}

/// What one record means for the outages of its journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The path is down.
    Down { first_bad: Moment, was_up: bool, cause: DownCause, evidence: String },
    /// The path is up.
    Up { first_good: Moment },
    /// It was down and up again before it was committed.
    Short { first_bad: Moment, healed: Moment, cause: DownCause },
    /// Nobody watched, or could tell.
    Unwatched,
    /// The record is about something else than the path.
    Other,
}

impl Step {
    /// The step of a record.
    pub(super) fn of(Record { seq: _, at, event }: &Record) -> Self {
        match event {
            Event::Transition(Transition { from, to, first_seen, evidence }) => match to {
                Verdict::Disconnected(cause) => Self::Down {
                    first_bad: *first_seen,
                    was_up: from.family() == Family::Up,
                    cause: *cause,
                    evidence: serde_json::json!(evidence).to_string(),
                },
                Verdict::Connected
                | Verdict::Degraded(_)
                | Verdict::DnsBroken(_)
                | Verdict::ServiceBroken(_) => Self::Up { first_good: *first_seen },
                Verdict::Unknown(_) => Self::Unwatched,
            },
            Event::Started { .. } => Self::Unwatched,
            Event::Posture(_) => Self::Other,
            Event::ShortOutage { first_seen, bad_cycles: _, cause } => {
                Self::Short { first_bad: *first_seen, healed: *at, cause: *cause }
            }
        }
    }
}

/// The outages of one journal while a delivery is applied. Which one is open is asked once, and
/// known from then on.
pub(super) struct Fold<'a> {
    connection: &'a Connection,
    journal: i64,
    received: SystemTime,
    open: Option<Open>,
}

impl<'a> Fold<'a> {
    /// Begins with what is stored.
    pub(super) fn begin(
        connection: &'a Connection,
        journal: i64,
        received: SystemTime,
    ) -> Result<Self, StoreError> {
        Ok(Self { connection, journal, received, open: open(connection, journal)? })
    }

    /// Records of the journal were lost: whatever is open was not watched all the time.
    pub(super) fn records_lost(&self) -> Result<(), StoreError> {
        match &self.open {
            Some(open) => interrupt(self.connection, open.id),
            None => Ok(()),
        }
    }

    /// Applies a record's step, in the order of the records.
    pub(super) fn apply(&mut self, seq: i64, step: &Step) -> Result<(), StoreError> {
        match (step, &mut self.open) {
            (Step::Down { was_up: false, cause, evidence, .. }, Some(open)) => {
                if *cause < open.cause {
                    deepen(self.connection, open.id, *cause, evidence)?;
                    open.cause = *cause;
                }
            }
            (Step::Down { first_bad, cause, evidence, .. }, open) => {
                if let Some(open) = open.take() {
                    set(self.connection, open.id, "ending = 'lost'")?;
                    self.ended(&open)?;
                }
                let id = self.insert(seq, first_bad, *cause, evidence, None)?;
                self.open = Some(Open {
                    id,
                    earlier: None,
                    began_ms: unix_ms(first_bad.wall),
                    boot: first_bad.boot_id,
                    boottime_ms: boottime_ms(first_bad),
                    cause: *cause,
                });
            }
            (Step::Up { first_good }, open) => {
                if let Some(open) = open.take() {
                    heal(self.connection, &open, first_good)?;
                    self.ended(&open)?;
                }
            }
            (Step::Short { first_bad, healed, cause }, _) => {
                self.insert(seq, first_bad, *cause, "[]", Some(healed))?;
            }
            (Step::Unwatched, Some(open)) => interrupt(self.connection, open.id)?,
            (Step::Unwatched, None) | (Step::Other, _) => {}
        }
        Ok(())
    }

    /// What began in this delivery is dropped with it, and what began earlier with its end.
    fn ended(&self, open: &Open) -> Result<(), StoreError> {
        match open.earlier {
            Some(seq) => receipts::insert(self.connection, self.received, self.journal, seq, seq),
            None => Ok(()),
        }
    }

    /// Answers the outage's id.
    fn insert(
        &self,
        seq: i64,
        first_bad: &Moment,
        cause: DownCause,
        evidence: &str,
        healed: Option<&Moment>,
    ) -> Result<i64, StoreError> {
        let boottime_ms = boottime_ms(first_bad);
        let began_ms = unix_ms(first_bad.wall);
        let lasted = healed.map(|end| lasted_ms(began_ms, first_bad.boot_id, boottime_ms, end));
        self.connection
            .prepare_cached(
                "INSERT INTO outages (journal, seq, received_ms, began_ms, began_boot,
                     began_boottime_ms, ending, ended_ms, lasted_ms, cause, evidence, short,
                     interrupted)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0)",
            )?
            .execute(params![
                self.journal,
                seq,
                unix_ms(self.received),
                began_ms,
                first_bad.boot_id.as_bytes(),
                boottime_ms,
                if healed.is_some() { "healed" } else { "open" },
                healed.map(|healed| unix_ms(healed.wall)),
                lasted,
                cause.as_str(),
                evidence,
                healed.is_some(),
            ])?;
        Ok(self.connection.last_insert_rowid())
    }
}

/// The agent has begun another journal: nothing more comes from its former ones.
pub(super) fn journal_begun(
    connection: &Connection,
    agent: &str,
    received: SystemTime,
) -> Result<(), StoreError> {
    let mut open = connection.prepare_cached(
        "SELECT journal, seq FROM outages WHERE ending = 'open'
             AND journal IN (SELECT id FROM journals WHERE agent = ?1)",
    )?;
    let open = open.query_map([agent], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (journal, seq) in open.collect::<Result<Vec<_>, _>>()? {
        receipts::insert(connection, received, journal, seq, seq)?;
    }
    connection
        .prepare_cached(
            "UPDATE outages SET ending = 'lost', interrupted = 1 WHERE ending = 'open'
                 AND journal IN (SELECT id FROM journals WHERE agent = ?1)",
        )?
        .execute([agent])?;
    Ok(())
}

impl Store {
    /// Outages that the agents of an agency saw, latest beginning first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn outages(
        &self,
        agency: AgencyId,
        after: Option<OutageCursor>,
        limit: u32,
    ) -> Result<Vec<OutageRow>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT o.id, j.agent, o.began_ms, o.ending, o.ended_ms, o.lasted_ms, o.cause,
                     o.evidence, o.short, o.interrupted
                 FROM identities i JOIN journals j ON j.agent = i.agent
                     JOIN outages o ON o.journal = j.id
                 WHERE i.agency = ?1 AND (o.began_ms, o.id) < (?2, ?3)
                 ORDER BY o.began_ms DESC, o.id DESC LIMIT ?4",
            )?;
            let (began, id) =
                after.map_or((i64::MAX, i64::MAX), |after| (unix_ms(after.began), after.id));
            let limit = limit.min(ROWS_MAX);
            let mut rows = statement.query(params![agency.as_str(), began, id, limit])?;
            let mut outages = Vec::new();
            while let Some(row) = rows.next()? {
                outages.push(outage(row)?);
            }
            Ok(outages)
        })
        .await
    }
}

struct Open {
    id: i64,
    /// The record that began it, when that is of an earlier delivery.
    earlier: Option<i64>,
    began_ms: i64,
    boot: Uuid,
    boottime_ms: i64,
    cause: DownCause,
}

fn open(connection: &Connection, journal: i64) -> Result<Option<Open>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT id, seq, began_ms, began_boot, began_boottime_ms, cause FROM outages
             WHERE journal = ?1 AND ending = 'open'",
        )?
        .query_row([journal], |row| {
            let cause: String = row.get(5)?;
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, cause))
        })
        .optional()?;
    let Some((id, seq, began_ms, boot, boottime_ms, cause)) = found else { return Ok(None) };
    let known = DownCause::ALL.iter().copied().find(|known| known.as_str() == cause);
    let cause = known.ok_or(StoreError::Damaged { what: "outage's cause", value: cause })?;
    let (earlier, boot) = (Some(seq), Uuid::from_bytes(boot));
    Ok(Some(Open { id, earlier, began_ms, boot, boottime_ms, cause }))
}

fn heal(connection: &Connection, open: &Open, first_good: &Moment) -> Result<(), StoreError> {
    let lasted = lasted_ms(open.began_ms, open.boot, open.boottime_ms, first_good);
    connection
        .prepare_cached(
            "UPDATE outages SET ending = 'healed', ended_ms = ?2, lasted_ms = ?3 WHERE id = ?1",
        )?
        .execute(params![open.id, unix_ms(first_good.wall), lasted])?;
    Ok(())
}

fn deepen(
    connection: &Connection,
    id: i64,
    cause: DownCause,
    evidence: &str,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE outages SET cause = ?2, evidence = ?3 WHERE id = ?1")?
        .execute(params![id, cause.as_str(), evidence])?;
    Ok(())
}

fn interrupt(connection: &Connection, id: i64) -> Result<(), StoreError> {
    set(connection, id, "interrupted = 1")
}

fn set(connection: &Connection, id: i64, what: &'static str) -> Result<(), StoreError> {
    let sql = format!("UPDATE outages SET {what} WHERE id = ?1");
    connection.prepare_cached(&sql)?.execute([id])?;
    Ok(())
}

fn boottime_ms(moment: &Moment) -> i64 {
    i64::try_from(moment.boottime.as_millis()).unwrap_or(i64::MAX)
}

/// On the monotonic clock within one boot, otherwise on the wall clock; never negative.
fn lasted_ms(began_ms: i64, boot: Uuid, began_boottime_ms: i64, end: &Moment) -> i64 {
    let (from, to) = if boot == end.boot_id {
        (began_boottime_ms, boottime_ms(end))
    } else {
        (began_ms, unix_ms(end.wall))
    };
    to.saturating_sub(from).max(0)
}

fn outage(row: &Row<'_>) -> Result<OutageRow, StoreError> {
    let (agent, ending, evidence): (String, String, String) =
        (row.get(1)?, row.get(3)?, row.get(7)?);
    let (ended, lasted): (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
    let end = match (ending.as_str(), ended.zip(lasted)) {
        ("open", _) => OutageEnd::Open,
        ("lost", _) => OutageEnd::Lost,
        ("healed", Some((at, lasted))) => OutageEnd::Healed {
            at: from_unix_ms(at),
            lasted: Duration::from_millis(u64::try_from(lasted).unwrap_or(0)),
        },
        _ => return Err(StoreError::Damaged { what: "outage's end", value: ending }),
    };
    let Ok(evidence) = serde_json::from_str(&evidence) else {
        return Err(StoreError::Damaged { what: "outage's evidence", value: evidence });
    };
    Ok(OutageRow {
        id: row.get(0)?,
        agent: parsed(&agent, "outage's agent")?,
        began: from_unix_ms(row.get(2)?),
        end,
        cause: row.get(6)?,
        evidence,
        short: row.get(8)?,
        interrupted: row.get(9)?,
    })
}
