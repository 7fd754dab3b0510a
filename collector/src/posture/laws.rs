//! Laws of the figures, whatever the machines say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haidang_proto::model::posture::{
    CATALOGUE_VERSION, CHECKS, CheckId, CheckResult, CheckSet, Extent, FailReason, MachineKind,
    Outcome, PostureMeasures, PostureSnapshot, UnknownReason,
};
use proptest::prelude::*;

use super::*;

const UNKNOWN: Outcome = Outcome::Unknown(UnknownReason::PermissionDenied);
const FAIL: Outcome = Outcome::Fail(FailReason::WeakValue);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn findings(outcomes: &[Outcome]) -> Findings {
    let mut findings = Findings::UNREAD;
    for (check, outcome) in CheckId::ALL.iter().zip(outcomes) {
        findings.put(*check, *outcome);
    }
    findings
}

fn machine(findings: Findings, age: Duration) -> MachinePosture {
    MachinePosture {
        order: Order { journal: 1, seq: 1 },
        whole_at: Some(now() - age),
        machine: MachineKind::Workstation,
        findings,
        parked: CheckSet::NONE,
        update_pending_since: None,
        signatures_made: None,
        certificate_ends: None,
        unrecognised: 0,
    }
}

const fn live(posture: &MachinePosture) -> Enrolled<'_> {
    Enrolled { posture: Some(posture), is_live: true }
}

/// Mostly good machines, so that the interesting figures are reached.
fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        12 => Just(Outcome::Pass),
        1 => Just(FAIL),
        1 => Just(UNKNOWN),
        2 => Just(Outcome::NotApplicable),
    ]
}

fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
    proptest::collection::vec(outcome(), CheckId::ALL.len())
}

fn check() -> impl Strategy<Value = CheckId> {
    (0..CheckId::ALL.len()).prop_map(|at| CheckId::ALL[at])
}

fn machines() -> impl Strategy<Value = Vec<MachinePosture>> {
    let one = (outcomes(), 0u64..9).prop_map(|(outcomes, days)| {
        machine(findings(&outcomes), Duration::from_secs(days * 86_400))
    });
    proptest::collection::vec(one, 1..25)
}

fn figures(machines: &[Enrolled<'_>]) -> AgencyPosture {
    agency_posture(machines.iter().copied(), Policy::DEFAULT, now())
}

/// Whether no figure is better than before.
#[track_caller]
fn assert_not_better(after: &AgencyPosture, before: &AgencyPosture) {
    assert!(after.enrolled == before.enrolled, "the denominator is the inventory");
    assert!(after.compliant <= before.compliant);
    assert!(after.covered <= before.covered);
    assert!(after.score_p10 <= before.score_p10);
    assert!(after.score_worst <= before.score_worst);
    assert!(after.stale >= before.stale);
    assert!(after.critical >= before.critical);
    assert!(!after.meets_goal() || before.meets_goal());
}

proptest! {
    #[test]
    fn adding_an_unknown_never_raises_a_score(outcomes in outcomes(), check in check()) {
        let before = findings(&outcomes);
        let mut after = before;
        after.put(check, UNKNOWN);
        prop_assert!(after.score(WEIGHED) <= before.score(WEIGHED));
    }

    #[test]
    fn from_fail_to_pass_never_lowers_a_score(outcomes in outcomes(), check in check()) {
        let mut failing = findings(&outcomes);
        failing.put(check, FAIL);
        let mut passing = failing;
        passing.put(check, Outcome::Pass);
        prop_assert!(passing.score(WEIGHED) >= failing.score(WEIGHED));
    }

    #[test]
    fn a_hundred_means_that_nothing_that_weighs_fails_or_is_unknown(outcomes in outcomes()) {
        let findings = findings(&outcomes);
        let open = findings.fail().union(findings.unknown()).intersection(WEIGHED);
        prop_assert_eq!(findings.score(WEIGHED) == 100, open.is_empty());
        prop_assert!(findings.critical().is_empty() || findings.score(WEIGHED) <= CRITICAL_CAP);
    }

    #[test]
    fn silencing_a_machine_never_improves_a_figure(
        machines in machines(),
        which in any::<prop::sample::Index>(),
        later in 0u64..10 * 86_400,
    ) {
        let all: Vec<Enrolled<'_>> = machines.iter().map(live).collect();
        let before = figures(&all);
        let at = which.index(machines.len());

        let mut unplugged = all.clone();
        unplugged[at].is_live = false;
        assert_not_better(&figures(&unplugged), &before);
        let was_covered = MachineFigures::of(all[at], Policy::DEFAULT, now()).is_covered;
        prop_assert_eq!(figures(&unplugged).covered + u32::from(was_covered), before.covered);

        let mut aged = machines[at];
        aged.whole_at = aged.whole_at.map(|taken| taken - Duration::from_secs(later));
        let mut old = all.clone();
        old[at].posture = Some(&aged);
        assert_not_better(&figures(&old), &before);

        let mut never = all.clone();
        never[at].posture = None;
        assert_not_better(&figures(&never), &before);
    }

    #[test]
    fn the_order_of_machines_does_not_matter(
        (straight, shuffled) in machines().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        let of = |machines: &[MachinePosture]| figures(&machines.iter().map(live).collect::<Vec<_>>());
        prop_assert_eq!(of(&straight), of(&shuffled));
    }

    #[test]
    fn snapshots_may_come_twice(sent in snapshots(), twice in proptest::collection::vec(any::<bool>(), 12)) {
        let merge = |held, (seq, snapshot): &(i64, PostureSnapshot)| {
            let order = Order { journal: 1, seq: *seq };
            Some(HeldPosture::merged(held, snapshot, order, now(), now()))
        };
        let once = sent.iter().fold(None, merge);
        let mut repeated = Vec::new();
        for (at, snapshot) in sent.iter().enumerate() {
            repeated.push(snapshot.clone());
            if twice[at] {
                repeated.extend_from_slice(&sent[..=at]);
            }
        }
        prop_assert_eq!(repeated.iter().fold(None, merge), once);
    }

    #[test]
    fn checks_that_are_not_understood_move_no_score(sent in snapshots(), newer in 1usize..80) {
        let score = |sent: &[(i64, PostureSnapshot)]| {
            let merge = |held, (seq, snapshot): &(i64, PostureSnapshot)| {
                let order = Order { journal: 1, seq: *seq };
                Some(HeldPosture::merged(held, snapshot, order, now(), now()))
            };
            sent.iter().fold(None, merge).map(|held| MachinePosture::from(&held).findings.score(WEIGHED))
        };
        let mut more = sent.clone();
        for (_, snapshot) in &mut more {
            snapshot.unrecognised = newer;
        }
        prop_assert_eq!(score(&more), score(&sent));
    }
}

/// Up to twelve snapshots of one journal.
fn snapshots() -> impl Strategy<Value = Vec<(i64, PostureSnapshot)>> {
    let one = (
        any::<bool>(),
        proptest::collection::vec(proptest::option::of(outcome()), CheckId::ALL.len()),
    );
    proptest::collection::vec(one, 1..12).prop_map(|all| {
        let snapshot = |(full, outcomes): (bool, Vec<Option<Outcome>>)| PostureSnapshot {
            extent: if full { Extent::Full } else { Extent::Partial },
            catalogue_version: CATALOGUE_VERSION,
            machine: MachineKind::Server,
            results: CheckId::ALL
                .iter()
                .zip(outcomes)
                .filter_map(|(check, outcome)| {
                    Some(CheckResult {
                        check: *check,
                        outcome: outcome?,
                        observed: String::new(),
                        age: Duration::ZERO,
                        took: Duration::ZERO,
                        is_parked: false,
                    })
                })
                .collect(),
            measures: PostureMeasures::default(),
            unrecognised: 0,
        };
        (1..).zip(all.into_iter().map(snapshot)).collect()
    })
}

#[test]
fn nine_good_machines_do_not_hide_a_silent_one() {
    let good = machine(findings(&[Outcome::Pass; CHECKS]), Duration::ZERO);
    let mut all = vec![live(&good); 9];
    all.push(Enrolled { posture: None, is_live: false });
    let posture = figures(&all);
    assert_eq!(
        (posture.enrolled, posture.compliant, posture.covered, posture.score_worst),
        (10, 9, 9, 0)
    );
    assert_eq!(posture.score_p10, 0, "one in ten is the tenth percentile");
    assert!(!posture.meets_goal());
}

#[test]
fn what_is_too_old_counts_as_unread() {
    let day = Duration::from_secs(86_400);
    let mut posture = machine(findings(&[Outcome::Pass; CHECKS]), day * 7);
    let score =
        |posture: &MachinePosture| MachineFigures::of(live(posture), Policy::DEFAULT, now()).score;
    assert_eq!(score(&posture), 100);
    posture.whole_at = Some(now() - day * 7 - Duration::from_secs(1));
    assert_eq!(score(&posture), 0, "a PC's after seven days");
    posture.machine = MachineKind::Server;
    posture.whole_at = Some(now() - day - Duration::from_secs(1));
    assert_eq!(score(&posture), 0, "a server's after one");
    posture.whole_at = None;
    assert_eq!(score(&posture), 0, "without a snapshot in full");
}

#[test]
fn an_agency_without_machines_has_reached_nothing() {
    let none = figures(&[]);
    assert_eq!((none.score_p10, none.score_worst, none.meets_goal()), (0, 0, false));
}
