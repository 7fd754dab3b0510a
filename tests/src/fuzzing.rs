//! The record of fuzzing in `benches/RESULTS.md`: a row for each parser, of its last run. A run of
//! some parsers replaces their rows and no others, so that ten minutes for each can come from
//! several runs; no row adds up runs, and each names the commit, day and machine of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

/// The section's title in the file.
const TITLE: &str = "## Fuzzing of every parser";
const HEAD: &str = "| parser | executions | s | edges reached | inputs | peak MiB | failures | run |\n\
     |---|---|---|---|---|---|---|---|\n";
/// Cells of a row: those of [`HEAD`].
const CELLS: usize = 8;

/// What one parser's run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The parser.
    pub name: String,
    /// Inputs that were tried.
    pub executions: u64,
    /// How long it took; whole seconds are recorded.
    pub took: Duration,
    /// Edges of the program that were reached.
    pub coverage: u64,
    /// Inputs that are kept, seeds included.
    pub inputs: usize,
    /// Most memory.
    pub peak_mib: u64,
    /// Inputs that failed.
    pub crashes: usize,
    /// Commit, day and machine.
    pub provenance: String,
}

impl Run {
    /// Its row.
    pub fn row(&self) -> String {
        let Self { name, executions, took, coverage, inputs, peak_mib, crashes, provenance } = self;
        let seconds = took.as_secs();
        format!(
            "| {name} | {executions} | {seconds} | {coverage} | {inputs} | {peak_mib} | {crashes} | \
             {provenance} |"
        )
    }

    /// Reads a row. In a section that was written by one run the provenance stands above the table
    /// instead.
    fn read(row: &str, provenance_above: &str) -> Result<Self> {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let number = |at: usize| {
            let cell: &&str = cells.get(at).context("a cell is missing")?;
            cell.parse::<u64>().with_context(|| format!("{cell:?} is no number"))
        };
        let provenance = match cells.len() {
            CELLS => cells[CELLS - 1],
            _ => provenance_above,
        };
        Ok(Self {
            name: cells[0].to_owned(),
            executions: number(1)?,
            took: Duration::from_secs(number(2)?),
            coverage: number(3)?,
            inputs: usize::try_from(number(4)?)?,
            peak_mib: number(5)?,
            crashes: usize::try_from(number(6)?)?,
            provenance: provenance.to_owned(),
        })
    }
}

/// The section after a run: its row in place of a former one in `results`, in the order of the
/// parsers' names. A parser that is no more loses its row.
///
/// # Errors
/// When a former row cannot be read.
pub fn section(results: &str, names: &[&str], run: &Run, notes: &str) -> Result<String> {
    let mut rows = former(results)?;
    rows.insert(run.name.clone(), run.clone());
    let kept: Vec<_> = names.iter().filter_map(|name| rows.get(*name)).collect();
    let mut text = format!("{TITLE}\n\n{notes}\n\n{HEAD}");
    for run in &kept {
        writeln!(text, "{}", run.row())?;
    }
    let executions: u64 = kept.iter().map(|run| run.executions).sum();
    let seconds: u64 = kept.iter().map(|run| run.took.as_secs()).sum();
    let crashes: usize = kept.iter().map(|run| run.crashes).sum();
    let all = names.len();
    let of = if kept.len() == all { String::new() } else { format!(" of {all}") };
    writeln!(
        text,
        "| **{}{of} parsers** | {executions} | {seconds} | | | | {crashes} | |",
        kept.len()
    )?;
    Ok(text)
}

fn former(results: &str) -> Result<BTreeMap<String, Run>> {
    let lines = results.lines().skip_while(|line| *line != TITLE).skip(1);
    let lines: Vec<_> = lines.take_while(|line| !line.starts_with("## ")).collect();
    let above = lines.iter().find_map(|line| line.strip_prefix('`')?.split_once("` · "));
    let above = above.map_or("unknown", |(_, provenance)| provenance);
    // Head, rule and total are no parsers'.
    let is_row = |line: &&&str| {
        line.starts_with("| ") && !line.starts_with("| parser |") && !line.starts_with("| **")
    };
    let runs = lines.iter().filter(is_row).map(|row| {
        let run = Run::read(row, above).with_context(|| format!("the row {row:?}"))?;
        Ok((run.name.clone(), run))
    });
    runs.collect()
}

#[cfg(test)]
mod tests {
    use crate::binaries::repository;

    use super::*;

    const WRITTEN_AT_ONCE: &str = "# M\n\n## Fuzzing of every parser\n\n\
        `haidang-fuzz --seconds 40` · commit a · 2026-11-25 · 2 cores\n\nnotes\n\n\
        | parser | executions | s | edges reached | inputs | peak MiB | failures |\n\
        |---|---|---|---|---|---|---|\n\
        | first | 10 | 41 | 5 | 6 | 7 | 0 |\n\
        | gone | 99 | 41 | 5 | 6 | 7 | 1 |\n\
        | second | 20 | 42 | 5 | 6 | 7 | 0 |\n\
        | **3 parsers** | 129 | 124 | | | | 1 |\n\n## Next\n\n| first | not ours |\n";

    fn run(name: &str, executions: u64, seconds: u64) -> Run {
        Run {
            name: name.into(),
            executions,
            took: Duration::from_secs(seconds),
            coverage: 8,
            inputs: 9,
            peak_mib: 10,
            crashes: 0,
            provenance: "commit b · 2026-11-30 · 2 cores".into(),
        }
    }

    #[test]
    fn a_run_replaces_its_own_row_and_no_other() {
        let names = ["first", "second", "third"];
        let after =
            |results: &str, run: &Run| section(results, &names, run, "notes").expect("read");
        let once = after(WRITTEN_AT_ONCE, &run("second", 700, 600));
        let rows: Vec<_> = once.lines().skip(6).collect();
        assert_eq!(
            rows,
            [
                "| first | 10 | 41 | 5 | 6 | 7 | 0 | commit a · 2026-11-25 · 2 cores |",
                "| second | 700 | 600 | 8 | 9 | 10 | 0 | commit b · 2026-11-30 · 2 cores |",
                "| **2 of 3 parsers** | 710 | 641 | | | | 0 | |",
            ]
        );
        let again = after(&after(&once, &run("third", 1, 600)), &run("second", 2, 3));
        let rows: Vec<_> = again.lines().skip(6).collect();
        assert_eq!(
            rows[0],
            "| first | 10 | 41 | 5 | 6 | 7 | 0 | commit a · 2026-11-25 · 2 cores |"
        );
        assert_eq!(rows[3], "| **3 parsers** | 13 | 644 | | | | 0 | |", "the last run, not a sum");
    }

    #[test]
    fn the_rows_that_are_recorded_are_read() {
        let path = repository("tests/benches/RESULTS.md");
        let results = std::fs::read_to_string(path).expect("the repository has it");
        let rows = former(&results).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(rows.contains_key("wire_report"), "{rows:?}");
        assert!(rows.values().all(|run| run.provenance.starts_with("commit ")), "{rows:?}");
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_error_and_no_loss() {
        let spoiled = WRITTEN_AT_ONCE.replace("| 20 |", "| twenty |");
        assert!(section(&spoiled, &["second"], &run("first", 1, 2), "notes").is_err());
        assert!(section("# M\n", &["first"], &run("first", 1, 2), "notes").is_ok());
    }
}
