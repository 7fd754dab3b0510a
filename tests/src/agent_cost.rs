//! What an agent costs its machine beside programs that do a like work, all running at once for some
//! minutes: memory, processor time, network and the size of the program.
//!
//! The agent watches a site of the laboratory with the default timers. blackbox_exporter stands in a
//! second site and is told to make the same probes at the same period; node_exporter, Zabbix's agent
//! and netdata each have a namespace of their own and are asked every report interval for what they
//! know, as their servers would. Nothing else uses these interfaces, so their counters are the
//! program's traffic; of the agent's, what its long-lived connection to the collector carries is told
//! apart by the kernel's own account of it (`ss -i`).

mod household;
mod peers;
mod traffic;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::collector::Tempo;
use crate::figures;
use crate::laboratory::{Laboratory, Seat, agencies_of_one_district};
use crate::netns::Netns;
use crate::target::Target;

use self::household::Household;
use self::peers::Running;
use self::traffic::{ReportLine, Traffic, Wire};

pub use self::peers::Peer;

/// Reports, and questions to the peers, are this far apart.
const ASK_PERIOD: Duration = Duration::from_secs(10);
/// An IPv4 and a TCP header with its time stamps, which every segment has.
const HEADERS_BYTES: u64 = 52;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// For how long.
    pub period: Duration,
    /// How long everything runs before that.
    pub settle: Duration,
    /// The agent's timers.
    pub tempo: Tempo,
    /// Beside whom.
    pub peers: Vec<Peer>,
}

/// What one program cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Its name and version.
    pub program: String,
    /// Bytes of its main program's file.
    pub program_bytes: u64,
    /// Whether that is without debug information, as programs are shipped.
    pub is_stripped: bool,
    /// Resident memory of it and its children, sampled, in KiB.
    pub resident_kib: Vec<u64>,
    /// The same with shared pages divided among those who share them.
    pub proportional_kib: Vec<u64>,
    /// Of the resident memory, what belongs to no file.
    pub anonymous_kib: Vec<u64>,
    /// Processor time.
    pub processor: Duration,
    /// For how long.
    pub period: Duration,
    /// Bytes of everything it sent and received.
    pub traffic_bytes: u64,
    /// Of these, what it told: reports, or answers to those who asked.
    pub told_bytes: u64,
}

/// Starts everything, waits, and measures.
///
/// # Errors
/// When a program is missing, does not start or ends early.
pub async fn measure(plan: &Plan) -> Result<Vec<Cost>> {
    let sites = 1 + usize::from(plan.peers.contains(&Peer::Blackbox));
    let seat = |agency| Seat { agency, gateway: true, ..Seat::default() };
    let seats: Vec<_> = agencies_of_one_district(sites)?.into_iter().map(seat).collect();
    let mut laboratory = Laboratory::build(&seats, plan.tempo).await?;
    let mut peers = Vec::new();
    for peer in &plan.peers {
        let site = match peer {
            Peer::Blackbox => {
                let second = laboratory.agencies.pop().context("a second site was built")?;
                second.agent.stop().await?;
                Some(second.site)
            }
            _ => None,
        };
        peers.push(Running::start(*peer, site, laboratory.directory.path()).await?);
    }
    let agency = laboratory.agencies.first_mut().context("a site was built")?;
    let (netns, pid) = (Arc::clone(&agency.site.netns), agency.agent.process().pid());
    let agent = Meter::new(&agency.agent.plan.program, pid, netns, Wire::Line)?;
    let line = ReportLine::new(Arc::clone(&agency.site.netns));
    let mut meters = Meters { agent, line, peers };
    meters.run_for(plan.settle).await?;
    meters.begin()?;
    meters.run_for(plan.period).await?;
    let (costs, peers) = meters.end()?;
    for peer in peers {
        // One that does not end in time is killed when it is dropped; its figures stand.
        let _ = peer.stop().await;
    }
    Ok(costs)
}

struct Meters {
    agent: Meter,
    line: ReportLine,
    peers: Vec<Running>,
}

impl Meters {
    /// Asks the peers, has them probe, and looks at everybody, for so long.
    async fn run_for(&mut self, period: Duration) -> Result<()> {
        let end = Instant::now() + period;
        let mut asks = interval(ASK_PERIOD);
        let mut probes = interval(peers::PROBE_PERIOD);
        for timer in [&mut asks, &mut probes] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return Ok(()),
                _ = asks.tick() => {
                    for peer in &mut self.peers {
                        peer.ask().await?;
                    }
                    self.sample()?;
                }
                _ = probes.tick() => {
                    for peer in &mut self.peers {
                        peer.probe().await?;
                    }
                }
            }
        }
    }

    fn sample(&mut self) -> Result<()> {
        self.agent.sample()?;
        self.line.look()?;
        self.peers.iter_mut().try_for_each(|peer| peer.meter.sample())
    }

    fn begin(&mut self) -> Result<()> {
        self.agent.begin()?;
        self.line.begin()?;
        self.peers.iter_mut().try_for_each(|peer| peer.meter.begin())
    }

    fn end(mut self) -> Result<(Vec<Cost>, Vec<Running>)> {
        self.sample()?;
        let told = self.line.bytes(HEADERS_BYTES);
        let version = haidang_agent::report::VERSION;
        let mut costs = vec![self.agent.end(format!("haidang-agent {version}"), Some(told))?];
        for Running { meter, name, .. } in &self.peers {
            costs.push(meter.end(name.clone(), None)?);
        }
        Ok((costs, self.peers))
    }
}

/// Watches one program.
#[derive(Debug)]
struct Meter {
    program_bytes: u64,
    is_stripped: bool,
    household: Household,
    netns: Arc<Netns>,
    wire: Wire,
    begun: Instant,
    processor_before: Duration,
    traffic_before: Traffic,
    resident_kib: Vec<u64>,
    proportional_kib: Vec<u64>,
    anonymous_kib: Vec<u64>,
}

impl Meter {
    fn new(program: &Path, pid: u32, netns: Arc<Netns>, wire: Wire) -> Result<Self> {
        let file = fs::read(program).with_context(|| format!("read {}", program.display()))?;
        let section = b".debug_line";
        Ok(Self {
            program_bytes: file.len() as u64,
            is_stripped: !file.windows(section.len()).any(|name| name == section),
            household: Household::of(pid),
            netns,
            wire,
            begun: Instant::now(),
            processor_before: Duration::ZERO,
            traffic_before: Traffic::default(),
            resident_kib: Vec::new(),
            proportional_kib: Vec::new(),
            anonymous_kib: Vec::new(),
        })
    }

    fn begin(&mut self) -> Result<()> {
        self.begun = Instant::now();
        self.processor_before = self.household.processor()?;
        self.traffic_before = self.wire.traffic(&self.netns)?;
        self.resident_kib.clear();
        self.proportional_kib.clear();
        self.anonymous_kib.clear();
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        let memory = self.household.memory()?;
        self.resident_kib.push(memory.resident_kib);
        self.proportional_kib.push(memory.proportional_kib);
        self.anonymous_kib.push(memory.anonymous_kib);
        Ok(())
    }

    /// `told` is given where no interface counts it by itself.
    fn end(&self, program: String, told: Option<u64>) -> Result<Cost> {
        let Traffic { all, told: asked } = self.wire.traffic(&self.netns)?;
        Ok(Cost {
            program,
            program_bytes: self.program_bytes,
            is_stripped: self.is_stripped,
            resident_kib: self.resident_kib.clone(),
            proportional_kib: self.proportional_kib.clone(),
            anonymous_kib: self.anonymous_kib.clone(),
            processor: self.household.processor()?.saturating_sub(self.processor_before),
            period: self.begun.elapsed(),
            traffic_bytes: all.saturating_sub(self.traffic_before.all),
            told_bytes: told.unwrap_or(asked.saturating_sub(self.traffic_before.told)),
        })
    }
}

/// The agent's targets (megabytes are 10^6 bytes).
const TARGETS: [(&str, Target); 5] = [
    ("program, MB", Target::at_most(10.0)),
    ("RSS, MB", Target::at_most(7.0).missed_because(PAGES)),
    ("PSS, MB", Target::at_most(4.0).missed_because(PAGES)),
    ("CPU, s a minute", Target::at_most(0.06)),
    ("told, kbit/s", Target::at_most(1.5)),
];
const PAGES: &str = "the program's and the C library's pages, of which hardly any stays untouched";

impl Cost {
    /// In the order of [`TARGETS`].
    fn values(&self) -> [f64; 5] {
        [
            self.program_bytes as f64 / 1e6,
            median_mb(&self.resident_kib),
            median_mb(&self.proportional_kib),
            self.processor.as_secs_f64() * 60.0 / self.period.as_secs_f64(),
            self.rate(self.told_bytes),
        ]
    }

    /// In kbit/s.
    fn rate(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / 1e3 / self.period.as_secs_f64()
    }
}

fn median_mb(samples_kib: &[u64]) -> f64 {
    let mut sorted = samples_kib.to_vec();
    sorted.sort_unstable();
    mb(sorted.get(sorted.len() / 2).copied().unwrap_or(0))
}

fn mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

/// The section of the figures.
///
/// # Errors
/// Without the agent's figures.
pub fn section(command: &str, plan: &Plan, costs: &[Cost]) -> Result<String> {
    let agent = costs.first().context("the agent's figures come first")?;
    ensure!(!agent.resident_kib.is_empty(), "nothing was sampled");
    let notes = format!(
        "{:.1} minutes after {} s of settling, all programs at once on this machine; the agent's \
         program is {}. It watches one site with the default timers: two anchors, a gateway, a \
         resolver and a service, a cycle every 4 s, reports every 10 s, the first posture pass and \
         those that follow. blackbox_exporter makes the same probes at the same period; the others \
         are asked every 10 s. Memory is the median of samples 10 s apart (largest in brackets), \
         of a program with its children; PSS counts a shared page by its share, and no other agent \
         shares here. `own` is the part of RSS that belongs to no file, and of no use to anybody \
         else; the rest are pages of programs and libraries, which the kernel maps 64 KiB around \
         each that is touched and takes back when memory is short. `told` is what a program tells its server, TCP and IP included, and `all` \
         everything on its interface. Megabytes are 10^6 bytes; a program's file is its main one.",
        agent.period.as_secs_f64() / 60.0,
        plan.settle.as_secs(),
        if agent.is_stripped { "stripped" } else { "built with debug information" },
    );
    let mut table = String::from(
        "| program | file MB | RSS MB | PSS MB | own MB | CPU s/min | told kbit/s | all kbit/s |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for cost in costs {
        let [file, resident, proportional, processor, told] = cost.values();
        let largest = |kib: &[u64]| mb(kib.iter().copied().max().unwrap_or(0));
        writeln!(
            table,
            "| {} | {file:.1} | {resident:.1} ({:.1}) | {proportional:.1} ({:.1}) | {:.1} \
             | {processor:.3} | {told:.2} | {:.2} |",
            cost.program,
            largest(&cost.resident_kib),
            largest(&cost.proportional_kib),
            median_mb(&cost.anonymous_kib),
            cost.rate(cost.traffic_bytes),
        )?;
    }
    table += "\n| quantity | agent | target";
    costs.iter().skip(1).for_each(|peer| table += &format!(" | of {}", peer.program));
    table += " |\n|---|---|---";
    costs.iter().skip(1).for_each(|_| table += "|---");
    table += "|\n";
    for (at, (quantity, target)) in TARGETS.iter().enumerate() {
        let value = agent.values()[at];
        write!(table, "| {quantity} | {value:.2} | {}", target.judge(value))?;
        for peer in costs.iter().skip(1) {
            let theirs = peer.values()[at];
            match theirs > 0.0 {
                true => write!(table, " | {:.2}×", value / theirs)?,
                false => write!(table, " | –")?,
            }
        }
        table += " |\n";
    }
    let title = "The agent beside its peers";
    Ok(figures::section_of_tables(title, command, &notes, &table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(program: &str, told_bytes: u64) -> Cost {
        Cost {
            program: program.into(),
            program_bytes: 10_000_000,
            is_stripped: true,
            resident_kib: vec![7_000, 9_000, 6_000],
            proportional_kib: vec![4_000],
            anonymous_kib: vec![2_000],
            processor: Duration::from_millis(600),
            period: Duration::from_secs(600),
            traffic_bytes: 200_000,
            told_bytes,
        }
    }

    #[test]
    fn each_figure_stands_beside_its_target_and_its_peers() {
        let (period, settle) = (Duration::from_secs(600), Duration::from_secs(60));
        let plan = Plan { period, settle, tempo: Tempo::Default, peers: Vec::new() };
        let costs = [cost("haidang-agent", 112_500), cost("peer", 0)];
        let section = section("a command", &plan, &costs).expect("both are there");
        for line in [
            "| haidang-agent | 10.0 | 7.2 (9.2) | 4.1 (4.1) | 2.0 | 0.060 | 1.50 | 2.67 |",
            "| CPU, s a minute | 0.06 | ≤ 0.06: met | 1.00× |",
            "| told, kbit/s | 1.50 | ≤ 1.5: met | – |",
        ] {
            assert!(section.contains(line), "{line}\n{section}");
        }
    }
}
