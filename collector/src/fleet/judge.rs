//! The rules: which of the seven states holds. In this order; the first that holds is the
//! state.
//!
//! 1. No agent of the agency was ever verified → `not_enrolled`.
//! 2. A gateway that answered the core while the agency was verified is silent now, and no
//!    verified message is younger than 1.5 intervals → `disconnected (no_answer_from_core)`.
//! 3. A fresh verified message → `connected`, or `degraded` if even the best agent sees a fault.
//! 4. A fresh message over the fallback listener that says "down" → `disconnected` with its cause.
//! 5. Fresh messages from outside the prefixes, or over the fallback saying "up" → `off_network`.
//! 6. An outage that was open before a restart → `disconnected (unconfirmed)`.
//! 7. A clean stop → `silent` at once; otherwise `unknown` while the collector itself is young,
//!    and `silent` after that.
//!
//! Self-suspicion (`unknown`) overrules these from `incident`.

use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::verdict::{DownCause, Verdict};

use crate::snapshot::{AgencyState, DisconnectCause};

use super::agent::{Agent, Place};
use super::{FleetConfig, Now};

/// What the rules look at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    pub(super) ever_verified: bool,
    pub(super) warm_up: bool,
    pub(super) outage_restored: bool,
    pub(super) gateway_lost: bool,
    /// A verified message is younger than 1.5 intervals.
    verified_beyond_doubt: bool,
    /// A fresh verified agent is well, or cannot tell although its message arrived.
    verified_well: bool,
    /// A fresh verified agent sees a fault.
    verified_faulty: bool,
    /// A fresh fallback message says why the path is down; the deepest cause of several.
    down: Option<DownCause>,
    /// A fresh message arrived that is neither verified nor "down" nor "cannot tell".
    off_network: bool,
    /// A fresh fallback message whose agent cannot tell.
    undecided: bool,
    stopped: Option<GoodbyeReason>,
}

impl Facts {
    /// Adds what one agent says.
    pub(super) fn add(&mut self, agent: &Agent, config: &FleetConfig, now: Now) {
        self.stopped = self.stopped.or(agent.stopped);
        let Some(age) = agent.age(now.mono).filter(|age| *age <= config.fresh_for()) else {
            return;
        };
        let (Some(heard), Some(report)) = (agent.heard, &agent.report) else { return };
        match (heard.place, report.verdict) {
            (Place::Verified, verdict) => {
                self.verified_beyond_doubt |= age <= config.doubt_after();
                match verdict {
                    Verdict::Connected | Verdict::Unknown(_) => self.verified_well = true,
                    Verdict::Degraded(_)
                    | Verdict::DnsBroken(_)
                    | Verdict::ServiceBroken(_)
                    | Verdict::Disconnected(_) => self.verified_faulty = true,
                }
            }
            (Place::Fallback, Verdict::Disconnected(cause)) => {
                self.down = Some(self.down.map_or(cause, |other| other.min(cause)));
            }
            (Place::Fallback, Verdict::Unknown(_)) => self.undecided = true,
            (
                Place::Fallback,
                Verdict::Connected
                | Verdict::Degraded(_)
                | Verdict::DnsBroken(_)
                | Verdict::ServiceBroken(_),
            )
            | (Place::OutsidePrefixes | Place::ForeignPrefix | Place::PrefixesUnknown, _) => {
                self.off_network = true;
            }
        }
    }
}

/// Applies the rules.
pub(super) fn judge(facts: &Facts) -> AgencyState {
    if !facts.ever_verified {
        AgencyState::NotEnrolled
    } else if facts.gateway_lost && !facts.verified_beyond_doubt {
        AgencyState::Disconnected(DisconnectCause::NoAnswerFromCore)
    } else if facts.verified_well {
        AgencyState::Connected
    } else if facts.verified_faulty {
        AgencyState::Degraded
    } else if let Some(cause) = facts.down {
        AgencyState::Disconnected(DisconnectCause::Agent(cause))
    } else if facts.off_network {
        AgencyState::OffNetwork
    } else if facts.undecided {
        AgencyState::Unknown
    } else if facts.outage_restored {
        AgencyState::Disconnected(DisconnectCause::Unconfirmed)
    } else if facts.stopped.is_some() {
        AgencyState::Silent { stopped: facts.stopped }
    } else if facts.warm_up {
        AgencyState::Unknown
    } else {
        AgencyState::Silent { stopped: None }
    }
}
