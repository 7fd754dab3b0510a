//! Journal records: what an agent keeps on disk until the collector has it.

use std::time::{Duration, SystemTime};

use prost::Message;
use uuid::Uuid;

use crate::wire;

use super::fact::{Fact, facts_from_wire, facts_to_wire};
use super::posture::PostureSnapshot;
use super::verdict::{DownCause, Verdict};
use super::{WireError, fixed, text};

/// Records in one delivery.
pub const RECORDS_MAX: usize = 256;

/// A record; its key is (journal id, seq).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Grows by one, from 1.
    pub seq: u64,
    /// When it was written.
    pub at: Moment,
    /// What happened.
    pub event: Event,
}

/// A moment on the agent's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Moment {
    /// The kernel's boot id: `boottime` is comparable only within one.
    pub boot_id: Uuid,
    /// CLOCK_BOOTTIME.
    pub boottime: Duration,
    /// The wall clock as the agent had it; shown, never trusted.
    pub wall: SystemTime,
}

/// What a record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A committed change of verdict.
    Transition(Transition),
    /// The agent's process began.
    Started {
        /// Its version.
        agent_version: String,
        /// Whether the process before it said goodbye.
        previous_stop_was_clean: bool,
    },
    /// Bad cycles that healed before they were committed.
    ShortOutage {
        /// The first bad cycle.
        first_seen: Moment,
        /// How many cycles were bad.
        bad_cycles: u32,
        /// What they showed.
        cause: DownCause,
    },
    /// The machine's security order, whole or what changed of it.
    Posture(PostureSnapshot),
}

/// A committed change of verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The verdict before.
    pub from: Verdict,
    /// The verdict from now on.
    pub to: Verdict,
    /// The first cycle that saw the new state: an outage begins here.
    pub first_seen: Moment,
    /// What was seen when it was committed.
    pub evidence: Vec<Fact>,
}

/// Records on their way to the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The journal they are from.
    pub journal_id: Uuid,
    /// The oldest sequence number that the agent still has.
    pub first_seq: u64,
    /// In order, without gaps, each at least `first_seq`.
    pub records: Vec<Record>,
}

impl TryFrom<wire::DeliverRequest> for Delivery {
    type Error = WireError;

    fn try_from(request: wire::DeliverRequest) -> Result<Self, WireError> {
        let wire::DeliverRequest { journal_id, first_seq, records } = request;
        if records.len() > RECORDS_MAX {
            return Err(WireError::new("records", "has more than 256 entries"));
        }
        let records: Vec<Record> =
            records.into_iter().map(Record::try_from).collect::<Result<_, _>>()?;
        let in_order =
            records.windows(2).all(|pair| pair[0].seq.checked_add(1) == Some(pair[1].seq));
        if !in_order {
            return Err(WireError::new("records.seq", "does not grow by one"));
        }
        if first_seq == 0 || records.first().is_some_and(|record| record.seq < first_seq) {
            return Err(WireError::new("first_seq", "is zero or behind a record"));
        }
        Ok(Self {
            journal_id: Uuid::from_bytes(fixed(&journal_id, "journal_id")?),
            first_seq,
            records,
        })
    }
}

impl From<Delivery> for wire::DeliverRequest {
    fn from(Delivery { journal_id, first_seq, records }: Delivery) -> Self {
        Self {
            journal_id: journal_id.as_bytes().to_vec(),
            first_seq,
            records: records.into_iter().map(wire::Record::from).collect(),
        }
    }
}

/// The answer to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Every record up to and including this one is durable at the collector.
    pub acknowledged_seq: u64,
    /// The first record of the delivery whose number stands for another record at the collector:
    /// the journal is an old copy. Then nothing of the delivery was taken.
    pub conflicting_seq: Option<u64>,
}

impl From<wire::DeliverResponse> for Receipt {
    fn from(response: wire::DeliverResponse) -> Self {
        let wire::DeliverResponse { acknowledged_seq, conflicting_seq } = response;
        Self { acknowledged_seq, conflicting_seq: Some(conflicting_seq).filter(|seq| *seq > 0) }
    }
}

impl From<Receipt> for wire::DeliverResponse {
    fn from(Receipt { acknowledged_seq, conflicting_seq }: Receipt) -> Self {
        Self { acknowledged_seq, conflicting_seq: conflicting_seq.unwrap_or(0) }
    }
}

impl TryFrom<wire::Record> for Record {
    type Error = WireError;

    fn try_from(record: wire::Record) -> Result<Self, WireError> {
        let wire::Record { seq, boot_id, at_boottime_ms, at_unix_ms, event } = record;
        if seq == 0 {
            return Err(WireError::new("record.seq", "is zero"));
        }
        let boot_id = Uuid::from_bytes(fixed(&boot_id, "record.boot_id")?);
        let moment = |boottime_ms, unix_ms| moment(boot_id, boottime_ms, unix_ms);
        let event = match event.ok_or(WireError::new("record.event", "is missing or not known"))? {
            wire::record::Event::Transition(wire::Transition {
                from,
                to,
                first_seen_boottime_ms,
                first_seen_unix_ms,
                evidence,
            }) => Event::Transition(Transition {
                from: verdict(from, "transition.from")?,
                to: verdict(to, "transition.to")?,
                first_seen: moment(first_seen_boottime_ms, first_seen_unix_ms)?,
                evidence: facts_from_wire(evidence)?,
            }),
            wire::record::Event::Started(wire::Started {
                agent_version,
                previous_stop_was_clean,
            }) => Event::Started {
                agent_version: text(agent_version, 64, "started.agent_version")?,
                previous_stop_was_clean,
            },
            wire::record::Event::ShortOutage(wire::ShortOutage {
                first_seen_boottime_ms,
                first_seen_unix_ms,
                bad_cycles,
                cause,
            }) => Event::ShortOutage {
                first_seen: moment(first_seen_boottime_ms, first_seen_unix_ms)?,
                bad_cycles,
                cause: DownCause::try_from_wire(cause)?,
            },
            wire::record::Event::Posture(snapshot) => Event::Posture(snapshot.try_into()?),
        };
        Ok(Self { seq, at: moment(at_boottime_ms, at_unix_ms)?, event })
    }
}

impl From<Record> for wire::Record {
    fn from(Record { seq, at, event }: Record) -> Self {
        let event = match event {
            Event::Transition(Transition { from, to, first_seen, evidence }) => {
                wire::record::Event::Transition(wire::Transition {
                    from: Some(from.into()),
                    to: Some(to.into()),
                    first_seen_boottime_ms: millis(first_seen.boottime),
                    first_seen_unix_ms: unix_ms(first_seen.wall),
                    evidence: facts_to_wire(&evidence),
                })
            }
            Event::Started { agent_version, previous_stop_was_clean } => {
                wire::record::Event::Started(wire::Started {
                    agent_version,
                    previous_stop_was_clean,
                })
            }
            Event::ShortOutage { first_seen, bad_cycles, cause } => {
                wire::record::Event::ShortOutage(wire::ShortOutage {
                    first_seen_boottime_ms: millis(first_seen.boottime),
                    first_seen_unix_ms: unix_ms(first_seen.wall),
                    bad_cycles,
                    cause: cause.wire_value(),
                })
            }
            Event::Posture(snapshot) => wire::record::Event::Posture(snapshot.into()),
        };
        Self {
            seq,
            boot_id: at.boot_id.as_bytes().to_vec(),
            at_boottime_ms: millis(at.boottime),
            at_unix_ms: unix_ms(at.wall),
            event: Some(event),
        }
    }
}

/// A record as an agent keeps it on disk: the bytes of its wire message.
pub fn encode_record(record: &Record) -> Vec<u8> {
    wire::Record::from(record.clone()).encode_to_vec()
}

/// A record from disk.
///
/// # Errors
/// When the bytes are not a record, or break a limit of the wire.
pub fn decode_record(bytes: &[u8]) -> Result<Record, WireError> {
    wire::Record::decode(bytes)
        .map_err(|_| WireError::new("record", "is not a protobuf message"))?
        .try_into()
}

/// Latest wall clock that is accepted, year 2255: later dates are garbage that would not survive
/// being formatted.
const UNIX_MS_MAX: u64 = 9_000_000_000_000;

fn moment(boot_id: Uuid, boottime_ms: u64, unix_ms: u64) -> Result<Moment, WireError> {
    Ok(Moment { boot_id, boottime: Duration::from_millis(boottime_ms), wall: wall(unix_ms)? })
}

/// A wall-clock time from the wire.
pub(crate) fn wall(unix_ms: u64) -> Result<SystemTime, WireError> {
    if unix_ms > UNIX_MS_MAX {
        return Err(WireError::new("unix_ms", "is beyond the year 2255"));
    }
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms))
}

/// A wall-clock time for the wire; a clock before 1970 is sent as 1970.
pub(crate) fn unix_ms(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn verdict(verdict: Option<wire::Verdict>, field: &'static str) -> Result<Verdict, WireError> {
    verdict.ok_or(WireError::new(field, "is missing"))?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::all_verdicts;

    fn at(ms: u64) -> Moment {
        Moment {
            boot_id: Uuid::from_u128(7),
            boottime: Duration::from_millis(ms),
            wall: SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_000 + ms),
        }
    }

    fn delivery() -> Delivery {
        let mut events = vec![
            Event::Started { agent_version: "0.1.0".into(), previous_stop_was_clean: false },
            Event::ShortOutage { first_seen: at(5), bad_cycles: 2, cause: DownCause::NoRoute },
        ];
        events.extend(all_verdicts().into_iter().map(|to| {
            Event::Transition(Transition {
                from: Verdict::Connected,
                to,
                first_seen: at(9),
                evidence: Vec::new(),
            })
        }));
        let records = events
            .into_iter()
            .zip(4..)
            .map(|(event, seq)| Record { seq, at: at(seq * 10), event })
            .collect();
        Delivery { journal_id: Uuid::from_u128(1), first_seq: 3, records }
    }

    #[test]
    fn a_delivery_survives_the_wire() {
        let sent = delivery();
        assert_eq!(Delivery::try_from(wire::DeliverRequest::from(sent.clone())), Ok(sent));
    }

    #[test]
    fn gaps_zeros_and_nonsense_are_refused() {
        let broken: [fn(&mut wire::DeliverRequest); 7] = [
            |d| d.records[2].seq += 1,
            |d| d.first_seq = 0,
            |d| d.first_seq = 5,
            |d| d.journal_id = vec![0; 15],
            |d| d.records[0].boot_id.clear(),
            |d| d.records[0].event = None,
            |d| d.records[0].at_unix_ms = u64::MAX,
        ];
        for (case, mutate) in broken.into_iter().enumerate() {
            let mut request = wire::DeliverRequest::from(delivery());
            mutate(&mut request);
            assert!(Delivery::try_from(request).is_err(), "case {case}");
        }
    }
}
