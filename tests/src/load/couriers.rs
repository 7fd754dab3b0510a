//! Couriers beside a crowd: they deliver records one batch after the other, whatever is done to the
//! collector meanwhile, and at the end every record is looked for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::crowd::Crowd;
use crate::dice::Dice;
use crate::kills::audit::Audit;
use crate::kills::courier::{Courier, Delivered, Progress};
use crate::wait;

/// Couriers at work.
pub(crate) struct Couriers {
    progress: Vec<Arc<Progress>>,
    tasks: JoinSet<Result<Delivered>>,
    stop: CancellationToken,
}

impl Couriers {
    /// Starts one for each identity that the crowd has for them. They rest for so long between an
    /// acknowledgement and the next delivery.
    pub(crate) fn start(crowd: &Crowd, rest: Duration) -> Result<Self> {
        let collector = crowd.collector()?.plan.dedicated[0];
        let (mut progress, mut tasks) = (Vec::new(), JoinSet::new());
        let stop = CancellationToken::new();
        for (number, agent) in (0..).zip(&crowd.couriers) {
            let courier = Courier::new(agent.tls()?, collector, Uuid::new_v4()).resting(rest);
            progress.push(courier.progress());
            tasks.spawn(courier.run(Dice(number), stop.clone()));
        }
        Ok(Self { progress, tasks, stop })
    }

    /// Records that are acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.progress.iter().map(|one| one.acknowledged.load(Ordering::Relaxed)).sum()
    }

    /// The longest wait for an acknowledgement since this was asked last.
    pub(crate) fn slowest(&self) -> Duration {
        let longest = self.progress.iter().map(|one| one.slowest_us.swap(0, Ordering::Relaxed));
        Duration::from_micros(longest.max().unwrap_or(0))
    }

    /// Waits until more than so many records are acknowledged.
    pub(crate) async fn more(&self, than: u64, deadline: Duration) -> Result<()> {
        wait::until("more acknowledgements", deadline, || {
            let now = self.acknowledged();
            std::future::ready(if now > than { Ok(()) } else { Err(now.to_string()) })
        })
        .await?;
        Ok(())
    }

    /// Has them deliver what they have left, ends the crowd and looks for every record. From
    /// connected no agency may have come to another state but these. Answers how many records there
    /// are.
    pub(crate) async fn end(mut self, crowd: Crowd, states: &[&str]) -> Result<u64> {
        self.stop.cancel();
        let mut delivered = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            delivered.push(ended.context("a courier panicked")??);
        }
        let (collector, _place) = crowd.end().await?;
        let store = collector.directory.join("state/collector.db");
        let audit = Audit::open(&store)?;
        let mut records = 0;
        for courier in &delivered {
            audit.courier(courier)?;
            records += courier.written.len() as u64;
        }
        no_other_state(&store, states)?;
        Ok(records)
    }
}

/// From connected no agency came to another state but these, by the history that the collector wrote.
pub(crate) fn no_other_state(store: &Path, states: &[&str]) -> Result<()> {
    let store = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT DISTINCT to_state FROM agency_transitions WHERE from_state = 'connected'";
    let mut statement = store.prepare(sql)?;
    let found = statement.query_map([], |row| row.get(0))?;
    let found: Vec<String> = found.collect::<Result<_, _>>()?;
    ensure!(
        found.iter().all(|state| states.contains(&state.as_str())),
        "agencies were connected and then {found:?}"
    );
    Ok(())
}
