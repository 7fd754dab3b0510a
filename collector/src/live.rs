//! The live fleet: the fold behind a lock, and the task that judges it once a second.
//!
//! Who has received something folds it in. A fold takes a microsecond; to hand it to a task that
//! owns the fleet, and to wait for the answer, took several times as long as the report itself. What
//! takes longer is judged and shown by one task, for all agencies at once, and readers see only the
//! snapshot that it leaves behind. Nothing waits for anything else while it holds the lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::goodbye::Goodbye;
use haidang_proto::model::report::Report;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::fleet::{AgencyTransition, Arrival, Fleet, GatewayCheck, ReportOutcome};
use crate::posture::{Exceptions, MachinePosture, Policies};
use crate::roster::Roster;
use crate::snapshot::{Conflict, Snapshot};

/// Time between judgements and snapshots.
const TICK: Duration = Duration::from_secs(1);

/// For everyone who has something for the fleet. Clones share it.
#[derive(Clone)]
pub struct Live {
    // Held for one fold, or for the second's judgement.
    fleet: Arc<Mutex<Fleet>>,
    clock: Clock,
}

/// The task that judges the fleet.
pub struct LiveTask {
    live: Live,
    snapshots: watch::Sender<Arc<Snapshot>>,
    transitions: mpsc::Sender<Vec<AgencyTransition>>,
}

/// Sets up the fleet and its task.
pub fn live(
    fleet: Fleet,
    transitions: mpsc::Sender<Vec<AgencyTransition>>,
    clock: Clock,
) -> (Live, LiveTask, watch::Receiver<Arc<Snapshot>>) {
    let (snapshots, latest) = watch::channel(Arc::new(fleet.snapshot(clock.now())));
    let live = Live { fleet: Arc::new(Mutex::new(fleet)), clock };
    let task = LiveTask { live: live.clone(), snapshots, transitions };
    (live, task, latest)
}

impl Live {
    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The roster in force.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(self.fleet().roster())
    }

    /// The policies in force.
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(self.fleet().policies())
    }

    /// Folds in a report of an authorized agent.
    pub fn report(&self, agent: AgentId, report: Report, arrival: Arrival) -> ReportOutcome {
        self.fleet().report(agent, report, arrival, self.clock.now())
    }

    /// Folds in a clean stop.
    pub fn goodbye(&self, agent: AgentId, goodbye: Goodbye) {
        self.fleet().goodbye(agent, goodbye);
    }

    /// An agent was enrolled or its certificate renewed.
    pub fn enrolled(&self, agent: AgentId, agency: AgencyId, certificate_expiry: SystemTime) {
        self.fleet().enrolled(agent, agency, certificate_expiry);
    }

    /// An agent was revoked or superseded.
    pub fn retired(&self, agent: AgentId) {
        self.fleet().retired(agent);
    }

    /// An agent speaks from two machines.
    pub fn blocked(&self, agent: AgentId, conflict: Conflict) {
        self.fleet().restore_conflict(agent, conflict);
    }

    /// An operator decided a conflict.
    pub fn settled(&self, agent: AgentId) {
        self.fleet().settle_conflict(agent);
    }

    /// Puts another roster in force.
    pub fn replace_roster(&self, roster: Arc<Roster>) {
        self.fleet().replace_roster(roster, self.clock.now());
    }

    /// Gateways that are worth an echo now.
    pub fn gateways_to_check(&self) -> Vec<GatewayCheck> {
        self.fleet().gateways_to_check(self.clock.now())
    }

    /// The outcome of one echo.
    pub fn gateway_checked(&self, check: &GatewayCheck, answered: bool) {
        self.fleet().gateway_checked(check, answered, self.clock.now());
    }

    /// Whether any of the collector's own anchors answered.
    pub fn anchors_checked(&self, answered: bool) {
        self.fleet().anchors_checked(answered, self.clock.now());
    }

    /// What the store holds of a machine now.
    pub fn posture(&self, agent: AgentId, posture: MachinePosture) {
        self.fleet().posture(agent, posture);
    }

    /// Puts other exceptions in force.
    pub fn replace_exceptions(&self, exceptions: Exceptions) {
        self.fleet().replace_exceptions(exceptions);
    }

    /// Puts other policies in force.
    pub fn replace_policies(&self, policies: Policies) {
        self.fleet().replace_policies(Arc::new(policies));
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl LiveTask {
    /// Judges once a second, until the stop signal.
    pub async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if self.live.fleet.is_poisoned() {
                // A task that ends by itself stops the process: a fresh start is worth more.
                tracing::error!("a fold broke off in the middle: the fleet is not to be believed");
                return;
            }
            self.tick();
        }
    }

    fn tick(&self) {
        let (transitions, snapshot) = {
            let mut fleet = self.live.fleet();
            let now = self.live.clock.now();
            (fleet.tick(now), fleet.snapshot(now))
        };
        for transition in &transitions {
            let AgencyTransition { agency, from, to, .. } = transition;
            let (from, detail) = (from.as_str(), to.detail());
            tracing::info!(%agency, from, to = to.as_str(), detail, "an agency changed its state");
        }
        if !transitions.is_empty() {
            let count = transitions.len();
            if self.transitions.try_send(transitions).is_err() {
                tracing::error!(count, "transitions are lost: the store has been down too long");
            }
        }
        self.snapshots.send_replace(Arc::new(snapshot));
    }
}

#[cfg(test)]
mod tests;
