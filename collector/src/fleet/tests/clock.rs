//! A collector whose clock is stepped turns agents away by mistake: that is nobody's outage.

use super::*;
use crate::snapshot::IncidentKind;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[track_caller]
fn nobody_is_down(stepped: impl Fn(Now) -> Now) {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    for second in 101..=200 {
        fleet.tick(stepped(at(second)));
        let expected = match second {
            ..=130 => AgencyState::Connected,
            _ => AgencyState::Unknown,
        };
        let snapshot = fleet.snapshot(stepped(at(second)));
        assert_eq!(snapshot.agencies[0].state, expected, "after {second} s");
    }
    let incidents = fleet.snapshot(at(200)).incidents;
    assert!(incidents.iter().all(|one| one.kind == IncidentKind::CollectorSuspected));
    assert_eq!(incidents.len(), 1);
    fleet.report(id(1), said(2, Verdict::Connected), home(), at(201));
    fleet.tick(at(201));
    let snapshot = fleet.snapshot(at(201));
    assert_eq!(snapshot.agencies[0].state, AgencyState::Connected);
    assert!(snapshot.incidents.is_empty(), "the clock is right again");
}

#[test]
fn who_is_missed_after_a_step_of_the_clock_is_unknown_and_not_silent() {
    nobody_is_down(|now| Now { wall: now.wall + YEAR, ..now });
    nobody_is_down(|now| Now { wall: now.wall - YEAR, ..now });
}

#[test]
fn a_step_of_an_hour_turns_nobody_away_and_excuses_no_silence() {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    let now = Now { wall: at(140).wall + Duration::from_secs(3_600), ..at(140) };
    fleet.tick(now);
    assert_eq!(fleet.snapshot(now).agencies[0].state, SILENT);
}
