//! Couriers: agents with a backlog, which deliver as much as a delivery takes, and one agent that
//! lives beside them and has a record now and then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use haidang_proto::model::record::{Delivery, RECORDS_MAX};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::kills::record;
use crate::load::{Client, percentile};

/// Records of one delivery: the most that is taken.
pub(super) const BATCH: usize = RECORDS_MAX;
/// From an acknowledgement to the next record of the agent that lives; the collector takes 20
/// requests a second of it.
const LONE_PAUSE: Duration = Duration::from_millis(100);
/// After a refusal because of the agent's rate.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// An agent with its journal.
#[derive(Debug)]
pub(super) struct Courier {
    client: Client,
    journal: Uuid,
    /// The number of its next record.
    next: u64,
}

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged {
    pub(super) records: usize,
    pub(super) elapsed: Duration,
    /// Of each delivery, shortest first.
    pub(super) latencies: Vec<Duration>,
    /// Deliveries that were put off because of the agent's rate.
    pub(super) refused: usize,
}

impl Acknowledged {
    pub(super) fn per_second(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }

    pub(super) fn p99_ms(&self) -> f64 {
        percentile(&self.latencies, 0.99).unwrap_or_default().as_secs_f64() * 1e3
    }
}

/// How deliveries follow one another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// Each when the one before was acknowledged.
    Full,
    /// So many records a second of all couriers together, whether or not the ones before were
    /// acknowledged in time: the wait is counted from when a delivery was due.
    RecordsPerSecond(usize),
}

/// When a courier's next delivery is due.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// So long after the one before was acknowledged.
    AfterAnswer(Duration),
    /// So long after the one before was due.
    AfterDue(Duration),
}

impl Courier {
    pub(super) fn new(client: Client) -> Self {
        Self { client, journal: Uuid::new_v4(), next: 1 }
    }

    /// Delivers the next records; `None` when that was put off.
    async fn deliver(&mut self, count: usize) -> Result<Option<()>> {
        let end = self.next + count as u64;
        let records = (self.next..end).map(|seq| record(seq, 1)).collect();
        let delivery = Delivery { journal_id: self.journal, first_seq: 1, records };
        match self.client.deliver(delivery).await {
            Ok(acknowledged) => {
                ensure!(acknowledged == end - 1, "only {acknowledged} is durable");
                self.next = end;
                Ok(Some(()))
            }
            Err(refusal) if refusal.code() == tonic::Code::ResourceExhausted => Ok(None),
            Err(refusal) => Err(refusal).context("deliver records"),
        }
    }

    async fn run(
        mut self,
        count: usize,
        mut due: Instant,
        end: Instant,
        next: Next,
    ) -> Result<(Self, Acknowledged)> {
        let mut done = Acknowledged::default();
        while due < end {
            tokio::time::sleep_until(due.into()).await;
            match self.deliver(count).await? {
                Some(()) => {
                    done.records += count;
                    done.latencies.push(due.elapsed());
                    due = match next {
                        Next::AfterAnswer(pause) => Instant::now() + pause,
                        Next::AfterDue(period) => due + period,
                    };
                }
                None => {
                    done.refused += 1;
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        }
        Ok((self, done))
    }
}

/// Has all deliver side by side, from the numbers on where they are.
pub(super) async fn deliver(
    couriers: &mut Vec<Courier>,
    duration: Duration,
    pace: Pace,
) -> Result<Acknowledged> {
    let n = couriers.len() as f64;
    let (next, spread) = match pace {
        Pace::Full => (Next::AfterAnswer(Duration::ZERO), Duration::ZERO),
        Pace::RecordsPerSecond(rate) => {
            let period = Duration::from_secs_f64(BATCH as f64 * n / rate as f64);
            // Spread over the period, as agents are.
            (Next::AfterDue(period), period)
        }
    };
    let mut under_way = JoinSet::new();
    let began = Instant::now();
    for (at, courier) in std::mem::take(couriers).into_iter().enumerate() {
        let phase = spread.mul_f64(at as f64 / n);
        under_way.spawn(courier.run(BATCH, began + phase, began + duration, next));
    }
    let mut all = Acknowledged::default();
    while let Some(ended) = under_way.join_next().await {
        let (courier, done) = ended.context("a courier panicked")??;
        couriers.push(courier);
        all.records += done.records;
        all.latencies.extend(done.latencies);
        all.refused += done.refused;
    }
    all.elapsed = began.elapsed();
    all.latencies.sort_unstable();
    Ok(all)
}

/// Has one deliver a record now and then.
pub(super) async fn lone(courier: Courier, duration: Duration) -> Result<Acknowledged> {
    let began = Instant::now();
    let next = Next::AfterAnswer(LONE_PAUSE);
    let (_, mut done) = courier.run(1, began, began + duration, next).await?;
    done.elapsed = began.elapsed();
    done.latencies.sort_unstable();
    Ok(done)
}
