//! The packets to one target, in the order of sending across all cycles, until the fate of each
//! is certain.
//!
//! A packet without an answer may still turn out late, so it waits for as long as that can
//! happen, and with it what was sent after it: runs of losses and pairs of neighbouring round
//! trips (RFC 3393, section 2.4) are those of the packets as sent, whatever cycle they belong to.
//! A pair is two packets sent one after the other and both answered in time; a run ends with an
//! answer, in time or late. Both end where packets are not known: after a sleep, a starved cycle
//! or a long pause.

use std::collections::VecDeque;
use std::time::Duration;

use haidang_probe::LATE_GRACE;
use haidang_proto::model::quality::Quality;

use super::Protocol;
use crate::evidence::{Fate, Packet};

/// Packets that wait at most. Confirm mode sends four a second, each for [`LATE_GRACE`]; more
/// would be a flood, and the oldest then counts as it stands.
const WAITING_MAX: usize = 128;
/// Three of the longest probe periods: packets further apart are no neighbours.
const PAUSE_MAX: Duration = Duration::from_secs(180);

/// The packets to one target.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    waiting: VecDeque<Waiting>,
    /// When the latest packet was sent, unless what followed it is not known.
    latest: Option<Duration>,
    /// Losses since the latest answer, among the packets whose fate is certain.
    run: u32,
    /// The round trip of the latest of these packets.
    previous_rtt: Option<Duration>,
}

#[derive(Debug)]
struct Waiting {
    packet: Packet,
    protocol: Protocol,
    /// It is the neighbour of the packet before.
    follows: bool,
}

/// A packet whose fate is certain.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) sent: Duration,
    pub(super) counts: Quality,
}

impl Sequence {
    /// Adds a packet that was sent after all the others.
    pub(super) fn push(&mut self, packet: Packet, protocol: Protocol) {
        let is_neighbour = |latest| packet.sent.saturating_sub(latest) <= PAUSE_MAX;
        let follows = self.latest.is_some_and(is_neighbour);
        self.latest = Some(packet.sent);
        self.waiting.push_back(Waiting { packet, protocol, follows });
    }

    /// The packet that was sent at this moment has been answered after all.
    pub(super) fn answered_late(&mut self, sent: Duration) {
        let is_it = |waiting: &&mut Waiting| {
            let fate = waiting.packet.fate;
            waiting.packet.sent == sent && matches!(fate, Fate::Lost | Fate::Rejected)
        };
        if let Some(waiting) = self.waiting.iter_mut().find(is_it) {
            waiting.packet.fate = Fate::Late;
        }
    }

    /// Packets were sent whose fate is not known.
    pub(super) fn interrupt(&mut self) {
        self.latest = None;
    }

    /// When the latest packet that waits was sent.
    pub(super) fn latest_waiting(&self) -> Option<Duration> {
        self.waiting.back().map(|waiting| waiting.packet.sent)
    }

    /// Takes out, in order, the packets whose fate is certain at `now`, on CLOCK_MONOTONIC.
    pub(super) fn settle(&mut self, now: Duration) -> Vec<Settled> {
        let mut settled = Vec::new();
        while let Some(waiting) = self.waiting.front() {
            let is_certain = match waiting.packet.fate {
                Fate::Answered(_) | Fate::Late => true,
                Fate::Lost | Fate::Rejected => {
                    now.saturating_sub(waiting.packet.sent) > LATE_GRACE
                        || self.waiting.len() > WAITING_MAX
                }
            };
            if !is_certain {
                break;
            }
            if let Some(waiting) = self.waiting.pop_front() {
                settled.push(Settled { sent: waiting.packet.sent, counts: self.count(&waiting) });
            }
        }
        settled
    }

    fn count(&mut self, waiting: &Waiting) -> Quality {
        let mut counts = Quality { sent: 1, ..Quality::default() };
        counts.tcp_connects = u32::from(waiting.protocol == Protocol::Tcp);
        if !waiting.follows {
            self.end_run(&mut counts);
            self.previous_rtt = None;
        }
        let previous_rtt = self.previous_rtt.take();
        match waiting.packet.fate {
            Fate::Answered(rtt) => {
                counts.received = 1;
                counts.rtt.record(rtt);
                counts.rtt_min = Some(rtt);
                if let Some(previous) = previous_rtt {
                    counts.ipdv_abs_sum = previous.abs_diff(rtt);
                    counts.ipdv_count = 1;
                }
                self.previous_rtt = Some(rtt);
                self.end_run(&mut counts);
            }
            Fate::Late => {
                counts.late = 1;
                self.end_run(&mut counts);
            }
            Fate::Lost | Fate::Rejected => {
                counts.lost = 1;
                self.run = self.run.saturating_add(1);
            }
        }
        counts
    }

    fn end_run(&mut self, counts: &mut Quality) {
        let run = std::mem::take(&mut self.run);
        if run > 0 {
            counts.loss_runs[Quality::loss_run_class(run)] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A packet as a watcher of the whole line knows it.
    #[derive(Debug, Clone, Copy)]
    struct Line {
        /// Milliseconds since the packet before.
        gap: u64,
        fate: Fate,
        /// Seen as lost first, and named late so many milliseconds after its sending.
        recalled: Option<u64>,
        /// Packets of unknown fate went before it.
        interrupted: bool,
    }

    fn any_line() -> impl Strategy<Value = Vec<Line>> {
        let fate = prop_oneof![
            4 => (0u64..900).prop_map(|rtt| Fate::Answered(Duration::from_millis(rtt))),
            1 => Just(Fate::Late),
            3 => Just(Fate::Lost),
            1 => Just(Fate::Rejected),
        ];
        let gap = prop_oneof![9 => 1u64..4_000, 1 => 150_000u64..250_000];
        let recalled = proptest::option::weighted(0.3, 1u64..9_999);
        let packet = (gap, fate, recalled, proptest::bool::weighted(0.05));
        let packet = packet.prop_map(|(gap, fate, recalled, interrupted)| Line {
            gap,
            fate,
            recalled: recalled.filter(|_| matches!(fate, Fate::Lost | Fate::Rejected)),
            interrupted,
        });
        proptest::collection::vec(packet, 1..100)
    }

    /// The counts by looking at the whole line at once.
    fn brute_force(line: &[Line]) -> Quality {
        let fates: Vec<Fate> = line
            .iter()
            .map(|packet| if packet.recalled.is_some() { Fate::Late } else { packet.fate })
            .collect();
        let is_lost = |fate: &Fate| matches!(fate, Fate::Lost | Fate::Rejected);
        let mut counts = Quality { sent: line.len() as u32, ..Quality::default() };
        let mut stretches: Vec<Vec<Fate>> = Vec::new();
        for (packet, fate) in line.iter().zip(&fates) {
            let breaks = packet.interrupted || Duration::from_millis(packet.gap) > PAUSE_MAX;
            match stretches.last_mut() {
                Some(stretch) if !breaks => stretch.push(*fate),
                _ => stretches.push(vec![*fate]),
            }
            match fate {
                Fate::Answered(rtt) => {
                    counts.received += 1;
                    counts.rtt.record(*rtt);
                    counts.rtt_min = Some(counts.rtt_min.map_or(*rtt, |min| min.min(*rtt)));
                }
                Fate::Late => counts.late += 1,
                Fate::Lost | Fate::Rejected => counts.lost += 1,
            }
        }
        let last = stretches.len() - 1;
        for (at, stretch) in stretches.iter().enumerate() {
            for pair in stretch.windows(2) {
                if let [Fate::Answered(first), Fate::Answered(second)] = pair {
                    counts.ipdv_abs_sum += first.abs_diff(*second);
                    counts.ipdv_count += 1;
                }
            }
            let mut runs: Vec<u32> =
                stretch.split(|fate| !is_lost(fate)).map(|run| run.len() as u32).collect();
            if at == last {
                // Not over yet.
                runs.pop();
            }
            for run in runs.into_iter().filter(|run| *run > 0) {
                counts.loss_runs[Quality::loss_run_class(run)] += 1;
            }
        }
        counts
    }

    /// The counts as the agent takes them: packets come in groups of `group`, and after each
    /// group what is certain is settled.
    fn as_seen(line: &[Line], group: usize) -> Quality {
        let mut sequence = Sequence::default();
        let mut counts = Quality::default();
        let (mut now, mut recalls) = (Duration::ZERO, Vec::new());
        for packets in line.chunks(group) {
            for packet in packets {
                now += Duration::from_millis(packet.gap);
                // What has come in before this packet was sent.
                recalls.retain(|(at, sent)| {
                    let is_due = *at <= now;
                    if is_due {
                        sequence.answered_late(*sent);
                    }
                    !is_due
                });
                counts_of(&mut sequence, now, &mut counts);
                if packet.interrupted {
                    sequence.interrupt();
                }
                sequence.push(Packet { sent: now, fate: packet.fate }, Protocol::Echo);
                if let Some(after) = packet.recalled {
                    recalls.push((now + Duration::from_millis(after), now));
                }
            }
            counts_of(&mut sequence, now, &mut counts);
        }
        recalls.iter().for_each(|(_, sent)| sequence.answered_late(*sent));
        counts_of(&mut sequence, now + LATE_GRACE + SECOND, &mut counts);
        counts
    }

    fn counts_of(sequence: &mut Sequence, now: Duration, counts: &mut Quality) {
        sequence.settle(now).iter().for_each(|settled| counts.merge(&settled.counts));
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_the_whole_line(line in any_line(), group in 1usize..7) {
            prop_assert_eq!(as_seen(&line, group), brute_force(&line));
        }

        #[test]
        fn what_waits_is_bounded(fates in 1usize..1_000) {
            let mut sequence = Sequence::default();
            for at in 0..fates {
                let sent = Duration::from_millis(at as u64);
                sequence.push(Packet { sent, fate: Fate::Lost }, Protocol::Echo);
                sequence.settle(sent);
                prop_assert!(sequence.waiting.len() <= WAITING_MAX);
            }
        }
    }

    #[test]
    fn a_packet_waits_for_its_late_answer_and_then_counts_once() {
        let mut sequence = Sequence::default();
        sequence.push(Packet { sent: SECOND, fate: Fate::Lost }, Protocol::Echo);
        let rtt = Duration::from_millis(5);
        sequence.push(Packet { sent: SECOND * 2, fate: Fate::Answered(rtt) }, Protocol::Echo);
        assert!(sequence.settle(SECOND * 11).is_empty(), "the first may still be late");
        sequence.answered_late(SECOND);
        let mut counts = Quality::default();
        counts_of(&mut sequence, SECOND * 11, &mut counts);
        assert_eq!((counts.sent, counts.late, counts.received, counts.lost), (2, 1, 1, 0));
        assert_eq!(counts.loss_runs, [0; 5]);
    }
}
