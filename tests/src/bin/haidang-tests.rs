//! Measurements of the product under load, for people: prints figures and, when asked to, records
//! them in `benches/RESULTS.md`.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use haidang_tests::binaries::repository;
use haidang_tests::figures;
use haidang_tests::load::{self, LoadOutcome, LoadPlan};

#[derive(Parser)]
#[command(about = "The product under load")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Simulate agents against a collector: its processor time a million reports and a handshake,
    /// its memory a connection and its growth. A soak is a long one.
    Load {
        /// Agents, each with its own mTLS connection; several numbers are run one after another.
        #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
        agents: Vec<usize>,
        /// Reports a second of all agents together.
        #[arg(long, default_value_t = 2_000)]
        rate: u32,
        /// How long reports are sent; 1800 makes a soak.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Record the figures.
        #[arg(long)]
        record: bool,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { command } = Arguments::parse();
    match command {
        Task::Load { agents, rate, seconds, record } => {
            ensure!(
                !(record && cfg!(debug_assertions)),
                "figures of a debug build are not recorded; build with --release"
            );
            let duration = Duration::from_secs(seconds);
            let mut outcomes = Vec::new();
            for agents in &agents {
                let plan = LoadPlan { agents: *agents, rate, duration };
                outcomes.push(load::run(plan).await?);
            }
            let title = match duration >= SOAK {
                true => "Soak: the collector's memory over time",
                false => "Reports, handshakes and memory by connections",
            };
            let sizes: Vec<_> = agents.iter().map(usize::to_string).collect();
            let sizes = sizes.join(",");
            let command =
                format!("haidang-tests load --agents {sizes} --rate {rate} --seconds {seconds}");
            let section = figures::section_of_tables(title, &command, &notes(), &table(&outcomes)?);
            println!("{section}");
            if record {
                figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
            }
        }
    }
    Ok(())
}

/// From here on a run is a soak, with a section of its own.
const SOAK: Duration = Duration::from_secs(600);

fn notes() -> String {
    "Real mTLS HTTP/2 connections from one process to a collector on the same machine, an \
     identity each; processor time and resident memory are the collector's own, from /proc, with \
     authorization, fold, metrics, snapshots each second and the store. Targets: 45 CPU-s a \
     million reports at 10,000 connections (stretch 35; raw framed TLS alone 20), 32 KiB a \
     connection all included (stretch 24; TLS alone 10), a handshake 208 µs; the handshake's \
     figure here has the first report and the accept in it. Growth: slope over the second half."
        .into()
}

fn table(outcomes: &[LoadOutcome]) -> Result<String> {
    let mut text = String::from(
        "| connections | reports | errors | held back | p50 ms | p99 ms | CPU-s / million reports \
         | CPU µs / handshake | KiB / connection | growth KiB/min |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let ms = |share| outcome.latency(share).unwrap_or_default().as_secs_f64() * 1e3;
        let growth =
            outcome.growth_bytes_per_minute().map(|bytes| format!("{:.0}", bytes / 1024.0));
        writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} | {} |",
            outcome.plan.agents,
            outcome.reports,
            outcome.errors,
            outcome.held_back,
            ms(0.5),
            ms(0.99),
            outcome.cpu_seconds_per_million(),
            outcome.connecting_cpu.as_secs_f64() * 1e6 / outcome.plan.agents as f64,
            outcome.bytes_per_connection() / 1024.0,
            growth.unwrap_or_else(|| "–".into()),
        )?;
    }
    if let [first, .., last] = outcomes {
        let times = last.plan.agents as f64 / first.plan.agents as f64;
        let costs = last.cpu_seconds_per_million() / first.cpu_seconds_per_million();
        writeln!(
            text,
            "\nWith the number of connections N, a report's cost grows as N^{:.2}.",
            costs.ln() / times.ln()
        )?;
    }
    Ok(text)
}
