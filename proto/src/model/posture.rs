//! Posture: what an agent found of its machine's security order.
//!
//! A snapshot is a record of the agent's journal: durable before it is acknowledged, delivered at
//! least once, applied once. It is sent in full at least every [`FULL_INTERVAL_MAX`] and, between,
//! with the checks whose answer changed. What a snapshot in full does not mention is unknown.

mod check;
mod outcome;
mod requirements;
mod threshold;

use std::time::Duration;

use crate::wire;

pub use check::{CHECKS, CheckId, CheckSet, Severity};
pub use outcome::{FailReason, Outcome, Reason, UnknownReason};
pub use requirements::{Level, NoLevel, PORTS_MAX, Requirements};
pub use threshold::Threshold;

use super::{WireError, clean, text};

/// Version of the catalogue that this crate knows.
pub const CATALOGUE_VERSION: u32 = 1;
/// Longest time between two snapshots in full: a server's is believed for 24 h, and delivery may
/// take a while.
pub const FULL_INTERVAL_MAX: Duration = Duration::from_secs(20 * 3600);
/// Bytes of [`CheckResult::observed`].
pub const OBSERVED_BYTES_MAX: usize = 128;
/// Results in one snapshot: the catalogue, with room for three times as many in newer agents; with
/// the texts at their longest a record stays below 24 KiB.
pub const RESULTS_MAX: usize = 128;

/// What an agent found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostureSnapshot {
    /// How much of the catalogue it covers.
    pub extent: Extent,
    /// The agent's [`CATALOGUE_VERSION`].
    pub catalogue_version: u32,
    /// What sort of machine it is.
    pub machine: MachineKind,
    /// Each check at most once.
    pub results: Vec<CheckResult>,
    /// Figures beside them, in every snapshot.
    pub measures: PostureMeasures,
    /// Results of checks that only a newer catalogue knows, counted on receipt. They are in no sum,
    /// and are not sent on.
    pub unrecognised: usize,
}

/// How much of the catalogue a snapshot covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// All of the agent's checks: what is missing is unknown.
    Full,
    /// The checks whose answer changed: the others stand.
    Partial,
}

/// What sort of machine it is: an office PC may be switched off for days, a server not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineKind {
    /// Runs all the time. Also what is not known, because less is forgiven.
    Server,
    /// Somebody's PC.
    Workstation,
}

/// One check's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// The check.
    pub check: CheckId,
    /// What it found.
    pub outcome: Outcome,
    /// What was seen, in a few words: no names of people, no secrets. Cut to
    /// [`OBSERVED_BYTES_MAX`] when it is sent.
    pub observed: String,
    /// How long before the record it was evaluated, on CLOCK_BOOTTIME; to the millisecond.
    pub age: Duration,
    /// How long the evaluation took; to the microsecond.
    pub took: Duration,
    /// The agent evaluates it no more because it timed out three times. Then it is unknown.
    pub is_parked: bool,
}

/// Figures that alerts need as numbers, as of the record. `None`: not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PostureMeasures {
    /// Security updates that are not installed.
    pub security_updates_pending: Option<u32>,
    /// Since the agent first saw the oldest of them; to the second.
    pub oldest_security_update_age: Option<Duration>,
    /// Age of the newest malware signatures; to the second.
    pub malware_signature_age: Option<Duration>,
    /// Until the first certificate that the check looks at ends, zero when it has ended; to the
    /// second.
    pub certificate_remaining: Option<Duration>,
}

impl Extent {
    /// The label in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
        }
    }
}

impl MachineKind {
    /// The label in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Workstation => "workstation",
        }
    }

    /// How long a snapshot is believed without a newer one.
    pub const fn believed_for(self) -> Duration {
        match self {
            Self::Server => Duration::from_secs(24 * 3600),
            Self::Workstation => Duration::from_secs(7 * 24 * 3600),
        }
    }
}

impl TryFrom<wire::PostureSnapshot> for PostureSnapshot {
    type Error = WireError;

    fn try_from(snapshot: wire::PostureSnapshot) -> Result<Self, WireError> {
        let wire::PostureSnapshot { full, catalogue_version, machine, results, measures } =
            snapshot;
        if catalogue_version == 0 {
            return Err(WireError::new("posture.catalogue_version", "is zero"));
        }
        if results.len() > RESULTS_MAX {
            return Err(WireError::new("posture.results", "has more than 128 entries"));
        }
        let sent = results.len();
        let results: Vec<CheckResult> =
            results.into_iter().filter_map(CheckResult::from_wire).collect::<Result<_, _>>()?;
        let distinct: CheckSet = results.iter().map(|result| result.check).collect();
        if distinct.len() != results.len() {
            return Err(WireError::new("posture.results", "holds a check twice"));
        }
        let machine = match wire::MachineKind::try_from(machine) {
            Ok(wire::MachineKind::Workstation) => MachineKind::Workstation,
            Ok(wire::MachineKind::Server) | Err(_) => MachineKind::Server,
            Ok(wire::MachineKind::Unspecified) => {
                return Err(WireError::new("posture.machine", "is missing"));
            }
        };
        Ok(Self {
            extent: if full { Extent::Full } else { Extent::Partial },
            catalogue_version,
            machine,
            unrecognised: sent - results.len(),
            results,
            measures: measures.ok_or(WireError::new("posture.measures", "is missing"))?.into(),
        })
    }
}

impl From<PostureSnapshot> for wire::PostureSnapshot {
    fn from(snapshot: PostureSnapshot) -> Self {
        let PostureSnapshot { extent, catalogue_version, machine, results, measures, .. } =
            snapshot;
        Self {
            full: match extent {
                Extent::Full => true,
                Extent::Partial => false,
            },
            catalogue_version,
            machine: match machine {
                MachineKind::Server => wire::MachineKind::Server,
                MachineKind::Workstation => wire::MachineKind::Workstation,
            } as i32,
            results: results.into_iter().map(wire::CheckResult::from).collect(),
            measures: Some(measures.into()),
        }
    }
}

impl CheckResult {
    /// `None` for a check of a newer catalogue, of which nothing but its presence is read.
    fn from_wire(result: wire::CheckResult) -> Option<Result<Self, WireError>> {
        let wire::CheckResult { check, verdict, reason, observed, age_ms, took_us, parked } =
            result;
        if check == wire::PostureCheck::Unspecified as i32 {
            return Some(Err(WireError::new("check_result.check", "is missing")));
        }
        let check = CheckId::from_wire(check)?;
        let read = || {
            let outcome = Outcome::from_wire(verdict, reason)?;
            if parked && !matches!(outcome, Outcome::Unknown(_)) {
                return Err(WireError::new("check_result.parked", "stands beside a verdict"));
            }
            Ok(Self {
                check,
                outcome,
                observed: text(observed, OBSERVED_BYTES_MAX, "check_result.observed")?,
                age: Duration::from_millis(age_ms),
                took: Duration::from_micros(took_us),
                is_parked: parked,
            })
        };
        Some(read())
    }
}

impl From<CheckResult> for wire::CheckResult {
    fn from(result: CheckResult) -> Self {
        let CheckResult { check, outcome, observed, age, took, is_parked } = result;
        let (verdict, reason) = outcome.to_wire();
        Self {
            check: check.to_wire() as i32,
            verdict: verdict as i32,
            reason: reason as i32,
            observed: clean(&observed, OBSERVED_BYTES_MAX),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            parked: is_parked,
        }
    }
}

impl From<wire::PostureMeasures> for PostureMeasures {
    fn from(measures: wire::PostureMeasures) -> Self {
        let wire::PostureMeasures {
            security_updates_pending,
            oldest_security_update_age_s,
            malware_signature_age_s,
            certificate_remaining_s,
        } = measures;
        Self {
            security_updates_pending,
            oldest_security_update_age: oldest_security_update_age_s.map(Duration::from_secs),
            malware_signature_age: malware_signature_age_s.map(Duration::from_secs),
            certificate_remaining: certificate_remaining_s.map(Duration::from_secs),
        }
    }
}

impl From<PostureMeasures> for wire::PostureMeasures {
    fn from(measures: PostureMeasures) -> Self {
        let PostureMeasures {
            security_updates_pending,
            oldest_security_update_age,
            malware_signature_age,
            certificate_remaining,
        } = measures;
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
        Self {
            security_updates_pending,
            oldest_security_update_age_s: seconds(oldest_security_update_age),
            malware_signature_age_s: seconds(malware_signature_age),
            certificate_remaining_s: seconds(certificate_remaining),
        }
    }
}

#[cfg(test)]
mod tests;
