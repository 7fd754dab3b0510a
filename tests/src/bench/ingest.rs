//! What a report costs the server: processor seconds for a million, over mTLS, with
//! authorization, fold, metrics and snapshots. The peers get as many series over plain text: rotel
//! by exports over as many connections, the Pushgateway by pushes. The floor, measured too, is raw
//! TLS with frames of the same length.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::pushgateway::{Held, Mode, Pushgateway, SERIES_PER_PUSH};
use super::raw_tls::{ANSWER, FRAME, RawTls};
use super::rotel::{self, Rotel};
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

/// Of so many connections the design's targets are.
const TARGET_CONNECTIONS: usize = 10_000;
/// Callgrind: 70,000 instructions a report, 4,000 of them the fold.
const TARGET: Target = Target::at_most(45.0)
    .noting(", stretch 35")
    .missed_because("HTTP/2, gRPC and TLS; the fold is a twentieth of the instructions");
/// What more connections may cost.
const GROWTH_TARGET: Target = Target::at_most(1.5).missed_because(
    "each connection's state has left the processor's caches when its report comes",
);
/// Reports a second that the collector takes of one agent in the long run.
const REPORTS_PER_AGENT_MAX: u32 = 20;

/// What was measured with so many connections, in processor seconds a million.
struct Measured {
    connections: usize,
    own: f64,
    raw_tls: f64,
    rotel: f64,
    unchecked: Pushed,
    checked: Pushed,
}

/// Measures at each size.
///
/// # Errors
/// When a report, an export or a push is not accepted, or a program does not start.
pub async fn run(plan: &IngestPlan) -> Result<Figure> {
    let mut all = Vec::new();
    let mut latencies = Vec::new();
    for n in plan.connections.iter().copied() {
        let rate = plan.rate.min(u32::try_from(n)? * REPORTS_PER_AGENT_MAX * 3 / 4);
        let load = LoadPlan { agents: n, rate, duration: plan.duration };
        let outcome = load::run(load).await?;
        ensure!(outcome.errors == 0, "{} reports were not answered", outcome.errors);
        ensure!(
            outcome.counted == outcome.reports + n,
            "{} reports were acknowledged and {} counted",
            outcome.reports + n,
            outcome.counted
        );
        let raw_tls = floor(load).await?;
        let rotel = rotel(load).await?;
        let (unchecked, checked) = pushgateway(n, plan.pushes).await?;
        let ms = |share| outcome.latency(share).unwrap_or_default().as_secs_f64() * 1e3;
        latencies.push(format!(
            "{n} connections: {rate}/s, {} reports, {} held back, answers p50 {:.1} ms, p99 {:.1} ms",
            outcome.reports,
            outcome.held_back,
            ms(0.5),
            ms(0.99)
        ));
        let own = outcome.cpu_seconds_per_million();
        all.push(Measured { connections: n, own, raw_tls, rotel, unchecked, checked });
    }
    let fewest = all.first().context("no number of connections was named")?;
    Ok(Figure {
        title: "Reports over mTLS",
        size: "connections",
        peer: "peer, plain text",
        notes: notes(&latencies),
        rows: all.iter().flat_map(|measured| measured.rows(fewest)).collect(),
    })
}

fn notes(latencies: &[String]) -> String {
    format!(
        "User and system time of the server's process, of `/proc/<pid>/stat`: reports over one \
         mTLS HTTP/2 connection an agent, authorized, folded, counted, with a snapshot each \
         second and a scrape every five; the median of windows of 5 s. A million is scaled from \
         what was sent, which the collector counted itself. The floor reads {} bytes and writes \
         {} over as many mTLS connections at the same rate, as a report does, and does nothing \
         with them. The peers get {SERIES_PER_PUSH} series a connection without TLS. rotel gets \
         exports of {} bytes, each over its agency's own HTTP/2 connection, at the same rate; it \
         decodes and drops them. The Pushgateway (1.5.1) gets pushes over 32 kept-alive \
         connections, and holds a group of series a connection; unchecked is what its help calls \
         dangerous. Targets are those of {TARGET_CONNECTIONS} connections. {}.",
        FRAME.len(),
        ANSWER.len(),
        rotel::export_bytes(),
        latencies.join("; ")
    )
}

impl Measured {
    fn rows(&self, fewest: &Self) -> Vec<Row> {
        let row = |quantity, value, target, floor, peer| {
            let target = if self.connections >= TARGET_CONNECTIONS { target } else { Target::NONE };
            Row { quantity, n: self.connections, value, target, floor, peer }
        };
        let beside =
            |quantity, target, peer| row(quantity, self.own, target, Floor::Unknown, Some(peer));
        let [unchecked, checked] = [&self.unchecked, &self.checked]
            .map(|pushed| (pushed.cpu_seconds_per_million, format!("{} pushes", pushed.pushes)));
        let raw_tls = Floor::Measured(self.raw_tls, "raw TLS frames");
        let mut rows = vec![
            row("CPU-s / million reports", self.own, TARGET, raw_tls, None),
            beside(
                "CPU-s / million reports, beside rotel",
                share_of(self.rotel, 1.3)
                    .noting(" (rotel ÷ 1.3)")
                    .missed_because("rotel neither encrypts nor folds"),
                (self.rotel, format!("rotel {}", rotel::VERSION)),
            ),
            beside(
                "CPU-s / million reports, beside the Pushgateway unchecked",
                share_of(unchecked.0, 5.0)
                    .noting(" (its ÷ 5)")
                    .missed_because("it has 32 connections and no TLS"),
                unchecked,
            ),
            beside(
                "CPU-s / million reports, beside the Pushgateway as by default",
                share_of(checked.0, 100.0).noting(" (its ÷ 100)"),
                checked,
            ),
        ];
        if self.connections > fewest.connections {
            let growth = self.own / fewest.own;
            let quantity = "cost of a report ÷ that at the fewest connections";
            rows.push(row(quantity, growth, GROWTH_TARGET, Floor::Unknown, None));
        }
        rows
    }
}

/// A target that is a share of a peer's value, to a tenth.
fn share_of(peer: f64, share: f64) -> Target {
    Target::at_most((peer / share * 10.0).round() / 10.0)
}

/// Processor seconds for a million frames over raw TLS.
async fn floor(plan: LoadPlan) -> Result<f64> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let files = TlsFiles::make(directory.path())?;
    let mut server = RawTls::start(&files, directory.path()).await?;
    let pid = server.process.pid();
    let held = hold(server.address, files.client()?, plan.agents, FRAME).await?;
    let held: Vec<_> = held.into_iter().map(|stream| Arc::new(Mutex::new(stream))).collect();
    let exchange = |stream: &Arc<Mutex<TlsStream<TcpStream>>>| {
        let stream = Arc::clone(stream);
        async move {
            let mut stream = stream.lock().await;
            stream.write_all(FRAME).await?;
            let mut answer = [0; ANSWER.len()];
            stream.read_exact(&mut answer).await?;
            anyhow::Ok(())
        }
    };
    let before = Cost::of(pid)?;
    let exchanges = at_the_rate(plan, &held, exchange).await.context("exchange frames")?;
    let cpu = Cost::of(pid)?.cpu.saturating_sub(before.cpu);
    server.process.check_running()?;
    Ok(per_million(cpu, exchanges))
}

/// Processor seconds for a million exports to rotel.
async fn rotel(plan: LoadPlan) -> Result<f64> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let mut server = Rotel::start(directory.path()).await?;
    let pid = server.process.pid();
    let exporters = server.connect(plan.agents).await?;
    let before = Cost::settled(pid).await?;
    let export = |exporter: &rotel::Exporter| exporter.clone().export();
    let exports = at_the_rate(plan, &exporters, export).await.context("export to rotel")?;
    let cpu = Cost::settled(pid).await?.cpu.saturating_sub(before.cpu);
    server.process.check_running()?;
    Ok(per_million(cpu, exports))
}

/// Has one exchange after the other begin, over one connection after the other and whether or not
/// earlier ones are answered; returns how many were, all of them.
async fn at_the_rate<C, F>(
    plan: LoadPlan,
    connections: &[C],
    exchange: impl Fn(&C) -> F,
) -> Result<usize>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let began = Instant::now();
    let (mut sent, mut answered) = (0, 0);
    let mut next = connections.iter().cycle();
    while began.elapsed() < plan.duration {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(plan.rate)) as usize;
        for _ in sent..due {
            under_way.spawn(exchange(next.next().context("there is no connection")?));
        }
        sent = due;
        while let Some(done) = under_way.try_join_next() {
            done.context("a task panicked")??;
            answered += 1;
        }
    }
    while let Some(done) = under_way.join_next().await {
        done.context("a task panicked")??;
        answered += 1;
    }
    ensure!(answered == sent, "{answered} of {sent} were answered");
    Ok(answered)
}

struct Pushed {
    pushes: usize,
    cpu_seconds_per_million: f64,
}

/// Without and with the consistency check. The groups are pushed without it, and the second run
/// begins with them out of the file: with it they would take an hour.
async fn pushgateway(groups: usize, pushes: usize) -> Result<(Pushed, Pushed)> {
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
    let start = Cost::settled(gateway.process.pid()).await?;
    gateway.push(groups, pushes, SERIES_PER_PUSH).await?;
    let cpu = Cost::settled(gateway.process.pid()).await?.cpu.saturating_sub(start.cpu);
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
