//! What a fleet knows from before its process started, as the store kept it. None of it counts as
//! heard: an open outage stays one, unconfirmed, and who was up is unknown until it speaks.

use std::time::SystemTime;

use haidang_proto::model::agency::{AgencyId, AgentId};

use super::Fleet;
use crate::snapshot::{AgencyState, Conflict, DisconnectCause};

/// What is known of an agent from before this process started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredAgent {
    /// Its id.
    pub agent: AgentId,
    /// Its agency.
    pub agency: AgencyId,
    /// Receipt of its last verified message, if there ever was one.
    pub last_verified: Option<SystemTime>,
    /// End of its certificate.
    pub certificate_expiry: SystemTime,
}

impl Fleet {
    /// An agent known from the store.
    pub fn restore(&mut self, restored: RestoredAgent) {
        let RestoredAgent { agent, agency, last_verified, certificate_expiry } = restored;
        let row = self.roster.row(&agency);
        self.last_life = self.last_life.max(last_verified);
        self.enrolled(agent, agency, certificate_expiry);
        if let Some(live) = self.agents.get_mut(&agent) {
            live.last_verified = last_verified;
        }
        if let Some(row) = row
            && last_verified.is_some()
        {
            self.agencies[row].ever_verified = true;
            if self.agencies[row].state == AgencyState::NotEnrolled {
                self.agencies[row].state = AgencyState::Unknown;
            }
        }
    }

    /// The last state that was told of an agency before the collector stopped. An open outage
    /// stays one, unconfirmed; everything else is unknown until something is heard.
    pub fn restore_state(&mut self, agency: &AgencyId, last: AgencyState, since: SystemTime) {
        let Some(row) = self.roster.row(agency) else { return };
        let agency = &mut self.agencies[row];
        agency.told = last;
        agency.since = since;
        agency.state = match last {
            AgencyState::NotEnrolled => return,
            AgencyState::Disconnected(_) => {
                agency.outage_restored = true;
                AgencyState::Disconnected(DisconnectCause::Unconfirmed)
            }
            AgencyState::Silent { stopped } => {
                agency.stop_restored = stopped;
                AgencyState::Unknown
            }
            AgencyState::Connected | AgencyState::Degraded => {
                agency.up_restored = true;
                AgencyState::Unknown
            }
            AgencyState::OffNetwork | AgencyState::Unknown => AgencyState::Unknown,
        };
        agency.ever_verified = true;
    }

    /// An identity that was found on two machines before this process started.
    pub fn restore_conflict(&mut self, agent: AgentId, conflict: Conflict) {
        if let Some(live) = self.agents.get_mut(&agent) {
            live.conflict = Some(conflict);
        }
    }
}
