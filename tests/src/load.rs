//! Load: thousands of agents as real clients of a real collector, from one process.
//!
//! Each agent has its own key, its own certificate of the collector's CA and its own address in
//! 127/8 inside its agency's prefix, and holds its own mTLS HTTP/2 connection. The identities are
//! made through the product's own authority and store (`fleet`) before the collector starts,
//! because enrolment over the network is limited per source and token. What is measured of the
//! collector is read from `/proc`: the clients share its processors. Its metrics are scraped
//! meanwhile as often as the shipped Prometheus does.

mod client;
pub(crate) mod couriers;
pub mod crowd;
mod fleet;
pub(crate) mod life;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::binaries::Binaries;
use crate::collector::{Collector, CollectorPlan, Tempo, free_port};
use crate::cost::{self, Cost};
use crate::exposition::Exposition;
use crate::web::Endpoint;
pub(crate) use client::{Client, Process, connectivity};
pub(crate) use fleet::{LoadAgent, agencies};

/// Where the collector listens.
const COLLECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 0, 10));
/// Handshakes of ours under way: below the 64 that a listener admits at a time.
const CONNECTING_MAX: usize = 48;
/// Reports under way; more are counted as held back, and not sent.
const UNDER_WAY_MAX: usize = 4_096;
/// Between two batches of reports.
const BATCH_PERIOD: Duration = Duration::from_millis(10);
/// Between two looks at the collector.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// As in the shipped configuration of Prometheus.
const SCRAPE_PERIOD: Duration = Duration::from_secs(5);
/// Looks that make one value of a figure: what is measured to 10 ms is then exact to some percent.
const WINDOW_LOOKS: usize = 5;
/// Reports a second that the collector takes of one agent in the long run.
const REPORTS_PER_AGENT_MAX: u32 = 20;

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct LoadPlan {
    /// Agents, each with its connection.
    pub agents: usize,
    /// Reports a second of all agents together.
    pub rate: u32,
    /// How long.
    pub duration: Duration,
}

/// A look at the collector while reports come.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the first report.
    pub at: Duration,
    /// Reports that were answered by then.
    pub answered: usize,
    /// What it has cost.
    pub cost: Cost,
    /// Its open files.
    pub open_files: usize,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct LoadOutcome {
    /// What was sent.
    pub plan: LoadPlan,
    /// Reports that were acknowledged, without the first of each agent.
    pub reports: usize,
    /// Reports that the collector itself counts as accepted, the first of each agent included.
    pub counted: usize,
    /// Reports that were refused or not answered.
    pub errors: usize,
    /// Reports that were not sent because too many were under way.
    pub held_back: usize,
    /// From the first report to the last answer.
    pub elapsed: Duration,
    /// Time to each answer, shortest first.
    pub latencies: Vec<Duration>,
    /// The collector's processor time for all handshakes and each agent's first report.
    pub connecting_cpu: Duration,
    /// The collector's processor time for the reports.
    pub reporting_cpu: Duration,
    /// Growth of the collector's resident memory from before the first connection until each
    /// agent has reported once.
    pub connections_bytes: u64,
    /// Second by second while the reports came.
    pub samples: Vec<Sample>,
}

impl LoadOutcome {
    /// Processor seconds of the collector for a million reports: the median of windows of five
    /// seconds, or the whole where it is shorter than two.
    pub fn cpu_seconds_per_million(&self) -> f64 {
        let windows = self.samples.windows(WINDOW_LOOKS + 1).step_by(WINDOW_LOOKS);
        let mut costs: Vec<f64> = windows
            .filter_map(|window| {
                let (first, last) = (window.first()?, window.last()?);
                let reports = last.answered.checked_sub(first.answered).filter(|some| *some > 0)?;
                let cpu = last.cost.cpu.saturating_sub(first.cost.cpu);
                Some(cpu.as_secs_f64() * 1e6 / reports as f64)
            })
            .collect();
        if costs.len() < 2 {
            return self.reporting_cpu.as_secs_f64() * 1e6 / self.reports.max(1) as f64;
        }
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    }

    /// Memory of the collector for a connection, its agent's state included.
    pub fn bytes_per_connection(&self) -> f64 {
        self.connections_bytes as f64 / self.plan.agents as f64
    }

    /// A percentile of the time to an answer; `None` without answers.
    pub fn latency(&self, share: f64) -> Option<Duration> {
        percentile(&self.latencies, share)
    }
}

/// A percentile of sorted times; `None` without any.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

/// Starts a collector that knows these agents, connects them, and reports.
///
/// # Errors
/// When the collector does not start, an agent cannot connect, or a scrape is not answered.
pub async fn run(plan: LoadPlan) -> Result<LoadOutcome> {
    let rate_max = u32::try_from(plan.agents)?.saturating_mul(REPORTS_PER_AGENT_MAX);
    ensure!(
        plan.agents > 0 && plan.rate <= rate_max,
        "{} agents may send {rate_max} reports a second; ask for fewer reports or more agents",
        plan.agents
    );
    let mut world = World::start(plan.agents).await?;
    let pid = world.pid();
    let before = Cost::of(pid)?;
    let clients = world.connect().await?;
    let connected = Cost::of(pid)?;
    let mut outcome = report(&clients, plan, pid, &world.collector.web).await?;
    let reported = Cost::of(pid)?;
    outcome.connecting_cpu = connected.cpu.saturating_sub(before.cpu);
    outcome.reporting_cpu = reported.cpu.saturating_sub(connected.cpu);
    outcome.connections_bytes = connected.resident_bytes.saturating_sub(before.resident_bytes);
    outcome.counted = world.reports_counted().await?;
    drop(clients);
    world.stop().await?;
    Ok(outcome)
}

/// A collector and the agents that it knows.
pub(crate) struct World {
    /// Not connected yet.
    pub(crate) agents: Vec<LoadAgent>,
    pub(crate) collector: Collector,
    directory: TempDir,
}

impl World {
    /// Enrols so many agents and starts the collector.
    pub(crate) async fn start(agents: usize) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let plan = collector_plan(&directory)?;
        plan.write_config()?;
        let agents = fleet::enrol(&plan.config_path(), agents).await?;
        let collector = Collector::start_again(plan).await?;
        Ok(Self { agents, collector, directory })
    }

    /// Connects all agents, and lets each report once.
    pub(crate) async fn connect(&mut self) -> Result<Vec<Client>> {
        let address = self.address();
        let mut clients = Vec::with_capacity(self.agents.len());
        let mut waiting = std::mem::take(&mut self.agents).into_iter();
        let mut connecting = JoinSet::new();
        loop {
            while connecting.len() < CONNECTING_MAX
                && let Some(agent) = waiting.next()
            {
                connecting.spawn(Client::connect(agent, address));
            }
            let Some(connected) = connecting.join_next().await else { break };
            clients.push(connected.context("a connecting task panicked")??);
        }
        Ok(clients)
    }

    /// Where agents report.
    pub(crate) fn address(&self) -> SocketAddr {
        self.collector.plan.dedicated[0]
    }

    /// The collector's process.
    pub(crate) fn pid(&mut self) -> u32 {
        self.collector.process().pid()
    }

    /// Reports that the collector says it has accepted.
    pub(crate) async fn reports_counted(&self) -> Result<usize> {
        let metrics = self.collector.metrics().await?;
        let counts = metrics.find("haidang_collector_reports_total", &[]);
        Ok(counts.map(|sample| sample.value as usize).sum())
    }

    /// Stops the collector, and leaves what it has written until the directory is dropped.
    pub(crate) async fn stop(mut self) -> Result<TempDir> {
        self.collector.process().check_running()?;
        self.collector.stop().await?;
        Ok(self.directory)
    }
}

/// Sends reports at the plan's rate, agent after agent, whether or not earlier ones are answered.
pub(crate) async fn report(
    clients: &[Client],
    plan: LoadPlan,
    pid: u32,
    web: &Endpoint,
) -> Result<LoadOutcome> {
    let (mut latencies, mut errors, mut held_back) = (Vec::new(), 0, 0);
    let mut under_way: JoinSet<Result<Duration>> = JoinSet::new();
    let mut scrapes: JoinSet<Result<Exposition>> = JoinSet::new();
    let mut next = clients.iter().cycle();
    let began = Instant::now();
    let mut batches = tokio::time::interval(BATCH_PERIOD);
    let mut looks = tokio::time::interval(LOOK_PERIOD);
    let mut scrape_times = tokio::time::interval(SCRAPE_PERIOD);
    let mut samples = Vec::new();
    let all = (plan.duration.as_secs_f64() * f64::from(plan.rate)) as usize;
    let mut due_before = 0;
    while due_before < all || !under_way.is_empty() {
        tokio::select! {
            _ = batches.tick() => {
                let due = began.elapsed().as_secs_f64() * f64::from(plan.rate);
                let due = (due as usize).min(all);
                for _ in due_before..due {
                    match next.next() {
                        Some(client) if under_way.len() < UNDER_WAY_MAX => {
                            under_way.spawn(client.report());
                        }
                        _ => held_back += 1,
                    }
                }
                due_before = due;
            }
            _ = looks.tick() => samples.push(Sample {
                at: began.elapsed(),
                answered: latencies.len(),
                cost: Cost::of(pid)?,
                open_files: cost::open_files(pid)?,
            }),
            _ = scrape_times.tick() => {
                let web = web.clone();
                scrapes.spawn(async move { Exposition::parse(&web.text("/metrics").await?) });
            }
            Some(scraped) = scrapes.join_next() => {
                scraped.context("a scraping task panicked")??;
            }
            Some(answer) = under_way.join_next() => {
                match answer.context("a reporting task panicked")? {
                    Ok(latency) => latencies.push(latency),
                    Err(_) => errors += 1,
                }
            }
        }
    }
    let elapsed = began.elapsed();
    latencies.sort_unstable();
    Ok(LoadOutcome {
        plan,
        reports: latencies.len(),
        counted: 0,
        errors,
        held_back,
        elapsed,
        latencies,
        connecting_cpu: Duration::ZERO,
        reporting_cpu: Duration::ZERO,
        connections_bytes: 0,
        samples,
    })
}

/// A collector on loopback with the shipped roster, each agency with a prefix of 127/8.
pub(crate) fn collector_plan(directory: &TempDir) -> Result<CollectorPlan> {
    Ok(CollectorPlan {
        program: Binaries::find()?.collector,
        directory: directory.path().join("collector"),
        netns: None,
        dedicated: vec![free_port(COLLECTOR)?],
        fallback: None,
        enrolment: free_port(COLLECTOR)?,
        advertise_enrolment: None,
        recovery: free_port(COLLECTOR)?,
        http: free_port(Ipv4Addr::LOCALHOST.into())?,
        roster: fleet::roster(directory.path())?,
        demo: true,
        core_check: None,
        tempo: Tempo::Default,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, answered: usize, cpu_ms: u64) -> Sample {
        Sample {
            at: Duration::from_secs(second),
            answered,
            cost: Cost { cpu: Duration::from_millis(cpu_ms), resident_bytes: 1, threads: 1 },
            open_files: 1,
        }
    }

    fn outcome(samples: Vec<Sample>) -> LoadOutcome {
        LoadOutcome {
            plan: LoadPlan { agents: 2, rate: 1, duration: Duration::from_secs(1) },
            reports: 500_000,
            counted: 500_002,
            errors: 0,
            held_back: 0,
            elapsed: Duration::from_secs(1),
            latencies: (0..=100).map(Duration::from_millis).collect(),
            connecting_cpu: Duration::ZERO,
            reporting_cpu: Duration::from_secs(20),
            connections_bytes: 4_096,
            samples,
        }
    }

    #[test]
    fn figures_are_per_million_and_per_connection() {
        let outcome = outcome(Vec::new());
        assert_eq!(outcome.cpu_seconds_per_million(), 40.0);
        assert_eq!(outcome.bytes_per_connection(), 2_048.0);
        assert_eq!(outcome.latency(0.99), Some(Duration::from_millis(99)));
    }

    #[test]
    fn a_disturbed_window_does_not_move_the_cost_of_a_report() {
        // Windows of 1,000 reports each: 50, 900 and 60 ms.
        let cpu_ms = |second: u64| match second {
            0..5 => 0,
            5..10 => 50,
            10..15 => 950,
            _ => 1_010,
        };
        let samples =
            (0..16).map(|second| sample(second, second as usize * 200, cpu_ms(second))).collect();
        assert_eq!(outcome(samples).cpu_seconds_per_million(), 60.0);
    }
}
