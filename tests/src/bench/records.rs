//! Durable records a second, and how long an acknowledgement takes. A delivery is acknowledged
//! when it is on the disk, so what counts here is what would survive a power cut. The floor is
//! SQLite alone in this process; the peer is Redis that syncs before it answers.

mod couriers;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use self::couriers::{Acknowledged, BATCH, Courier, Pace, deliver, lone};
use super::redis::{Appended, Redis};
use super::{Figure, Floor, Row};
use crate::cost::Cost;
use crate::load::{World, percentile};
use crate::target::Target;

/// At this rate the acknowledgement's time is asked for.
const PACED_RECORDS_PER_SECOND: usize = 50_000;
/// Rows of one transaction of the floor, as the store's groups.
const GROUP: usize = 1_024;

/// What came of one number of couriers.
struct Measured {
    full: Acknowledged,
    /// Of the agent that lives, meanwhile.
    lone: Acknowledged,
    /// Processor seconds for a million records, of the collector and of the clients.
    cpu: [f64; 2],
    paced: Acknowledged,
    /// Records in the store, and the mean length of their bodies.
    held: (usize, usize),
    /// SQLite's rows a second, and its processor seconds for a million.
    floor: [f64; 2],
    peer: Appended,
}

/// Measures with each number of couriers.
///
/// # Errors
/// When a record is acknowledged that the store does not hold, or a program does not start.
pub async fn run(couriers: &[usize], duration: Duration) -> Result<Figure> {
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for n in couriers {
        let measured = measure(*n, duration).await?;
        notes.push(measured.note(*n));
        rows.extend(measured.rows(*n));
    }
    Ok(Figure {
        title: "Durable records",
        size: "couriers",
        peer: "Redis 7, appendfsync always, full rate",
        notes: format!(
            "Agents with a connection each deliver {BATCH} records at a time over mTLS. At full rate \
             each delivery follows when the one before was acknowledged: all couriers' deliveries \
             are then under way all the time, and the wait is their number over the rate, which is \
             given as the floor. Beside them one agent delivers a single record, and the \
             next one 100 ms after its acknowledgement. At \
             {PACED_RECORDS_PER_SECOND}/s each courier has its turn, and the wait is counted from \
             when a delivery was due. An agent may send 20 requests a second in the long run and \
             200 at once. A record is a short outage, which is also folded into the agency's \
             outages. The rows were counted in the store afterwards. The floor inserts bodies of \
             the same length into one table, {GROUP} a transaction, WAL and synchronous=FULL. The \
             peer appends to a stream a client, over plain text, and folds nothing. The clients \
             share the processors. {}.",
            notes.join("; ")
        ),
        rows,
    })
}

async fn measure(n: usize, duration: Duration) -> Result<Measured> {
    let mut world = World::start(n + 1).await?;
    let collector = world.pid();
    let mut couriers: Vec<_> = world.connect().await?.into_iter().map(Courier::new).collect();
    let alive = couriers.pop().context("one more was connected")?;
    let clients = std::process::id();
    let before = [Cost::of(collector)?, Cost::of(clients)?];
    let (full, lone) =
        tokio::join!(deliver(&mut couriers, duration, Pace::Full), lone(alive, duration));
    let (full, lone) = (full?, lone?);
    let after = [Cost::of(collector)?, Cost::of(clients)?];
    let cpu = [0, 1].map(|at| per_million(after[at].cpu - before[at].cpu, full.records));
    let pace = Pace::RecordsPerSecond(PACED_RECORDS_PER_SECOND);
    let paced = deliver(&mut couriers, duration, pace).await?;
    drop(couriers);
    let directory = world.stop().await?;
    let acknowledged = full.records + lone.records + paced.records;
    let held = held(&directory.path().join("collector/state/collector.db"))?;
    ensure!(held.0 == acknowledged, "{acknowledged} were acknowledged and {} are held", held.0);
    let floor = floor(directory.path(), held.1, duration)?;
    let redis = Redis::start(directory.path()).await?;
    let peer = redis.append(n, BATCH, &vec![b'r'; held.1], duration).await?;
    Ok(Measured { full, lone, cpu, paced, held, floor, peer })
}

impl Measured {
    fn rows(&self, n: usize) -> [Row; 6] {
        let Self { full, lone, cpu, paced, held: _, floor, peer } = self;
        let row = |quantity, value, target, floor, peer| Row {
            quantity,
            n,
            value,
            target,
            floor,
            peer: Some((peer, String::new())),
        };
        let under_way_ms = (n * BATCH) as f64 / full.per_second() * 1e3;
        let p99_ms =
            |sorted: &[Duration]| percentile(sorted, 0.99).unwrap_or_default().as_secs_f64() * 1e3;
        let (peer_ms, peer_per_second) = (p99_ms(&peer.latencies), peer.per_second());
        [
            row(
                "durable records / s at full rate",
                full.per_second(),
                Target::at_least(50_000.0),
                Floor::Measured(floor[0], "SQLite alone, the most"),
                peer_per_second,
            ),
            row(
                "collector's CPU-s / million records",
                cpu[0],
                Target::NONE,
                Floor::Measured(floor[1], "SQLite alone"),
                per_million(peer.cpu, peer.records),
            ),
            row(
                "p99 ms of an acknowledgement at full rate",
                full.p99_ms(),
                Target::NONE,
                Floor::Measured(under_way_ms, "all that is under way"),
                peer_ms,
            ),
            row(
                "p99 ms of a lone record meanwhile",
                lone.p99_ms(),
                Target::at_most(100.0),
                Floor::Unknown,
                p99_ms(&peer.lone),
            ),
            row(
                "records / s of 50,000 offered",
                paced.per_second(),
                Target::at_least(49_500.0),
                Floor::Unknown,
                peer_per_second,
            ),
            row(
                "p99 ms of an acknowledgement with 50,000 records / s offered",
                paced.p99_ms(),
                Target::at_most(100.0),
                Floor::Unknown,
                peer_ms,
            ),
        ]
    }

    fn note(&self, n: usize) -> String {
        let Self { full, lone, cpu, paced, held: (held, body_bytes), floor: _, peer: _ } = self;
        let busy = |cpu: f64| cpu * full.per_second() / 1e6;
        format!(
            "{n} couriers: {held} records of {body_bytes} bytes held as acknowledged, {} deliveries \
             put off by the agents' rate limit, {} lone records, p50 {:.1} ms; at full rate the \
             collector kept {:.2} processors busy and the clients {:.2} ({:.1} CPU-s a million)",
            full.refused + lone.refused + paced.refused,
            lone.records,
            percentile(&lone.latencies, 0.5).unwrap_or_default().as_secs_f64() * 1e3,
            busy(cpu[0]),
            busy(cpu[1]),
            cpu[1],
        )
    }
}

fn per_million(cpu: Duration, records: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / records.max(1) as f64
}

/// Records in the store, and the mean length of their bodies.
fn held(store: &Path) -> Result<(usize, usize)> {
    let store = Connection::open(store).with_context(|| format!("open {}", store.display()))?;
    let sql = "SELECT count(*), CAST(avg(length(body)) AS INTEGER) FROM records";
    let (count, bytes): (i64, i64) =
        store.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((usize::try_from(count)?, usize::try_from(bytes)?))
}

/// Rows a second that SQLite makes durable with nothing around it, and its processor seconds for a
/// million.
fn floor(directory: &Path, body_bytes: usize, duration: Duration) -> Result<[f64; 2]> {
    let mut store =
        Connection::open(directory.join("floor.db")).context("open the floor's file")?;
    store.pragma_update(None, "journal_mode", "wal")?;
    store.pragma_update(None, "synchronous", "full")?;
    store.execute_batch(
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT",
    )?;
    let body = "r".repeat(body_bytes);
    let before = Cost::of(std::process::id())?;
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
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    let cpu = Cost::of(std::process::id())?.cpu - before.cpu;
    Ok([rate, per_million(cpu, rows)])
}
