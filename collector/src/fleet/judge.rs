//! The rules: which of the seven states holds. In this order; the first that holds is the
//! state.
//!
//! 1. No agent of the agency was ever verified → `not_enrolled`.
//! 2. A verified message that counts: `connected` if the best agent is well, or cannot tell
//!    although its message arrived; else `degraded`. It counts for 3 intervals; for 1.5 only, when
//!    a newer message over the fallback says "down", or a gateway that answered while the agency
//!    was verified answers no more.
//! 3. A fresh message over the fallback that says "down" → `disconnected` with its cause.
//! 4. A fresh message from outside the prefixes, or over the fallback saying "up" → `off_network`.
//! 5. A fresh message over the fallback from an agent that cannot tell → `unknown`.
//! 6. No fresh message, and the gateway answers no more → `disconnected (no_answer_from_core)`.
//! 7. An outage that was open before a restart, and nothing heard since → `disconnected
//!    (unconfirmed)`.
//! 8. A clean stop of the last machine that ran → `silent` with its reason, at once; otherwise `unknown` while the collector itself is younger
//!    than 3 intervals, and `silent` after that.
//!
//! Self-suspicion overrules `silent` and rule 6 from `incident`. An identity that speaks from
//! two machines counts for nothing.

use std::time::Duration;

use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::verdict::{DownCause, Family, Verdict};

use crate::snapshot::{AgencyState, DisconnectCause};

use super::FleetConfig;
use super::agent::{Agent, Place};

/// What the rules look at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    pub(super) ever_verified: bool,
    pub(super) warm_up: bool,
    pub(super) outage_restored: bool,
    pub(super) gateway_lost: bool,
    /// The youngest verified message of an agent that is well or cannot tell.
    well: Option<Duration>,
    /// The youngest verified message of an agent that sees a fault.
    faulty: Option<Duration>,
    /// The youngest fresh fallback message that says "down", and the deepest cause of several.
    down: Option<(Duration, DownCause)>,
    off_network: bool,
    undecided: bool,
    /// The agent that was heard last of those that stopped cleanly: when, and why it stopped.
    stopped: Option<(Duration, GoodbyeReason)>,
    /// When the last was heard of those that did not stop.
    running: Option<Duration>,
    /// A clean stop from before a restart of the collector.
    pub(super) stop_restored: Option<GoodbyeReason>,
    fresh_for: Duration,
    doubt_after: Duration,
}

impl Facts {
    pub(super) fn new(config: &FleetConfig) -> Self {
        Self { fresh_for: config.fresh_for(), doubt_after: config.doubt_after(), ..Self::default() }
    }

    /// Adds what one agent says.
    pub(super) fn add(&mut self, agent: &Agent, mono: Duration) {
        if agent.conflict.is_some() {
            return;
        }
        match (agent.heard, agent.stopped) {
            (Some(heard), Some(reason)) => {
                let last = self.stopped.filter(|(known, _)| *known >= heard.mono);
                self.stopped = last.or(Some((heard.mono, reason)));
            }
            (Some(heard), None) => self.running = self.running.max(Some(heard.mono)),
            (None, _) => {}
        }
        let Some(age) = agent.age(mono).filter(|age| *age <= self.fresh_for) else { return };
        let (Some(heard), Some(report)) = (agent.heard, &agent.report) else { return };
        let youngest = |known: Option<Duration>| Some(known.map_or(age, |known| known.min(age)));
        match (heard.place, report.verdict) {
            (Place::Verified, Verdict::Connected | Verdict::Unknown(_)) => {
                self.well = youngest(self.well);
            }
            (
                Place::Verified,
                Verdict::Degraded(_)
                | Verdict::DnsBroken(_)
                | Verdict::ServiceBroken(_)
                | Verdict::Disconnected(_),
            ) => self.faulty = youngest(self.faulty),
            (Place::Fallback, Verdict::Disconnected(cause)) => {
                let (known_age, known) = self.down.unwrap_or((age, cause));
                self.down = Some((known_age.min(age), known.min(cause)));
            }
            (Place::Fallback, verdict) => match verdict.family() {
                Family::Up => self.off_network = true,
                Family::Down | Family::Unknown => self.undecided = true,
            },
            (Place::OutsidePrefixes | Place::ForeignPrefix | Place::PrefixesUnknown, _) => {
                self.off_network = true;
            }
        }
    }

    /// Why the agency's machines stopped, if the last of them said so: one that was alive at that
    /// time and fell silent without a word is what the silence is about.
    fn stop(&self) -> Option<GoodbyeReason> {
        let Some((at, reason)) = self.stopped else {
            return self.stop_restored.filter(|_| self.running.is_none());
        };
        let is_last = self.running.is_none_or(|running| running + self.fresh_for < at);
        is_last.then_some(reason)
    }

    /// Whether a verified message of that age still proves the path.
    fn counts(&self, age: Duration) -> bool {
        let contradicted =
            self.gateway_lost || self.down.is_some_and(|(down_age, _)| down_age < age);
        age <= if contradicted { self.doubt_after } else { self.fresh_for }
    }
}

/// Applies the rules.
pub(super) fn judge(facts: &Facts) -> AgencyState {
    if !facts.ever_verified {
        AgencyState::NotEnrolled
    } else if facts.well.is_some_and(|age| facts.counts(age)) {
        AgencyState::Connected
    } else if facts.faulty.is_some_and(|age| facts.counts(age)) {
        AgencyState::Degraded
    } else if let Some((_, cause)) = facts.down {
        AgencyState::Disconnected(DisconnectCause::Agent(cause))
    } else if facts.off_network {
        AgencyState::OffNetwork
    } else if facts.undecided {
        AgencyState::Unknown
    } else if facts.gateway_lost {
        AgencyState::Disconnected(DisconnectCause::NoAnswerFromCore)
    } else if facts.outage_restored {
        AgencyState::Disconnected(DisconnectCause::Unconfirmed)
    } else if let Some(reason) = facts.stop() {
        AgencyState::Silent { stopped: Some(reason) }
    } else if facts.warm_up {
        AgencyState::Unknown
    } else {
        AgencyState::Silent { stopped: None }
    }
}
