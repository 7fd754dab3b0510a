//! Quality: counts of echo exchanges, for reports and for the `degraded` rules.
//!
//! They are kept for each anchor, and the best anchor speaks: a dead host among several says
//! nothing of the path. An anchor holds ten slices of the quality window and seven daily
//! round-trip histograms, each sparse, about 2 KiB when filled; so memory is bounded by
//! [`ANCHORS_MAX`].
//!
//! The evidence tells how many echoes of a cycle were lost, not which: the losses of one cycle
//! count as one run, joined to the run before when nothing in the cycle was answered.

use std::collections::VecDeque;
use std::time::Duration;

use haidang_proto::model::quality::{Quality, RttHistogram};

use crate::evidence::{Cycle, Echo};

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
    anchors: Vec<AnchorLog>,
}

/// Counts of one anchor.
#[derive(Debug, Default)]
struct AnchorLog {
    report: Quality,
    slice: Quality,
    /// Full slices, oldest first.
    window: VecDeque<Quality>,
    /// Days, oldest first; the last is today's.
    days: VecDeque<RttHistogram>,
    /// Losses since the latest answer.
    run: u32,
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
            anchors: Vec::new(),
        }
    }

    /// Counts a cycle; answers the window when a slice of it has just become full.
    pub(super) fn observe(&mut self, cycle: &Cycle, now: Duration) -> Option<Window> {
        self.skip(cycle, now);
        let count = cycle.anchors.len().min(ANCHORS_MAX);
        self.anchors.resize_with(count, AnchorLog::default);
        if now.saturating_sub(self.day_started) >= DAY {
            self.day_started = now;
            self.anchors.iter_mut().for_each(AnchorLog::close_day);
        }
        for (log, anchor) in self.anchors.iter_mut().zip(&cycle.anchors) {
            log.count(&anchor.echo);
        }
        let slice_age = now.saturating_sub(self.slice_started);
        if slice_age < self.slice_length {
            return None;
        }
        self.slice_started = now;
        if slice_age > self.slice_length + STALL_MIN {
            self.forget_window(now);
            return None;
        }
        self.anchors.iter_mut().for_each(AnchorLog::close_slice);
        self.anchors
            .iter()
            .filter_map(AnchorLog::full_window)
            .min_by_key(|window| (loss_ppm(&window.quality), window.quality.rtt.percentile(0.5)))
    }

    /// A cycle whose echoes tell nothing of the path, because this machine was too slow.
    pub(super) fn skip(&mut self, cycle: &Cycle, now: Duration) {
        self.last = now;
        self.lag_max = self.lag_max.max(cycle.prober_lag_max);
    }

    /// The path went: the next window begins anew.
    pub(super) fn forget_window(&mut self, now: Duration) {
        self.slice_started = now;
        for anchor in &mut self.anchors {
            anchor.window.clear();
            anchor.slice = Quality::default();
        }
    }

    /// Counts of the best anchor since this was last asked, up to the latest cycle.
    pub(super) fn take_report(&mut self) -> Quality {
        let reports = self.anchors.iter_mut().map(|anchor| std::mem::take(&mut anchor.report));
        let best = reports
            .filter(|quality| quality.sent > 0)
            .min_by_key(|quality| (loss_ppm(quality), quality.rtt.percentile(0.5)));
        let window = self.last.saturating_sub(self.report_started);
        self.report_started = self.last;
        Quality {
            window,
            prober_lag_max: std::mem::take(&mut self.lag_max),
            ..best.unwrap_or_default()
        }
    }
}

impl AnchorLog {
    fn count(&mut self, echo: &Echo) {
        let mut counts = Quality::default();
        let rtts: &[Duration] = match echo {
            Echo::Answered { sent, rtts, late } => {
                counts.received = u32::try_from(rtts.len()).unwrap_or(u32::MAX);
                counts.late = *late;
                counts.lost = sent.saturating_sub(counts.received).saturating_sub(*late);
                rtts
            }
            Echo::Silent { sent, late } => {
                counts.late = *late;
                counts.lost = sent.saturating_sub(*late);
                &[]
            }
            Echo::Rejected { sent, .. } => {
                counts.lost = *sent;
                &[]
            }
            // Nothing left this machine.
            Echo::Unsendable(_) | Echo::Forbidden | Echo::NotTried => return,
        };
        counts.sent = counts.received.saturating_add(counts.late).saturating_add(counts.lost);
        self.count_run(&mut counts);
        for rtt in rtts {
            counts.rtt.record(*rtt);
        }
        counts.rtt_min = rtts.iter().min().copied();
        for pair in rtts.windows(2) {
            counts.ipdv_abs_sum += pair[0].abs_diff(pair[1]);
            counts.ipdv_count += 1;
        }
        self.report.merge(&counts);
        self.slice.merge(&counts);
        match self.days.back_mut() {
            Some(today) => today.merge(&counts.rtt),
            None => self.days.push_back(counts.rtt),
        }
    }

    fn count_run(&mut self, counts: &mut Quality) {
        let was_answered = counts.received > 0 || counts.late > 0;
        if was_answered {
            for run in [std::mem::take(&mut self.run), counts.lost] {
                if run > 0 {
                    counts.loss_runs[Quality::loss_run_class(run)] += 1;
                }
            }
        } else {
            self.run = self.run.saturating_add(counts.lost);
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

    fn full_window(&self) -> Option<Window> {
        if self.window.len() < SLICES as usize {
            return None;
        }
        let mut quality = Quality::default();
        self.window.iter().for_each(|slice| quality.merge(slice));
        let mut days = RttHistogram::default();
        self.days.iter().for_each(|day| days.merge(day));
        (quality.sent > 0).then(|| Window { quality, rtt_median: days.percentile(0.5) })
    }
}

/// Loss in parts per million, to order anchors by.
fn loss_ppm(quality: &Quality) -> u64 {
    u64::from(quality.lost) * 1_000_000 / u64::from(quality.sent.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::scenes::{healthy, ms, silent};
    use super::*;

    fn with_echo(echo: &Echo) -> Cycle {
        let mut cycle = healthy();
        cycle.anchors.truncate(1);
        cycle.anchors[0].echo = echo.clone();
        cycle
    }

    fn answered(sent: u32, rtts: &[u64], late: u32) -> Echo {
        Echo::Answered { sent, rtts: rtts.iter().copied().map(ms).collect(), late }
    }

    fn log_of(echoes: &[Echo]) -> QualityLog {
        let mut log = QualityLog::new(Duration::from_secs(300), Duration::ZERO);
        for (at, echo) in (1..).zip(echoes) {
            log.observe(&with_echo(echo), Duration::from_secs(at));
        }
        log
    }

    #[test]
    fn every_echo_is_received_late_or_lost() {
        let rejected = Echo::Rejected { sent: 2, by: [198, 18, 10, 1].into(), kind: 3, code: 0 };
        let mut log = log_of(&[
            answered(4, &[5, 7, 6], 0),
            answered(2, &[], 1),
            silent(),
            rejected,
            Echo::Forbidden,
            Echo::NotTried,
        ]);
        let quality = log.take_report();
        assert_eq!((quality.sent, quality.received), (10, 3));
        assert_eq!((quality.late, quality.lost), (1, 6));
        assert_eq!(quality.window, Duration::from_secs(6));
        assert_eq!(quality.rtt_min, Some(ms(5)));
        assert_eq!((quality.ipdv_abs_sum, quality.ipdv_count), (ms(3), 2));
        assert_eq!(log.take_report(), Quality::default());
    }

    #[test]
    fn losses_of_neighbouring_silent_cycles_are_one_run() {
        let good = answered(2, &[5, 5], 0);
        let half = answered(2, &[5], 0);
        let mut log = log_of(&[half.clone(), silent(), silent(), silent(), good, half, silent()]);
        let quality = log.take_report();
        // Two runs of one, one of six, and one of two that is not over yet.
        assert_eq!(quality.loss_runs, [2, 0, 0, 1, 0]);
        assert_eq!(quality.lost, 10);
    }

    #[test]
    fn the_median_spans_seven_days_and_memory_does_not_grow() {
        let mut log = QualityLog::new(Duration::from_secs(300), Duration::ZERO);
        let mut last = None;
        for hour in 0..24 * 20 {
            let rtt = if hour < 24 * 10 { 5 } else { 40 };
            for second in [1, 31, 61, 91, 121, 151, 181, 211, 241, 271, 301] {
                let now = Duration::from_secs(3_600 * hour + second);
                let window = log.observe(&with_echo(&answered(2, &[rtt, rtt], 0)), now);
                last = window.or(last);
            }
            assert!(log.anchors[0].days.len() <= DAYS);
            assert!(log.anchors[0].window.len() <= SLICES as usize);
        }
        let median = last.and_then(|window| window.rtt_median).expect("a window was full");
        assert!(median > ms(35), "{median:?} still remembers the days before");
    }
}
