//! When each check is made, and what is held of the answers: the pure part of the passes.
//!
//! The caller sleeps until [`Passes::next`], makes the checks that [`Passes::due`] names one by
//! one, hands each answer to [`Passes::take`], and then sends what [`Passes::snapshot`] gives.
//! Start to start is the tier's period ±10 %, at a phase of the machine's own, so that a city's
//! machines do not read their disks together. A check that timed out three times in a row is
//! parked: it stays unknown, with its reason, is tried again a day later, and the others go on.

use std::collections::BTreeMap;
use std::time::Duration;

use haidang_proto::model::posture::{
    CATALOGUE_VERSION, CheckId, CheckResult, Extent, MachineKind, Outcome, PostureMeasures,
    PostureSnapshot, UnknownReason,
};

use super::pass::Answer;
use super::{Check, Tier, checks};

/// Timeouts in a row that park a check.
const TIMEOUTS_MAX: u32 = 3;
/// A parked check is tried once so often: the file server may be back.
const PARKED_FOR: Duration = Duration::from_secs(24 * 3600);
/// A snapshot in full comes so often; the contract's limit is 20 h.
const FULL_INTERVAL: Duration = Duration::from_secs(19 * 3600);
/// Share of the time for the first pass that leaves a booting machine in peace.
const FIRST_AFTER: f64 = 0.25;
/// Share of a period that jitter adds or takes.
const JITTER: f64 = 0.1;

/// The state of the passes.
#[derive(Debug)]
pub struct Passes {
    due: BTreeMap<Tier, Duration>,
    held: BTreeMap<CheckId, Held>,
    changed: bool,
    full_due: Option<Duration>,
}

/// How a check stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckStanding {
    /// The check.
    pub check: CheckId,
    /// What it found.
    pub outcome: Outcome,
    /// How long ago.
    pub age: Duration,
    /// How long that took.
    pub took: Duration,
    /// It timed out three times, and is tried once a day.
    pub is_parked: bool,
}

#[derive(Debug, Clone)]
struct Held {
    outcome: Outcome,
    observed: String,
    at: Duration,
    took: Duration,
    timeouts: u32,
    /// Not yet in a snapshot.
    is_new: bool,
}

impl Passes {
    /// `random` fixes the phase of the first pass, which comes `within` so long.
    pub fn new(now: Duration, within: Duration, random: u32) -> Self {
        let first = now + within.mul_f64(FIRST_AFTER + (1.0 - FIRST_AFTER) * share(random));
        let due = [Tier::T0, Tier::T1, Tier::T2].map(|tier| (tier, first));
        Self { due: due.into(), held: BTreeMap::new(), changed: false, full_due: None }
    }

    /// What is asked has changed: every check is made anew, at a random moment `within` so long.
    pub fn anew(&mut self, now: Duration, within: Duration, random: u32) {
        let soon = now + within.mul_f64(share(random));
        for due in self.due.values_mut() {
            *due = soon.min(*due);
        }
    }

    /// When a tier is due next, on the clock of `now`.
    pub fn next(&self) -> Duration {
        self.due.values().min().copied().unwrap_or(Duration::MAX)
    }

    /// The checks to make now; their tiers are due again one period on. After a sleep there is
    /// one pass, not one for each that was missed.
    pub fn due(&mut self, now: Duration, random: u32) -> Vec<&'static Check> {
        let factor = 1.0 - JITTER + 2.0 * JITTER * share(random);
        let mut tiers = Vec::new();
        for (tier, due) in &mut self.due {
            if *due <= now {
                tiers.push(*tier);
                *due = now + tier.period().mul_f64(factor);
            }
        }
        checks()
            .filter(|check| tiers.contains(&check.tier) && !self.is_parked(check.id, now))
            .collect()
    }

    /// Takes an answer.
    pub fn take(&mut self, answer: Answer, at: Duration) {
        let Answer { check, outcome, observed, took } = answer;
        let before = self.held.get(&check);
        let timeouts = match outcome {
            Outcome::Unknown(UnknownReason::Timeout) => {
                before.map_or(0, |before| before.timeouts).saturating_add(1)
            }
            _ => 0,
        };
        // What was seen counts days and ports; only a change of the answer is worth a record.
        let is_new = before.is_none_or(|before| before.is_new || before.outcome != outcome)
            || timeouts == TIMEOUTS_MAX;
        self.changed |= is_new;
        self.held.insert(check, Held { outcome, observed, at, took, timeouts, is_new });
    }

    /// What to send after a pass: everything when it is time, what changed when something did,
    /// nothing otherwise.
    pub fn snapshot(
        &mut self,
        machine: MachineKind,
        measures: PostureMeasures,
        now: Duration,
    ) -> Option<PostureSnapshot> {
        let is_full = self.full_due.is_none_or(|due| due <= now);
        if !is_full && !self.changed {
            return None;
        }
        let results = self
            .held
            .iter()
            .filter(|(_, held)| is_full || held.is_new)
            .map(|(check, held)| CheckResult {
                check: *check,
                outcome: held.outcome,
                observed: held.observed.clone(),
                age: now.saturating_sub(held.at),
                took: held.took,
                is_parked: held.timeouts >= TIMEOUTS_MAX,
            })
            .collect();
        for held in self.held.values_mut() {
            held.is_new = false;
        }
        self.changed = false;
        if is_full {
            self.full_due = Some(now + FULL_INTERVAL);
        }
        Some(PostureSnapshot {
            extent: if is_full { Extent::Full } else { Extent::Partial },
            catalogue_version: CATALOGUE_VERSION,
            machine,
            results,
            measures,
            unrecognised: 0,
        })
    }

    /// How the checks stand, for a person.
    pub fn standings(&self, now: Duration) -> Vec<CheckStanding> {
        let standing = |(check, held): (&CheckId, &Held)| CheckStanding {
            check: *check,
            outcome: held.outcome,
            age: now.saturating_sub(held.at),
            took: held.took,
            is_parked: held.timeouts >= TIMEOUTS_MAX,
        };
        self.held.iter().map(standing).collect()
    }

    fn is_parked(&self, check: CheckId, now: Duration) -> bool {
        let parked = |held: &Held| held.timeouts >= TIMEOUTS_MAX && now < held.at + PARKED_FOR;
        self.held.get(&check).is_some_and(parked)
    }
}

fn share(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const WITHIN: Duration = Duration::from_secs(120);
    const FIRST: Duration = Duration::from_secs(30);

    const UNMET: Outcome = Outcome::Fail(haidang_proto::model::posture::FailReason::WeakValue);

    fn answer(check: CheckId, outcome: Outcome) -> Answer {
        Answer { check, outcome, observed: "seen".into(), took: SECOND }
    }

    fn pass(passes: &mut Passes, now: Duration, outcome: Outcome) -> Vec<CheckId> {
        let due = passes.due(now, u32::MAX / 2);
        for check in &due {
            passes.take(answer(check.id, outcome), now);
        }
        due.iter().map(|check| check.id).collect()
    }

    fn snapshot(passes: &mut Passes, now: Duration) -> Option<(Extent, usize)> {
        let snapshot = passes.snapshot(MachineKind::Server, PostureMeasures::default(), now)?;
        Some((snapshot.extent, snapshot.results.len()))
    }

    #[test]
    fn the_catalogue_is_whole() {
        let mut made: Vec<CheckId> = checks().map(|check| check.id).collect();
        made.sort();
        assert_eq!(made, CheckId::ALL);
    }

    #[test]
    fn the_first_pass_makes_every_check_and_is_sent_in_full() {
        let mut passes = Passes::new(Duration::ZERO, WITHIN, u32::MAX);
        assert_eq!(passes.next(), WITHIN);
        assert!(passes.due(passes.next() - SECOND, 0).is_empty());
        let now = passes.next();
        assert_eq!(pass(&mut passes, now, Outcome::Pass).len(), checks().count());
        assert_eq!(snapshot(&mut passes, now), Some((Extent::Full, checks().count())));
        assert_eq!(snapshot(&mut passes, now), None);
    }

    #[test]
    fn later_only_changes_are_sent_until_it_is_time_for_everything() {
        let mut passes = Passes::new(Duration::ZERO, WITHIN, 0);
        pass(&mut passes, FIRST, Outcome::Pass);
        snapshot(&mut passes, FIRST);
        let frequent = checks().filter(|check| check.tier == Tier::T0).count();
        let now = passes.next();
        assert_eq!(pass(&mut passes, now, Outcome::Pass).len(), frequent);
        assert_eq!(snapshot(&mut passes, now), None);
        let now = passes.next();
        pass(&mut passes, now, Outcome::NotApplicable);
        assert_eq!(snapshot(&mut passes, now), Some((Extent::Partial, frequent)));
        let now = FIRST + FULL_INTERVAL;
        assert_eq!(snapshot(&mut passes, now), Some((Extent::Full, checks().count())));
    }

    #[test]
    fn other_requirements_have_every_check_made_anew() {
        let mut passes = Passes::new(Duration::ZERO, WITHIN, 0);
        pass(&mut passes, FIRST, Outcome::Pass);
        snapshot(&mut passes, FIRST);
        passes.anew(FIRST, WITHIN, u32::MAX);
        assert!(passes.due(FIRST, 0).is_empty(), "machines do not all do it at once");
        let now = FIRST + WITHIN;
        assert_eq!(pass(&mut passes, now, UNMET).len(), checks().count());
        assert_eq!(snapshot(&mut passes, now), Some((Extent::Partial, checks().count())));
    }

    #[test]
    fn a_machine_that_slept_makes_one_pass() {
        let mut passes = Passes::new(Duration::ZERO, WITHIN, 0);
        let now = Duration::from_secs(10 * 86_400);
        pass(&mut passes, now, Outcome::Pass);
        assert!(passes.due(now, 0).is_empty());
        assert!(passes.next() >= now + Tier::T0.period().mul_f64(0.9));
    }

    #[test]
    fn three_timeouts_in_a_row_park_a_check_and_no_other() {
        let mut passes = Passes::new(Duration::ZERO, WITHIN, 0);
        let slow = CheckId::HostFirewallActive;
        let mut now = FIRST;
        for _ in 0..TIMEOUTS_MAX {
            for check in passes.due(now, 0) {
                let timeout = Outcome::Unknown(UnknownReason::Timeout);
                let outcome = if check.id == slow { timeout } else { Outcome::Pass };
                passes.take(answer(check.id, outcome), now);
            }
            now = passes.next();
        }
        let made = pass(&mut passes, now, Outcome::Pass);
        assert!(!made.contains(&slow) && made.contains(&CheckId::IpForwarding));
        let full = FIRST + FULL_INTERVAL;
        let snapshot =
            passes.snapshot(MachineKind::Server, PostureMeasures::default(), full).unwrap();
        let parked: Vec<_> = snapshot.results.iter().filter(|result| result.is_parked).collect();
        assert_eq!(parked.len(), 1);
        assert_eq!(parked[0].outcome, Outcome::Unknown(UnknownReason::Timeout));
        let standings = passes.standings(full);
        assert_eq!(standings.iter().filter(|standing| standing.is_parked).count(), 1);
        assert!(standings.iter().all(|standing| standing.took == SECOND));
        let made = pass(&mut passes, now + PARKED_FOR, Outcome::Pass);
        assert!(made.contains(&slow), "it is tried again a day later");
        assert!(passes.standings(now + PARKED_FOR).iter().all(|standing| !standing.is_parked));
    }
}
