//! The posture flood: every agent sends its posture in full, the texts at their longest, ten times
//! as often as an agent delivers anything at its fastest, and strangers in the agencies ten times as
//! often as the collector takes anything of one identity.
//!
//! Three things bound posture. The checks are made every 270 s at the closest; an agent's
//! deliveries are 4 s apart; the collector takes 20 requests a second of an identity, reports among
//! them. Ten times the first would be one every 27 s; ten times the second, one every 400 ms, is
//! the strongest that leaves an agent's own reports within the third, so this is what every agent
//! sends beside its reports. Ten times the third can only come from identities that do not report:
//! what is beyond the limit is refused to the identity as a whole.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::answers::{Answered, Answers};
use super::journals::{Content, Journal};
use crate::load::crowd::Crowd;
use crate::load::{Client, LoadAgent, Process};

/// Ten times as often as the agent's deliveries, which are 4 s apart.
const AGENT_PERIOD: Duration = Duration::from_millis(400);
/// Requests of one stranger that are under way, the most that the collector takes of a connection.
const STRANGER_STREAMS: u32 = 8;
/// Ten times the collector's 20 a second, of all streams of a stranger together.
const STRANGER_PERIOD: Duration = Duration::from_millis(5).saturating_mul(STRANGER_STREAMS);
/// Before a connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// The flood while it lasts.
pub(super) struct Flood {
    tasks: JoinSet<Result<Journal>>,
    stop: CancellationToken,
    agents: Answers,
    strangers: Answers,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Flooded {
    pub(super) journals: Vec<Journal>,
    pub(super) agents: Answered,
    pub(super) strangers: Answered,
}

impl Flood {
    /// Begins it: all agents of the crowd, and these strangers.
    pub(super) fn begin(crowd: &Crowd, strangers: &[Arc<LoadAgent>]) -> Result<Self> {
        let collector = crowd.collector()?.plan.dedicated[0];
        let mut flood = Self {
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            agents: Answers::default(),
            strangers: Answers::default(),
        };
        let streams = (0..STRANGER_STREAMS).flat_map(|_| strangers);
        let strangers = streams.map(|agent| (agent, STRANGER_PERIOD, flood.strangers.clone()));
        let agents = crowd.agents.iter().map(|agent| (agent, AGENT_PERIOD, flood.agents.clone()));
        let all: Vec<_> = agents.chain(strangers).collect();
        let count = u32::try_from(all.len())?;
        for (number, (agent, period, answers)) in (0..).zip(all) {
            let agent = Arc::clone(agent);
            let (stop, phase) = (flood.stop.clone(), period * number / count);
            flood.tasks.spawn(async move {
                // What is under way is finished: a request that breaks off is no part of a flood.
                stop.run_until_cancelled(tokio::time::sleep(phase)).await;
                let mut journal = Journal::begin(Content::Snapshots);
                let mut beat = tokio::time::interval(period);
                beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !stop.is_cancelled() {
                    let process = Arc::new(Process::begin());
                    let Ok(client) = Client::open(&agent, collector, process).await else {
                        stop.run_until_cancelled(tokio::time::sleep(RECONNECT_PAUSE)).await;
                        continue;
                    };
                    while stop.run_until_cancelled(beat.tick()).await.is_some() {
                        let (delivery, last) = journal.batch().context("it has no end")?;
                        match answers.deliver(&client, delivery, last).await? {
                            Some(true) => journal.acknowledged = last,
                            Some(false) => {}
                            None => break,
                        }
                    }
                }
                Ok(journal)
            });
        }
        Ok(flood)
    }

    /// Ends it, once what is under way is answered.
    pub(super) async fn end(mut self) -> Result<Flooded> {
        self.stop.cancel();
        let mut journals = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            journals.push(ended.context("a task of the flood panicked")??);
        }
        Ok(Flooded { journals, agents: self.agents.so_far(), strangers: self.strangers.so_far() })
    }
}
