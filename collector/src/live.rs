//! The live fleet: one task owns it, and everyone else sends it what they have received. The
//! queue is bounded and a sender waits a bounded time, so that a flood is shed at the edge and
//! never builds up here. Nothing in this task waits for anything but its queue and its clock.

use std::sync::Arc;
use std::time::Duration;

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::goodbye::Goodbye;
use haidang_proto::model::report::Report;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::fleet::{AgencyTransition, Arrival, Fleet, GatewayCheck, ReportOutcome};
use crate::posture::{Exceptions, MachinePosture, Policies};
use crate::roster::Roster;
use crate::snapshot::{Conflict, Snapshot};

/// Messages that may wait: a tenth of a second's reports of a hundred thousand agents.
const QUEUE_MAX: usize = 4_096;
/// Messages that are taken before the clock is looked at again.
const BATCH_MAX: usize = 256;
/// How long a sender waits for room, and then for the answer.
const WAIT: Duration = Duration::from_secs(1);
/// Postures that may wait, and that are taken at a time. They have a queue of their own, so that
/// however many come, they take no report's place.
const POSTURES_MAX: usize = 256;
const POSTURE_BATCH_MAX: usize = 64;
/// Time between judgements and snapshots.
const TICK: Duration = Duration::from_secs(1);

enum Message {
    Report {
        agent: AgentId,
        report: Box<Report>,
        arrival: Arrival,
        reply: oneshot::Sender<ReportOutcome>,
    },
    Goodbye {
        agent: AgentId,
        goodbye: Goodbye,
    },
    Enrolled {
        agent: AgentId,
        agency: AgencyId,
        certificate_expiry: std::time::SystemTime,
    },
    Retired {
        agent: AgentId,
    },
    Blocked {
        agent: AgentId,
        conflict: Conflict,
    },
    Settled {
        agent: AgentId,
    },
    ReplaceRoster {
        roster: Arc<Roster>,
    },
    GatewaysToCheck {
        reply: oneshot::Sender<Vec<GatewayCheck>>,
    },
    GatewayChecked {
        check: GatewayCheck,
        answered: bool,
    },
    AnchorsChecked {
        answered: bool,
    },
    ReplaceExceptions {
        exceptions: Exceptions,
    },
    ReplacePolicies {
        policies: Arc<Policies>,
    },
}

/// The fleet's task is overloaded or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the fleet takes no more messages now")]
pub struct FleetBusy;

/// For everyone who has something for the fleet. Clones share it.
#[derive(Clone)]
pub struct Live {
    messages: mpsc::Sender<Message>,
    postures: mpsc::Sender<(AgentId, MachinePosture)>,
    roster: watch::Receiver<Arc<Roster>>,
    policies: watch::Receiver<Arc<Policies>>,
}

/// The task that owns the fleet.
pub struct LiveTask {
    fleet: Fleet,
    messages: mpsc::Receiver<Message>,
    postures: mpsc::Receiver<(AgentId, MachinePosture)>,
    roster: watch::Sender<Arc<Roster>>,
    policies: watch::Sender<Arc<Policies>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    transitions: mpsc::Sender<Vec<AgencyTransition>>,
    clock: Clock,
}

/// Sets up the fleet's task.
pub fn live(
    fleet: Fleet,
    transitions: mpsc::Sender<Vec<AgencyTransition>>,
    clock: Clock,
) -> (Live, LiveTask, watch::Receiver<Arc<Snapshot>>) {
    let (sender, messages) = mpsc::channel(QUEUE_MAX);
    let (postures_sender, postures) = mpsc::channel(POSTURES_MAX);
    let (roster, roster_in_force) = watch::channel(Arc::clone(fleet.roster()));
    let (policies, policies_in_force) = watch::channel(Arc::clone(fleet.policies()));
    let (snapshots, latest) = watch::channel(Arc::new(fleet.snapshot(clock.now())));
    let handle = Live {
        messages: sender,
        postures: postures_sender,
        roster: roster_in_force,
        policies: policies_in_force,
    };
    let task =
        LiveTask { fleet, messages, postures, roster, policies, snapshots, transitions, clock };
    (handle, task, latest)
}

impl Live {
    /// The roster in force.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    /// The policies in force.
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies.borrow())
    }

    /// Hands over a report of an authorized agent.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn report(
        &self,
        agent: AgentId,
        report: Report,
        arrival: Arrival,
    ) -> Result<ReportOutcome, FleetBusy> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Report { agent, report: Box::new(report), arrival, reply }).await?;
        within(answer).await
    }

    /// Hands over a clean stop.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn goodbye(&self, agent: AgentId, goodbye: Goodbye) -> Result<(), FleetBusy> {
        self.send(Message::Goodbye { agent, goodbye }).await
    }

    /// An agent was enrolled or its certificate renewed.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn enrolled(
        &self,
        agent: AgentId,
        agency: AgencyId,
        certificate_expiry: std::time::SystemTime,
    ) -> Result<(), FleetBusy> {
        self.send(Message::Enrolled { agent, agency, certificate_expiry }).await
    }

    /// An agent was revoked or superseded.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn retired(&self, agent: AgentId) -> Result<(), FleetBusy> {
        self.send(Message::Retired { agent }).await
    }

    /// An agent speaks from two machines.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn blocked(&self, agent: AgentId, conflict: Conflict) -> Result<(), FleetBusy> {
        self.send(Message::Blocked { agent, conflict }).await
    }

    /// An operator decided a conflict.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn settled(&self, agent: AgentId) -> Result<(), FleetBusy> {
        self.send(Message::Settled { agent }).await
    }

    /// Puts another roster in force.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn replace_roster(&self, roster: Arc<Roster>) -> Result<(), FleetBusy> {
        self.send(Message::ReplaceRoster { roster }).await
    }

    /// Gateways that are worth an echo now.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn gateways_to_check(&self) -> Result<Vec<GatewayCheck>, FleetBusy> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::GatewaysToCheck { reply }).await?;
        within(answer).await
    }

    /// The outcome of one echo.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn gateway_checked(
        &self,
        check: GatewayCheck,
        answered: bool,
    ) -> Result<(), FleetBusy> {
        self.send(Message::GatewayChecked { check, answered }).await
    }

    /// Whether any of the collector's own anchors answered.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn anchors_checked(&self, answered: bool) -> Result<(), FleetBusy> {
        self.send(Message::AnchorsChecked { answered }).await
    }

    /// Hands over what the store holds of a machine now.
    ///
    /// # Errors
    /// When the fleet is overloaded; the agent is to deliver again.
    pub async fn posture(&self, agent: AgentId, posture: MachinePosture) -> Result<(), FleetBusy> {
        self.postures.send_timeout((agent, posture), WAIT).await.map_err(|_| FleetBusy)
    }

    /// Puts other exceptions in force.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn replace_exceptions(&self, exceptions: Exceptions) -> Result<(), FleetBusy> {
        self.send(Message::ReplaceExceptions { exceptions }).await
    }

    /// Puts other policies in force.
    ///
    /// # Errors
    /// When the fleet is overloaded.
    pub async fn replace_policies(&self, policies: Policies) -> Result<(), FleetBusy> {
        self.send(Message::ReplacePolicies { policies: Arc::new(policies) }).await
    }

    async fn send(&self, message: Message) -> Result<(), FleetBusy> {
        self.messages.send_timeout(message, WAIT).await.map_err(|_| FleetBusy)
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let room = self.messages.capacity();
        f.debug_struct("Live").field("room", &room).finish_non_exhaustive()
    }
}

async fn within<T>(answer: oneshot::Receiver<T>) -> Result<T, FleetBusy> {
    tokio::time::timeout(WAIT, answer).await.map_err(|_| FleetBusy)?.map_err(|_| FleetBusy)
}

impl LiveTask {
    /// Folds until the stop signal.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut postures = Vec::with_capacity(POSTURE_BATCH_MAX);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => self.tick(),
                taken = self.messages.recv_many(&mut batch, BATCH_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    for message in batch.drain(..) {
                        self.take(message);
                    }
                }
                taken = self.postures.recv_many(&mut postures, POSTURE_BATCH_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    for (agent, posture) in postures.drain(..) {
                        self.fleet.posture(agent, posture);
                    }
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Report { agent, report, arrival, reply } => {
                let outcome = self.fleet.report(agent, *report, arrival, now);
                // A caller that gave up waiting is told nothing; its report counts all the same.
                let _ = reply.send(outcome);
            }
            Message::Goodbye { agent, goodbye } => self.fleet.goodbye(agent, goodbye),
            Message::Enrolled { agent, agency, certificate_expiry } => {
                self.fleet.enrolled(agent, agency, certificate_expiry);
            }
            Message::Retired { agent } => self.fleet.retired(agent),
            Message::Blocked { agent, conflict } => self.fleet.restore_conflict(agent, conflict),
            Message::Settled { agent } => self.fleet.settle_conflict(agent),
            Message::ReplaceRoster { roster } => {
                self.fleet.replace_roster(Arc::clone(&roster), now);
                self.roster.send_replace(roster);
            }
            Message::GatewaysToCheck { reply } => {
                let _ = reply.send(self.fleet.gateways_to_check(now));
            }
            Message::GatewayChecked { check, answered } => {
                self.fleet.gateway_checked(&check, answered, now);
            }
            Message::AnchorsChecked { answered } => self.fleet.anchors_checked(answered, now),
            Message::ReplaceExceptions { exceptions } => self.fleet.replace_exceptions(exceptions),
            Message::ReplacePolicies { policies } => {
                self.fleet.replace_policies(Arc::clone(&policies));
                self.policies.send_replace(policies);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        let transitions = self.fleet.tick(now);
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
        self.snapshots.send_replace(Arc::new(self.fleet.snapshot(now)));
    }
}

#[cfg(test)]
mod tests;
