use std::time::UNIX_EPOCH;

use haidang_proto::model::posture::{CATALOGUE_VERSION, FailReason, PostureMeasures};

use super::*;

const FAIL: Outcome = Outcome::Fail(FailReason::Absent);
const DENIED: Outcome = Outcome::Unknown(UnknownReason::PermissionDenied);
const FIREWALL: CheckId = CheckId::HostFirewallActive;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
}

fn result(check: CheckId, outcome: Outcome) -> CheckResult {
    CheckResult {
        check,
        outcome,
        observed: outcome.as_str().into(),
        age: Duration::from_secs(60),
        took: Duration::from_micros(80),
        is_parked: false,
    }
}

fn snapshot(extent: Extent, results: &[(CheckId, Outcome)]) -> PostureSnapshot {
    PostureSnapshot {
        extent,
        catalogue_version: CATALOGUE_VERSION,
        machine: MachineKind::Server,
        results: results.iter().map(|(check, outcome)| result(*check, *outcome)).collect(),
        measures: PostureMeasures {
            oldest_security_update_age: Some(Duration::from_secs(3_600)),
            ..PostureMeasures::default()
        },
        unrecognised: 0,
    }
}

fn merged(snapshots: &[PostureSnapshot]) -> HeldPosture {
    let held = snapshots.iter().zip(1..).fold(None, |held, (snapshot, seq)| {
        let (order, when) = (Order { journal: 1, seq }, at(seq.unsigned_abs() * 100));
        Some(HeldPosture::merged(held, snapshot, order, when, when))
    });
    held.expect("there is a snapshot")
}

#[track_caller]
fn firewall_is(outcomes: &[(Extent, Outcome)], expected: Outcome, unread: bool) {
    let snapshots: Vec<PostureSnapshot> = outcomes
        .iter()
        .map(|(extent, outcome)| snapshot(*extent, &[(FIREWALL, *outcome)]))
        .collect();
    let held = merged(&snapshots);
    let answer = held.answers.iter().find(|answer| answer.check == FIREWALL).expect("an answer");
    assert_eq!((answer.outcome, answer.unread), (expected, unread));
}

#[test]
fn a_failure_stands_until_the_check_is_read_again() {
    use Extent::{Full, Partial};
    firewall_is(&[(Full, FAIL), (Partial, DENIED)], FAIL, true);
    firewall_is(&[(Full, FAIL), (Full, DENIED), (Full, DENIED)], FAIL, true);
    firewall_is(&[(Full, FAIL), (Partial, DENIED), (Partial, Outcome::Pass)], Outcome::Pass, false);
    firewall_is(&[(Full, FAIL), (Full, DENIED), (Full, FAIL)], FAIL, false);
    firewall_is(&[(Full, Outcome::Pass), (Partial, DENIED)], DENIED, false);
}

#[test]
fn a_full_snapshot_answers_every_check_and_a_partial_one_only_its_own() {
    let other = (CheckId::OsSupported, Outcome::Pass);
    let first = snapshot(Extent::Full, &[(FIREWALL, Outcome::Pass), other]);
    let partial = merged(&[first.clone(), snapshot(Extent::Partial, &[(FIREWALL, FAIL)])]);
    let outcome = |held: &HeldPosture, check| {
        held.answers.iter().find(|answer| answer.check == check).map(|answer| answer.outcome)
    };
    assert_eq!(outcome(&partial, CheckId::OsSupported), Some(Outcome::Pass));
    assert_eq!((partial.whole_at, partial.taken_at), (Some(at(100)), at(200)));
    let full = merged(&[first, snapshot(Extent::Full, &[(FIREWALL, Outcome::Pass)])]);
    let unknown = Outcome::Unknown(UnknownReason::Unsupported);
    assert_eq!(outcome(&full, CheckId::OsSupported), Some(unknown));
    assert_eq!(full.answers.len(), CheckId::ALL.len());
}

#[test]
fn an_answer_from_long_before_its_snapshot_is_unknown() {
    let mut old = snapshot(Extent::Full, &[(FIREWALL, Outcome::Pass)]);
    old.results[0].age = ANSWER_AGE_MAX + Duration::from_secs(1);
    assert_eq!(merged(&[old]).answers[0].outcome, Outcome::Unknown(UnknownReason::Stale));
}

#[test]
fn a_clock_that_runs_ahead_keeps_nothing_fresh() {
    let sent = snapshot(Extent::Full, &[]);
    let order = Order { journal: 1, seq: 1 };
    let held = HeldPosture::merged(None, &sent, order, at(400_000_000), at(7));
    assert_eq!(held.whole_at, Some(at(7)));
    let held = HeldPosture::merged(None, &sent, order, at(3), at(7));
    assert_eq!(
        (held.whole_at, held.update_pending_since),
        (Some(at(3)), Some(at(3) - Duration::from_secs(3_600)))
    );
}

#[test]
fn what_is_held_survives_the_store() {
    let held =
        merged(&[snapshot(Extent::Full, &[(FIREWALL, FAIL), (CheckId::ScreenLock, DENIED)])]);
    let json = serde_json::to_string(&held).expect("it is written");
    assert_eq!(serde_json::from_str::<HeldPosture>(&json).expect("it is read"), held);
    assert!(json.len() < 8 << 10, "{}", json.len());
}
