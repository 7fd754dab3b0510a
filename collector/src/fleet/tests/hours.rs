//! Clean stops and working hours: states stay raw, alerts and incidents do not follow them.

use super::*;
use crate::snapshot::Suppression;

/// 2026-11-25, a Wednesday, at 16:00 in Vietnam.
const AFTERNOON: u64 = 1_795_597_200;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

fn on(seconds: u64) -> Now {
    let mono = Duration::from_secs(1_000 + seconds);
    Now { mono, wall: UNIX_EPOCH + Duration::from_secs(AFTERNOON + seconds) }
}

fn office() -> Fleet {
    let text = "margin = \"15m\"\n[[hours]]\nopen = [\"08:00-17:00\"]\n\
                weekdays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\"]\n";
    let path = std::path::Path::new("calendar.toml");
    let mut fleet = Fleet::new(roster(), config(), on(0));
    fleet.set_calendar(Calendar::parse(text, path).expect("sound"));
    for (agent, agency) in [(1, "01-001"), (2, "01-001")] {
        fleet.enrolled(id(agent), named(agency), on(90 * 86_400).wall);
    }
    fleet
}

fn seen(fleet: &mut Fleet, seconds: u64) -> (AgencyState, Option<Suppression>) {
    fleet.tick(on(seconds));
    let view = fleet.snapshot(on(seconds)).agencies.swap_remove(0);
    (view.state, view.suppressed)
}

fn reports(fleet: &mut Fleet, agent: u128, sequence: u64, seconds: u64) {
    fleet.report(id(agent), said(sequence, Verdict::Connected), home(), on(seconds));
    fleet.tick(on(seconds));
}

fn stops(fleet: &mut Fleet, agent: u128) {
    fleet.goodbye(id(agent), Goodbye { reason: GoodbyeReason::Shutdown, process_nonce: [7; 16] });
}

const STOPPED: AgencyState = AgencyState::Silent { stopped: Some(GoodbyeReason::Shutdown) };
const LOST: AgencyState = AgencyState::Disconnected(DisconnectCause::NoAnswerFromCore);

#[test]
fn silence_after_the_hours_is_shown_and_alerts_nobody() {
    let mut fleet = office();
    reports(&mut fleet, 1, 1, 40 * MINUTE);
    assert_eq!(seen(&mut fleet, 42 * MINUTE), (SILENT, None), "16:42, within the hours");
    assert_eq!(seen(&mut fleet, 46 * MINUTE), (SILENT, Some(Suppression::OutsideHours)));
    let next_morning = 16 * HOUR;
    let before = seen(&mut fleet, next_morning + 14 * MINUTE);
    assert_eq!(before, (SILENT, Some(Suppression::OutsideHours)), "08:14");
    assert_eq!(seen(&mut fleet, next_morning + 16 * MINUTE), (SILENT, None), "08:16");
}

#[test]
fn a_clean_stop_holds_its_alert_back_until_something_is_heard() {
    let mut fleet = office();
    reports(&mut fleet, 1, 1, MINUTE);
    stops(&mut fleet, 1);
    assert_eq!(seen(&mut fleet, 2 * MINUTE), (STOPPED, Some(Suppression::Stopped)));
    reports(&mut fleet, 1, 2, 3 * MINUTE);
    assert_eq!(seen(&mut fleet, 3 * MINUTE), (AgencyState::Connected, None));
    assert_eq!(seen(&mut fleet, 4 * MINUTE), (SILENT, None), "this time without a word");
}

#[test]
fn a_clean_stop_explains_a_day_of_work_and_no_more() {
    let mut fleet = office();
    reports(&mut fleet, 1, 1, MINUTE);
    stops(&mut fleet, 1);
    let mut last_excused = 0;
    for minute in 2..24 * 60 {
        match seen(&mut fleet, minute * MINUTE) {
            (STOPPED, None) => {}
            (STOPPED, Some(Suppression::Stopped)) => last_excused = minute,
            other => panic!("{other:?} at minute {minute}"),
        }
    }
    // From 16:02 to 16:45, then from 08:15 on: eight hours are over at 15:32.
    assert_eq!(last_excused, 23 * 60 + 31);
    let evening = seen(&mut fleet, 26 * HOUR);
    assert_eq!(evening, (STOPPED, Some(Suppression::OutsideHours)), "as for any silence");
    fleet.set_calendar(Calendar::default());
    assert_eq!(seen(&mut fleet, 40 * HOUR), (STOPPED, Some(Suppression::Stopped)), "a weekend");
    assert_eq!(seen(&mut fleet, 200 * HOUR), (STOPPED, None));
}

#[test]
fn one_machines_clean_stop_does_not_excuse_anothers_silence() {
    let mut fleet = office();
    reports(&mut fleet, 1, 1, MINUTE);
    stops(&mut fleet, 1);
    reports(&mut fleet, 2, 1, 2 * MINUTE);
    assert_eq!(seen(&mut fleet, 4 * MINUTE), (SILENT, None), "the second was not switched off");

    let mut fleet = office();
    reports(&mut fleet, 2, 1, MINUTE);
    reports(&mut fleet, 1, 1, 10 * MINUTE);
    stops(&mut fleet, 1);
    let last = seen(&mut fleet, 11 * MINUTE);
    assert_eq!(last, (STOPPED, Some(Suppression::Stopped)), "the second was gone long before");
}

#[test]
fn a_clean_stop_outlives_the_collector() {
    let mut fleet = office();
    fleet.restore_state(&named("01-001"), STOPPED, on(0).wall);
    assert_eq!(seen(&mut fleet, 5 * MINUTE), (STOPPED, Some(Suppression::Stopped)));
    reports(&mut fleet, 1, 1, 6 * MINUTE);
    assert_eq!(seen(&mut fleet, 7 * MINUTE), (SILENT, None));
}

#[track_caller]
fn unanswered(fleet: &mut Fleet, seconds: u64) {
    for check in 0..6 {
        fleet.gateway_checked(&gateway(), false, on(seconds + check));
    }
}

#[test]
fn a_router_that_is_switched_off_after_hours_is_no_outage() {
    let mut fleet = office();
    reports(&mut fleet, 1, 1, 50 * MINUTE);
    fleet.gateway_checked(&gateway(), true, on(50 * MINUTE));
    assert_eq!(seen(&mut fleet, 52 * MINUTE).0, SILENT);
    assert_eq!(fleet.gateways_to_check(on(52 * MINUTE)), [], "16:52: it is not asked");
    unanswered(&mut fleet, 53 * MINUTE);
    assert_eq!(seen(&mut fleet, 54 * MINUTE).0, SILENT);
    let next_morning = 16 * HOUR + 20 * MINUTE;
    assert_eq!(seen(&mut fleet, next_morning).0, SILENT);
    unanswered(&mut fleet, next_morning + 1);
    assert_eq!(seen(&mut fleet, next_morning + 10).0, SILENT, "nor before the office opens it");
}

#[test]
fn an_outage_of_the_day_stands_through_the_night() {
    let mut fleet = office();
    reports(&mut fleet, 1, 1, 30 * MINUTE);
    fleet.gateway_checked(&gateway(), true, on(30 * MINUTE));
    unanswered(&mut fleet, 31 * MINUTE);
    assert_eq!(seen(&mut fleet, 32 * MINUTE), (LOST, None));
    assert_eq!(seen(&mut fleet, 2 * HOUR), (LOST, Some(Suppression::OutsideHours)));
    assert_eq!(seen(&mut fleet, 17 * HOUR), (LOST, None));
}
