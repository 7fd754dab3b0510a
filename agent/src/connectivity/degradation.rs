//! Degraded or not: windows of 300 s, with apart thresholds to enter and to leave.
//!
//! | | enter (any) | leave (all) |
//! |---|---|---|
//! | loss | ≥ 3 % | < 1 % |
//! | round trip, p95 | > max(150 ms, 3 × 7-day median) | < 4/5 of that |
//! | delay variation, p95 − min | > 50 ms | < 30 ms |
//! | path MTU | two holes in a row | one full-size packet, or a router's word |
//!
//! The thresholds are ours, not a regulation's. The one to leave by round trip is 120 ms where
//! the usual 150 ms holds, and follows the median on slower lines, which could never leave
//! otherwise.

use std::time::Duration;

use haidang_proto::model::verdict::DegradedCause;

use crate::evidence::PathMtu;
use crate::schedule::PathMtuDoubt;

use super::quality::Window;

const LOSS_ENTER: f64 = 0.03;
const LOSS_LEAVE: f64 = 0.01;
const RTT_ENTER_MIN: Duration = Duration::from_millis(150);
const RTT_MEDIANS: u32 = 3;
const PDV_ENTER: Duration = Duration::from_millis(50);
const PDV_LEAVE: Duration = Duration::from_millis(30);
/// One large packet may be lost like any other.
const HOLES: u32 = 2;

/// The state machine of quality.
#[derive(Debug, Default)]
pub(super) struct Degradation {
    window: Option<DegradedCause>,
    /// Holes in a row, capped.
    holes: u32,
    has_hole: bool,
}

impl Degradation {
    /// What is bad, the worst first.
    pub(super) fn cause(&self) -> Option<DegradedCause> {
        match self.window {
            Some(DegradedCause::Loss) => self.window,
            _ if self.has_hole => Some(DegradedCause::PathMtu),
            cause => cause,
        }
    }

    /// Whether another path MTU probe is wanted soon.
    pub(super) fn path_mtu_doubt(&self) -> PathMtuDoubt {
        if self.holes > 0 && !self.has_hole {
            PathMtuDoubt::Doubtful
        } else {
            PathMtuDoubt::Settled
        }
    }

    /// Takes in a full window.
    pub(super) fn observe_window(&mut self, window: &Window) {
        self.window = match (self.window, entered(window)) {
            (_, Some(cause)) => Some(cause),
            (Some(_), None) if is_left(window) => None,
            (held, None) => held,
        };
    }

    /// Takes in a path MTU probe.
    pub(super) fn observe_path_mtu(&mut self, probe: &PathMtu) {
        match probe {
            PathMtu::Full { .. } | PathMtu::Signalled { .. } => {
                self.holes = 0;
                self.has_hole = false;
            }
            PathMtu::Hole { .. } => {
                self.holes = HOLES.min(self.holes + 1);
                self.has_hole |= self.holes == HOLES;
            }
            PathMtu::NotMeasured(_) => {}
        }
    }
}

fn entered(window: &Window) -> Option<DegradedCause> {
    let quality = &window.quality;
    if quality.loss_ratio().is_some_and(|loss| loss >= LOSS_ENTER) {
        Some(DegradedCause::Loss)
    } else if quality.rtt.percentile(0.95).is_some_and(|rtt| rtt > rtt_enter(window)) {
        Some(DegradedCause::Rtt)
    } else if quality.pdv().is_some_and(|pdv| pdv > PDV_ENTER) {
        Some(DegradedCause::DelayVariation)
    } else {
        None
    }
}

/// Only measured values leave: a window without an answer proves no recovery.
fn is_left(window: &Window) -> bool {
    let quality = &window.quality;
    quality.loss_ratio().is_some_and(|loss| loss < LOSS_LEAVE)
        && quality.rtt.percentile(0.95).is_some_and(|rtt| rtt < rtt_enter(window) * 4 / 5)
        && quality.pdv().is_some_and(|pdv| pdv < PDV_LEAVE)
}

fn rtt_enter(window: &Window) -> Duration {
    window.rtt_median.map_or(RTT_ENTER_MIN, |median| RTT_ENTER_MIN.max(median * RTT_MEDIANS))
}

#[cfg(test)]
mod tests {
    use haidang_proto::model::quality::Quality;

    use super::*;

    /// A window of a hundred packets; `rtts` in milliseconds.
    fn window(lost: u32, rtts: &[u64], median: Option<u64>) -> Window {
        let mut quality = Quality { sent: 100, received: 100 - lost, lost, ..Quality::default() };
        for at in 0..quality.received as usize {
            quality.rtt.record(Duration::from_millis(rtts[at % rtts.len()]));
        }
        quality.rtt_min = rtts.iter().min().copied().map(Duration::from_millis);
        Window { quality, rtt_median: median.map(Duration::from_millis) }
    }

    #[track_caller]
    fn leads(windows: &[Window], expected: Option<DegradedCause>) {
        let mut degradation = Degradation::default();
        windows.iter().for_each(|window| degradation.observe_window(window));
        assert_eq!(degradation.cause(), expected);
    }

    #[test]
    fn each_threshold_is_entered_and_left_apart() {
        let good = || window(0, &[10], None);
        let table = [
            (window(2, &[10], None), window(3, &[10], None), DegradedCause::Loss),
            (window(0, &[130], None), window(0, &[180], None), DegradedCause::Rtt),
            (window(0, &[10, 50], None), window(0, &[10, 80], None), DegradedCause::DelayVariation),
        ];
        for (between, bad, cause) in table {
            leads(&[good()], None);
            leads(std::slice::from_ref(&between), None);
            leads(std::slice::from_ref(&bad), Some(cause));
            leads(&[bad, between], Some(cause));
        }
        leads(&[window(3, &[10], None), good()], None);
        leads(&[window(0, &[180], None), good()], None);
    }

    #[test]
    fn a_slow_line_is_measured_against_its_own_median() {
        leads(&[window(0, &[180], Some(100))], None);
        leads(&[window(0, &[400], Some(100))], Some(DegradedCause::Rtt));
        leads(&[window(0, &[400], Some(100)), window(0, &[180], Some(100))], None);
    }

    #[test]
    fn a_window_without_an_answer_leaves_nothing() {
        let deaf = Window { quality: Quality { sent: 0, ..Quality::default() }, rtt_median: None };
        leads(&[window(3, &[10], None), deaf], Some(DegradedCause::Loss));
    }
}
