//! Counts by cycles: what is reported, by which anchor and which protocol.

use crate::connectivity::scenes::{at, exchange, healthy, ms, rejected, silent};
use crate::evidence::Exchange;

use super::*;

/// Longer than a late answer may take: every fate is certain.
const CERTAIN_MS: u64 = 20_000;

fn one_anchor(echo: Echo) -> Cycle {
    let mut cycle = healthy();
    cycle.anchors.truncate(1);
    cycle.anchors[0].echo = echo;
    cycle
}

fn echo_of(fates: &[Fate]) -> Echo {
    Echo::Answered(exchange(fates))
}

fn log_of(cycles: &[Cycle], protocol: Protocol) -> QualityLog {
    let mut log = QualityLog::new(Duration::from_secs(300), Duration::ZERO);
    for (second, cycle) in (1..).zip(cycles) {
        log.observe(cycle, protocol, at(CERTAIN_MS + second * 1_000));
    }
    log
}

#[test]
fn every_packet_is_received_late_or_lost() {
    let [five, six, seven] = [5, 6, 7].map(|rtt| Fate::Answered(ms(rtt)));
    let echoes = [
        echo_of(&[five, seven, six, Fate::Lost]),
        Echo::Silent(exchange(&[Fate::Late, Fate::Lost])),
        silent(),
        rejected("198.18.10.1"),
        Echo::Forbidden,
        Echo::NotTried,
    ];
    let mut log = log_of(&echoes.map(one_anchor), Protocol::Echo);
    let quality = log.take_report();
    assert_eq!((quality.sent, quality.received), (10, 3));
    assert_eq!((quality.late, quality.lost), (1, 6));
    assert_eq!(quality.window, Duration::from_secs(CERTAIN_MS / 1_000 + 6));
    assert_eq!(quality.rtt_min, Some(ms(5)));
    assert_eq!((quality.ipdv_abs_sum, quality.ipdv_count), (ms(3), 2));
    assert_eq!((quality.loss_runs, quality.tcp_connects), ([1, 0, 0, 0, 0], 0));
    assert_eq!(log.take_report(), Quality::default());
}

#[test]
fn runs_and_pairs_go_across_cycles() {
    let (good, lost) = (|rtt| Fate::Answered(ms(rtt)), Fate::Lost);
    let echoes =
        [echo_of(&[good(5), lost]), echo_of(&[lost, good(9)]), echo_of(&[good(6), good(6)])];
    let quality = log_of(&echoes.map(one_anchor), Protocol::Echo).take_report();
    assert_eq!(quality.loss_runs, [0, 1, 0, 0, 0], "one run of two");
    assert_eq!((quality.ipdv_abs_sum, quality.ipdv_count), (ms(3), 2));
}

#[test]
fn an_answer_that_comes_cycles_later_is_late_and_no_longer_lost() {
    let mut log = QualityLog::new(Duration::from_secs(300), Duration::ZERO);
    log.observe(&one_anchor(Echo::Silent(exchange(&[Fate::Lost]))), Protocol::Echo, at(1_000));
    assert_eq!(log.take_report().sent, 0, "its fate is not certain yet");
    let later = Exchange { late_before: vec![ms(0)], ..exchange(&[]) };
    log.observe(&one_anchor(Echo::Silent(later)), Protocol::Echo, at(5_000));
    let quality = log.take_report();
    assert_eq!((quality.sent, quality.late, quality.lost), (1, 1, 0));
}

#[test]
fn where_echo_is_shut_handshakes_are_counted_and_labelled() {
    let lives = [
        Tcp::Proved { connect: ms(8) },
        Tcp::Connected { connect: ms(9) },
        Tcp::Proved { connect: ms(1_010) },
        Tcp::Silent,
        Tcp::Refused,
        Tcp::NotTried,
        Tcp::Proved { connect: ms(8) },
    ];
    let cycles = lives.map(|tcp| {
        let mut cycle = one_anchor(Echo::Forbidden);
        cycle.anchors[0].tcp = tcp;
        cycle
    });
    let mut log = log_of(&cycles, Protocol::Tcp);
    // The lost ones become certain.
    log.observe(&one_anchor(Echo::Forbidden), Protocol::Tcp, at(2 * CERTAIN_MS));
    let quality = log.take_report();
    assert_eq!((quality.sent, quality.received, quality.lost), (6, 4, 2));
    assert_eq!(quality.tcp_connects, quality.sent);
    assert_eq!(quality.loss_runs, [0, 1, 0, 0, 0], "a handshake that lost its SYN is one of two");
}

#[test]
fn filtered_echoes_are_no_loss_once_tcp_measures() {
    let mut log = QualityLog::new(Duration::from_secs(300), Duration::ZERO);
    let deaf = one_anchor(silent());
    let mut last = None;
    for second in 1..700 {
        let protocol = if second <= 3 { Protocol::Echo } else { Protocol::Tcp };
        last = log.observe(&deaf, protocol, at(second * 1_000)).or(last);
    }
    let window = last.expect("two windows are full").quality;
    assert_eq!(window.loss_ratio(), Some(0.0));
}

#[test]
fn what_was_lost_before_the_window_began_anew_is_not_in_it() {
    let mut log = QualityLog::new(Duration::from_secs(300), Duration::ZERO);
    let at_second = |second: u64, fate| {
        let packet = Packet { sent: at(second * 1_000).monotonic, fate };
        one_anchor(Echo::Answered(Exchange { packets: vec![packet], ..Exchange::default() }))
    };
    for second in 1..=9 {
        log.observe(&at_second(second, Fate::Lost), Protocol::Echo, at(second * 1_000));
    }
    log.forget_window(Duration::from_secs(9));
    let mut window = None;
    for second in 10..400 {
        let cycle = at_second(second, Fate::Answered(ms(5)));
        window = log.observe(&cycle, Protocol::Echo, at(second * 1_000)).or(window);
    }
    assert_eq!(window.expect("it is full").quality.lost, 0);
    assert_eq!(log.take_report().lost, 9, "the report has them");
}

#[test]
fn reports_lose_what_the_speaking_anchor_loses_and_a_dead_one_does_not_speak() {
    let good = Fate::Answered(ms(5));
    let with = |first: &[Fate], second: &[Fate]| {
        let mut cycle = healthy();
        cycle.anchors[0].echo = echo_of(first);
        cycle.anchors[1].echo = echo_of(second);
        cycle
    };
    // Each anchor loses every other cycle: the best of each cycle would lose nothing.
    let turns = [with(&[good, Fate::Lost], &[good, good]), with(&[good; 2], &[good, Fate::Lost])];
    let cycles: Vec<Cycle> = turns.iter().cycle().take(400).cloned().collect();
    let mut log = QualityLog::new(Duration::from_secs(300), Duration::ZERO);
    let mut quality = Quality::default();
    for (second, cycle) in (1..).zip(&cycles) {
        log.observe(cycle, Protocol::Echo, at(CERTAIN_MS + second * 1_000));
        quality.merge(&log.take_report());
    }
    assert_eq!((quality.sent, quality.lost), (800, 200));

    let mut dead = healthy();
    dead.anchors[0].echo = silent();
    let mut log = log_of(&vec![dead; 10], Protocol::Echo);
    assert_eq!(log.take_report().lost, 0);
}

#[test]
fn the_median_spans_seven_days_and_memory_does_not_grow() {
    let mut log = QualityLog::new(Duration::from_secs(300), Duration::ZERO);
    let mut last = None;
    for hour in 0..24 * 20 {
        let rtt = Fate::Answered(ms(if hour < 24 * 10 { 5 } else { 40 }));
        for second in [1, 31, 61, 91, 121, 151, 181, 211, 241, 271, 301] {
            let now = at(1_000 * (3_600 * hour + second));
            let cycle = one_anchor(echo_of(&[rtt, rtt]));
            last = log.observe(&cycle, Protocol::Echo, now).or(last);
        }
        assert!(log.anchors[0].days.len() <= DAYS);
        assert!(log.anchors[0].window.len() <= SLICES as usize);
    }
    let median = last.and_then(|window| window.rtt_median).expect("a window was full");
    assert!(median > ms(35), "{median:?} still remembers the days before");
}
