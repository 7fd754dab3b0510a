//! Writes the exposition of a roster of which every agency has just reported, and says on standard
//! error what a series costs.
//!
//! `cargo run --release -p haidang-collector --example exposition deploy/rosters/hanoi-2020.csv |
//! promtool check metrics`, or a number instead of a file for a made-up roster of so many agencies.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use haidang_collector::fleet::{Arrival, Fleet, FleetConfig, Listener, Now};
use haidang_collector::metrics::{CollectorMetrics, Exposition};
use haidang_collector::roster::{Loopback, Roster, Source, parse};
use haidang_proto::model::agency::AgentId;
use haidang_proto::model::flag::Flags;
use haidang_proto::model::quality::Quality;
use haidang_proto::model::report::{Connectivity, JournalStatus, Report};
use haidang_proto::model::verdict::Verdict;

fn main() -> anyhow::Result<()> {
    let argument = std::env::args().nth(1).context("name a roster file or a number of agencies")?;
    let text = match argument.parse() {
        Ok(agencies) => made_up(agencies),
        Err(_) => with_prefixes(&std::fs::read_to_string(&argument).context(argument.clone())?),
    };
    let source = Source { name: &argument, bytes: text.as_bytes() };
    let roster = Arc::new(parse(source, None, Loopback::Refused)?);
    let now = Now { mono: Duration::from_secs(100), wall: SystemTime::now() };
    let fleet = reported(&roster, now);

    let begin = Instant::now();
    let snapshot = Arc::new(fleet.snapshot(now));
    let snapshot_took = begin.elapsed();
    let own = CollectorMetrics::new(env!("CARGO_PKG_VERSION"), now.wall)?;
    // The best of several: the machine does other things too.
    let scrape = || {
        let begin = Instant::now();
        let bytes: usize =
            Exposition::new(Arc::clone(&snapshot), &own).map(|chunk| chunk.len()).sum();
        (begin.elapsed(), bytes)
    };
    let (took, bytes) = (0..20).map(|_| scrape()).min().context("twenty scrapes")?;
    let mut series = 0u32;
    let mut out = io::stdout().lock();
    for chunk in Exposition::new(Arc::clone(&snapshot), &own) {
        series += u32::try_from(chunk.split(|b| *b == b'\n').filter(|l| is_series(l)).count())?;
        out.write_all(&chunk)?;
    }
    writeln!(
        io::stderr(),
        "{} agencies: {series} series, {bytes} bytes in {took:?}, {} ns a series; snapshot {snapshot_took:?}",
        snapshot.agencies.len(),
        took.as_nanos() / u128::from(series)
    )?;
    Ok(())
}

fn is_series(line: &[u8]) -> bool {
    !line.is_empty() && !line.starts_with(b"#")
}

fn prefix(row: usize) -> String {
    format!("10.{}.{}.0/24", row >> 8, row & 255)
}

fn made_up(agencies: usize) -> String {
    let mut text = String::from("id,name,kind,parent,gso_code,id_code,lat,lon,local_prefixes\n");
    for row in 0..agencies {
        let _ = writeln!(text, "01-{row:05},Xã {row},xa,01,,,,,{}", prefix(row));
    }
    text
}

fn with_prefixes(text: &str) -> String {
    let mut lines = text.lines();
    let mut out = format!("{},local_prefixes\n", lines.next().unwrap_or(""));
    for (row, line) in lines.enumerate() {
        let _ = writeln!(out, "{line},{}", prefix(row));
    }
    out
}

fn reported(roster: &Arc<Roster>, now: Now) -> Fleet {
    let config = FleetConfig {
        report_interval: Duration::from_secs(10),
        goal_target_ratio: 1.0,
        security_goal_target_ratio: 0.8,
    };
    let mut fleet = Fleet::new(Arc::clone(roster), config, now);
    let mut quality = Quality { sent: 5, received: 5, ..Quality::default() };
    for ms in 1..=5 {
        quality.rtt.record(Duration::from_millis(ms));
    }
    quality.rtt_min = Some(Duration::from_millis(1));
    let begin = Instant::now();
    let mut agents = 0;
    for (row, agency) in roster.agencies().iter().enumerate() {
        let agent = AgentId(uuid::Uuid::from_u128(row as u128));
        fleet.enrolled(agent, agency.id.clone(), now.wall);
        let [a, b] = [row >> 8, row & 255].map(|part| u8::try_from(part).unwrap_or(u8::MAX));
        let source = IpAddr::from([10, a, b, 9]);
        let report = Report {
            process_nonce: [7; 16],
            machine_fingerprint: [1; 32],
            sequence: 1,
            sent_at: now.wall,
            agent_version: "0.1.0".into(),
            settings_version: 0,
            trust_bundle_version: 1,
            connectivity: Connectivity {
                verdict: Verdict::Connected,
                verdict_age: Duration::ZERO,
                flags: Flags::NONE,
                quality: quality.clone(),
                evidence: Vec::new(),
                surroundings: Vec::new(),
            },
            journal: JournalStatus::default(),
            host: None,
        };
        fleet.report(agent, report, Arrival { listener: Listener::Dedicated, source }, now);
        agents += 1;
    }
    let reports = begin.elapsed();
    let begin = Instant::now();
    fleet.tick(now);
    let _ = writeln!(
        io::stderr(),
        "{} ns a report with its enrolment, tick {:?}",
        reports.as_nanos() / u128::max(agents, 1),
        begin.elapsed()
    );
    fleet
}
