//! The sets of tasks, and the small tasks that keep the collector in order.

use std::future::Future;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::fleet::AgencyTransition;
use crate::import::{Files, Imported, Importer};
use crate::metrics::CollectorMetrics;
use crate::snapshot::Snapshot;
use crate::store::{Seen, Store, StoreError};
use std::sync::Arc;

/// Transitions kept while the store is down: several for each agency of the nation.
const TRANSITIONS_MAX: usize = 65_536;
/// Wait before the store is tried again.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// Time between checkpoints of when agents were seen.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(30);
/// While the store is down, a checkpoint is tried this often: it shows that the store is back.
const RETRY_PERIOD: Duration = Duration::from_secs(5);
/// Time between prunings.
const PRUNE_PERIOD: Duration = Duration::from_secs(3_600);
/// How much history one of them drops at most: in an hour as much as a day brings, so that a clock
/// that is a year ahead costs days and not the year, until somebody has set it right.
const PRUNE_SPAN_MAX: Duration = Duration::from_secs(86_400);
/// A step of the wall clock that is worth a line.
const CLOCK_STEP_SECONDS_MIN: f64 = 60.0;

/// Tasks with names. None of them may end before it is told to.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<&'static str>,
}

impl Tasks {
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.set.spawn(async move {
            task.await;
            name
        });
    }

    pub(super) fn spawn_blocking(
        &mut self,
        name: &'static str,
        task: impl FnOnce() + Send + 'static,
    ) {
        self.set.spawn_blocking(move || {
            task();
            name
        });
    }

    /// Waits for a task that ends although it should not.
    pub(super) async fn first_to_end(&mut self) -> anyhow::Error {
        match self.set.join_next().await {
            Some(Ok(name)) => anyhow!("the {name} task ended by itself"),
            Some(Err(panic)) => anyhow::Error::new(panic).context("a task panicked"),
            None => anyhow!("there is no task"),
        }
    }

    /// Waits for all tasks, which have been told to end, and ends those that do not.
    pub(super) async fn drain(mut self, grace: Duration) {
        let all = async {
            while let Some(ended) = self.set.join_next().await {
                if let Err(panic) = ended {
                    tracing::error!(%panic, "a task panicked");
                }
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(tasks = self.set.len(), "tasks had to be ended");
            self.set.abort_all();
        }
    }
}

/// Keeps transitions in the store. Ends when the fleet's task has ended and all are kept, or
/// cannot be.
pub(super) async fn history(store: Store, mut batches: mpsc::Receiver<Vec<AgencyTransition>>) {
    let mut waiting: Vec<AgencyTransition> = Vec::new();
    loop {
        let more = match waiting.is_empty() {
            true => batches.recv().await,
            false => tokio::select! {
                batch = batches.recv() => batch,
                () = tokio::time::sleep(STORE_PAUSE) => Some(Vec::new()),
            },
        };
        let closed = more.is_none();
        waiting.extend(more.unwrap_or_default());
        let surplus = waiting.len().saturating_sub(TRANSITIONS_MAX);
        if surplus > 0 {
            tracing::error!(surplus, "transitions are lost: the store has been down too long");
            waiting.drain(..surplus);
        }
        if !waiting.is_empty() {
            match store.append_transitions(waiting.clone()).await {
                Ok(()) => waiting.clear(),
                Err(error) => tracing::warn!(%error, waiting = waiting.len(), "transitions wait"),
            }
        }
        if closed {
            if !waiting.is_empty() {
                tracing::error!(lost = waiting.len(), "transitions could not be kept");
            }
            return;
        }
    }
}

/// Shows once a second how the store and the clock fare.
pub(super) async fn vitals(
    store: Store,
    metrics: CollectorMetrics,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut second = every(Duration::from_secs(1));
    let (mut step_told, mut was_up) = (0.0, true);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = second.tick() => {}
        }
        let health = store.health();
        match health.up {
            true => metrics.store_written(health.lag),
            false => metrics.store_failed(health.lag),
        }
        if health.up != was_up {
            was_up = health.up;
            match was_up {
                true => tracing::info!("the store takes what is written again"),
                false => tracing::error!(
                    lag_seconds = health.lag.as_secs(),
                    "the store takes nothing: states go on, agents keep their records; see the \
                     runbook StoreUnavailable"
                ),
            }
        }
        let step_seconds = clock.step_seconds();
        metrics.clock_stepped(step_seconds);
        if (step_seconds - step_told).abs() > CLOCK_STEP_SECONDS_MIN {
            step_told = step_seconds;
            tracing::warn!(
                step_seconds,
                "the clock was stepped: certificates are judged and records dated by it; see timedatectl"
            );
        }
    }
}

/// Keeps in the store when agents were last seen, and drops what is too old.
pub(super) struct Keeper {
    pub(super) store: Store,
    pub(super) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(super) history_age_max: Duration,
    pub(super) clock: Clock,
}

impl Keeper {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut round = every(RETRY_PERIOD);
        let (mut since_checkpoint, mut since_prune) = (Duration::ZERO, PRUNE_PERIOD);
        let mut kept_until = SystemTime::UNIX_EPOCH;
        // Set while a pruning is under way.
        let mut horizon = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = round.tick() => {}
            }
            since_checkpoint += RETRY_PERIOD;
            since_prune += RETRY_PERIOD;
            if since_checkpoint >= CHECKPOINT_PERIOD || !self.store.health().up {
                since_checkpoint = Duration::ZERO;
                self.checkpoint(&mut kept_until).await;
            }
            if since_prune >= PRUNE_PERIOD {
                match self.prune(&mut horizon).await {
                    Ok(true) => {}
                    Ok(false) => (since_prune, horizon) = (Duration::ZERO, None),
                    Err(error) => tracing::debug!(%error, "nothing was pruned"),
                }
            }
        }
        self.checkpoint(&mut kept_until).await;
    }

    /// Drops some of what is too old; whether there may be more.
    async fn prune(&self, horizon: &mut Option<SystemTime>) -> Result<bool, StoreError> {
        let until = match *horizon {
            Some(until) => until,
            None => {
                let oldest = self.store.oldest_record().await?;
                *horizon.insert(prune_until(self.clock.now().wall, self.history_age_max, oldest))
            }
        };
        self.store.prune(until).await
    }

    async fn checkpoint(&self, kept_until: &mut SystemTime) {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let news_since = news_since(*kept_until, snapshot.taken_at);
        let seen: Vec<Seen> = snapshot
            .agents
            .iter()
            .filter_map(|view| {
                let last_heard = view.last_heard.filter(|heard| *heard >= news_since)?;
                Some(Seen { agent: view.agent, last_heard, last_verified: view.last_verified })
            })
            .collect();
        match self.store.checkpoint(seen).await {
            Ok(()) => *kept_until = snapshot.taken_at,
            Err(error) => tracing::debug!(%error, "no checkpoint was made"),
        }
    }
}

/// Since when what was heard is not kept yet. When the clock was set back, nothing would be new for
/// as long as it had been ahead: all of it counts then.
fn news_since(kept_until: SystemTime, now: SystemTime) -> SystemTime {
    if now < kept_until { SystemTime::UNIX_EPOCH } else { kept_until }
}

/// Before when history is dropped: `age_max` ago, but not more of it than a day at a time.
fn prune_until(now: SystemTime, age_max: Duration, oldest: Option<SystemTime>) -> SystemTime {
    let until = now.checked_sub(age_max).unwrap_or(SystemTime::UNIX_EPOCH);
    oldest.map_or(until, |oldest| until.min(oldest + PRUNE_SPAN_MAX))
}

/// Reads the roster's files again whenever it is asked to.
pub(super) async fn reload(
    config: Config,
    importer: Importer,
    mut asked: mpsc::Receiver<()>,
    clock: Clock,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = asked.recv() => {}
            // Nobody can ask any more: this is no reason to stop.
            else => return stop.cancelled().await,
        }
        let outcome = reload_once(&config, &importer, clock.now().wall).await;
        match outcome {
            Ok(Imported::Same) => tracing::info!("the roster's files have not changed"),
            Ok(Imported::InForce(_)) => {}
            Ok(Imported::Unconfirmed { diff, .. }) => tracing::warn!(
                removed = diff.removed.len(),
                "the roster's file removes agencies; agree by haidang-collector roster import"
            ),
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "the roster's files are refused; the old roster stays in force"
            ),
        }
    }
}

async fn reload_once(
    config: &Config,
    importer: &Importer,
    at: SystemTime,
) -> anyhow::Result<Imported> {
    let files = Files::read(config)?;
    importer.import(files, None, "file", at).await.context("cannot import the roster")
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_what_is_heard_from_being_kept() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let before = now - Duration::from_secs(30);
        assert_eq!(news_since(before, now), before);
        let year_ahead = now + Duration::from_secs(365 * 86_400);
        assert_eq!(news_since(year_ahead, now), SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn a_clock_that_is_ahead_drops_a_day_at_a_time() {
        let day = Duration::from_secs(86_400);
        let now = SystemTime::UNIX_EPOCH + day * 20_000;
        let until = |now, oldest| prune_until(now, day * 730, oldest);
        assert_eq!(until(now, None), now - day * 730);
        assert_eq!(until(now, Some(now - day * 300)), now - day * 730, "nothing is as old");
        let oldest = now - day * 730 - day / 24;
        assert_eq!(until(now, Some(oldest)), now - day * 730, "an hour's worth, each hour");
        assert_eq!(until(now + day * 365, Some(oldest)), oldest + day);
        assert!(until(SystemTime::UNIX_EPOCH, Some(oldest)) <= SystemTime::UNIX_EPOCH, "nothing");
    }
}
