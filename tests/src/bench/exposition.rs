//! What a scrape costs: nanoseconds a series and peak memory, by the size of the roster. Each
//! measurement is a process of its own, so that the peaks are apart. The peer is the `prometheus`
//! crate's own encoder with the very same series in its vectors.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;
use std::str;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use haidang_collector::fleet::{Arrival, Fleet, FleetConfig, Listener, Now};
use haidang_collector::metrics::{self, CollectorMetrics};
use haidang_collector::posture::{Findings, MachinePosture, Order};
use haidang_collector::roster::{self, Loopback, Source};
use haidang_collector::snapshot::Snapshot;
use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::posture::{CheckId, CheckSet, MachineKind, Outcome};
use haidang_proto::model::report::{JournalStatus, Report};
use prometheus::{Encoder as _, GaugeVec, Opts, Registry, TextEncoder};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Figure, Floor, Row, median};
use crate::binaries;
use crate::cost::{self, Cost};
use crate::exposition::Exposition;
use crate::load;
use crate::target::Target;

/// Scrapes of which the median is taken.
const PASSES: usize = 5;

/// Who writes the series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Writer {
    /// The collector's own exposition.
    Haidang,
    /// The `prometheus` crate.
    PrometheusCrate,
}

/// What one writer needs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Written {
    /// Series in a scrape.
    pub series: usize,
    /// Bytes of its text.
    pub bytes: usize,
    /// Processor time of a scrape: the median.
    pub cpu: Duration,
    /// Peak resident memory over the state that is written.
    pub peak_bytes: u64,
}

impl Written {
    fn ns_per_series(self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / self.series.max(1) as f64
    }
}

/// Measures at each size. The peer gets at most so many series.
///
/// # Errors
/// When a measuring process fails.
pub fn run(agencies: &[usize], peer_series_max: usize) -> Result<Figure> {
    let mut rows = Vec::new();
    for n in agencies {
        let own = child(Writer::Haidang, *n, usize::MAX)?;
        let peer = child(Writer::PrometheusCrate, *n, peer_series_max)?;
        ensure!(
            peer.series == own.series.min(peer_series_max),
            "the peer wrote {} series of {}",
            peer.series,
            own.series
        );
        let series = format!("{} of {} series", peer.series, own.series);
        let row = |quantity, value, target, floor, peer| Row {
            quantity,
            n: *n,
            value,
            target,
            floor,
            peer: Some((peer, series.clone())),
        };
        rows.extend([
            row(
                "CPU ns / series",
                own.ns_per_series(),
                Target::at_most(50.0),
                Floor::Design("31–36"),
                peer.ns_per_series(),
            ),
            row(
                "peak memory over the state, MiB",
                mib(own.peak_bytes),
                Target::of_words("independent of N"),
                Floor::Design("one chunk, 0.06"),
                mib(peer.peak_bytes),
            ),
            row(
                "CPU ms / scrape",
                own.cpu.as_secs_f64() * 1e3,
                match *n {
                    11_384 => Target::at_most(50.0).noting(" (nation, 20 series an agency)"),
                    _ => Target::NONE,
                },
                Floor::Unknown,
                peer.cpu.as_secs_f64() * 1e3,
            ),
        ]);
    }
    Ok(Figure {
        title: "Exposition",
        size: "agencies",
        peer: "`prometheus` crate, GaugeVec and TextEncoder",
        notes: format!(
            "One connected machine an agency, with quality and posture; no budget of series. Each \
             value is the median of {PASSES} scrapes in a process of its own; the thread's \
             processor time. Up to 1,000 agencies have a series a check, larger rosters have \
             fewer series an agency. Memory is VmHWM over the resident memory with the fleet's \
             state, which the collector holds anyway; the peer's vectors come on top of that \
             state. The peer holds and writes the same series with the same labels, at most \
             {peer_series_max}."
        ),
        rows,
    })
}

/// Measures one writer in this process, whose peak it resets.
///
/// # Errors
/// When a peak cannot be read, or the series are not what they should be.
pub fn measure_here(writer: Writer, agencies: usize, series_max: usize) -> Result<Written> {
    let (fleet, now) = fleet_of(agencies)?;
    let snapshot = Arc::new(fleet.snapshot(now));
    let written = match writer {
        Writer::Haidang => own(&snapshot),
        Writer::PrometheusCrate => peer(&snapshot, series_max),
    };
    // Only now: what it frees would hide what is allocated.
    drop(fleet);
    written
}

fn child(writer: Writer, agencies: usize, series_max: usize) -> Result<Written> {
    let writer = match writer {
        Writer::Haidang => "haidang",
        Writer::PrometheusCrate => "prometheus-crate",
    };
    let program = binaries::program("haidang-bench")?;
    let output = Command::new(&program)
        .args(["exposition-here", "--writer", writer])
        .args(["--agencies", &agencies.to_string(), "--series-max", &series_max.to_string()])
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the measuring process failed: {errors}");
    serde_json::from_slice(&output.stdout).context("read what the measuring process found")
}

fn own(snapshot: &Arc<Snapshot>) -> Result<Written> {
    let registry = CollectorMetrics::new("0.1.0", SystemTime::now())?;
    let scrape = || metrics::Exposition::within(Arc::clone(snapshot), &registry, usize::MAX);
    let pid = std::process::id();
    cost::reset_peak(pid)?;
    let before = Cost::of(pid)?.resident_bytes;
    let mut times = Vec::with_capacity(PASSES);
    let mut bytes = 0;
    for _ in 0..PASSES {
        let began = cpu();
        bytes = scrape().map(|chunk| chunk.len()).sum();
        times.push((cpu() - began).as_secs_f64());
    }
    let peak_bytes = cost::peak_bytes(pid)?.saturating_sub(before);
    let series = scrape().map(|chunk| series_in(&chunk)).sum();
    Ok(Written { series, bytes, cpu: Duration::from_secs_f64(median(times)), peak_bytes })
}

fn peer(snapshot: &Arc<Snapshot>, series_max: usize) -> Result<Written> {
    let own = CollectorMetrics::new("0.1.0", SystemTime::now())?;
    let pid = std::process::id();
    cost::reset_peak(pid)?;
    let before = Cost::of(pid)?.resident_bytes;
    let registry = Registry::new();
    let mut families: HashMap<String, GaugeVec> = HashMap::new();
    let mut filled = 0;
    'filling: for chunk in metrics::Exposition::within(Arc::clone(snapshot), &own, usize::MAX) {
        for sample in Exposition::parse(str::from_utf8(&chunk)?)?.samples() {
            if filled == series_max {
                break 'filling;
            }
            if !families.contains_key(&sample.name) {
                let labels: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
                let family =
                    GaugeVec::new(Opts::new(&sample.name, "As the collector's."), &labels)?;
                registry.register(Box::new(family.clone()))?;
                families.insert(sample.name.clone(), family);
            }
            let family = families.get(&sample.name).context("it was registered before")?;
            let values: Vec<&str> = sample.labels.values().map(String::as_str).collect();
            family.get_metric_with_label_values(&values)?.set(sample.value);
            filled += 1;
        }
    }
    let mut times = Vec::with_capacity(PASSES);
    let mut text = Vec::new();
    for _ in 0..PASSES {
        text = Vec::new();
        let began = cpu();
        TextEncoder::new().encode(&registry.gather(), &mut text)?;
        times.push((cpu() - began).as_secs_f64());
    }
    let peak_bytes = cost::peak_bytes(pid)?.saturating_sub(before);
    let series = series_in(&text);
    ensure!(series == filled, "{filled} series were set and {series} written");
    let cpu = Duration::from_secs_f64(median(times));
    Ok(Written { series, bytes: text.len(), cpu, peak_bytes })
}

fn series_in(text: &[u8]) -> usize {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).count()
}

/// A fleet of as many communes with a connected machine each.
fn fleet_of(agencies: usize) -> Result<(Fleet, Now)> {
    let mut rows = String::from("id,name,kind,parent,gso_code,id_code,lat,lon,local_prefixes\n");
    for row in 0..agencies {
        let network = Ipv4Addr::from_bits(network(row)?);
        writeln!(rows, "01-{row:06},Xã {row},xa,01,,,,,{network}/26")?;
    }
    let source = Source { name: "roster.csv", bytes: rows.as_bytes() };
    let roster = Arc::new(roster::parse(source, None, Loopback::Refused)?);
    let config = FleetConfig {
        report_interval: Duration::from_secs(10),
        goal_target_ratio: 1.0,
        security_goal_target_ratio: 0.8,
    };
    let now = Now { mono: Duration::from_secs(100), wall: SystemTime::now() };
    let mut fleet = Fleet::new(Arc::clone(&roster), config, now);
    for row in 0..agencies {
        let agency: AgencyId = format!("01-{row:06}").parse()?;
        let agent = AgentId(Uuid::from_u128(row as u128));
        fleet.enrolled(agent, agency, now.wall + Duration::from_secs(86_400));
        let arrival = Arrival {
            listener: Listener::Dedicated,
            source: Ipv4Addr::from_bits(network(row)? + 1).into(),
        };
        fleet.report(agent, report(now.wall), arrival, now);
        fleet.posture(agent, posture(now.wall));
    }
    fleet.tick(now);
    Ok((fleet, now))
}

/// 10.0.0.0/26, 10.0.0.64/26 and so on.
fn network(row: usize) -> Result<u32> {
    let first = Ipv4Addr::new(10, 0, 0, 0).to_bits();
    ensure!(row < 1 << 18, "10.0.0.0/8 has room for 262,144 agencies");
    Ok(first + (u32::try_from(row)? << 6))
}

fn report(sent_at: SystemTime) -> Report {
    Report {
        process_nonce: [1; 16],
        machine_fingerprint: [2; 32],
        sequence: 1,
        sent_at,
        agent_version: "0.1.0".into(),
        settings_version: 1,
        trust_bundle_version: 1,
        connectivity: load::connectivity(),
        journal: JournalStatus::default(),
        host: None,
    }
}

fn posture(at: SystemTime) -> MachinePosture {
    let mut findings = Findings::UNREAD;
    for check in CheckId::ALL.iter().step_by(2) {
        findings.put(*check, Outcome::Pass);
    }
    MachinePosture {
        order: Order { journal: 1, seq: 1 },
        whole_at: Some(at),
        machine: MachineKind::Workstation,
        findings,
        parked: CheckSet::NONE,
        update_pending_since: Some(at),
        signatures_made: Some(at),
        certificate_ends: Some(at + Duration::from_secs(86_400)),
        unrecognised: 0,
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (time.tv_sec, time.tv_nsec);
    Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
