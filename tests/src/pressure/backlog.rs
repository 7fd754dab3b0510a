//! The backlog: agents that could not deliver for a week do so all at once, each batch as soon as the
//! one before was answered. The product's agent leaves 4 s between two.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::answers::{Answered, Answers};
use super::journals::{Content, Journal};
use crate::load::crowd::Crowd;
use crate::load::{Client, Process};

/// After a delivery that was refused or not answered; an agent waits for ten times as long.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Deliveries under way.
pub(super) struct Backlog {
    tasks: JoinSet<Result<Journal>>,
    answers: Answers,
    left: Arc<AtomicUsize>,
}

impl Backlog {
    /// Begins with so many agents of the crowd, each with so many records.
    pub(super) fn begin(crowd: &Crowd, agents: usize, records: u64) -> Result<Self> {
        let collector = crowd.collector()?.plan.dedicated[0];
        let answers = Answers::default();
        let mut tasks = JoinSet::new();
        let agents = crowd.agents.iter().take(agents);
        let left = Arc::new(AtomicUsize::new(agents.len()));
        for agent in agents {
            let (agent, answers, left) = (Arc::clone(agent), answers.clone(), Arc::clone(&left));
            tasks.spawn(async move {
                let mut journal = Journal::begin(Content::BusyDays(records));
                while journal.acknowledged < records {
                    let process = Arc::new(Process::begin());
                    if let Ok(client) = Client::open(&agent, collector, process).await {
                        empty(&client, &answers, &mut journal).await?;
                    } else {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                left.fetch_sub(1, Ordering::Relaxed);
                Ok(journal)
            });
        }
        Ok(Self { tasks, answers, left })
    }

    /// Agents that still have something to deliver.
    pub(super) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// Ends it once nobody has anything left.
    pub(super) async fn end(mut self) -> Result<(Vec<Journal>, Answered)> {
        ensure!(self.left() == 0, "{} agents still have records", self.left());
        let mut journals = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            journals.push(ended.context("a task of the backlog panicked")??);
        }
        Ok((journals, self.answers.so_far()))
    }
}

/// Delivers what is left over one connection, until that is of no use any more.
async fn empty(client: &Client, answers: &Answers, journal: &mut Journal) -> Result<()> {
    while let Some((delivery, last)) = journal.batch() {
        match answers.deliver(client, delivery, last).await? {
            Some(true) => journal.acknowledged = last,
            Some(false) => tokio::time::sleep(RETRY_PAUSE).await,
            None => break,
        }
    }
    Ok(())
}
