//! The product under load, for people who look at it meanwhile: with a profiler, or in Grafana.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use haidang_tests::load::{self, LoadOutcome, LoadPlan};

#[derive(Parser)]
#[command(about = "The product under load")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Simulate agents against a collector, and say what they cost it. `haidang-bench` measures
    /// beside targets, floors and peers.
    Load {
        /// Agents, each with its own mTLS connection; several numbers are run one after another.
        #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
        agents: Vec<usize>,
        /// Reports a second of all agents together.
        #[arg(long, default_value_t = 2_000)]
        rate: u32,
        /// How long reports are sent.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { command } = Arguments::parse();
    match command {
        Task::Load { agents, rate, seconds } => {
            let duration = Duration::from_secs(seconds);
            let mut outcomes = Vec::new();
            for agents in agents {
                outcomes.push(load::run(LoadPlan { agents, rate, duration }).await?);
            }
            println!("{}", table(&outcomes)?);
        }
    }
    Ok(())
}

fn table(outcomes: &[LoadOutcome]) -> Result<String> {
    let mut text = String::from(
        "| connections | reports | errors | held back | p50 ms | p99 ms | CPU-s / million reports \
         | CPU µs / handshake | KiB / connection |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let ms = |share| outcome.latency(share).unwrap_or_default().as_secs_f64() * 1e3;
        writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} |",
            outcome.plan.agents,
            outcome.reports,
            outcome.errors,
            outcome.held_back,
            ms(0.5),
            ms(0.99),
            outcome.cpu_seconds_per_million(),
            outcome.connecting_cpu.as_secs_f64() * 1e6 / outcome.plan.agents as f64,
            outcome.bytes_per_connection() / 1024.0,
        )?;
    }
    Ok(text)
}
