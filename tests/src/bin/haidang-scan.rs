//! Looks at every TLS listener of a collector with sslyze and records what it finds; it fails where
//! that is worse than what is promised. `tests/tests/scan.rs` is the same without the record.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use clap::Parser;
use haidang_tests::binaries::repository;
use haidang_tests::figures;
use haidang_tests::tls_scan::{Finding, Listener, scan_all};

#[derive(Parser)]
#[command(about = "Looks at the TLS of a collector with sslyze, and records what it finds")]
struct Arguments;

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments = Arguments::parse();
    let all = scan_all().await?;
    let section = section(&all)?;
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    let findings = all.iter().flat_map(|(_, findings)| findings);
    let worse = findings.filter(|finding| !finding.is_promised).count();
    ensure!(worse == 0, "{worse} findings are worse than what is promised; they are named above");
    Ok(())
}

fn section(all: &[(Listener, Vec<Finding>)]) -> Result<String> {
    let notes = "sslyze, as `tests/python/sources.txt` pins it, on every listener that speaks TLS; \
                 early data with an enrolled machine's certificate where one is demanded. The last \
                 line is read off the wire, with a client that \
                 prefers X25519MLKEM768. Whatever is worse than promised, or could not be found \
                 out, is marked, and the command fails.";
    let mut table = String::from("| |");
    for (listener, _) in all {
        write!(table, " {} |", listener.name)?;
    }
    writeln!(table, "\n|---|{}", "---|".repeat(all.len()))?;
    let rows = all.first().map_or(0, |(_, findings)| findings.len());
    for row in 0..rows {
        write!(table, "| {} |", all[0].1[row].what)?;
        for (_, findings) in all {
            let Finding { found, is_promised, .. } = &findings[row];
            write!(table, " {found}{} |", if *is_promised { "" } else { " **(worse)**" })?;
        }
        writeln!(table)?;
    }
    Ok(figures::section_of_tables("TLS as sslyze finds it", "haidang-scan", notes, &table))
}
