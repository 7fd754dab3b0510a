//! One machine: which checks passed, and the score that follows.

use std::time::SystemTime;

use haidang_proto::model::posture::{CheckId, CheckSet, MachineKind, Outcome, Severity};

use super::held::{HeldPosture, Order};

/// Highest score of a machine with a critical check that fails or is unknown.
pub const CRITICAL_CAP: u8 = 49;
/// Checks that weigh unless a policy says otherwise: all but those that are only reported.
pub const WEIGHED: CheckSet = weighed();

const fn weighed() -> CheckSet {
    let mut set = CheckSet::ALL;
    let mut at = 0;
    while at < CheckId::ALL.len() {
        if CheckId::ALL[at].is_report_only() {
            set.remove(CheckId::ALL[at]);
        }
        at += 1;
    }
    set
}

/// The catalogue sorted by verdict. A check is in one of the three sets, or it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Findings {
    pass: CheckSet,
    fail: CheckSet,
    not_applicable: CheckSet,
}

impl Findings {
    /// Nothing was read: every check is unknown.
    pub const UNREAD: Self =
        Self { pass: CheckSet::NONE, fail: CheckSet::NONE, not_applicable: CheckSet::NONE };

    /// Puts a check where its outcome belongs.
    pub const fn put(&mut self, check: CheckId, outcome: Outcome) {
        self.pass.remove(check);
        self.fail.remove(check);
        self.not_applicable.remove(check);
        match outcome {
            Outcome::Pass => self.pass.insert(check),
            Outcome::Fail(_) => self.fail.insert(check),
            Outcome::NotApplicable => self.not_applicable.insert(check),
            Outcome::Unknown(_) => {}
        }
    }

    /// Checks that pass.
    pub const fn pass(self) -> CheckSet {
        self.pass
    }

    /// Checks that fail.
    pub const fn fail(self) -> CheckSet {
        self.fail
    }

    /// Checks for which there is nothing to check.
    pub const fn not_applicable(self) -> CheckSet {
        self.not_applicable
    }

    /// Checks without an answer.
    pub const fn unknown(self) -> CheckSet {
        CheckSet::ALL.without(self.pass).without(self.fail).without(self.not_applicable)
    }

    /// Critical checks that fail or are unknown.
    pub const fn critical(self) -> CheckSet {
        const CRITICAL: CheckSet = CheckSet::of(Severity::Critical);
        CRITICAL.without(self.pass).without(self.not_applicable)
    }

    /// The score, 0 to 100, rounded down, of the checks that weigh: Σ weight of what passes / Σ weight of what passes, fails
    /// or is unknown, at most [`CRITICAL_CAP`] beside anything critical. 100 therefore means that
    /// nothing that weighs fails or is unknown. A machine to which nothing applies has proved
    /// nothing and scores 0.
    pub fn score(self, weighed: CheckSet) -> u8 {
        let (mut passed, mut asked) = (0, 0);
        for severity in Severity::ALL {
            let of_severity = CheckSet::of(*severity).intersection(weighed);
            let weight = severity.weight() as usize;
            passed += weight * of_severity.intersection(self.pass).len();
            asked += weight * of_severity.without(self.not_applicable).len();
        }
        let Some(percent) = (passed * 100).checked_div(asked) else { return 0 };
        let score = u8::try_from(percent).expect("a part of the whole is at most 100 percent");
        if self.critical().is_empty() { score } else { score.min(CRITICAL_CAP) }
    }
}

/// What the fleet keeps of a machine: small, because there are hundreds of thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachinePosture {
    /// Its place among all snapshots of the agent: a later one replaces an earlier one.
    pub order: Order,
    /// When the last snapshot in full was taken; `None` before the first.
    pub whole_at: Option<SystemTime>,
    /// What sort of machine it is.
    pub machine: MachineKind,
    /// What its checks found.
    pub findings: Findings,
    /// Checks that its agent has given up because they timed out.
    pub parked: CheckSet,
    /// Since when the oldest security update is pending.
    pub update_pending_since: Option<SystemTime>,
    /// When its newest malware signatures were made.
    pub signatures_made: Option<SystemTime>,
    /// End of the first certificate that it watches.
    pub certificate_ends: Option<SystemTime>,
    /// Results that only a newer catalogue knows.
    pub unrecognised: u32,
}

impl MachinePosture {
    /// Whether it says nothing any more: the last snapshot in full is too old, or there was none.
    pub fn is_stale(&self, now: SystemTime) -> bool {
        self.whole_at.is_none_or(|at| {
            // A collector's clock that was set back makes nothing older.
            now.duration_since(at).unwrap_or_default() > self.machine.believed_for()
        })
    }
}

impl From<&HeldPosture> for MachinePosture {
    fn from(held: &HeldPosture) -> Self {
        let mut findings = Findings::UNREAD;
        for answer in &held.answers {
            findings.put(answer.check, answer.outcome);
        }
        let parked = held.answers.iter().filter(|answer| answer.is_parked);
        Self {
            order: held.order,
            whole_at: held.whole_at,
            machine: held.machine,
            findings,
            parked: parked.map(|answer| answer.check).collect(),
            update_pending_since: held.update_pending_since,
            signatures_made: held.signatures_made,
            certificate_ends: held.certificate_ends,
            unrecognised: u32::try_from(held.unrecognised).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use haidang_proto::model::posture::{FailReason, UnknownReason};

    use super::*;

    const FAIL: Outcome = Outcome::Fail(FailReason::WeakValue);
    const UNKNOWN: Outcome = Outcome::Unknown(UnknownReason::Timeout);

    /// A machine of which everything passes but what is listed.
    #[track_caller]
    fn scores(but: &[(CheckId, Outcome)], expected: u8) {
        let mut findings = Findings::UNREAD;
        for check in CheckId::ALL {
            findings.put(*check, Outcome::Pass);
        }
        for (check, outcome) in but {
            findings.put(*check, *outcome);
        }
        assert_eq!(findings.score(WEIGHED), expected, "{but:?}");
    }

    #[test]
    fn a_score_is_the_weight_that_passes_of_the_weight_that_is_asked() {
        // 6 critical × 8 + 15 high × 4 + 13 medium × 2 + 5 low × 1 that weigh = 139.
        scores(&[], 100);
        scores(&[(CheckId::MacEnforced, FAIL)], 99);
        scores(&[(CheckId::DiskEncrypted, FAIL)], 97);
        scores(&[(CheckId::DiskEncrypted, UNKNOWN)], 97);
        scores(&[(CheckId::DiskEncrypted, Outcome::NotApplicable)], 100);
        scores(&[(CheckId::UsbStorageRestricted, FAIL)], 100);
        let mut usb = Findings::UNREAD;
        usb.put(CheckId::UsbStorageRestricted, Outcome::Pass);
        usb.put(CheckId::ScreenLock, Outcome::Pass);
        assert!(usb.score(CheckSet::ALL) >= usb.score(WEIGHED), "policy may ask that it weighs");
        assert_eq!(Findings::UNREAD.score(WEIGHED), 0);
    }

    #[test]
    fn anything_critical_caps_the_score() {
        scores(&[(CheckId::EmptyPasswords, FAIL)], CRITICAL_CAP);
        scores(&[(CheckId::EmptyPasswords, UNKNOWN)], CRITICAL_CAP);
        scores(&[(CheckId::EmptyPasswords, Outcome::NotApplicable)], 100);
    }

    #[test]
    fn a_machine_to_which_nothing_applies_has_proved_nothing() {
        let mut findings = Findings::UNREAD;
        for check in CheckId::ALL {
            findings.put(*check, Outcome::NotApplicable);
        }
        assert_eq!(findings.score(WEIGHED), 0);
    }
}
