//! Connectivity: evidence and time in, the verdict and its transitions out. Pure.
//!
//! `ladder` says what one cycle shows. Rows of cycles then decide, each question by its own
//! small machine: `path` whether the path is up, `upper` whether DNS and services work on it,
//! `degradation` whether its quality is good, `flapping` whether it can be trusted. The
//! [`Detector`] composes them to one verdict, which changes only by a transition that it
//! returns for the journal. `findings` keeps the flags beside it, `quality` the counts.
//!
//! Clocks: ages are on CLOCK_BOOTTIME, so that sleep counts; the distance to CLOCK_MONOTONIC
//! tells that the machine slept. The wall clock is only copied into records.

mod degradation;
mod facts;
mod findings;
mod flapping;
pub mod ladder;
mod path;
mod quality;
mod upper;

use std::time::Duration;

use haidang_proto::model::fact::Fact;
use haidang_proto::model::flag::{Flag, Flags};
use haidang_proto::model::quality::Quality;
use haidang_proto::model::record::{Event, Moment, Transition};
use haidang_proto::model::verdict::{DegradedCause, Family, UnknownCause, Verdict};

use crate::config;
use crate::evidence::Cycle;
use crate::schedule::{Mode, Outlook};

use self::degradation::Degradation;
use self::findings::Findings;
use self::flapping::Flapping;
use self::ladder::Judgement;
use self::path::{Path, Reach};
use self::quality::QualityLog;
use self::upper::UpperWatch;

pub use self::facts::{facts, surrounding_facts};
pub use self::findings::{Bridging, bridging, flags_of, undeclared};

/// CLOCK_BOOTTIME gaining so much on CLOCK_MONOTONIC between two cycles means a suspend.
const SLEEP_MIN: Duration = Duration::from_secs(5);

/// A moment, with the clock that stops in sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Boot id, CLOCK_BOOTTIME and wall clock.
    pub moment: Moment,
    /// CLOCK_MONOTONIC, read at the same time.
    pub monotonic: Duration,
}

/// The verdict of one agent on its path.
#[derive(Debug)]
pub struct Detector {
    starved_lag: Duration,
    /// How far CLOCK_BOOTTIME was ahead of CLOCK_MONOTONIC at the latest cycle.
    slept: Duration,
    /// The end of the latest cycle.
    now: Moment,
    path: Path,
    upper: UpperWatch,
    degradation: Degradation,
    quality: QualityLog,
    flapping: Flapping,
    is_flapping: bool,
    findings: Findings,
    /// The last family that was up or down.
    family: Family,
    verdict: Verdict,
    since: Moment,
    /// The start of the latest cycle in which the path carried packets.
    proved_at: Option<Duration>,
    facts: Vec<Fact>,
}

impl Detector {
    /// Knows nothing yet, and says so until the warm-up is over.
    pub fn new(limits: &config::Verdict, dedicated: &config::Dedicated, now: Now) -> Self {
        let boottime = now.moment.boottime;
        Self {
            starved_lag: limits.starved_lag,
            slept: boottime.saturating_sub(now.monotonic),
            now: now.moment,
            path: Path::new(limits.clone(), boottime),
            upper: UpperWatch::default(),
            degradation: Degradation::default(),
            quality: QualityLog::new(limits.quality_window, boottime),
            flapping: Flapping::default(),
            is_flapping: false,
            findings: Findings::new(dedicated.network_prefixes.clone()),
            family: Family::Unknown,
            verdict: Verdict::Unknown(UnknownCause::Starting),
            since: now.moment,
            proved_at: None,
            facts: Vec::new(),
        }
    }

    /// With interfaces to other networks that the site has declared: they are told, and no finding.
    #[must_use]
    pub fn declaring(mut self, interfaces: &[String]) -> Self {
        self.findings.declared = interfaces.to_vec();
        self
    }

    /// Takes in a cycle that began at `started` and has just ended. Answers what the journal has
    /// to keep: at most one short outage and one transition.
    pub fn observe(&mut self, cycle: &Cycle, started: Moment, now: Now) -> Vec<Event> {
        self.now = now.moment;
        if self.has_slept(now) {
            // The cycle may span the sleep, so it is dropped whole.
            self.path.resume(self.now.boottime);
            self.leave_path();
            self.quality.interrupt();
            return self.commit(cycle, now.moment).into_iter().collect();
        }
        let judgement = ladder::judge(cycle, self.starved_lag);
        if matches!(judgement, Judgement::Good { .. }) {
            self.proved_at = Some(started.boottime);
        }
        self.findings.observe(cycle);
        let change = self.path.observe(judgement, started, self.now.boottime);
        self.note_family();
        let upper_seen = self.observe_path(cycle, judgement, started, now);
        self.is_flapping = self.flapping.is_on(self.now.boottime);
        let first_seen = change.first_seen.or(upper_seen).unwrap_or(started);
        change.short_outage.into_iter().chain(self.commit(cycle, first_seen)).collect()
    }

    /// The verdict in force.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// When it was committed.
    pub fn verdict_since(&self) -> Moment {
        self.since
    }

    /// When the latest cycle began in which the path carried packets, on CLOCK_BOOTTIME.
    pub fn proved_at(&self) -> Option<Duration> {
        self.proved_at
    }

    /// Findings beside the verdict.
    pub fn flags(&self) -> Flags {
        let flapping = self.is_flapping.then_some(Flag::Flapping);
        self.findings.flags().union(flapping.into_iter().collect())
    }

    /// How closely the path has to be watched.
    pub fn mode(&self) -> Mode {
        match self.path.mode(self.now.boottime) {
            Mode::Steady if self.path.reach() == Reach::Up && self.upper.is_in_doubt() => {
                Mode::Confirm
            }
            mode => mode,
        }
    }

    /// What the schedule has to know before it plans the next cycle.
    pub fn outlook(&self) -> Outlook {
        Outlook {
            mode: self.mode(),
            echo: self.findings.echo_trust(),
            path_mtu: self.degradation.path_mtu_doubt(),
        }
    }

    /// Counts of the anchor that speaks for the path, since this was last called.
    pub fn take_quality(&mut self) -> Quality {
        self.quality.take_report()
    }

    /// Facts of the latest cycle; empty when connected, which needs no explanation.
    pub fn evidence(&self) -> Vec<Fact> {
        self.facts.clone()
    }

    /// What else this machine is attached to, and what joins it to the dedicated network.
    pub fn surroundings(&self) -> &[Fact] {
        self.findings.surroundings()
    }

    fn has_slept(&mut self, now: Now) -> bool {
        let slept = now.moment.boottime.saturating_sub(now.monotonic);
        let gap = slept.saturating_sub(self.slept);
        self.slept = slept;
        gap > SLEEP_MIN
    }

    /// Counts changes between up and down. Not known in between is neither.
    fn note_family(&mut self) {
        let family = match self.path.reach() {
            Reach::Up => Family::Up,
            Reach::Down(_) => Family::Down,
            Reach::Unknown(_) => return,
        };
        if self.family != family && self.family != Family::Unknown {
            self.flapping.change(self.now.boottime);
        }
        self.family = family;
    }

    /// What stands above the path, as long as there is one.
    fn observe_path(
        &mut self,
        cycle: &Cycle,
        judgement: Judgement,
        started: Moment,
        now: Now,
    ) -> Option<Moment> {
        if cycle.prober_lag_max > self.starved_lag {
            self.quality.skip(cycle, now);
        } else if let Some(window) = self.quality.observe(cycle, self.findings.measured_by(), now) {
            self.degradation.observe_window(&window);
        }
        if self.path.reach() != Reach::Up {
            self.leave_path();
            return None;
        }
        let Judgement::Good { upper, .. } = judgement else { return None };
        if let Some(probe) = &cycle.path_mtu {
            self.degradation.observe_path_mtu(probe);
        }
        self.upper.observe(upper, started)
    }

    /// The path is gone or in question: what was known of it has to be seen again.
    fn leave_path(&mut self) {
        self.upper.clear();
        self.degradation = Degradation::default();
        self.quality.forget_window(self.now.boottime);
    }

    /// Makes the composed verdict the one in force. A verdict that needs no explanation costs no
    /// facts: nearly every cycle is one of these.
    fn commit(&mut self, cycle: &Cycle, first_seen: Moment) -> Option<Event> {
        let to = self.composed();
        let is_new = to != self.verdict;
        let evidence = if is_new || to != Verdict::Connected { facts(cycle) } else { Vec::new() };
        self.facts = if to == Verdict::Connected { Vec::new() } else { evidence.clone() };
        if !is_new {
            return None;
        }
        let from = std::mem::replace(&mut self.verdict, to);
        self.since = self.now;
        Some(Event::Transition(Transition { from, to, first_seen, evidence }))
    }

    fn composed(&self) -> Verdict {
        match self.path.reach() {
            Reach::Unknown(cause) => Verdict::Unknown(cause),
            Reach::Down(cause) => Verdict::Disconnected(cause),
            Reach::Up if self.path.is_recovering() || self.is_flapping => {
                Verdict::Degraded(DegradedCause::Recovering)
            }
            Reach::Up => self.upper.fault().unwrap_or_else(|| {
                self.degradation.cause().map_or(Verdict::Connected, Verdict::Degraded)
            }),
        }
    }
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod laws;
#[cfg(test)]
pub(crate) mod scenes;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
