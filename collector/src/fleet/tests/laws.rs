//! Laws that hold whatever comes in.

use haidang_proto::model::posture::{FailReason, Outcome};
use haidang_proto::model::verdict::all_verdicts;
use proptest::prelude::*;

use super::posture::posture;
use super::*;

#[derive(Debug, Clone)]
enum Input {
    Report {
        agent: u128,
        nonce: u8,
        sequence: u64,
        verdict: usize,
        listener: Listener,
        source: usize,
    },
    Goodbye(u128),
    Gateway(bool),
    Retired(u128),
    Enrolled(u128),
    Settled(u128),
    Roster(bool),
}

const SOURCES: [&str; 3] = [HOME, NEIGHBOUR, ABROAD];

fn input() -> impl Strategy<Value = Input> {
    let listener = prop_oneof![2 => Just(Listener::Dedicated), 1 => Just(Listener::Fallback)];
    let report = (1u128..6, 0u8..2, 1u64..40, 0..all_verdicts().len(), listener, 0usize..3);
    prop_oneof![
        12 => report.prop_map(|(agent, nonce, sequence, verdict, listener, source)| {
            Input::Report { agent, nonce, sequence, verdict, listener, source }
        }),
        1 => (1u128..6).prop_map(Input::Goodbye),
        3 => any::<bool>().prop_map(Input::Gateway),
        1 => (1u128..6).prop_map(Input::Retired),
        1 => (1u128..6).prop_map(Input::Enrolled),
        1 => (1u128..6).prop_map(Input::Settled),
        1 => any::<bool>().prop_map(Input::Roster),
    ]
}

fn other_roster() -> Arc<Roster> {
    roster_of(
        "01-009,Quận Mới,quan,01,009,,,,,,\n\
         01-002,Quận Hoàn Kiếm,quan,01,002,,,,198.18.2.0/24,198.18.2.1,\n",
    )
}

fn apply(fleet: &mut Fleet, input: &Input, now: Now) {
    match *input {
        Input::Report { agent, nonce, sequence, verdict, listener, source } => {
            let report = said_by([nonce; 16], sequence, all_verdicts()[verdict]);
            fleet.report(id(agent), report, from(listener, SOURCES[source]), now);
        }
        Input::Goodbye(agent) => {
            let goodbye = Goodbye { reason: GoodbyeReason::Sleep, process_nonce: [0; 16] };
            fleet.goodbye(id(agent), goodbye);
        }
        Input::Gateway(answered) => fleet.gateway_checked(&gateway(), answered, now),
        Input::Retired(agent) => fleet.retired(id(agent)),
        Input::Enrolled(agent) => fleet.enrolled(id(agent), named("01-001"), now.wall),
        Input::Settled(agent) => fleet.settle_conflict(id(agent)),
        Input::Roster(other) => {
            fleet.replace_roster(if other { other_roster() } else { roster() }, now);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(Input, u64)>> {
    proptest::collection::vec((input(), 0u64..20), 0..60)
}

/// Everything that readers see, but for times.
fn shown(fleet: &mut Fleet, now: Now) -> String {
    fleet.tick(now);
    format!("{:?}", fleet.snapshot(now).agencies)
}

proptest! {
    #[test]
    fn states_sum_to_the_roster_and_connected_is_proof(steps in steps()) {
        let mut fleet = fleet();
        let mut seconds = 0;
        // When a verified message of an agency came last, by row of its name.
        let mut verified: HashMap<&str, u64> = HashMap::new();
        for (input, wait) in steps {
            seconds += wait;
            let homes = [("01-001", HOME), ("01-002", NEIGHBOUR)];
            if let Input::Report { listener: Listener::Dedicated, source, .. } = input {
                let home = homes.into_iter().find(|(_, home)| *home == SOURCES[source]);
                verified.extend(home.map(|(agency, _)| (agency, seconds)));
            }
            apply(&mut fleet, &input, at(seconds));
            fleet.tick(at(seconds));
            let snapshot = fleet.snapshot(at(seconds));
            prop_assert_eq!(snapshot.agencies.len(), snapshot.roster.agencies().len());
            let connected =
                snapshot.agencies.iter().filter(|view| view.state.counts_as_connected());
            for view in connected {
                let id = snapshot.roster.agencies()[view.row].id.as_str();
                let heard = verified.get(id).copied();
                prop_assert!(
                    heard.is_some_and(|heard| seconds - heard <= 3 * INTERVAL),
                    "{id} is {:?}, last verified {heard:?}", view.state
                );
            }
        }
    }

    #[test]
    fn what_comes_over_the_fallback_never_connects(steps in steps()) {
        let mut fleet = fleet();
        fleet.report(id(1), said(1, Verdict::Connected), home(), at(0));
        let mut seconds = 31;
        for (input, wait) in steps {
            seconds += wait;
            let input = match input {
                Input::Report { agent, nonce, sequence, verdict, source, .. } => {
                    Input::Report { agent, nonce, sequence, verdict, listener: Listener::Fallback, source }
                }
                other => other,
            };
            apply(&mut fleet, &input, at(seconds));
            fleet.tick(at(seconds));
            let snapshot = fleet.snapshot(at(seconds));
            prop_assert!(snapshot.agencies.iter().all(|view| !view.state.counts_as_connected()));
        }
    }

    #[test]
    fn silence_is_never_connected(steps in steps()) {
        let mut fleet = fleet();
        let mut seconds = 0;
        for (input, wait) in steps {
            seconds += wait;
            apply(&mut fleet, &input, at(seconds));
        }
        for later in 31..100 {
            fleet.tick(at(seconds + later));
            let snapshot = fleet.snapshot(at(seconds + later));
            prop_assert!(snapshot.agencies.iter().all(|view| !view.state.counts_as_connected()));
        }
    }

    #[test]
    fn a_report_twice_is_a_report_once(steps in steps()) {
        let (mut once, mut twice) = (fleet(), fleet());
        let mut seconds = 0;
        for (input, wait) in steps {
            seconds += wait;
            apply(&mut once, &input, at(seconds));
            apply(&mut twice, &input, at(seconds));
            if matches!(input, Input::Report { .. }) {
                apply(&mut twice, &input, at(seconds));
            }
            prop_assert_eq!(shown(&mut once, at(seconds)), shown(&mut twice, at(seconds)));
        }
    }

    #[test]
    fn the_order_in_which_one_process_is_heard_does_not_matter(
        order in Just((1u64..8).collect::<Vec<_>>()).prop_shuffle(),
        verdicts in proptest::collection::vec(0..all_verdicts().len(), 8),
    ) {
        let (mut straight, mut shuffled) = (fleet(), fleet());
        let report = |sequence: u64| {
            let at = usize::try_from(sequence).expect("small");
            said(sequence, all_verdicts()[verdicts[at]])
        };
        for sequence in 1..8 {
            straight.report(id(1), report(sequence), home(), at(100));
        }
        for sequence in order {
            shuffled.report(id(1), report(sequence), home(), at(100));
        }
        prop_assert_eq!(shown(&mut straight, at(101)), shown(&mut shuffled, at(101)));
    }

    #[test]
    fn what_was_heard_before_changes_nothing_when_it_comes_again(
        verdicts in proptest::collection::vec(0..all_verdicts().len(), 1..12),
        replays in proptest::collection::vec(0_usize..12, 0..20),
        seconds in 111_u64..200,
    ) {
        let mut fleet = fleet();
        let said_at = |step: usize| said(step as u64 + 1, all_verdicts()[verdicts[step]]);
        let held_at = |step: usize| {
            let outcome = match step % 2 {
                0 => Outcome::Pass,
                _ => Outcome::Fail(FailReason::Absent),
            };
            posture(step as i64, outcome, 100)
        };
        for (second, step) in (100..).zip(0..verdicts.len()) {
            fleet.report(id(1), said_at(step), home(), at(second));
            fleet.posture(id(1), held_at(step));
            fleet.tick(at(second));
        }
        let before = shown(&mut fleet, at(seconds));
        for replay in replays {
            let step = replay % verdicts.len();
            fleet.report(id(1), said_at(step), home(), at(seconds));
            fleet.posture(id(1), held_at(step));
        }
        prop_assert_eq!(shown(&mut fleet, at(seconds)), before);
    }
}
