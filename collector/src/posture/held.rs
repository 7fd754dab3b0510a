//! What is held of one machine: the last answer of each check, merged from snapshots in the order
//! of the store. The store keeps it as JSON; the API shows it with what was seen.
//!
//! - A failure stands until the check is *read* again: an unknown after it says only that nobody
//!   looked (`unread`), and must not clear it.
//! - A snapshot in full answers every check: what it leaves out is unknown.
//! - What was evaluated too long before its snapshot is unknown, as is a machine whose last
//!   snapshot in full is too old (`MachinePosture::is_stale`).
//! - A snapshot was taken when its agent says so, but not later than it was received: a clock that
//!   runs ahead keeps nothing fresh.

use std::time::{Duration, SystemTime};

use haidang_proto::model::posture::{
    CheckId, CheckResult, Extent, MachineKind, Outcome, PostureSnapshot, UnknownReason,
};
use serde::{Deserialize, Serialize};

/// Age at which an answer was too old when it was sent: a daily check that was missed once.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(48 * 3600);

/// The last answers of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPosture {
    /// The snapshot that was merged last.
    pub order: Order,
    /// When that one was taken.
    #[serde(with = "unix_ms")]
    pub taken_at: SystemTime,
    /// When the last one in full was taken; `None` before the first.
    #[serde(with = "unix_ms::option")]
    pub whole_at: Option<SystemTime>,
    /// What sort of machine it is.
    pub machine: MachineKind,
    /// The agent's catalogue.
    pub catalogue_version: u32,
    /// Results that only a newer catalogue knows.
    pub unrecognised: usize,
    /// Security updates that are not installed.
    pub updates_pending: Option<u32>,
    /// Since when the oldest of them is pending.
    #[serde(with = "unix_ms::option")]
    pub update_pending_since: Option<SystemTime>,
    /// When the newest malware signatures were made.
    #[serde(with = "unix_ms::option")]
    pub signatures_made: Option<SystemTime>,
    /// End of the first certificate that the machine watches.
    #[serde(with = "unix_ms::option")]
    pub certificate_ends: Option<SystemTime>,
    /// In the order of the catalogue, each check at most once.
    pub answers: Vec<Answer>,
}

/// Place of a snapshot among those of one agent: the store numbers journals in the order in which
/// they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Order {
    /// The journal, as the store numbers it.
    pub journal: i64,
    /// The record's number in it.
    pub seq: i64,
}

/// The last answer of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The check.
    pub check: CheckId,
    /// What counts.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What was seen.
    pub observed: String,
    /// When it was evaluated.
    #[serde(with = "unix_ms")]
    pub evaluated_at: SystemTime,
    /// How long that took, in microseconds.
    pub took_us: u64,
    /// The agent has given the check up.
    pub is_parked: bool,
    /// The failure is from an earlier reading; since then the check could not be read.
    pub unread: bool,
}

impl HeldPosture {
    /// Merges a snapshot that was written at `written` by the agent's clock. One that is not newer
    /// than the last changes nothing.
    #[must_use]
    pub fn merged(
        before: Option<Self>,
        snapshot: &PostureSnapshot,
        order: Order,
        written: SystemTime,
        received: SystemTime,
    ) -> Self {
        let before = match before {
            Some(before) if before.order >= order => return before,
            before => before,
        };
        let PostureSnapshot { extent, catalogue_version, machine, results, measures, unrecognised } =
            snapshot;
        let taken_at = written.min(received);
        let (former_whole, former) =
            before.map_or((None, Vec::new()), |before| (before.whole_at, before.answers));
        let answers = CheckId::ALL.iter().filter_map(|check| {
            let former = former.iter().find(|answer| answer.check == *check);
            let new = match results.iter().find(|result| result.check == *check) {
                Some(result) => answer(result, *machine, taken_at),
                None => match extent {
                    Extent::Full => unanswered(*check, taken_at),
                    Extent::Partial => return former.cloned(),
                },
            };
            Some(standing(former, new))
        });
        Self {
            order,
            taken_at,
            whole_at: match extent {
                Extent::Full => Some(taken_at),
                Extent::Partial => former_whole,
            },
            machine: *machine,
            catalogue_version: *catalogue_version,
            unrecognised: *unrecognised,
            updates_pending: measures.security_updates_pending,
            update_pending_since: measures.oldest_security_update_age.map(|age| ago(taken_at, age)),
            signatures_made: measures.malware_signature_age.map(|age| ago(taken_at, age)),
            certificate_ends: measures
                .certificate_remaining
                .and_then(|remaining| taken_at.checked_add(remaining)),
            answers: answers.collect(),
        }
    }
}

fn answer(result: &CheckResult, machine: MachineKind, taken_at: SystemTime) -> Answer {
    let CheckResult { check, outcome, observed, age, took, is_parked } = result;
    let too_old = *age > ANSWER_AGE_MAX.max(machine.believed_for());
    Answer {
        check: *check,
        outcome: if too_old { Outcome::Unknown(UnknownReason::Stale) } else { *outcome },
        observed: observed.clone(),
        evaluated_at: ago(taken_at, *age),
        took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        is_parked: *is_parked,
        unread: false,
    }
}

const fn unanswered(check: CheckId, taken_at: SystemTime) -> Answer {
    Answer {
        check,
        outcome: Outcome::Unknown(UnknownReason::Unsupported),
        observed: String::new(),
        evaluated_at: taken_at,
        took_us: 0,
        is_parked: false,
        unread: false,
    }
}

/// The last failure stands until it is read again.
fn standing(former: Option<&Answer>, new: Answer) -> Answer {
    match (former, new.outcome) {
        (Some(former), Outcome::Unknown(_)) if matches!(former.outcome, Outcome::Fail(_)) => {
            Answer { unread: true, is_parked: new.is_parked, ..former.clone() }
        }
        (_, Outcome::Pass | Outcome::Fail(_) | Outcome::NotApplicable | Outcome::Unknown(_)) => new,
    }
}

fn ago(at: SystemTime, age: Duration) -> SystemTime {
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + since_1970.saturating_sub(age)
}

/// Times as milliseconds since 1970.
mod unix_ms {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        millis(*at).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        time(u64::deserialize(from)?)
    }

    fn millis(at: SystemTime) -> u64 {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn time<E: serde::de::Error>(ms: u64) -> Result<SystemTime, E> {
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
        at.ok_or_else(|| E::custom("a time is beyond what can be told"))
    }

    pub(super) mod option {
        use super::{Deserializer, Serializer, SystemTime, millis, time};
        use serde::{Deserialize as _, Serialize as _};

        pub(in super::super) fn serialize<S: Serializer>(
            at: &Option<SystemTime>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            at.map(millis).serialize(to)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<SystemTime>, D::Error> {
            Option::<u64>::deserialize(from)?.map(time).transpose()
        }
    }
}

#[cfg(test)]
mod tests;
