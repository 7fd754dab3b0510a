//! Quality: counts of echo exchanges, for reports and for the `degraded` rules.
//!
//! They are kept for each anchor, and the best anchor speaks: a dead host among several says
//! nothing of the path. An anchor holds ten slices of the quality window and seven daily
//! round-trip histograms, each sparse, about 2 KiB when filled; so memory is bounded by
//! [`ANCHORS_MAX`].
//!
//! One anchor speaks for the path in reports: the best of the window so far, chosen anew with
//! each slice, and another as soon as it falls silent alone. The choice never depends on the
//! counts that it lets through, which would make them better than the path is.
//!
//! Packets are counted when their fate is certain (`sequence`), up to ten seconds after they were
//! sent. Where echo is forbidden or filtered, TCP handshakes are counted in their stead, and
//! labelled so.

use std::collections::VecDeque;
use std::time::Duration;

use haidang_proto::model::quality::{Quality, RttHistogram};

use crate::evidence::{Anchor, Cycle, Echo, Fate, Packet, Tcp};

use self::sequence::Sequence;
use super::Now;
use super::ladder::{echo_answered, tcp_answered};

mod sequence;

/// Anchors that are counted; a configuration has two or three.
pub(super) const ANCHORS_MAX: usize = 16;
/// Parts of the quality window: it slides by a tenth.
const SLICES: u32 = 10;
/// Days of round trips behind the median that "three times the usual" is measured against.
const DAYS: usize = 7;
/// Three of the longest probe periods: no cycle for so long is a stall, which would stretch the
/// window.
const STALL_MIN: Duration = Duration::from_secs(180);
const DAY: Duration = Duration::from_secs(86_400);
/// Silent cycles in a row, while another anchor answers, after which an anchor no longer speaks.
const MUTE_CYCLES: u32 = 4;
/// The first retransmission of a SYN (RFC 6298, section 2.1): a handshake that takes so long has
/// lost a packet.
const SYN_RETRANSMISSION: Duration = Duration::from_secs(1);

/// What the path is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Echo requests.
    Echo,
    /// TCP handshakes.
    Tcp,
}

/// Counts of all anchors.
#[derive(Debug)]
pub(super) struct QualityLog {
    slice_length: Duration,
    slice_started: Duration,
    day_started: Duration,
    report_started: Duration,
    /// The end of the latest cycle.
    last: Duration,
    lag_max: Duration,
    protocol: Protocol,
    anchors: Vec<AnchorLog>,
    /// Index of the anchor whose counts are reported.
    speaker: usize,
}

/// Counts of one anchor.
#[derive(Debug, Default)]
struct AnchorLog {
    sequence: Sequence,
    report: Quality,
    slice: Quality,
    /// Packets sent up to then, on CLOCK_MONOTONIC, belong to no window.
    window_after: Option<Duration>,
    /// Full slices, oldest first.
    window: VecDeque<Quality>,
    /// Days, oldest first; the last is today's.
    days: VecDeque<RttHistogram>,
    /// Cycles in a row in which it was silent.
    mute_cycles: u32,
}

/// A full window of the best anchor.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) quality: Quality,
    /// Median round trip of the last seven days, this one included.
    pub(super) rtt_median: Option<Duration>,
}

impl QualityLog {
    pub(super) fn new(window: Duration, now: Duration) -> Self {
        Self {
            slice_length: window / SLICES,
            slice_started: now,
            day_started: now,
            report_started: now,
            last: now,
            lag_max: Duration::ZERO,
            protocol: Protocol::Echo,
            anchors: Vec::new(),
            speaker: 0,
        }
    }

    /// Counts a cycle by the packets of `protocol`; answers the window when a slice of it has just
    /// become full.
    pub(super) fn observe(
        &mut self,
        cycle: &Cycle,
        protocol: Protocol,
        now: Now,
    ) -> Option<Window> {
        let at = now.moment.boottime;
        if self.protocol != protocol {
            // What the other protocol lost tells nothing of the path.
            self.protocol = protocol;
            self.anchors.iter_mut().for_each(|anchor| anchor.sequence = Sequence::default());
            self.forget_window(at);
        }
        self.note(cycle, now);
        let count = cycle.anchors.len().min(ANCHORS_MAX);
        self.anchors.resize_with(count, AnchorLog::default);
        if at.saturating_sub(self.day_started) >= DAY {
            self.day_started = at;
            self.anchors.iter_mut().for_each(AnchorLog::close_day);
        }
        for (log, anchor) in self.anchors.iter_mut().zip(&cycle.anchors) {
            log.count(anchor, protocol, now.monotonic);
        }
        self.pass_the_word();
        let slice_age = at.saturating_sub(self.slice_started);
        if slice_age < self.slice_length {
            return None;
        }
        self.slice_started = at;
        if slice_age > self.slice_length + STALL_MIN {
            self.forget_window(at);
            return None;
        }
        self.anchors.iter_mut().for_each(AnchorLog::close_slice);
        self.choose_speaker();
        self.anchors
            .iter()
            .filter_map(AnchorLog::full_window)
            .min_by_key(|window| (loss_ppm(&window.quality), window.quality.rtt.percentile(0.5)))
    }

    /// A cycle whose packets tell nothing of the path, because this machine was too slow. Late
    /// answers to earlier ones still count: the kernel has stamped them.
    pub(super) fn skip(&mut self, cycle: &Cycle, now: Now) {
        self.note(cycle, now);
        self.interrupt();
    }

    /// What follows is no neighbour of what was sent before.
    pub(super) fn interrupt(&mut self) {
        self.anchors.iter_mut().for_each(|anchor| anchor.sequence.interrupt());
    }

    /// The path went: the next window begins anew, with packets that are still to be sent.
    pub(super) fn forget_window(&mut self, now: Duration) {
        self.slice_started = now;
        for anchor in &mut self.anchors {
            anchor.window.clear();
            anchor.slice = Quality::default();
            anchor.window_after = anchor.sequence.latest_waiting().or(anchor.window_after);
        }
    }

    /// Counts of the anchor that speaks, since this was last asked, up to the latest cycle.
    pub(super) fn take_report(&mut self) -> Quality {
        let mut reports: Vec<_> =
            self.anchors.iter_mut().map(|anchor| std::mem::take(&mut anchor.report)).collect();
        let spoken = reports.get_mut(self.speaker).map(std::mem::take).unwrap_or_default();
        let window = self.last.saturating_sub(self.report_started);
        self.report_started = self.last;
        Quality { window, prober_lag_max: std::mem::take(&mut self.lag_max), ..spoken }
    }

    fn note(&mut self, cycle: &Cycle, now: Now) {
        self.last = now.moment.boottime;
        self.lag_max = self.lag_max.max(cycle.prober_lag_max);
        for (log, anchor) in self.anchors.iter_mut().zip(&cycle.anchors) {
            if let Echo::Answered(exchange)
            | Echo::Silent(exchange)
            | Echo::Rejected { exchange, .. } = &anchor.echo
            {
                exchange.late_before.iter().for_each(|sent| log.sequence.answered_late(*sent));
            }
        }
    }

    /// An anchor that falls silent alone is dead, and says nothing of the path.
    fn pass_the_word(&mut self) {
        let is_mute = |log: &AnchorLog| log.mute_cycles >= MUTE_CYCLES;
        if self.anchors.get(self.speaker).is_none_or(is_mute)
            && let Some(other) = self.anchors.iter().position(|log| log.mute_cycles == 0)
        {
            self.speaker = other;
        }
    }

    fn choose_speaker(&mut self) {
        let speaker = self.speaker;
        let best = self.anchors.iter().map(AnchorLog::window_so_far).enumerate();
        let best = best.filter(|(_, quality)| quality.sent > 0).min_by_key(|(at, quality)| {
            (loss_ppm(quality), quality.rtt.percentile(0.5), *at != speaker)
        });
        if let Some((best, _)) = best {
            self.speaker = best;
        }
    }
}

impl AnchorLog {
    fn count(&mut self, anchor: &Anchor, protocol: Protocol, now: Duration) {
        let packets: &[Packet] = match (protocol, &anchor.echo) {
            (
                Protocol::Echo,
                Echo::Answered(exchange) | Echo::Silent(exchange) | Echo::Rejected { exchange, .. },
            ) => &exchange.packets,
            // Nothing left this machine.
            (Protocol::Echo, Echo::Unsendable(_) | Echo::Forbidden | Echo::NotTried) => &[],
            (Protocol::Tcp, _) => match handshake(&anchor.tcp) {
                Some(fate) => &[Packet { sent: now, fate }],
                None => &[],
            },
        };
        let is_answered = match protocol {
            Protocol::Echo => echo_answered(&anchor.echo),
            Protocol::Tcp => tcp_answered(&anchor.tcp),
        };
        if is_answered {
            self.mute_cycles = 0;
        } else if !packets.is_empty() {
            self.mute_cycles = self.mute_cycles.saturating_add(1);
        }
        packets.iter().for_each(|packet| self.sequence.push(*packet, protocol));
        for settled in self.sequence.settle(now) {
            self.report.merge(&settled.counts);
            if self.window_after.is_none_or(|after| settled.sent > after) {
                self.window_after = None;
                self.slice.merge(&settled.counts);
            }
            match self.days.back_mut() {
                Some(today) => today.merge(&settled.counts.rtt),
                None => self.days.push_back(settled.counts.rtt),
            }
        }
    }

    fn close_slice(&mut self) {
        if self.window.len() == SLICES as usize {
            self.window.pop_front();
        }
        self.window.push_back(std::mem::take(&mut self.slice));
    }

    fn close_day(&mut self) {
        if self.days.len() == DAYS {
            self.days.pop_front();
        }
        self.days.push_back(RttHistogram::default());
    }

    fn window_so_far(&self) -> Quality {
        let mut quality = Quality::default();
        self.window.iter().for_each(|slice| quality.merge(slice));
        quality
    }

    fn full_window(&self) -> Option<Window> {
        if self.window.len() < SLICES as usize {
            return None;
        }
        let quality = self.window_so_far();
        let mut days = RttHistogram::default();
        self.days.iter().for_each(|day| days.merge(day));
        (quality.sent > 0).then(|| Window { quality, rtt_median: days.percentile(0.5) })
    }
}

/// The fate of a TCP handshake, as far as it tells of the path: a reset may be a firewall's.
fn handshake(tcp: &Tcp) -> Option<Fate> {
    match tcp {
        Tcp::Proved { connect } | Tcp::Connected { connect } => {
            Some(if *connect < SYN_RETRANSMISSION { Fate::Answered(*connect) } else { Fate::Lost })
        }
        Tcp::Silent => Some(Fate::Lost),
        Tcp::Rejected { .. } => Some(Fate::Rejected),
        Tcp::Impostor { .. } | Tcp::Refused | Tcp::Unsendable(_) | Tcp::NotTried => None,
    }
}

/// Loss in parts per million, to order anchors by.
fn loss_ppm(quality: &Quality) -> u64 {
    u64::from(quality.lost) * 1_000_000 / u64::from(quality.sent.max(1))
}

#[cfg(test)]
mod tests;
