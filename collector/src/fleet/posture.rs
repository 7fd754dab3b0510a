//! The fleet's side of posture: what is held of each machine, and what is accepted and asked of
//! each agency. Nothing here touches a state: how secure a machine is says nothing about its path.

use std::sync::Arc;

use haidang_proto::model::agency::AgentId;

use crate::posture::{
    AgencyPosture, Enrolled, Exceptions, MachineFigures, MachinePosture, Policies, agency_posture,
};
use crate::snapshot::MachineView;

use super::agent::Agent;
use super::{Fleet, Now, view};

impl Fleet {
    /// What is held of a machine, after a delivery or from before this process started. An earlier
    /// one than is held changes nothing; nor does one of an agent that is not enrolled any more.
    pub fn posture(&mut self, agent: AgentId, posture: MachinePosture) {
        let Some(live) = self.agents.get_mut(&agent) else { return };
        if live.posture.is_none_or(|held| held.order < posture.order) {
            live.posture = Some(posture);
        }
    }

    /// Puts other exceptions in force.
    pub fn replace_exceptions(&mut self, exceptions: Exceptions) {
        self.exceptions = Arc::new(exceptions);
    }

    /// Puts other policies in force.
    pub fn replace_policies(&mut self, policies: Arc<Policies>) {
        self.policies = policies;
    }

    /// The policies in force.
    pub const fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    pub(super) fn agency_posture(&self, row: usize, agents: &[&Agent], now: Now) -> AgencyPosture {
        let machines = agents.iter().map(|agent| enrolled(self, agent, now));
        let policy = self.policies.of(&self.roster.agencies()[row].id);
        agency_posture(machines, policy, now.wall)
    }

    pub(super) fn machine_view(&self, agent: &Agent, now: Now) -> MachineView {
        MachineView {
            figures: MachineFigures::of(
                enrolled(self, agent, now),
                self.policies.of(&agent.agency),
                now.wall,
            ),
            held: agent.posture,
        }
    }
}

/// An identity that speaks from two machines says nothing about either.
fn enrolled<'a>(fleet: &Fleet, agent: &'a Agent, now: Now) -> Enrolled<'a> {
    Enrolled {
        posture: agent.posture.as_ref().filter(|_| agent.conflict.is_none()),
        is_live: view::is_fresh(fleet, agent, now),
    }
}
