//! Load: thousands of agents as real clients of a real collector, from one process.
//!
//! Each agent has its own key, its own certificate of the collector's CA and its own address in
//! 127/8 inside its agency's prefix, and holds its own mTLS HTTP/2 connection. The identities are
//! made through the product's own authority and store (`fleet`) before the collector starts,
//! because enrolment over the network is limited per source and token. What is measured of the
//! collector is read from `/proc`: the clients share its processors.

mod client;
mod cost;
mod fleet;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::binaries::Binaries;
use crate::collector::{Collector, CollectorPlan, Tempo, free_port};
use client::Client;
use cost::Cost;

/// Where the collector listens.
const COLLECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 0, 10));
/// Handshakes of ours under way: below the 64 that a listener admits at a time.
const CONNECTING_MAX: usize = 48;
/// Reports under way; more are counted as held back, and not sent.
const UNDER_WAY_MAX: usize = 4_096;
/// Between two batches of reports.
const BATCH_PERIOD: Duration = Duration::from_millis(10);
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

/// What came of it.
#[derive(Debug, Clone)]
pub struct LoadOutcome {
    /// What was sent.
    pub plan: LoadPlan,
    /// Reports that were acknowledged.
    pub reports: usize,
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
    /// The collector's resident memory, second by second while the reports came.
    pub resident_bytes: Vec<u64>,
}

impl LoadOutcome {
    /// Processor seconds of the collector for a million reports.
    pub fn cpu_seconds_per_million(&self) -> f64 {
        self.reporting_cpu.as_secs_f64() * 1e6 / self.reports.max(1) as f64
    }

    /// Memory of the collector for a connection, its agent's state included.
    pub fn bytes_per_connection(&self) -> f64 {
        self.connections_bytes as f64 / self.plan.agents as f64
    }

    /// Growth of the collector's memory in bytes a minute: the slope of the least squares over the
    /// second half of the time, when what is filled once has been filled. `None` below four
    /// seconds.
    pub fn growth_bytes_per_minute(&self) -> Option<f64> {
        let half = &self.resident_bytes[self.resident_bytes.len() / 2..];
        if half.len() < 2 {
            return None;
        }
        let middle = (half.len() - 1) as f64 / 2.0;
        let weighed =
            half.iter().enumerate().map(|(at, bytes)| (at as f64 - middle, *bytes as f64));
        let (rise, run) = weighed.fold((0.0, 0.0), |(rise, run), (from_middle, bytes)| {
            (rise + from_middle * bytes, run + from_middle * from_middle)
        });
        Some(rise / run * 60.0)
    }

    /// A percentile of the time to an answer; `None` without answers.
    pub fn latency(&self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((last as f64 * share).round() as usize).copied()
    }
}

/// Starts a collector that knows these agents, connects them, and reports.
///
/// # Errors
/// When the collector does not start, or an agent cannot connect.
pub async fn run(plan: LoadPlan) -> Result<LoadOutcome> {
    let rate_max = u32::try_from(plan.agents)?.saturating_mul(REPORTS_PER_AGENT_MAX);
    ensure!(
        plan.agents > 0 && plan.rate <= rate_max,
        "{} agents may send {rate_max} reports a second; ask for fewer reports or more agents",
        plan.agents
    );
    let directory = tempfile::tempdir().context("make a directory")?;
    let collector_plan = collector_plan(&directory)?;
    collector_plan.write_config()?;
    let agents = fleet::enrol(&collector_plan.config_path(), plan.agents).await?;
    let mut collector = Collector::start_again(collector_plan).await?;
    let address = collector.plan.dedicated[0];
    let pid = collector.process().pid();

    let before = Cost::of(pid)?;
    let mut clients = Vec::with_capacity(agents.len());
    let mut waiting = agents.into_iter();
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
    let connected = Cost::of(pid)?;
    let mut outcome = report(&clients, plan, pid).await?;
    let reported = Cost::of(pid)?;
    collector.process().check_running()?;
    outcome.connecting_cpu = connected.cpu.saturating_sub(before.cpu);
    outcome.reporting_cpu = reported.cpu.saturating_sub(connected.cpu);
    outcome.connections_bytes = connected.resident_bytes.saturating_sub(before.resident_bytes);
    drop(clients);
    collector.stop().await?;
    Ok(outcome)
}

/// Sends reports at the plan's rate, agent after agent, whether or not earlier ones are answered.
async fn report(clients: &[Client], plan: LoadPlan, pid: u32) -> Result<LoadOutcome> {
    let (mut latencies, mut errors, mut held_back) = (Vec::new(), 0, 0);
    let mut under_way: JoinSet<Result<Duration>> = JoinSet::new();
    let mut settle = |answer: Result<Result<Duration>, tokio::task::JoinError>| {
        match answer.context("a reporting task panicked")? {
            Ok(latency) => latencies.push(latency),
            Err(_) => errors += 1,
        }
        anyhow::Ok(())
    };
    let mut next = clients.iter().cycle();
    let began = Instant::now();
    let mut batches = tokio::time::interval(BATCH_PERIOD);
    let mut looks = tokio::time::interval(Duration::from_secs(1));
    let mut resident_bytes = Vec::new();
    let mut due_before = 0;
    while began.elapsed() < plan.duration {
        tokio::select! {
            _ = batches.tick() => {
                let due = (began.elapsed().as_secs_f64() * f64::from(plan.rate)) as usize;
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
            _ = looks.tick() => resident_bytes.push(Cost::of(pid)?.resident_bytes),
            Some(answer) = under_way.join_next() => settle(answer)?,
        }
    }
    while let Some(answer) = under_way.join_next().await {
        settle(answer)?;
    }
    let elapsed = began.elapsed();
    latencies.sort_unstable();
    Ok(LoadOutcome {
        plan,
        reports: latencies.len(),
        errors,
        held_back,
        elapsed,
        latencies,
        connecting_cpu: Duration::ZERO,
        reporting_cpu: Duration::ZERO,
        connections_bytes: 0,
        resident_bytes,
    })
}

fn collector_plan(directory: &TempDir) -> Result<CollectorPlan> {
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

    fn outcome(resident_bytes: Vec<u64>) -> LoadOutcome {
        LoadOutcome {
            plan: LoadPlan { agents: 2, rate: 1, duration: Duration::from_secs(1) },
            reports: 500_000,
            errors: 0,
            held_back: 0,
            elapsed: Duration::from_secs(1),
            latencies: (0..=100).map(Duration::from_millis).collect(),
            connecting_cpu: Duration::ZERO,
            reporting_cpu: Duration::from_secs(20),
            connections_bytes: 4_096,
            resident_bytes,
        }
    }

    #[test]
    fn growth_is_that_of_the_second_half() {
        let filled_then_flat = vec![0, 50, 100, 100, 100, 100];
        assert_eq!(outcome(filled_then_flat).growth_bytes_per_minute(), Some(0.0));
        assert_eq!(outcome(vec![9, 9, 10, 11]).growth_bytes_per_minute(), Some(60.0));
        assert_eq!(outcome(vec![1]).growth_bytes_per_minute(), None);
    }

    #[test]
    fn figures_are_per_million_and_per_connection() {
        let outcome = outcome(Vec::new());
        assert_eq!(outcome.cpu_seconds_per_million(), 40.0);
        assert_eq!(outcome.bytes_per_connection(), 2_048.0);
        assert_eq!(outcome.latency(0.99), Some(Duration::from_millis(99)));
    }
}
