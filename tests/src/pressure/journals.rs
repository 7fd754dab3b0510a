//! Journals that are delivered under pressure: a busy week's records, and what the store has to hold
//! of them in the end.
//!
//! A busy week is one in which every pass of the checks of the first tier finds another answer, at
//! the closest that passes come, 300 s less a tenth for jitter; a snapshot in full comes every 19 h,
//! as an agent sends it; and the line fails for moments once an hour, after every 13 passes. That
//! makes 2,412 records of some 100 bytes on an agent's disk. A journal holds 4 MiB by default, and
//! a batch the first 16 KiB of it: nothing of the week was dropped.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use haidang_proto::model::posture::{
    CATALOGUE_VERSION, CheckId, CheckResult, Extent, FailReason, MachineKind, OBSERVED_BYTES_MAX,
    Outcome, PostureMeasures, PostureSnapshot,
};
use haidang_proto::model::record::{Delivery, Event, Moment, RECORDS_MAX, Record, encode_record};
use haidang_proto::model::verdict::DownCause;
use uuid::Uuid;

use crate::kills::audit::{Audit, Held};

/// Between two passes of the first tier at least.
pub(super) const PASS_PERIOD: Duration = Duration::from_secs(270);
/// An outage follows so many passes: an hour.
const PASSES_PER_OUTAGE: u64 = 13;
/// A snapshot in full is the first of so many records: 19 h.
const RECORDS_PER_FULL: u64 = 272;
/// As an agent's batches.
const BATCH_BYTES_MAX: usize = 16 << 10;
/// What flips with every snapshot: it costs the score one weight of a hundred, and nobody a call.
const FLIPPING: CheckId = CheckId::KernelIntegrity;

/// Records of so many busy days.
pub(super) fn busy_days(days: u32) -> u64 {
    let passes = u64::from(days) * 86_400 / PASS_PERIOD.as_secs();
    passes + passes / PASSES_PER_OUTAGE
}

/// What a journal is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// So many records of busy days, up to now.
    BusyDays(u64),
    /// Snapshots in full with the texts at their longest, without an end.
    Snapshots,
}

/// A journal on its way to the collector.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journal {
    id: Uuid,
    content: Content,
    begun: SystemTime,
    /// Up to here everything is acknowledged.
    pub(super) acknowledged: u64,
    /// Up to here everything was sent once.
    sent: u64,
}

impl Journal {
    pub(super) fn begin(content: Content) -> Self {
        let begun = SystemTime::now();
        Self { id: Uuid::new_v4(), content, begun, acknowledged: 0, sent: 0 }
    }

    /// The next batch and its last record's number; `None` when all is acknowledged.
    pub(super) fn batch(&mut self) -> Option<(Delivery, u64)> {
        let until = match self.content {
            Content::BusyDays(records) => records,
            Content::Snapshots => self.acknowledged + 1,
        };
        let mut records = Vec::new();
        let mut bytes = 0;
        for seq in self.acknowledged + 1..=until.min(self.acknowledged + RECORDS_MAX as u64) {
            let record = self.record(seq);
            bytes += encode_record(&record).len();
            if bytes > BATCH_BYTES_MAX && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        let last = records.last()?.seq;
        self.sent = self.sent.max(last);
        Some((Delivery { journal_id: self.id, first_seq: 1, records }, last))
    }

    fn record(&self, seq: u64) -> Record {
        let ago = match self.content {
            Content::BusyDays(records) => Duration::from_secs(records.saturating_sub(seq))
                .saturating_mul(u32::try_from(PASS_PERIOD.as_secs()).unwrap_or(u32::MAX))
                .mul_f64(PASSES_PER_OUTAGE as f64 / (PASSES_PER_OUTAGE + 1) as f64),
            Content::Snapshots => Duration::ZERO,
        };
        let at = Moment {
            boot_id: self.id,
            boottime: Duration::from_secs(seq),
            wall: self.begun.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
        };
        let event = match self.content {
            Content::BusyDays(_) if is_outage(seq) => Event::ShortOutage {
                first_seen: at,
                bad_cycles: self.mark(seq),
                cause: DownCause::LinkDown,
            },
            Content::BusyDays(_) if seq % RECORDS_PER_FULL == 1 => {
                Event::Posture(snapshot(seq, Extent::Full, 40))
            }
            Content::BusyDays(_) => Event::Posture(snapshot(seq, Extent::Partial, 40)),
            Content::Snapshots => Event::Posture(snapshot(seq, Extent::Full, OBSERVED_BYTES_MAX)),
        };
        Record { seq, at, event }
    }

    /// Tells an outage from any other: it is in no other place of this or another journal.
    fn mark(&self, seq: u64) -> u32 {
        let (_, low) = self.id.as_u64_pair();
        u32::try_from((low ^ seq.wrapping_mul(0x9e37_79b9)) % (1 << 24)).unwrap_or(0) + 1
    }

    /// Looks for every acknowledged record, once and as written. What was sent and not acknowledged
    /// may be there too. Answers how many there are.
    ///
    /// # Errors
    /// When one is missing, changed or applied otherwise than once.
    pub(super) fn audit(&self, audit: &Audit) -> Result<u64> {
        let held = audit.journal(self.id)?;
        let records = u64::try_from(held.records)?;
        ensure!(
            (self.acknowledged..=self.sent).contains(&records) && held == self.written(records)?,
            "{} records of {} were acknowledged, {} sent, and the store holds {held:?}",
            self.acknowledged,
            self.id,
            self.sent
        );
        Ok(records)
    }

    /// What the store has to hold of the first so many records.
    fn written(&self, records: u64) -> Result<Held> {
        let mut held = Held {
            records: i64::try_from(records)?,
            seqs: (i64::from(records > 0), i64::try_from(records)?),
            ..Held::default()
        };
        for seq in 1..=records {
            match self.content {
                Content::BusyDays(_) if is_outage(seq) => {
                    held.outages += 1;
                    held.marks += i64::try_from(seq)? * i64::from(self.mark(seq));
                }
                Content::BusyDays(_) | Content::Snapshots => held.postures += 1,
            }
        }
        Ok(held)
    }
}

const fn is_outage(seq: u64) -> bool {
    seq.is_multiple_of(PASSES_PER_OUTAGE + 1)
}

/// A machine in good order, but for one check of low weight every other time.
fn snapshot(seq: u64, extent: Extent, observed_bytes: usize) -> PostureSnapshot {
    let result = |check: &CheckId| CheckResult {
        check: *check,
        outcome: match *check == FLIPPING && seq.is_multiple_of(2) {
            true => Outcome::Fail(FailReason::WeakValue),
            false => Outcome::Pass,
        },
        observed: format!("{seq:0>observed_bytes$}"),
        age: Duration::ZERO,
        took: Duration::from_micros(900),
        is_parked: false,
    };
    let checks: &[CheckId] = match extent {
        Extent::Full => CheckId::ALL,
        Extent::Partial => &[FLIPPING],
    };
    PostureSnapshot {
        extent,
        catalogue_version: CATALOGUE_VERSION,
        machine: MachineKind::Server,
        results: checks.iter().map(result).collect(),
        measures: PostureMeasures::default(),
        unrecognised: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_week_is_delivered_in_batches_that_an_agent_makes() {
        let mut journal = Journal::begin(Content::BusyDays(busy_days(7)));
        let (mut batches, mut bytes) = (0, 0);
        while let Some((delivery, last)) = journal.batch() {
            assert_eq!(delivery.records[0].seq, journal.acknowledged + 1);
            let first = encode_record(&delivery.records[0]).len();
            let size: usize = delivery.records.iter().map(|one| encode_record(one).len()).sum();
            assert!(size <= BATCH_BYTES_MAX.max(first) && delivery.records.len() <= RECORDS_MAX);
            journal.acknowledged = last;
            (batches, bytes) = (batches + 1, bytes + size);
        }
        assert_eq!(journal.acknowledged, 2_412);
        assert!(batches < 100, "{batches}: an agent may send 200 requests at once");
        assert!(bytes < 4 << 20, "{bytes}: more than a journal holds");
        let written = journal.written(2_412).expect("small numbers");
        assert_eq!((written.outages, written.postures), (172, 2_240));
    }

    #[test]
    fn a_snapshot_at_its_longest_is_one_record_of_a_delivery() {
        let mut journal = Journal::begin(Content::Snapshots);
        for seq in 1..4 {
            let (delivery, last) = journal.batch().expect("it has no end");
            assert_eq!((delivery.records.len(), last), (1, seq));
            journal.acknowledged = last;
        }
    }
}
