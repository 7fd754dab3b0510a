//! Faults with a count: `kills` ends collector and agents at random under load, looks for every
//! record, and writes the figures into `benches/RESULTS.md`.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use anyhow::Result;
use clap::{Parser, Subcommand};
use haidang_tests::binaries::repository;
use haidang_tests::{figures, interrupted, kills};

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
}

#[tokio::main]
async fn main() -> Result<()> {
    let Task::Kills { runs, seed } = Arguments::parse().command;
    let seed = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("seed {seed}");
    let task = async {
        let outcome = kills::run(runs, seed, |progress| println!("{progress}")).await?;
        let section = outcome.section()?;
        figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
        println!("{section}");
        Ok(())
    };
    tokio::select! {
        done = task => done,
        () = interrupted() => Ok(()),
    }
}
