//! What a report costs the server: processor seconds for a million, over mTLS, with
//! authorization, fold, metrics and snapshots. The peer is the Pushgateway with pushes of as many
//! series over plain text; the floor, measured too, is raw TLS with frames of the same length.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::pushgateway::{Held, Mode, Pushgateway, SERIES_PER_PUSH};
use super::raw_tls::{FRAME, RawTls};
use super::tls::{TlsFiles, hold};
use super::{Figure, Floor, Row};
use crate::cost::Cost;
use crate::load::{self, LoadPlan};
use crate::target::Target;

/// How much is sent.
#[derive(Debug, Clone)]
pub struct IngestPlan {
    /// Connections, one size after another.
    pub connections: Vec<usize>,
    /// Reports a second of all together; less where agents are too few to be allowed as many.
    pub rate: u32,
    /// How long.
    pub duration: Duration,
    /// Pushes that the peer gets without its consistency check, and a hundredth of them with it.
    pub pushes: usize,
}

/// Callgrind: 85,000 instructions a report, 4,000 of them the fold.
const TARGET: Target = Target::at_most(45.0)
    .noting(", stretch 35")
    .missed_because("HTTP/2, gRPC and TLS; the fold is a twentieth of the instructions");
/// Reports a second that the collector takes of one agent in the long run.
const REPORTS_PER_AGENT_MAX: u32 = 20;

/// Measures at each size.
///
/// # Errors
/// When a report or a push is not accepted, or a program does not start.
pub async fn run(plan: &IngestPlan) -> Result<Figure> {
    let mut rows = Vec::new();
    let mut latencies = Vec::new();
    for n in &plan.connections {
        let rate = plan.rate.min(u32::try_from(*n)? * REPORTS_PER_AGENT_MAX * 3 / 4);
        let load = LoadPlan { agents: *n, rate, duration: plan.duration };
        let outcome = load::run(load).await?;
        ensure!(outcome.errors == 0, "{} reports were not answered", outcome.errors);
        ensure!(
            outcome.counted == outcome.reports + n,
            "{} reports were acknowledged and {} counted",
            outcome.reports + n,
            outcome.counted
        );
        let floor = floor(load).await?;
        let (unchecked, checked) = peer(*n, plan.pushes).await?;
        let ms = |share| outcome.latency(share).unwrap_or_default().as_secs_f64() * 1e3;
        latencies.push(format!(
            "{n} connections: {rate}/s, {} reports, {} held back, answers p50 {:.1} ms, p99 {:.1} ms",
            outcome.reports,
            outcome.held_back,
            ms(0.5),
            ms(0.99)
        ));
        let value = outcome.cpu_seconds_per_million();
        let row = |quantity, target, peer: Pushed| Row {
            quantity,
            n: *n,
            value,
            target,
            floor: Floor::Measured(floor, "raw TLS frames"),
            peer: Some((peer.cpu_seconds_per_million, format!("{} pushes", peer.pushes))),
        };
        let target = match *n {
            10_000.. => TARGET,
            _ => Target::of_words("at 10,000 ≤ 1.5 × this"),
        };
        rows.push(row("CPU-s / million reports; peer unchecked", target, unchecked));
        let hundredth = Target::of_words("100 × less");
        rows.push(row("CPU-s / million reports; peer as by default", hundredth, checked));
    }
    Ok(Figure {
        title: "Reports over mTLS",
        size: "connections",
        peer: "Pushgateway 1.5.1, plain text",
        notes: format!(
            "User and system time of the server's process, of `/proc/<pid>/stat`: reports over \
             one mTLS HTTP/2 connection an agent, authorized, folded, counted, with a snapshot \
             each second and a scrape every five; the median of windows of 5 s. A million is \
             scaled from what was sent, which both servers counted themselves. The floor reads \
             and writes as many bytes over as many mTLS connections at the same rate and does \
             nothing with them. The peer holds a group of {SERIES_PER_PUSH} series a connection \
             and gets pushes over 32 kept-alive connections without TLS. {}.",
            latencies.join("; ")
        ),
        rows,
    })
}

/// Processor seconds for a million frames over raw TLS.
async fn floor(plan: LoadPlan) -> Result<f64> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let files = TlsFiles::make(directory.path())?;
    let mut server = RawTls::start(&files, directory.path()).await?;
    let pid = server.process.pid();
    let held = hold(server.address, files.client()?, plan.agents, FRAME).await?;
    let held: Vec<_> = held.into_iter().map(|stream| Arc::new(Mutex::new(stream))).collect();
    let before = Cost::of(pid)?;
    let mut exchanges = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let began = std::time::Instant::now();
    let (mut sent, mut answered) = (0, 0);
    let mut next = held.iter().cycle();
    while began.elapsed() < plan.duration {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(plan.rate)) as usize;
        for _ in sent..due {
            let stream = Arc::clone(next.next().context("there is a connection")?);
            exchanges.spawn(async move {
                let mut stream = stream.lock().await;
                stream.write_all(FRAME).await?;
                let mut answer = [0; 64];
                stream.read_exact(&mut answer).await
            });
        }
        sent = due;
        while let Some(done) = exchanges.try_join_next() {
            done.context("an exchanging task panicked")?.context("exchange a frame")?;
            answered += 1;
        }
    }
    while let Some(done) = exchanges.join_next().await {
        done.context("an exchanging task panicked")?.context("exchange a frame")?;
        answered += 1;
    }
    ensure!(answered == sent, "{answered} frames of {sent} were answered");
    let cpu = Cost::of(pid)?.cpu.saturating_sub(before.cpu);
    server.process.check_running()?;
    Ok(per_million(cpu, answered))
}

struct Pushed {
    pushes: usize,
    cpu_seconds_per_million: f64,
}

/// Without and with the consistency check. The groups are pushed without it, and the second run
/// begins with them out of the file: with it they would take an hour.
async fn peer(groups: usize, pushes: usize) -> Result<(Pushed, Pushed)> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let gateway = Pushgateway::start(&Mode::Unchecked, directory.path()).await?;
    gateway.push(groups, groups, SERIES_PER_PUSH).await?;
    let unchecked = pushed(&gateway, groups, pushes, groups).await?;
    gateway.process.stop().await?;
    let gateway = Pushgateway::start(&Mode::Checked, directory.path()).await?;
    let checked = pushed(&gateway, groups, (pushes / 100).max(1), 0).await?;
    gateway.process.stop().await?;
    ended(directory)?;
    Ok((unchecked, checked))
}

async fn pushed(
    gateway: &Pushgateway,
    groups: usize,
    pushes: usize,
    before: usize,
) -> Result<Pushed> {
    let start = gateway.settled().await?;
    gateway.push(groups, pushes, SERIES_PER_PUSH).await?;
    let cpu = gateway.settled().await?.cpu.saturating_sub(start.cpu);
    let expected = Held { accepted: before + pushes, groups, series: groups * SERIES_PER_PUSH };
    let held = gateway.held().await?;
    ensure!(held == expected, "the peer holds {held:?} and should {expected:?}");
    Ok(Pushed { pushes, cpu_seconds_per_million: per_million(cpu, pushes) })
}

fn per_million(cpu: Duration, times: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / times.max(1) as f64
}

fn ended(directory: TempDir) -> Result<()> {
    directory.close().context("remove the peer's directory")
}
