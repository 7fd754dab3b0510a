//! A detector on a bench: cycles go in a second apart, and what it holds is asked.

use haidang_proto::model::record::{Event, Transition};
use haidang_proto::model::verdict::DownCause;

use crate::evidence::{Cycle, Tcp};

use super::scenes::{at, core_dark, dedicated, healthy};
use super::*;

/// A detector and its clock, in milliseconds.
pub(super) struct Bench {
    pub(super) detector: Detector,
    pub(super) now_ms: u64,
    pub(super) events: Vec<Event>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let detector = Detector::new(&config::Verdict::default(), &dedicated(), at(1_000));
        Self { detector, now_ms: 1_000, events: Vec::new() }
    }

    /// After the warm-up, connected.
    pub(super) fn connected() -> Self {
        let mut bench = Self::new();
        bench.sees(&healthy(), 40);
        bench.is(Verdict::Connected);
        bench.events.clear();
        bench
    }

    /// After a committed outage.
    pub(super) fn down() -> Self {
        let mut bench = Self::connected();
        bench.sees(&core_dark(), 4);
        bench.is(Verdict::Disconnected(DownCause::CoreUnreachable));
        bench.events.clear();
        bench
    }

    /// Sees so many equal cycles, a second apart, each of 100 ms.
    pub(super) fn sees(&mut self, cycle: &Cycle, times: u32) {
        (0..times).for_each(|_| self.sees_after(cycle, 1_000));
    }

    pub(super) fn sees_after(&mut self, cycle: &Cycle, gap_ms: u64) {
        self.now_ms += gap_ms;
        let started = at(self.now_ms - 100).moment;
        self.events.extend(self.detector.observe(cycle, started, at(self.now_ms)));
    }

    #[track_caller]
    pub(super) fn is(&self, verdict: Verdict) {
        assert_eq!(self.detector.verdict(), verdict);
    }

    #[track_caller]
    pub(super) fn is_state(&self, state: &str) {
        assert_eq!(self.detector.verdict().state(), state);
    }

    pub(super) fn has(&self, flag: Flag) -> bool {
        self.detector.flags().contains(flag)
    }

    pub(super) fn last_transition(&self) -> &Transition {
        let transition = self.events.iter().rev().find_map(|event| match event {
            Event::Transition(transition) => Some(transition),
            _ => None,
        });
        transition.expect("something was committed")
    }
}

pub(super) fn changed(mut cycle: Cycle, change: impl FnOnce(&mut Cycle)) -> Cycle {
    change(&mut cycle);
    cycle
}

pub(super) fn echo_only(mut cycle: Cycle) -> Cycle {
    cycle.anchors.iter_mut().for_each(|anchor| anchor.tcp = Tcp::NotTried);
    cycle
}
