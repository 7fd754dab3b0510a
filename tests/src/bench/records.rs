//! Durable records a second, and how long an acknowledgement takes. A delivery is acknowledged
//! when it is on the disk, so what counts here is what would survive a power cut. The floor is
//! SQLite alone in this process; the peer is Redis that syncs before it answers.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use haidang_proto::model::record::Delivery;
use rusqlite::Connection;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::redis::Redis;
use super::{Figure, Floor, Row};
use crate::kills::record;
use crate::load::{Client, World, percentile};

/// Records of one delivery: the most that is taken.
const BATCH: usize = 256;
/// At this rate the acknowledgement's time is asked for.
const PACED_RECORDS_PER_SECOND: usize = 50_000;
/// Rows of one transaction of the floor, as the store's groups.
const GROUP: usize = 1_024;
/// After a refusal because of the agent's rate.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
struct Acknowledged {
    records: usize,
    elapsed: Duration,
    latencies: Vec<Duration>,
    refused: usize,
}

impl Acknowledged {
    fn per_second(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }

    fn p99_ms(&self) -> f64 {
        percentile(&self.latencies, 0.99).unwrap_or_default().as_secs_f64() * 1e3
    }
}

/// Measures with each number of couriers.
///
/// # Errors
/// When a record is acknowledged that the store does not hold, or a program does not start.
pub async fn run(couriers: &[usize], duration: Duration) -> Result<Figure> {
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for n in couriers {
        let mut world = World::start(*n).await?;
        let clients: Vec<_> = world.connect().await?.into_iter().map(Arc::new).collect();
        let journals: Vec<_> = clients.iter().map(|_| Uuid::new_v4()).collect();
        let full = deliver(&clients, &journals, &vec![1; *n], duration, None).await?;
        let next: Vec<_> = full.next.clone();
        let paced = deliver(&clients, &journals, &next, duration, Some(BATCH)).await?;
        drop(clients);
        let directory = world.stop().await?;
        let acknowledged = full.done.records + paced.done.records;
        let (held, body_bytes) = held(&directory.path().join("collector/state/collector.db"))?;
        ensure!(held == acknowledged, "{acknowledged} were acknowledged and {held} are held");
        let floor = floor(directory.path(), body_bytes, duration)?;
        let redis = Redis::start(directory.path()).await?;
        let peer = redis.append(*n, BATCH, &vec![b'r'; body_bytes], duration).await?;
        let peer = Acknowledged {
            records: peer.records,
            elapsed: peer.elapsed,
            latencies: peer.latencies,
            refused: 0,
        };
        notes.push(format!(
            "{n} couriers: {held} records of {body_bytes} bytes held as acknowledged, {} \
             deliveries put off by the agents' rate limit, paced {:.0}/s",
            full.done.refused + paced.done.refused,
            paced.done.per_second()
        ));
        let row = |quantity, value, target, floor, peer| Row {
            quantity,
            n: *n,
            value,
            target,
            floor,
            peer: Some((peer, String::new())),
        };
        let measured = Floor::Measured(floor, "SQLite alone, the most");
        let unknown = Floor::Unknown;
        rows.extend([
            row(
                "durable records / s",
                full.done.per_second(),
                "≥ 50,000",
                measured,
                peer.per_second(),
            ),
            row(
                "p99 ms of an acknowledgement at full rate",
                full.done.p99_ms(),
                "–",
                unknown.clone(),
                peer.p99_ms(),
            ),
            row(
                "p99 ms at 50,000 records / s",
                paced.done.p99_ms(),
                "≤ 100",
                unknown,
                peer.p99_ms(),
            ),
        ]);
    }
    Ok(Figure {
        title: "Durable records",
        size: "couriers",
        peer: "Redis 7, appendfsync always, full rate",
        notes: format!(
            "Agents with a connection each deliver {BATCH} records at a time over mTLS, each \
             delivery after the one before was acknowledged; an agent may send 20 requests a \
             second in the long run and 200 at once. A record is a short outage, which is also \
             folded into the agency's outages. The rows were counted in the store afterwards. The \
             floor inserts bodies of the same length into one table, {GROUP} a transaction, WAL \
             and synchronous=FULL. The peer appends to a stream a client, over plain text. {}.",
            notes.join("; ")
        ),
        rows,
    })
}

struct Delivered {
    done: Acknowledged,
    /// Of each courier, the next record's number.
    next: Vec<u64>,
}

/// Delivers from the given numbers on; with a batch for the pace, all together at the paced rate.
async fn deliver(
    clients: &[Arc<Client>],
    journals: &[Uuid],
    first: &[u64],
    duration: Duration,
    pace: Option<usize>,
) -> Result<Delivered> {
    let period = pace.map(|batch| {
        Duration::from_secs_f64((batch * clients.len()) as f64 / PACED_RECORDS_PER_SECOND as f64)
    });
    let mut couriers = JoinSet::new();
    let began = Instant::now();
    for (at, client) in clients.iter().enumerate() {
        let (client, journal, first) = (Arc::clone(client), journals[at], first[at]);
        // Spread over the period, as agents are.
        let phase = period.unwrap_or_default().mul_f64(at as f64 / clients.len() as f64);
        couriers.spawn(async move {
            courier(&client, journal, first, began + phase, began + duration, period)
                .await
                .map(|done| (at, done))
        });
    }
    let mut all = Delivered { done: Acknowledged::default(), next: first.to_vec() };
    while let Some(done) = couriers.join_next().await {
        let (at, (next, done)) = done.context("a courier panicked")??;
        all.done.records += usize::try_from(next - first[at])?;
        all.done.latencies.extend(done.latencies);
        all.done.refused += done.refused;
        all.next[at] = next;
    }
    all.done.elapsed = began.elapsed();
    all.done.latencies.sort_unstable();
    Ok(all)
}

async fn courier(
    client: &Client,
    journal: Uuid,
    first: u64,
    mut due: Instant,
    end: Instant,
    period: Option<Duration>,
) -> Result<(u64, Acknowledged)> {
    let mut next = first;
    let mut done = Acknowledged::default();
    while Instant::now() < end {
        if let Some(period) = period {
            tokio::time::sleep_until(due.into()).await;
            due += period;
        }
        let records = (next..next + BATCH as u64).map(|seq| record(seq, 1)).collect();
        let sent = Instant::now();
        match client.deliver(Delivery { journal_id: journal, first_seq: 1, records }).await {
            Ok(acknowledged) => {
                ensure!(acknowledged == next + BATCH as u64 - 1, "only {acknowledged} is durable");
                done.latencies.push(sent.elapsed());
                next = acknowledged + 1;
            }
            Err(refusal) if refusal.code() == tonic::Code::ResourceExhausted => {
                done.refused += 1;
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            Err(refusal) => return Err(refusal).context("deliver records"),
        }
    }
    Ok((next, done))
}

/// Records in the store, and the mean length of their bodies.
fn held(store: &Path) -> Result<(usize, usize)> {
    let store = Connection::open(store).with_context(|| format!("open {}", store.display()))?;
    let sql = "SELECT count(*), CAST(avg(length(body)) AS INTEGER) FROM records";
    let (count, bytes): (i64, i64) =
        store.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((usize::try_from(count)?, usize::try_from(bytes)?))
}

/// Rows a second that SQLite makes durable with nothing around it.
fn floor(directory: &Path, body_bytes: usize, duration: Duration) -> Result<f64> {
    let mut store =
        Connection::open(directory.join("floor.db")).context("open the floor's file")?;
    store.pragma_update(None, "journal_mode", "wal")?;
    store.pragma_update(None, "synchronous", "full")?;
    store.execute_batch(
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT",
    )?;
    let body = "r".repeat(body_bytes);
    let began = Instant::now();
    let mut rows = 0;
    while began.elapsed() < duration {
        let transaction = store.transaction()?;
        for _ in 0..GROUP {
            transaction
                .prepare_cached("INSERT INTO records (body) VALUES (?1)")?
                .execute([&body])?;
        }
        transaction.commit()?;
        rows += GROUP;
    }
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}
