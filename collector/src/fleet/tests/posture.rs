//! Posture in the fold: it moves figures and no state.

use haidang_proto::model::posture::{CheckId, CheckSet, FailReason, MachineKind, Outcome};

use super::*;
use crate::posture::{
    Decision, Findings, MachinePosture, Order, PolicyChange, PolicyTerms, Scope, Standing,
};

pub(super) fn posture(seq: i64, outcome: Outcome, at_seconds: u64) -> MachinePosture {
    let mut findings = Findings::UNREAD;
    for check in CheckId::ALL {
        findings.put(*check, Outcome::Pass);
    }
    findings.put(CheckId::HostFirewallActive, outcome);
    MachinePosture {
        order: Order { journal: 1, seq },
        whole_at: Some(at(at_seconds).wall),
        machine: MachineKind::Workstation,
        findings,
        parked: CheckSet::NONE,
        update_pending_since: None,
        signatures_made: None,
        certificate_ends: None,
        unrecognised: 0,
    }
}

/// Compliant, covered and worst score of 01-001, which has two machines.
#[track_caller]
fn figures(fleet: &mut Fleet, seconds: u64, expected: (u32, u32, u8)) {
    let posture = view(fleet, 0, seconds).posture;
    assert_eq!((posture.compliant, posture.covered, posture.score_worst), expected);
}

/// Both machines of 01-001 are heard and in order.
fn in_order() -> Fleet {
    let mut fleet = fleet();
    for agent in [1, 2] {
        fleet.report(id(agent), said(1, Verdict::Connected), home(), at(0));
        fleet.posture(id(agent), posture(1, Outcome::Pass, 0));
    }
    fleet
}

#[test]
fn a_machine_counts_once_its_posture_is_held_and_while_it_is_heard() {
    let mut fleet = in_order();
    figures(&mut fleet, 1, (2, 2, 100));
    fleet.report(id(1), said(2, Verdict::Connected), home(), at(30));
    figures(&mut fleet, 31, (2, 1, 100));
    figures(&mut fleet, 7 * 86_400 + 1, (0, 0, 0));
}

#[test]
fn a_machine_that_never_sent_any_lowers_its_agency() {
    let mut fleet = in_order();
    fleet.enrolled(id(9), named("01-001"), at(90 * 86_400).wall);
    figures(&mut fleet, 1, (2, 2, 0));
    assert_eq!(view(&mut fleet, 0, 1).posture.stale, 1);
}

#[test]
fn the_last_snapshot_wins_in_whatever_order_they_come() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [3, 3, 2]] {
        let mut fleet = in_order();
        for seq in order {
            let outcome = if seq == 3 { Outcome::Pass } else { Outcome::Fail(FailReason::Absent) };
            fleet.posture(id(1), posture(seq, outcome, 0));
        }
        figures(&mut fleet, 1, (2, 2, 100));
    }
}

#[test]
fn a_retired_or_unknown_agent_leaves_nothing() {
    let mut fleet = in_order();
    fleet.posture(id(2), posture(2, Outcome::Fail(FailReason::Absent), 0));
    fleet.posture(id(77), posture(2, Outcome::Pass, 0));
    figures(&mut fleet, 1, (1, 2, 49));
    fleet.retired(id(2));
    figures(&mut fleet, 1, (1, 1, 100));
}

#[test]
fn two_machines_with_one_identity_say_nothing_about_either() {
    let mut fleet = in_order();
    let address = |text: &str| text.parse().expect("an address");
    let conflict = Conflict { accepted: address(HOME), returned: address(ABROAD) };
    fleet.restore_conflict(id(1), conflict);
    figures(&mut fleet, 1, (1, 1, 0));
    let snapshot = fleet.snapshot(at(1));
    let machine = snapshot.agents.iter().find(|view| view.agent == id(1)).expect("it is shown");
    assert_eq!(machine.posture.figures.standing, Standing::Never);
}

#[test]
fn posture_changes_no_state() {
    let mut fleet = in_order();
    let before = state(&mut fleet, 1);
    for agent in [1, 2] {
        fleet.posture(id(agent), posture(2, Outcome::Fail(FailReason::Absent), 0));
    }
    assert_eq!(state(&mut fleet, 1), before);
    assert_eq!(before, AgencyState::Connected);
}

#[test]
fn the_goal_counts_agencies_of_the_roster_and_asks_what_their_policy_says() {
    let mut fleet = in_order();
    let goal = |fleet: &mut Fleet| {
        fleet.tick(at(1));
        let goals = fleet.snapshot(at(1)).goals;
        goals.iter().find(|goal| goal.goal == "information_security").expect("it is shown").ratio
    };
    let mut worse = posture(2, Outcome::Pass, 0);
    worse.findings.put(CheckId::DiskEncrypted, Outcome::Fail(FailReason::Absent));
    fleet.posture(id(1), worse);
    let a_third = 1.0 / 3.0;
    assert!((goal(&mut fleet) - a_third).abs() < 1e-9, "one of three agencies");
    let change = PolicyChange { score_min: Some(99), ..PolicyChange::default() };
    let terms = PolicyTerms::default().changed(change).expect("sound");
    let words = ("Phòng CNTT", "theo kế hoạch");
    let strict = Decision::after(None, terms, words, at(1).wall).expect("sound");
    let strict = [(Scope::Agency(named("01-001")), strict)];
    fleet.replace_policies(Arc::new(strict.into_iter().collect()));
    assert!(goal(&mut fleet) < 1e-9, "97 is less than is asked for");
}
