//! Several agents of one agency, and sources that are another agency's.

use haidang_proto::model::fact::{Fact, FactKind};
use haidang_proto::model::quality::RttHistogram;
use haidang_proto::model::verdict::{Family, all_verdicts};
use proptest::prelude::*;

use super::*;

/// An agency with that many agents.
fn crowd(agents: u128) -> Fleet {
    let mut fleet = Fleet::new(roster(), config(), at(0));
    for agent in 0..agents {
        fleet.enrolled(id(agent), named("01-001"), at(90 * 86_400).wall);
    }
    fleet
}

fn quality(rtt_ms: u64) -> Quality {
    let mut rtt = RttHistogram::default();
    (0..9).for_each(|_| rtt.record(Duration::from_millis(rtt_ms)));
    Quality {
        sent: 9,
        received: 9,
        rtt,
        rtt_min: Some(Duration::from_millis(rtt_ms)),
        ..Quality::default()
    }
}

#[test]
fn another_agencys_prefix_is_found_and_named() {
    let mut fleet = fleet();
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(100));
    assert_eq!(view(&mut fleet, 0, 100).speaks_from, []);
    let neighbour = from(Listener::Dedicated, NEIGHBOUR);
    fleet.report(id(2), said(1, Verdict::Connected), neighbour, at(101));
    let seen = view(&mut fleet, 0, 101);
    assert_eq!(seen.state, AgencyState::Connected, "the machine at home still proves the path");
    assert_eq!(seen.findings, [Finding::Partial, Finding::ForeignPrefix]);
    assert_eq!(seen.speaks_from, [named("01-002")]);
    assert_eq!(view(&mut fleet, 1, 101).state, AgencyState::NotEnrolled, "it proves nothing there");
}

#[test]
fn a_source_counts_by_the_prefixes_of_its_day() {
    let rows = "id,name,kind,parent,gso_code,id_code,lat,lon\n\
                01-001,Quận Ba Đình,quan,01,,,,\n01-002,Quận Hoàn Kiếm,quan,01,,,,\n";
    let today = at(0).day();
    let tomorrow = today.tomorrow().expect("a day");
    let prefixes = format!(
        "agency,prefix,side,valid_from,valid_to\n01-001,198.18.1.0/24,seen,,{today}\n\
         01-002,198.18.1.0/24,seen,{tomorrow},\n"
    );
    let source = |name, text: &'static str| Source { name, bytes: text.as_bytes() };
    let prefixes = Source { name: "prefixes.csv", bytes: prefixes.as_bytes() };
    let roster = parse(source("roster.csv", rows), Some(prefixes), Loopback::Refused);
    let mut fleet = Fleet::new(Arc::new(roster.expect("sound")), config(), at(0));
    fleet.enrolled(id(1), named("01-001"), at(90 * 86_400).wall);
    fleet.report(id(1), said(1, Verdict::Connected), home(), at(1));
    assert_eq!(view(&mut fleet, 0, 1).state, AgencyState::Connected);
    let next_day = 86_400;
    fleet.report(id(1), said(2, Verdict::Connected), home(), at(next_day));
    let seen = view(&mut fleet, 0, next_day);
    assert_eq!((seen.state, seen.speaks_from), (AgencyState::OffNetwork, vec![named("01-002")]));
}

#[test]
fn what_joins_the_networks_on_any_machine_is_the_agencys_once() {
    let fact = |kind, subject: &str| Fact { kind, subject: subject.into(), value: "seen".into() };
    let joint = fact(FactKind::Joint, "bridge");
    let attached = |name| fact(FactKind::OtherNetwork, name);
    let mut fleet = crowd(3);
    for (agent, surroundings) in [
        (0, vec![attached("wlan0")]),
        (1, vec![joint.clone(), attached("wlan0"), attached("wwan0")]),
        (2, Vec::new()),
    ] {
        let mut report = said(1, Verdict::Connected);
        report.connectivity.surroundings = surroundings;
        fleet.report(id(agent), report, home(), at(100));
    }
    let seen = view(&mut fleet, 0, 100).surroundings;
    assert_eq!(seen, [joint, attached("wlan0"), attached("wwan0")]);
    assert_eq!(view(&mut fleet, 0, 200).surroundings, [], "what is stale says nothing of now");
}

proptest! {
    /// The path is the best agent's; flags are anyone's; those who disagree are counted.
    #[test]
    fn the_best_speaks_for_the_path_and_anyone_for_the_flags(
        agents in prop::collection::vec((0..all_verdicts().len(), any::<bool>(), any::<bool>()), 1..9)
    ) {
        let mut fleet = crowd(9);
        let (mut up, mut down, mut well, mut leaks, mut heard_at_home) = (0_u32, 0_u32, false, 0, false);
        for (agent, (verdict, at_home, leak)) in (0..).zip(agents) {
            let verdict = all_verdicts()[verdict];
            let mut report = said(1, verdict);
            report.connectivity.flags =
                leak.then_some(Flag::Leak).into_iter().collect::<Flags>();
            let arrival = if at_home { home() } else { from(Listener::Dedicated, ABROAD) };
            fleet.report(id(agent), report, arrival, at(100));
            leaks += u32::from(leak);
            heard_at_home |= at_home;
            well |= at_home && matches!(verdict, Verdict::Connected | Verdict::Unknown(_));
            up += u32::from(at_home && verdict.family() == Family::Up);
            down += u32::from(!at_home || verdict.family() == Family::Down);
        }
        let seen = view(&mut fleet, 0, 100);
        let expected = match (well, heard_at_home) {
            (true, _) => AgencyState::Connected,
            (false, true) => AgencyState::Degraded,
            (false, false) => AgencyState::NotEnrolled,
        };
        prop_assert_eq!(seen.state, expected);
        let leak = Flag::ALL.iter().position(|flag| *flag == Flag::Leak).expect("it is a flag");
        prop_assert_eq!(seen.flag_machines[leak], leaks);
        let share = (up > 0 && down > 0).then(|| f64::from(down) / f64::from(up + down));
        prop_assert_eq!(seen.partial_ratio, share);
        prop_assert_eq!(seen.findings.contains(&Finding::Partial), share.is_some());
    }

    /// Fewer than half of the machines, however bad, do not move the median beyond the others.
    #[test]
    fn quality_is_the_medians_and_no_outliers(
        good in prop::collection::vec(5_u64..20, 3..6),
        bad in prop::collection::vec(1_000_u64..5_000, 0..3),
    ) {
        let mut fleet = crowd(9);
        for (agent, rtt_ms) in (0..).zip(good.iter().chain(&bad)) {
            let mut report = said(1, Verdict::Connected);
            report.connectivity.quality = quality(*rtt_ms);
            fleet.report(id(agent), report, home(), at(100));
        }
        let median = view(&mut fleet, 0, 100).quality.expect("it was measured").rtt_p50;
        let bound = |ms: u64| Duration::from_millis(ms);
        let lowest = *good.iter().min().expect("three at least");
        let highest = *good.iter().max().expect("three at least");
        // A histogram's bucket is a few per cent wide.
        prop_assert!(median >= bound(lowest) * 9 / 10, "{median:?} of {good:?}");
        prop_assert!(median <= bound(highest) * 12 / 10, "{median:?} of {good:?}");
    }
}
