//! A collector and a crowd of simulated agents that live: they report on their beat, and come back
//! by the agent's own rules when the collector was away. What happens to each is noted with its
//! moment, and the states that the collector shows are compared with those that must be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fleet::{self, LoadAgent};
use super::life::Life;
use crate::collector::{Collector, CollectorPlan, Tempo};
use crate::dice::Dice;
use crate::exposition::Exposition;
use crate::process_fault;
use crate::program::Program;
use crate::wait;

/// States of an agency whose agents are heard over the dedicated network; on cores that a test
/// keeps busy the path itself is simulated, and always good.
const HEARD: &str = "connected";
/// Agents that are begun a second: the listener admits handshakes at a bounded rate.
const BEGUN_PER_SECOND: usize = 500;
/// Until every agent was heard, beyond the time in which they are begun.
const GATHER_TIMEOUT: Duration = Duration::from_secs(90);
/// Of agents that are missing, so many are named with what befell them.
const MISSING_TOLD_MAX: usize = 5;

/// A crowd to gather.
#[derive(Debug, Clone, Copy)]
pub struct CrowdPlan {
    /// How many agents, spread over the agencies of the shipped roster.
    pub agents: usize,
    /// Identities beside them for whoever delivers without living: the collector takes so many
    /// requests a second of each.
    pub couriers: usize,
    /// How often they report.
    pub tempo: Tempo,
}

/// A collector with its crowd.
pub struct Crowd {
    /// The collector. Whoever takes it away brings one back.
    pub collector: Option<Collector>,
    pub(crate) agents: Vec<Arc<LoadAgent>>,
    pub(crate) couriers: Vec<Arc<LoadAgent>>,
    log: Log,
    lives: JoinSet<Result<()>>,
    stop: CancellationToken,
    directory: TempDir,
}

/// What happened to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It begins to connect.
    Connects,
    /// It could not.
    NotConnected,
    /// Its report was taken, and how long that took.
    Heard {
        /// From sending to the answer.
        after: Duration,
    },
    /// Its report was refused, with a reason.
    Refused,
    /// Its report was not answered: the connection is of no use any more.
    NotHeard,
}

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
pub struct Happening {
    /// When.
    pub at: Instant,
    /// To whom.
    pub agent: usize,
    /// What.
    pub what: What,
}

/// Everything that happened. Locked for a note or a copy, never across a wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Happenings>>);

#[derive(Debug, Default)]
struct Happenings {
    all: Vec<Happening>,
    /// Of each agent, the last one of all and when it was last heard.
    last: BTreeMap<usize, (Happening, Option<Instant>)>,
}

impl Log {
    pub(super) fn note(&self, agent: usize, what: What) {
        let mut happenings = self.lock();
        // Taken under the lock: they stand in order.
        let happening = Happening { at: Instant::now(), agent, what };
        happenings.all.push(happening);
        let (last, heard) = happenings.last.entry(agent).or_insert((happening, None));
        *last = happening;
        if matches!(what, What::Heard { .. }) {
            *heard = Some(happening.at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Happenings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of so many agents were heard after a moment; or who of them was not, and what befell
    /// some of those last.
    fn heard_since(&self, moment: Instant, agents: usize) -> Result<(), String> {
        let happenings = self.lock();
        let is_missing = |agent: &usize| {
            let last = happenings.last.get(agent);
            last.and_then(|(_, heard)| *heard).is_none_or(|heard| heard < moment)
        };
        let missing: Vec<_> = (0..agents).filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let told = |agent: &usize| match happenings.last.get(agent) {
            Some((Happening { at, what, .. }, _)) => {
                format!("agent {agent}: {what:?} {:.1} s ago", at.elapsed().as_secs_f64())
            }
            None => format!("agent {agent}: not begun"),
        };
        let told: Vec<_> = missing.iter().take(MISSING_TOLD_MAX).map(told).collect();
        Err(format!("{} of {agents} were heard; {}", agents - missing.len(), told.join(", ")))
    }
}

impl Crowd {
    /// Starts the collector and the agents, and waits until each was heard. `prepare` is given the
    /// collector's directory before anything is in it.
    ///
    /// # Errors
    /// When something does not start, or an agent is not heard in time.
    pub async fn gather(
        plan: CrowdPlan,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let collector = CollectorPlan { tempo: plan.tempo, ..super::collector_plan(&directory)? };
        prepare(&collector.directory)?;
        collector.write_config()?;
        let count = plan.agents + plan.couriers;
        let mut agents: Vec<_> = fleet::enrol(&collector.config_path(), count).await?;
        let couriers = agents.split_off(plan.agents);
        let collector = Collector::start_again(collector).await?;
        let mut crowd = Self {
            agents: agents.into_iter().map(Arc::new).collect(),
            couriers: couriers.into_iter().map(Arc::new).collect(),
            log: Log::default(),
            lives: JoinSet::new(),
            stop: CancellationToken::new(),
            directory,
            collector: Some(collector),
        };
        let address = crowd.collector()?.plan.dedicated[0];
        for (number, agent) in crowd.agents.iter().enumerate() {
            let life = Life {
                number,
                agent: Arc::clone(agent),
                collector: address,
                interval: plan.tempo.report_interval(),
                begins_after: Duration::from_secs(1) * u32::try_from(number)?
                    / u32::try_from(BEGUN_PER_SECOND)?,
                log: crowd.log.clone(),
                dice: Dice(number as u64),
            };
            crowd.lives.spawn(life.live(crowd.stop.clone()));
        }
        let begun = Duration::from_secs((plan.agents / BEGUN_PER_SECOND) as u64);
        crowd.heard_since(Instant::now(), begun + GATHER_TIMEOUT).await?;
        crowd.all_connected(GATHER_TIMEOUT).await?;
        Ok(crowd)
    }

    /// The collector.
    ///
    /// # Errors
    /// While it is taken away.
    pub fn collector(&self) -> Result<&Collector> {
        self.collector.as_ref().context("the collector is away")
    }

    /// Where everything is kept.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills the collector and starts it again, after so long.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn restart_after(&mut self, away: Duration) -> Result<()> {
        let plan = self.collector.take().context("the collector is away")?.kill();
        tokio::time::sleep(away).await;
        self.collector = Some(Collector::start_again(plan).await?);
        Ok(())
    }

    /// The same, with a wall clock that follows a file, see [`process_fault`].
    ///
    /// # Errors
    /// When libfaketime is missing, or the collector is not ready in time.
    pub async fn restart_under(&mut self, clock: &Path, seconds: i64) -> Result<()> {
        let plan = self.collector.take().context("the collector is away")?.kill();
        let mut command = plan.command(&["serve"]);
        for variable in process_fault::stepped_by(clock)? {
            let (name, value) = variable.split_once('=').context("a variable has a value")?;
            command.env(name, value);
        }
        process_fault::step(clock, seconds)?;
        let process = Program::start("collector", &mut command, &plan.directory)?;
        self.collector = Some(Collector::adopt(plan, process).await?);
        Ok(())
    }

    /// What happened since a moment, in order.
    pub fn since(&self, moment: Instant) -> Vec<Happening> {
        let happenings = self.log.lock();
        let after = happenings.all.iter().rev().take_while(|happening| happening.at >= moment);
        let mut after: Vec<_> = after.copied().collect();
        after.reverse();
        after
    }

    /// Waits until every agent was heard after a moment.
    ///
    /// # Errors
    /// When one is not in time.
    pub async fn heard_since(&self, moment: Instant, deadline: Duration) -> Result<()> {
        wait::until("every agent's report", deadline, || {
            std::future::ready(self.log.heard_since(moment, self.agents.len()))
        })
        .await?;
        Ok(())
    }

    /// Waits until every agency that has an agent is connected.
    ///
    /// # Errors
    /// When one is not in time.
    pub async fn all_connected(&self, deadline: Duration) -> Result<()> {
        wait::until("every agency connected", deadline, || async {
            let metrics = self.collector().map_err(|error| error.to_string())?.metrics().await;
            let metrics = metrics.map_err(|error| format!("{error:#}"))?;
            self.check_states(&metrics).map_err(|error| error.to_string())
        })
        .await?;
        Ok(())
    }

    /// Every agency that has an agent is connected, and no other one is anything.
    ///
    /// # Errors
    /// With the states and how many agencies are in each.
    pub fn check_states(&self, metrics: &Exposition) -> Result<()> {
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        for sample in metrics.find("haidang_agency_state", &[]).filter(|one| one.value == 1.0) {
            let state = sample.labels.get("state").context("a state has its name")?;
            *states.entry(state).or_default() += 1;
        }
        let agencies = self.agents.len().min(fleet::agencies()?.len());
        let others = states.keys().any(|state| ![HEARD, "not_enrolled"].contains(state));
        ensure!(
            states.get(HEARD) == Some(&agencies) && !others,
            "{agencies} agencies should be {HEARD}: {states:?}"
        );
        Ok(())
    }

    /// Stops agents and collector; what the collector has written stays until this is dropped.
    ///
    /// # Errors
    /// When the collector does not stop cleanly, or an agent's life has failed.
    pub async fn end(mut self) -> Result<(CollectorPlan, TempDir)> {
        self.stop.cancel();
        while let Some(life) = self.lives.join_next().await {
            life.context("a life panicked")??;
        }
        let collector = self.collector.take().context("the collector is away")?;
        Ok((collector.stop().await?, self.directory))
    }
}
