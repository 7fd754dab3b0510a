//! Faults with a count. Each command does what its name says to the real programs, looks for every
//! acknowledged record, and writes its figures into `benches/RESULTS.md`.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use haidang_tests::binaries::repository;
use haidang_tests::collector::Tempo;
use haidang_tests::store_fault::{self, StoreFault};
use haidang_tests::{clocks, figures, herd, interrupted, kills, power_cut, pressure};

/// Of the shipped Prometheus.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Parser)]
#[command(about = "Faults under load, with a count of what was lost")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Kill collector and agents at random, and look for every acknowledged record.
    Kills {
        /// How many kills.
        #[arg(long, default_value_t = 1000)]
        runs: u32,
        /// Repeats the victims and moments of an earlier run; drawn when it is not given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Cut the power after every operation of the store on its files. Needs strace.
    PowerCut {
        /// Deliveries of each of three journals in each of two sessions.
        #[arg(long, default_value_t = power_cut::DELIVERIES)]
        deliveries: u32,
        /// Cuts after each operation that lose things at random.
        #[arg(long, default_value_t = 2)]
        random_losses: u32,
        /// Repeats deliveries and losses; drawn when it is not given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Let the store fail under load, in six ways one after another. Needs root and strace.
    Store {
        /// How long each fault stands once it shows.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How long a disk that does not answer stands.
        #[arg(long, default_value_t = 600)]
        hanging_seconds: u64,
        /// Agents that report meanwhile.
        #[arg(long, default_value_t = 1000)]
        agents: usize,
        /// Only these faults; what came of them is printed and not recorded.
        #[arg(long, value_delimiter = ',')]
        only: Vec<StoreFault>,
    },
    /// Kill the collector under a crowd of agents, start it again, and see everybody come back.
    Herd {
        /// How many agents, each with its mTLS connection.
        #[arg(long, default_value_t = 10_000)]
        agents: usize,
        /// How long the collector is not started again.
        #[arg(long, default_value_t = 0)]
        away_seconds: u64,
    },
    /// Flood the collector with posture, a week of journals and readers that never read, and see
    /// that no state changes.
    Pressure {
        /// Agents that report meanwhile, and send the posture.
        #[arg(long, default_value_t = 1000)]
        agents: usize,
        /// How long each pressure stands at least; a backlog until it is delivered.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Agents that deliver a week at once.
        #[arg(long, default_value_t = 1000)]
        backlog_agents: usize,
        /// Connections that ask over HTTP and never read.
        #[arg(long, default_value_t = 300)]
        readers: usize,
    },
    /// Step the collector's clock by an hour and a year, and start it with a wrong one. Needs
    /// libfaketime.
    Clocks {
        /// Agents that report meanwhile.
        #[arg(long, default_value_t = 300)]
        agents: usize,
    },
    /// What `power-cut` records.
    #[command(hide = true)]
    StoreWriter {
        #[arg(long)]
        directory: PathBuf,
        #[arg(long)]
        deliveries: u32,
        #[arg(long)]
        seed: u64,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let task = run(Arguments::parse().command);
    tokio::select! {
        done = task => done,
        () = interrupted() => Ok(()),
    }
}

async fn run(task: Task) -> Result<()> {
    let section = match task {
        Task::Kills { runs, seed } => {
            kills::run(runs, seeded(seed), |progress| println!("{progress}")).await?.section()?
        }
        Task::PowerCut { deliveries, random_losses, seed } => {
            let program = std::env::current_exe().context("ask where this program is")?;
            let seed = seeded(seed);
            let plan = power_cut::Plan { program, deliveries, random_losses, seed };
            tokio::task::block_in_place(|| power_cut::run(plan))?.section()?
        }
        Task::Store { seconds, hanging_seconds, agents, only } => {
            let chosen = if only.is_empty() { StoreFault::ALL.to_vec() } else { only.clone() };
            let faults = chosen.into_iter().map(|fault| {
                let seconds = match fault {
                    StoreFault::Hanging => hanging_seconds,
                    _ => seconds,
                };
                (fault, Duration::from_secs(seconds))
            });
            let plan = store_fault::Plan {
                faults: faults.collect(),
                agents,
                tempo: Tempo::Default,
                on_duty: true,
            };
            let section = store_fault::run(plan).await?.section()?;
            if !only.is_empty() {
                println!("{section}");
                return Ok(());
            }
            section
        }
        Task::Herd { agents, away_seconds } => {
            let away = Duration::from_secs(away_seconds);
            let plan = herd::Plan { agents, tempo: Tempo::Default, away, on_duty: true };
            herd::run(plan).await?.section()?
        }
        Task::Pressure { agents, seconds, backlog_agents, readers } => {
            let plan = pressure::Plan {
                agents,
                tempo: Tempo::Default,
                lasting: Duration::from_secs(seconds),
                backlog_agents,
                backlog_days: 7,
                readers,
                scrape_within: SCRAPE_TIMEOUT,
                on_duty: true,
            };
            pressure::run(plan).await?.section()?
        }
        Task::Clocks { agents } => {
            clocks::run(agents, Tempo::Default, &clocks::ALL).await?.section()?
        }
        Task::StoreWriter { directory, deliveries, seed } => {
            return power_cut::write(&directory, deliveries, seed).await;
        }
    };
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    Ok(())
}

/// The seed that was asked for, or a drawn one. Told, so that a failure can be repeated.
fn seeded(asked: Option<u64>) -> u64 {
    let seed = asked.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("seed {seed}");
    seed
}
