//! Floods a collector at full size and records what it costs: `tests/tests/siege.rs` is the short
//! form. Everything happens on loopback.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use haidang_tests::binaries::repository;
use haidang_tests::figures;
use haidang_tests::flood::Flood;
use haidang_tests::siege::{Endured, Siege};

#[derive(Parser)]
#[command(about = "Floods a collector, and records its memory, files and honest agents")]
struct Arguments {
    /// How long each flood lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections that are opened and say nothing.
    #[arg(long, default_value_t = 10_000)]
    half_open: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { seconds, half_open } = Arguments::parse();
    let mut siege = Siege::begin().await?;
    let mut all = Vec::new();
    for flood in Flood::ALL {
        all.push(siege.flood(flood, Duration::from_secs(seconds)).await?);
    }
    all.push(siege.half_open(half_open).await?);
    let section = section(seconds, half_open, &all)?;
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    Ok(())
}

fn section(seconds: u64, half_open: usize, all: &[Endured]) -> Result<String> {
    let command = format!("haidang-siege --seconds {seconds} --half-open {half_open}");
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut text = format!(
        "## Siege\n\n{}\n\nFour connections pour each flood for {seconds} s into a collector \
         ({build} build) under a valid certificate; half-open ones say nothing until they are \
         ended, after 2 s. An honest agent reports every second all the while, and a newcomer makes \
         a connection and reports in the midst of it. All run on the same cores.\n\n\
         | attack | connections (ended by the collector) | MB taken | counted as | memory before → \
         peak, MiB | files before → peak | honest reports | newcomer, s |\n\
         |---|---|---|---|---|---|---|---|\n",
        figures::origin(&command)
    );
    for endured in all {
        let Endured { attack, poured, refused, memory_bytes, files, honest_reports, newcomer } =
            endured;
        let refused: Vec<_> =
            refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let mib = |bytes: u64| bytes >> 20;
        writeln!(
            text,
            "| {attack} | {} ({}) | {} | {} | {} → {} | {} → {} | {honest_reports} | {:.1} |",
            poured.connections,
            poured.ended_by_server,
            poured.bytes / 1_000_000,
            refused.join(", "),
            mib(memory_bytes.0),
            mib(memory_bytes.1),
            files.0,
            files.1,
            newcomer.as_secs_f64(),
        )?;
    }
    Ok(text)
}
