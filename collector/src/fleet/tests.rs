use std::time::UNIX_EPOCH;

use haidang_proto::model::flag::{Flag, Flags};
use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::quality::Quality;
use haidang_proto::model::report::{Connectivity, JournalStatus};
use haidang_proto::model::verdict::{DegradedCause, DownCause, UnknownCause, Verdict};

use super::*;
use crate::roster::{Loopback, Source, parse};
use crate::snapshot::{AgencyView, DisconnectCause, Finding};

mod clock;
mod hours;
mod laws;
mod mass;
mod posture;
mod restart;
mod several;
mod topology;

const INTERVAL: u64 = 10;
const HOME: &str = "198.18.1.9";
const GATEWAY: &str = "198.18.1.1";
const NEIGHBOUR: &str = "198.18.2.9";
const ABROAD: &str = "203.0.113.7";
const DOWN: Verdict = Verdict::Disconnected(DownCause::NoRoute);
const SILENT: AgencyState = AgencyState::Silent { stopped: None };

fn at(seconds: u64) -> Now {
    let base = Duration::from_secs(1_790_000_000);
    let mono = Duration::from_secs(1_000 + seconds);
    Now { mono, wall: UNIX_EPOCH + base + Duration::from_secs(seconds) }
}

fn roster_of(rows: &str) -> Arc<Roster> {
    let text = format!(
        "id,name,kind,parent,gso_code,id_code,lat,lon,local_prefixes,gateways,valid_to\n{rows}"
    );
    let source = Source { name: "roster.csv", bytes: text.as_bytes() };
    Arc::new(parse(source, None, Loopback::Refused).expect("sound"))
}

fn roster() -> Arc<Roster> {
    roster_of(
        "01-001,Quận Ba Đình,quan,01,001,,,,198.18.1.0/24,198.18.1.1,\n\
         01-002,Quận Hoàn Kiếm,quan,01,002,,,,198.18.2.0/24,198.18.2.1,\n\
         01-003,Quận Tây Hồ,quan,01,003,,,,,,\n",
    )
}

fn config() -> FleetConfig {
    FleetConfig {
        report_interval: Duration::from_secs(INTERVAL),
        goal_target_ratio: 1.0,
        security_goal_target_ratio: 0.8,
    }
}

fn fleet() -> Fleet {
    let mut fleet = Fleet::new(roster(), config(), at(0));
    for (agent, agency) in [(1, "01-001"), (2, "01-001"), (3, "01-002"), (4, "01-003")] {
        fleet.enrolled(id(agent), named(agency), at(90 * 86_400).wall);
    }
    fleet
}

fn id(n: u128) -> AgentId {
    AgentId(uuid::Uuid::from_u128(n))
}

fn named(agency: &str) -> AgencyId {
    agency.parse().expect("an agency id")
}

fn said(sequence: u64, verdict: Verdict) -> Report {
    said_by([7; 16], sequence, verdict)
}

fn said_by(process_nonce: [u8; 16], sequence: u64, verdict: Verdict) -> Report {
    Report {
        process_nonce,
        machine_fingerprint: [1; 32],
        sequence,
        sent_at: UNIX_EPOCH,
        agent_version: "0.1.0".into(),
        settings_version: 0,
        trust_bundle_version: 1,
        connectivity: Connectivity {
            verdict,
            verdict_age: Duration::ZERO,
            flags: Flags::from_iter([Flag::DualHomed]),
            quality: Quality::default(),
            evidence: Vec::new(),
            surroundings: Vec::new(),
        },
        journal: JournalStatus::default(),
        host: None,
    }
}

fn from(listener: Listener, source: &str) -> Arrival {
    Arrival { listener, source: source.parse().expect("address") }
}

fn home() -> Arrival {
    from(Listener::Dedicated, HOME)
}

fn view(fleet: &mut Fleet, row: usize, seconds: u64) -> AgencyView {
    fleet.tick(at(seconds));
    fleet.snapshot(at(seconds)).agencies.swap_remove(row)
}

fn state(fleet: &mut Fleet, seconds: u64) -> AgencyState {
    view(fleet, 0, seconds).state
}

fn gateway() -> GatewayCheck {
    GatewayCheck { agency: named("01-001"), address: GATEWAY.parse().expect("address") }
}

/// The first agent of 01-001 says something from somewhere at a second.
struct Step(u64, Verdict, Listener, &'static str);

#[track_caller]
fn becomes(steps: &[Step], at_seconds: u64, expected: AgencyState) {
    let mut fleet = fleet();
    for (sequence, Step(second, verdict, listener, source)) in (1..).zip(steps) {
        fleet.report(id(1), said(sequence, *verdict), from(*listener, source), at(*second));
        fleet.tick(at(*second));
    }
    assert_eq!(state(&mut fleet, at_seconds), expected);
}

#[test]
fn each_rule_gives_its_state() {
    use Listener::{Dedicated, Fallback};
    use Verdict::{Connected, Degraded, Unknown};
    let slow = Degraded(DegradedCause::Rtt);
    let starting = Unknown(UnknownCause::Starting);
    let ok = || Step(100, Connected, Dedicated, HOME);
    becomes(&[], 500, AgencyState::NotEnrolled);
    becomes(&[Step(100, Connected, Dedicated, ABROAD)], 101, AgencyState::NotEnrolled);
    becomes(&[Step(100, Connected, Fallback, HOME)], 101, AgencyState::NotEnrolled);
    becomes(&[ok()], 130, AgencyState::Connected);
    becomes(&[ok()], 131, SILENT);
    becomes(&[Step(100, starting, Dedicated, HOME)], 101, AgencyState::Connected);
    becomes(&[Step(100, slow, Dedicated, HOME)], 101, AgencyState::Degraded);
    becomes(&[Step(100, DOWN, Dedicated, HOME)], 101, AgencyState::Degraded);
    becomes(&[ok(), Step(110, Connected, Dedicated, ABROAD)], 110, AgencyState::OffNetwork);
    becomes(&[ok(), Step(110, Connected, Dedicated, NEIGHBOUR)], 110, AgencyState::OffNetwork);
    becomes(&[ok(), Step(110, Connected, Fallback, HOME)], 110, AgencyState::OffNetwork);
    let no_route = AgencyState::Disconnected(DisconnectCause::Agent(DownCause::NoRoute));
    becomes(&[ok(), Step(110, DOWN, Fallback, ABROAD)], 110, no_route);
    becomes(&[ok(), Step(110, DOWN, Fallback, ABROAD)], 141, SILENT);
    becomes(&[ok(), Step(110, DOWN, Dedicated, ABROAD)], 110, AgencyState::OffNetwork);
    becomes(&[ok(), Step(110, starting, Fallback, ABROAD)], 110, AgencyState::Unknown);
    becomes(
        &[ok(), Step(110, DOWN, Fallback, ABROAD), Step(120, Connected, Dedicated, HOME)],
        120,
        AgencyState::Connected,
    );
}

#[test]
fn the_best_agent_speaks_for_the_path() {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, DOWN), home(), at(100));
    fleet.report(id(2), said(1, Verdict::Connected), home(), at(100));
    let view = view(&mut fleet, 0, 100);
    assert_eq!(view.state, AgencyState::Connected);
    assert_eq!(view.verdict, Some(Verdict::Connected));
    assert_eq!(view.findings, [Finding::Contradiction, Finding::Partial]);
    let dual_homed = Flag::ALL.iter().position(|flag| *flag == Flag::DualHomed);
    assert_eq!(view.flag_machines[dual_homed.expect("it is a flag")], 2);
    assert_eq!((view.agents_enrolled, view.agents_fresh, view.agents_verified), (2, 2, 2));
}

#[test]
fn an_outage_told_by_one_agent_is_believed_once_the_others_are_late() {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    fleet.report(id(2), said(1, Verdict::Connected), home(), at(100));
    fleet.report(id(1), said(2, DOWN), from(Listener::Fallback, ABROAD), at(110));
    assert_eq!(state(&mut fleet, 110), AgencyState::Connected, "the other is not late");
    let no_route = AgencyState::Disconnected(DisconnectCause::Agent(DownCause::NoRoute));
    assert_eq!(state(&mut fleet, 116), no_route, "late by more than 1.5 intervals");
    fleet.report(id(2), said(2, Verdict::Connected), home(), at(117));
    assert_eq!(state(&mut fleet, 117), AgencyState::Connected);
}

#[test]
fn a_clean_stop_is_silent_at_once_and_only_by_its_own_process() {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    let goodbye = |nonce| Goodbye { reason: GoodbyeReason::Shutdown, process_nonce: [nonce; 16] };
    fleet.goodbye(id(1), goodbye(8));
    assert_eq!(state(&mut fleet, 101), AgencyState::Connected);
    fleet.goodbye(id(1), goodbye(7));
    let stopped = AgencyState::Silent { stopped: Some(GoodbyeReason::Shutdown) };
    assert_eq!(state(&mut fleet, 102), stopped);
    fleet.report(id(1), said_by([9; 16], 1, Verdict::Connected), home(), at(200));
    assert_eq!(state(&mut fleet, 200), AgencyState::Connected);
    assert_eq!(state(&mut fleet, 300), SILENT, "the stop of long ago explains nothing");
}

#[test]
fn a_gateway_is_believed_only_if_it_answered_while_verified() {
    let lost = AgencyState::Disconnected(DisconnectCause::NoAnswerFromCore);
    for (answered_before, expected) in [(true, lost), (false, AgencyState::Connected)] {
        let mut fleet = fleet();
        fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
        fleet.gateway_checked(&gateway(), answered_before, at(101));
        for second in 116..119 {
            fleet.gateway_checked(&gateway(), false, at(second));
        }
        assert_eq!(state(&mut fleet, 119), AgencyState::Connected, "three are not four");
        fleet.gateway_checked(&gateway(), false, at(120));
        assert_eq!(state(&mut fleet, 120), expected);
        fleet.gateway_checked(&gateway(), true, at(140));
        assert_eq!(state(&mut fleet, 140), SILENT, "the path answers, the agent does not");
    }
}

#[test]
fn a_gateway_that_answered_only_while_the_agency_was_late_proves_nothing() {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    fleet.gateway_checked(&gateway(), true, at(120));
    for second in 121..130 {
        fleet.gateway_checked(&gateway(), false, at(second));
    }
    assert_eq!(state(&mut fleet, 131), SILENT);
}

#[test]
fn a_mute_gateway_on_a_working_path_never_cuts_its_agency() {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    fleet.gateway_checked(&gateway(), true, at(101));
    for second in 105..110 {
        fleet.gateway_checked(&gateway(), false, at(second));
    }
    fleet.report(id(1), said(2, Verdict::Connected), home(), at(110));
    for second in 111..130 {
        fleet.gateway_checked(&gateway(), false, at(second));
    }
    assert_eq!(state(&mut fleet, 130), AgencyState::Connected);
    assert_eq!(state(&mut fleet, 141), SILENT);
}

#[test]
fn gateways_are_checked_when_their_agency_is_late_and_rarely_otherwise() {
    let mut fleet = fleet();
    assert_eq!(fleet.gateways_to_check(at(100)), [], "nothing was verified");
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    assert_eq!(fleet.gateways_to_check(at(100)), [gateway()]);
    fleet.gateway_checked(&gateway(), true, at(100));
    assert_eq!(fleet.gateways_to_check(at(110)), []);
    assert_eq!(fleet.gateways_to_check(at(116)), [gateway()], "late by 1.5 intervals");
    fleet.gateway_checked(&gateway(), false, at(116));
    assert_eq!(fleet.gateways_to_check(at(117)), []);
    assert_eq!(fleet.gateways_to_check(at(118)), [gateway()]);
}

#[test]
fn after_a_restart_an_open_outage_stays_one_and_all_else_is_unknown_until_heard() {
    let mut fleet = fleet();
    for (agent, agency) in [(1, "01-001"), (3, "01-002")] {
        fleet.restore(RestoredAgent {
            agent: id(agent),
            agency: named(agency),
            last_verified: Some(UNIX_EPOCH),
            certificate_expiry: at(86_400).wall,
        });
    }
    let cut = AgencyState::Disconnected(DisconnectCause::Agent(DownCause::LinkDown));
    fleet.restore_state(&named("01-001"), cut, UNIX_EPOCH);
    fleet.restore_state(&named("01-002"), AgencyState::Connected, UNIX_EPOCH);
    let unconfirmed = AgencyState::Disconnected(DisconnectCause::Unconfirmed);
    let before_any_tick = fleet.snapshot(at(0));
    assert_eq!(before_any_tick.agencies[0].state, unconfirmed);
    assert_eq!(before_any_tick.agencies[1].state, AgencyState::Unknown);

    let told: Vec<_> = fleet.tick(at(1)).into_iter().map(|told| (told.from, told.to)).collect();
    assert_eq!(told, [(cut, unconfirmed), (AgencyState::Connected, AgencyState::Unknown)]);
    assert_eq!(view(&mut fleet, 0, 1).since, UNIX_EPOCH, "the outage began before");
    assert_eq!(view(&mut fleet, 0, 1).suppressed, Some(Suppression::WarmUp));
    assert_eq!(view(&mut fleet, 1, 79).state, AgencyState::Unknown);
    assert_eq!(view(&mut fleet, 1, 80).state, SILENT);
    assert_eq!(view(&mut fleet, 0, 500).state, unconfirmed);
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(501));
    assert_eq!(state(&mut fleet, 501), AgencyState::Connected);
    assert_eq!(state(&mut fleet, 600), SILENT);
}

#[test]
fn an_agency_without_prefixes_is_never_verified_and_says_so() {
    let mut fleet = fleet();
    let abroad = from(Listener::Dedicated, ABROAD);
    fleet.report(id(4), said(1, Verdict::Connected), abroad, at(100));
    let view = view(&mut fleet, 2, 100);
    assert_eq!(view.state, AgencyState::NotEnrolled);
    assert_eq!(view.findings, [Finding::PrefixesUnknown]);
}

#[test]
fn an_older_report_of_the_same_process_changes_nothing() {
    let mut fleet = fleet();
    let abroad = from(Listener::Fallback, ABROAD);
    fleet.report(id(1), said(5, Verdict::Connected), home(), at(100));
    assert_eq!(fleet.report(id(1), said(4, DOWN), abroad, at(101)), ReportOutcome::Stale);
    assert_eq!(fleet.report(id(1), said(5, DOWN), abroad, at(101)), ReportOutcome::Stale);
    assert_eq!(state(&mut fleet, 101), AgencyState::Connected);
}

#[test]
fn a_cloned_identity_counts_for_nothing_until_an_operator_decides() {
    let mut fleet = fleet();
    let copy = from(Listener::Dedicated, "198.18.1.77");
    let well = Verdict::Connected;
    fleet.report(id(1), said_by([1; 16], 1, well), home(), at(100));
    fleet.report(id(1), said_by([2; 16], 1, well), copy, at(105));
    fleet.report(id(1), said_by([1; 16], 2, well), home(), at(110));
    let conflict = Conflict { accepted: copy.source, returned: home().source };
    let outcome = fleet.report(id(1), said_by([1; 16], 3, well), home(), at(120));
    assert_eq!(outcome, ReportOutcome::Cloned(conflict));
    let outcome = fleet.report(id(1), said_by([2; 16], 2, well), copy, at(121));
    assert_eq!(outcome, ReportOutcome::Cloned(conflict));
    let seen = view(&mut fleet, 0, 121);
    assert_eq!((seen.state, seen.findings), (SILENT, vec![Finding::Cloned]));
    fleet.settle_conflict(id(1));
    let outcome = fleet.report(id(1), said_by([2; 16], 3, well), copy, at(130));
    assert_eq!(outcome, ReportOutcome::Accepted { full_report_wanted: true });
    assert_eq!(state(&mut fleet, 130), AgencyState::Connected);
}

#[test]
fn who_is_retired_or_whose_agency_is_gone_changes_nothing() {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    fleet.retired(id(1));
    let outcome = fleet.report(id(1), said(2, Verdict::Connected), home(), at(101));
    assert_eq!(outcome, ReportOutcome::AgentUnknown);
    assert_eq!(state(&mut fleet, 101), SILENT);
    let ended = "01-001,Quận Ba Đình,quan,01,001,,,,198.18.1.0/24,,2020-01-01\n";
    fleet.replace_roster(roster_of(ended), at(102));
    let outcome = fleet.report(id(2), said(1, Verdict::Connected), home(), at(102));
    assert_eq!(outcome, ReportOutcome::AgencyNotInRoster);
    assert_eq!(fleet.snapshot(at(102)).agencies.len(), 0);
    assert_eq!(fleet.tick(at(103)), []);
}

#[test]
fn another_roster_keeps_states_and_agents() {
    let mut fleet = fleet();
    fleet.report(id(3), said(1, Verdict::Connected), from(Listener::Dedicated, NEIGHBOUR), at(100));
    fleet.tick(at(100));
    let reordered = "01-009,Quận Mới,quan,01,009,,,,,,\n\
        01-002,Quận Hoàn Kiếm,quan,01,002,,,,198.18.2.0/24,198.18.2.1,\n";
    fleet.replace_roster(roster_of(reordered), at(101));
    assert_eq!(fleet.tick(at(101)), []);
    let snapshot = fleet.snapshot(at(101));
    let states: Vec<_> = snapshot.agencies.iter().map(|view| view.state).collect();
    assert_eq!(states, [AgencyState::NotEnrolled, AgencyState::Connected]);
    assert_eq!(snapshot.agents.len(), 1, "agents of agencies without a row are not shown");
    fleet.replace_roster(roster(), at(102));
    fleet.tick(at(102));
    assert_eq!(fleet.snapshot(at(102)).agents.len(), 4, "they are back with their agency");
}

#[test]
fn a_full_report_is_wanted_until_the_host_is_known() {
    let mut fleet = fleet();
    let wanted = |outcome| outcome == ReportOutcome::Accepted { full_report_wanted: true };
    assert!(wanted(fleet.report(id(1), said(1, Verdict::Connected), home(), at(100))));
    let mut full = said(2, Verdict::Connected);
    full.host = Some(haidang_proto::model::host::HostFacts {
        hostname: "may-1".into(),
        os: "Debian 12".into(),
        kernel: "6.1".into(),
        architecture: "x86_64".into(),
        cpus: 2,
        memory_bytes: 1,
        memory_available_bytes: 1,
        root_disk_bytes: 1,
        root_disk_available_bytes: 1,
        uptime_seconds: 9,
    });
    assert!(!wanted(fleet.report(id(1), full, home(), at(110))));
    assert!(!wanted(fleet.report(id(1), said(3, Verdict::Connected), home(), at(120))));
    assert!(fleet.snapshot(at(120)).agents[0].report.as_ref().is_some_and(|r| r.host.is_some()));
}
