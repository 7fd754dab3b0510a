//! The schedule's rules, each by passing time.

use super::*;

const OUTLOOK: Outlook =
    Outlook { mode: Mode::Steady, echo: EchoTrust::Trusted, path_mtu: PathMtuDoubt::Settled };
const MIDDLE: u32 = u32::MAX / 2;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn schedule() -> Schedule {
    Schedule::new(Settings::default(), secs(300), b"an agent", secs(100))
}

/// Runs cycles that take `took` until `until`, and returns their starts and plans.
fn run(
    schedule: &mut Schedule,
    outlook: Outlook,
    took: Duration,
    until: Duration,
) -> Vec<(Duration, CyclePlan)> {
    let mut cycles = Vec::new();
    while schedule.next() < until {
        let start = schedule.next();
        cycles.push((start, schedule.begin(start)));
        schedule.finish(outlook, start + took, MIDDLE);
    }
    cycles
}

#[test]
fn the_first_cycle_comes_within_a_period_at_a_phase_of_its_own() {
    let phases: Vec<Duration> = (0u32..1_000)
        .map(|id| {
            Schedule::new(Settings::default(), secs(300), &id.to_be_bytes(), secs(100)).next()
        })
        .collect();
    assert!(phases.iter().all(|next| (secs(100)..secs(104)).contains(next)));
    // Four quarters of a period, each with about a quarter of the agents.
    for quarter in 0..4 {
        let from = secs(100 + quarter);
        let there = phases.iter().filter(|next| (from..from + secs(1)).contains(*next)).count();
        assert!((150..350).contains(&there), "{there} of 1000 in second {quarter}");
    }
    assert_eq!(schedule().next(), schedule().next());
}

#[test]
fn jitter_stays_within_a_tenth() {
    for (random, expected) in [(0, 3_600), (MIDDLE, 4_000), (u32::MAX, 4_400)] {
        let mut schedule = schedule();
        let start = schedule.next();
        schedule.begin(start);
        schedule.finish(OUTLOOK, start + secs(1), random);
        let period = (schedule.next() - start).as_millis();
        assert!(period.abs_diff(expected) <= 1, "{period}");
    }
}

#[test]
fn steady_cycles_send_two_echoes_and_climb_each_fifth_time() {
    let mut schedule = schedule();
    let cycles = run(&mut schedule, OUTLOOK, secs(1), secs(180));
    assert_eq!(cycles.len(), 20);
    for (at, (_, plan)) in cycles.iter().enumerate() {
        assert_eq!(plan.echoes_per_anchor, 2);
        assert_eq!((plan.tcp, plan.climb), (at % 5 == 0, at % 5 == 0), "cycle {at}");
        assert!(!plan.fresh_sockets);
    }
}

#[test]
fn confirm_cycles_come_each_second_and_try_everything() {
    let mut schedule = schedule();
    let outlook = Outlook { mode: Mode::Confirm, ..OUTLOOK };
    let cycles = run(&mut schedule, outlook, Duration::from_millis(300), secs(120));
    for (_, plan) in &cycles[1..] {
        assert!(plan.tcp && plan.climb && plan.unbound && plan.fresh_sockets);
        assert_eq!(plan.echoes_per_anchor, 4);
    }
    for pair in cycles[1..].windows(2) {
        assert_eq!(pair[1].0 - pair[0].0, secs(1));
    }
}

#[test]
fn a_cycle_that_takes_longer_than_its_period_is_followed_at_once_and_not_caught_up() {
    let mut schedule = schedule();
    let outlook = Outlook { mode: Mode::Confirm, ..OUTLOOK };
    let start = schedule.next();
    schedule.begin(start);
    schedule.finish(outlook, start + secs(7), MIDDLE);
    assert_eq!(schedule.next(), start + secs(7));
    schedule.begin(start + secs(7));
    schedule.finish(OUTLOOK, start + secs(8), MIDDLE);
    let next = schedule.next();
    // A suspend of an hour: one cycle at once, the following a period later.
    schedule.begin(next + secs(3_600));
    schedule.finish(OUTLOOK, next + secs(3_601), MIDDLE);
    assert!(schedule.next() > next + secs(3_603));
}

#[test]
fn a_dead_path_costs_a_confirm_cycle_no_more_than_its_deadline_and_spacing() {
    let mut schedule = schedule();
    schedule.finish(Outlook { mode: Mode::Confirm, ..OUTLOOK }, secs(100), MIDDLE);
    let plan = schedule.begin(secs(101));
    assert_eq!(plan.reach_time(), Duration::from_millis(1_300));
    assert!(CyclePlan::thorough().reach_time() <= secs(2));
}

#[test]
fn tcp_is_tried_each_time_where_echo_tells_nothing() {
    let mut schedule = schedule();
    let outlook = Outlook { echo: EchoTrust::Useless, ..OUTLOOK };
    let cycles = run(&mut schedule, outlook, secs(1), secs(160));
    assert!(cycles[1..].iter().all(|(_, plan)| plan.tcp));
}

#[test]
fn a_path_that_is_down_is_asked_by_new_sockets_and_both_protocols() {
    let mut schedule = schedule();
    let outlook = Outlook { mode: Mode::Down, ..OUTLOOK };
    let cycles = run(&mut schedule, outlook, secs(1), secs(160));
    assert!(cycles.len() < 20, "a path that is down is not asked more often");
    assert!(cycles[1..].iter().all(|(_, plan)| plan.tcp && plan.fresh_sockets));
}

#[test]
fn slow_cadences_hold_over_an_hour() {
    let mut schedule = schedule();
    let cycles = run(&mut schedule, OUTLOOK, secs(1), secs(3_700));
    let count = |what: fn(&CyclePlan) -> bool| cycles.iter().filter(|(_, plan)| what(plan)).count();
    assert!((11..=13).contains(&count(|plan| plan.unbound)));
    assert!((10..=13).contains(&count(|plan| plan.path_mtu)));
    assert!((5..=6).contains(&count(|plan| plan.fresh_sockets)));
}

#[test]
fn a_suspected_hole_is_measured_again_within_half_a_minute() {
    let mut schedule = schedule();
    let measured = |cycles: &[(Duration, CyclePlan)]| {
        cycles.iter().filter(|(_, plan)| plan.path_mtu).map(|(at, _)| *at).collect::<Vec<_>>()
    };
    let outlook = Outlook { path_mtu: PathMtuDoubt::Doubtful, ..OUTLOOK };
    let at = measured(&run(&mut schedule, outlook, secs(1), secs(300)));
    assert!(at.len() > 2);
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] <= secs(36)), "{at:?}");
}

#[test]
fn a_kernel_event_wakes_at_once_and_looks_closely() {
    let mut schedule = schedule();
    run(&mut schedule, OUTLOOK, Duration::from_millis(100), secs(120));
    let event = schedule.next() - secs(2);
    schedule.kernel_event(event);
    assert_eq!(schedule.next(), event);
    assert!(schedule.begin(event).tcp);
}

#[test]
fn an_event_during_a_cycle_starts_another_after_it() {
    let mut schedule = schedule();
    let start = schedule.next();
    schedule.begin(start);
    schedule.kernel_event(start + Duration::from_millis(50));
    schedule.finish(OUTLOOK, start + Duration::from_millis(100), MIDDLE);
    assert_eq!(schedule.next(), start + secs(1));
}

#[test]
fn an_interface_that_flaps_ten_times_a_second_costs_what_confirm_mode_costs() {
    let mut schedule = schedule();
    let mut cycles = 0;
    for tenth in 0..600 {
        let now = secs(110) + Duration::from_millis(100) * tenth;
        schedule.kernel_event(now);
        if schedule.next() <= now {
            schedule.begin(now);
            schedule.finish(OUTLOOK, now + Duration::from_millis(20), MIDDLE);
            cycles += 1;
        }
    }
    assert!((50..=61).contains(&cycles), "{cycles} cycles in a minute");
}

#[test]
fn new_settings_count_from_now_and_stay_within_the_local_limits() {
    let mut schedule = schedule();
    let fast = Settings { probe_period: Duration::from_nanos(1), ..Settings::default() };
    schedule.apply(fast, secs(100));
    assert!(schedule.next() <= secs(100) + Settings::PROBE_PERIOD_MIN);
    let start = schedule.next();
    schedule.begin(start);
    schedule.finish(OUTLOOK, start, 0);
    assert!(schedule.next() >= start + Settings::PROBE_PERIOD_MIN.mul_f64(0.89));
}
