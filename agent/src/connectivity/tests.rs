//! The detector's rules, one by one.

use haidang_proto::model::verdict::{DnsCause, DownCause, ServiceCause};

use crate::evidence::{Anchor, Dns, PathMtu, ServiceAnswer, Tcp};
use crate::schedule::PathMtuDoubt;

use super::bench::{Bench, changed, echo_only};
use super::scenes::{
    at, core_dark, dark, dedicated, half_answered, healthy, local_faults, ms, no_address,
    no_carrier, no_route, silent,
};
use super::*;

const RECOVERING: Verdict = Verdict::Degraded(DegradedCause::Recovering);

#[test]
fn nothing_is_said_before_the_warm_up_is_over() {
    for cycle in [healthy(), dark(), no_carrier(), local_faults()] {
        let mut bench = Bench::new();
        bench.sees(&cycle, 29);
        bench.is(Verdict::Unknown(UnknownCause::Starting));
        bench.sees(&cycle, 2);
        assert_ne!(bench.detector.verdict(), Verdict::Unknown(UnknownCause::Starting));
    }
}

#[test]
fn four_bad_cycles_in_a_row_are_an_outage_that_began_with_the_first() {
    let mut bench = Bench::connected();
    bench.sees(&core_dark(), 3);
    bench.is(Verdict::Connected);
    assert_eq!(bench.detector.mode(), Mode::Confirm);
    let first = bench.now_ms - 2_100;
    bench.sees(&core_dark(), 1);
    bench.is(Verdict::Disconnected(DownCause::CoreUnreachable));
    let transition = bench.last_transition();
    assert_eq!(transition.first_seen.boottime, ms(first));
    assert!(!transition.evidence.is_empty());
    assert_eq!(bench.detector.verdict_since(), at(bench.now_ms).moment);
    assert_eq!(bench.detector.mode(), Mode::Down);
}

#[test]
fn a_good_or_unclear_cycle_breaks_the_row() {
    for between in [healthy(), local_faults()] {
        let mut bench = Bench::connected();
        bench.sees(&core_dark(), 3);
        bench.sees(&between, 1);
        bench.sees(&core_dark(), 3);
        bench.is(Verdict::Connected);
    }
}

#[test]
fn echo_alone_needs_twice_as_many_cycles() {
    let mut bench = Bench::connected();
    bench.sees(&echo_only(core_dark()), 7);
    bench.is(Verdict::Connected);
    bench.sees(&echo_only(core_dark()), 1);
    bench.is_state("disconnected");
}

#[test]
fn what_the_kernel_sees_is_committed_after_three_seconds_if_still_true() {
    for (cycle, cause) in [
        (no_carrier(), DownCause::LinkDown),
        (no_address(), DownCause::NoAddress),
        (no_route(), DownCause::NoRoute),
    ] {
        let mut bench = Bench::connected();
        bench.sees(&cycle, 3);
        bench.is(Verdict::Connected);
        bench.sees_after(&cycle, 900);
        bench.is(Verdict::Disconnected(cause));
    }
    let mut bench = Bench::connected();
    bench.sees(&no_carrier(), 3);
    bench.sees(&healthy(), 1);
    bench.is(Verdict::Connected);
    assert_eq!(bench.events.len(), 1);
    assert!(matches!(
        bench.events[0],
        Event::ShortOutage { bad_cycles: 3, cause: DownCause::LinkDown, .. }
    ));
}

#[test]
fn a_short_outage_is_two_silent_cycles_that_healed() {
    let mut bench = Bench::connected();
    bench.sees(&core_dark(), 1);
    bench.sees(&healthy(), 1);
    assert_eq!(bench.events, [], "one silent cycle is packet loss");
    bench.sees(&core_dark(), 2);
    let first_seen = at(bench.now_ms - 1_100).moment;
    bench.sees(&healthy(), 1);
    let cause = DownCause::CoreUnreachable;
    assert_eq!(bench.events, [Event::ShortOutage { first_seen, bad_cycles: 2, cause }]);
}

#[test]
fn tcp_that_answers_where_only_echo_was_asked_heals_nothing() {
    let mut bench = Bench::connected();
    bench.sees(&echo_only(core_dark()), 2);
    let filtered = changed(healthy(), |cycle| {
        cycle.anchors.iter_mut().for_each(|anchor| anchor.echo = silent());
    });
    bench.sees(&filtered, 1);
    assert_eq!(bench.events, []);
}

#[test]
fn another_cause_takes_over_after_two_equal_cycles_and_a_deeper_one_at_once() {
    let mut bench = Bench::down();
    bench.sees(&dark(), 1);
    bench.is(Verdict::Disconnected(DownCause::CoreUnreachable));
    assert_eq!(bench.detector.mode(), Mode::Confirm);
    bench.sees(&dark(), 1);
    bench.is(Verdict::Disconnected(DownCause::GatewayUnreachable));
    bench.sees(&no_route(), 1);
    bench.is(Verdict::Disconnected(DownCause::NoRoute));
    bench.sees(&no_carrier(), 1);
    bench.is(Verdict::Disconnected(DownCause::LinkDown));
    bench.sees(&no_route(), 1);
    bench.is(Verdict::Disconnected(DownCause::LinkDown));
    bench.sees(&no_route(), 1);
    bench.is(Verdict::Disconnected(DownCause::NoRoute));
}

#[test]
fn three_good_cycles_lead_to_recovering_and_sixty_clean_seconds_to_the_real_state() {
    let mut bench = Bench::down();
    bench.sees(&healthy(), 2);
    bench.is_state("disconnected");
    assert_eq!(bench.detector.mode(), Mode::Confirm);
    bench.sees(&healthy(), 1);
    bench.is(RECOVERING);
    bench.sees(&healthy(), 59);
    bench.is(RECOVERING);
    bench.sees(&healthy(), 1);
    bench.is(Verdict::Connected);
}

#[test]
fn a_bad_cycle_starts_the_clean_time_anew() {
    let mut bench = Bench::down();
    bench.sees(&healthy(), 50);
    bench.sees(&core_dark(), 1);
    bench.sees(&healthy(), 59);
    bench.is(RECOVERING);
    bench.sees(&healthy(), 1);
    bench.is(Verdict::Connected);
}

#[test]
fn an_outage_that_passes_through_unknown_still_leads_to_recovering() {
    let mut bench = Bench::down();
    bench.sees(&local_faults(), 4);
    bench.is(Verdict::Unknown(UnknownCause::NotMeasured));
    bench.sees(&healthy(), 3);
    bench.is(RECOVERING);
}

#[test]
fn dns_and_services_break_by_three_of_five_and_mend_by_three_in_a_row() {
    let dns = changed(healthy(), |cycle| cycle.resolvers[0].answer = Dns::Silent);
    let service = changed(healthy(), |cycle| {
        cycle.services[0].answer = ServiceAnswer::WrongStatus { status: 503 };
    });
    for (cycle, verdict) in [
        (dns, Verdict::DnsBroken(DnsCause::DnsSilent)),
        (service, Verdict::ServiceBroken(ServiceCause::ServiceWrongStatus)),
    ] {
        let mut bench = Bench::connected();
        bench.sees(&cycle, 1);
        assert_eq!(bench.detector.mode(), Mode::Confirm);
        let first = at(bench.now_ms - 100).moment;
        bench.sees(&healthy(), 1);
        bench.sees(&cycle, 1);
        bench.is(Verdict::Connected);
        bench.sees(&cycle, 1);
        bench.is(verdict);
        assert_eq!(bench.last_transition().first_seen, first);
        bench.sees(&healthy(), 2);
        bench.sees(&cycle, 1);
        bench.sees(&healthy(), 2);
        bench.is(verdict);
        bench.sees(&healthy(), 1);
        bench.is(Verdict::Connected);
    }
}

#[test]
fn cycles_that_did_not_climb_say_nothing_of_dns() {
    let dns = changed(healthy(), |cycle| cycle.resolvers[0].answer = Dns::Silent);
    let low = changed(healthy(), |cycle| {
        cycle.resolvers.clear();
        cycle.services.clear();
    });
    let mut bench = Bench::connected();
    for _ in 0..3 {
        bench.sees(&dns, 1);
        bench.sees(&low, 4);
    }
    bench.is(Verdict::DnsBroken(DnsCause::DnsSilent));
    bench.sees(&low, 20);
    bench.is(Verdict::DnsBroken(DnsCause::DnsSilent));
}

#[test]
fn an_outage_forgets_what_stood_above_the_path() {
    let dns = changed(healthy(), |cycle| cycle.resolvers[0].answer = Dns::Silent);
    let mut bench = Bench::connected();
    bench.sees(&dns, 3);
    bench.sees(&core_dark(), 4);
    bench.sees(&healthy(), 63);
    bench.is(Verdict::Connected);
}

#[test]
fn loss_degrades_by_a_full_window_and_leaves_by_a_clean_one() {
    let lossy = changed(healthy(), |cycle| {
        for anchor in &mut cycle.anchors {
            anchor.echo = half_answered(ms(5));
        }
    });
    let mut bench = Bench::connected();
    bench.sees(&lossy, 310);
    bench.is(Verdict::Degraded(DegradedCause::Loss));
    // The last lossy cycle has to leave the window of 300 s, which slides by 30 s.
    bench.sees(&healthy(), 280);
    bench.is(Verdict::Degraded(DegradedCause::Loss));
    bench.sees(&healthy(), 60);
    bench.is(Verdict::Connected);
}

#[test]
fn the_best_anchor_speaks_for_the_path_and_the_dead_one_has_a_flag() {
    let one_dead = changed(healthy(), |cycle| {
        cycle.anchors[0].echo = silent();
        cycle.anchors[0].tcp = Tcp::Silent;
    });
    let mut bench = Bench::connected();
    bench.sees(&one_dead, 3);
    assert!(!bench.has(Flag::AnchorDown));
    bench.sees(&one_dead, 400);
    bench.is(Verdict::Connected);
    assert!(bench.has(Flag::AnchorDown));
    let quality = bench.detector.take_quality();
    assert_eq!((quality.lost, quality.sent), (0, quality.received));
    bench.sees(&healthy(), 1);
    assert!(!bench.has(Flag::AnchorDown));
}

#[test]
fn two_holes_in_a_row_degrade_and_one_full_packet_clears() {
    let hole = changed(healthy(), |cycle| cycle.path_mtu = Some(PathMtu::Hole { bytes: 1500 }));
    let mut bench = Bench::connected();
    bench.sees(&hole, 1);
    bench.is(Verdict::Connected);
    assert_eq!(bench.detector.outlook().path_mtu, PathMtuDoubt::Doubtful);
    bench.sees(&hole, 1);
    bench.is(Verdict::Degraded(DegradedCause::PathMtu));
    bench.sees(&healthy(), 1);
    bench.is(Verdict::Connected);
}

#[test]
fn four_changes_in_half_an_hour_flap_until_a_quarter_of_an_hour_without() {
    let mut bench = Bench::connected();
    for _ in 0..2 {
        assert!(!bench.has(Flag::Flapping));
        bench.sees(&core_dark(), 4);
        bench.sees(&healthy(), 3);
    }
    assert!(bench.has(Flag::Flapping));
    assert_eq!(bench.events.len(), 4, "each change is journalled");
    bench.sees(&healthy(), 899);
    bench.is(RECOVERING);
    bench.sees(&healthy(), 1);
    bench.is(Verdict::Connected);
    assert!(!bench.has(Flag::Flapping));
}

#[test]
fn a_starved_prober_is_unknown_and_never_down() {
    let starved = changed(dark(), |cycle| cycle.prober_lag_max = ms(80));
    let mut bench = Bench::connected();
    bench.sees(&starved, 3);
    bench.is(Verdict::Connected);
    bench.sees(&starved, 30);
    bench.is(Verdict::Unknown(UnknownCause::Starved));
    bench.sees(&healthy(), 3);
    bench.is(Verdict::Connected);
}

#[test]
fn sleep_makes_everything_unknown_until_good_cycles_return() {
    let mut bench = Bench::connected();
    bench.now_ms += 3_600_000;
    let awake = |now_ms: u64| Now { monotonic: ms(now_ms - 3_600_000), ..at(now_ms) };
    let see = |bench: &mut Bench, cycle: &Cycle, times| {
        for _ in 0..times {
            bench.now_ms += 1_000;
            let now = awake(bench.now_ms);
            bench.events.extend(bench.detector.observe(cycle, now.moment, now));
        }
    };
    see(&mut bench, &core_dark(), 20);
    bench.is(Verdict::Unknown(UnknownCause::Resumed));
    see(&mut bench, &healthy(), 2);
    bench.is(Verdict::Unknown(UnknownCause::Resumed));
    see(&mut bench, &healthy(), 1);
    bench.is(Verdict::Connected);
    see(&mut bench, &core_dark(), 4);
    bench.is_state("disconnected");
}

#[test]
fn a_wall_clock_that_steps_by_an_hour_changes_nothing() {
    let scenes = [(healthy(), 40), (core_dark(), 4), (healthy(), 70), (core_dark(), 2)];
    let verdicts = |step_of: fn(u64) -> i64| {
        let mut detector = Detector::new(&config::Verdict::default(), &dedicated(), at(1_000));
        let mut seen = Vec::new();
        let mut second = 1;
        for (cycle, times) in &scenes {
            for _ in 0..*times {
                second += 1;
                let mut now = at(second * 1_000);
                let step = step_of(second);
                let size = Duration::from_secs(step.unsigned_abs());
                now.moment.wall = match step < 0 {
                    true => now.moment.wall - size,
                    false => now.moment.wall + size,
                };
                let events = detector.observe(cycle, now.moment, now);
                seen.push((detector.verdict(), events.len()));
            }
        }
        (seen, detector.take_quality())
    };
    let straight = verdicts(|_| 0);
    assert_eq!(verdicts(|second| if second > 42 { 3_600 } else { 0 }), straight);
    assert_eq!(verdicts(|second| if second % 2 == 0 { -3_600 } else { 0 }), straight);
}

#[test]
fn silence_that_outlasts_the_time_after_a_sleep_is_an_outage() {
    let mut bench = Bench::connected();
    let slept = 60_000;
    for _ in 0..35 {
        bench.now_ms += 1_000;
        let now = Now { monotonic: ms(bench.now_ms), ..at(bench.now_ms + slept) };
        bench.detector.observe(&core_dark(), now.moment, now);
    }
    bench.is_state("disconnected");
}

#[test]
fn bad_and_unclear_cycles_in_turn_do_not_keep_a_path_up() {
    let mut bench = Bench::connected();
    for _ in 0..4 {
        bench.sees(&core_dark(), 1);
        bench.sees(&local_faults(), 1);
    }
    bench.is_state("unknown");
}

#[test]
fn evidence_is_empty_when_connected_and_bounded_otherwise() {
    let mut bench = Bench::connected();
    assert_eq!(bench.detector.evidence(), []);
    let crowded = changed(core_dark(), |cycle| {
        let anchor = Anchor { name: "\u{1b}[31m".repeat(60), ..cycle.anchors[0].clone() };
        cycle.anchors = vec![anchor; 100];
    });
    bench.sees(&crowded, 4);
    let evidence = bench.detector.evidence();
    assert_eq!(evidence.len(), haidang_proto::model::fact::FACTS_MAX);
    for fact in evidence {
        assert!(fact.subject.len() <= haidang_proto::model::fact::FACT_TEXT_BYTES_MAX);
        assert!(!fact.subject.chars().any(char::is_control));
    }
}
