//! The detector's laws, for any sequence of cycles.

use proptest::prelude::*;

use crate::evidence::{Anchor, Echo, Exchange, Fate, Tcp};

use super::bench::Bench;
use super::scenes::{
    answered, at, core_dark, dark, dedicated, exchange, fault, healthy, local_faults, ms,
    no_address, no_carrier, no_route, rejected,
};
use super::*;

fn any_echo() -> impl Strategy<Value = Echo> {
    prop_oneof![
        Just(answered(ms(5))),
        any_exchange().prop_map(Echo::Silent),
        any_exchange().prop_map(Echo::Answered),
        Just(rejected("198.18.10.1")),
        Just(Echo::Unsendable(fault())),
        Just(Echo::Forbidden),
        Just(Echo::NotTried),
    ]
}

fn any_exchange() -> impl Strategy<Value = Exchange> {
    let fate = prop_oneof![
        (0u64..3_000).prop_map(|rtt| Fate::Answered(ms(rtt))),
        Just(Fate::Late),
        Just(Fate::Lost),
        Just(Fate::Rejected),
    ];
    let fates = proptest::collection::vec(fate, 0..5);
    (fates, proptest::collection::vec(0u64..400, 0..3)).prop_map(|(fates, late)| Exchange {
        late_before: late.into_iter().map(ms).collect(),
        ..exchange(&fates)
    })
}

fn any_tcp() -> impl Strategy<Value = Tcp> {
    prop_oneof![
        Just(Tcp::Proved { connect: ms(6) }),
        Just(Tcp::Connected { connect: ms(6) }),
        Just(Tcp::Impostor { presented: "CN=Box".into() }),
        Just(Tcp::Refused),
        Just(Tcp::Silent),
        Just(Tcp::Unsendable(fault())),
        Just(Tcp::NotTried),
    ]
}

fn any_cycle() -> impl Strategy<Value = Cycle> {
    let scene = proptest::sample::select(vec![
        healthy(),
        healthy(),
        dark(),
        core_dark(),
        no_carrier(),
        no_address(),
        no_route(),
        local_faults(),
    ]);
    let anchors = proptest::option::of(proptest::collection::vec((any_echo(), any_tcp()), 0..4));
    (scene, anchors, 0u64..120).prop_map(|(mut cycle, anchors, lag)| {
        if let Some(anchors) = anchors {
            let pattern = cycle.anchors[0].clone();
            cycle.anchors = anchors
                .into_iter()
                .map(|(echo, tcp)| Anchor { echo, tcp, ..pattern.clone() })
                .collect();
        }
        cycle.prober_lag_max = ms(lag);
        cycle
    })
}

fn is_positive(cycle: &Cycle) -> bool {
    matches!(ladder::judge(cycle, ms(50)), Judgement::Good { .. })
}

proptest! {
    #[test]
    fn the_laws_of_the_verdict_hold_for_any_sequence(
        cycles in proptest::collection::vec((any_cycle(), 1u64..20_000, 0u64..9_000), 1..120),
    ) {
        let mut detector = Detector::new(&config::Verdict::default(), &dedicated(), at(1_000));
        let (mut boottime, mut slept) = (1_000, 0);
        let mut unproved = 0;
        for (cycle, gap, sleep) in &cycles {
            // Most gaps are awake; some hold a sleep, short or long.
            let sleep = if sleep % 7 == 0 { *sleep } else { 0 };
            boottime += gap + sleep;
            slept += sleep;
            let now = Now { monotonic: ms(boottime - slept), ..at(boottime) };
            let before = detector.verdict();
            let events = detector.observe(cycle, at(boottime - 1).moment, now);
            let transitions: Vec<_> = events.iter().filter_map(|event| match event {
                Event::Transition(transition) => Some((transition.from, transition.to)),
                _ => None,
            }).collect();
            if before == detector.verdict() {
                prop_assert_eq!(transitions, []);
            } else {
                prop_assert_eq!(transitions, [(before, detector.verdict())]);
            }
            unproved = if is_positive(cycle) { 0 } else { unproved + 1 };
            if detector.verdict().family() == Family::Up {
                prop_assert!(unproved < 8, "up after {} cycles without proof", unproved);
            }
            let quality = detector.take_quality();
            prop_assert_eq!(quality.sent, quality.received + quality.late + quality.lost);
            prop_assert_eq!(quality.rtt.count(), u64::from(quality.received));
            detector.outlook();
        }
    }

    #[test]
    fn local_faults_alone_turn_nothing_green_or_down(
        start in any_cycle(), gaps in proptest::collection::vec(1u64..10_000, 4..60),
    ) {
        let mut bench = Bench::new();
        bench.sees(&start, 1);
        for gap in gaps {
            bench.sees_after(&local_faults(), gap);
            prop_assert_eq!(bench.detector.verdict().family(), Family::Unknown);
        }
    }
}
