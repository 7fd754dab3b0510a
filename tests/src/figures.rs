//! Figures for `benches/RESULTS.md`, which only commands write: what was run, on what, and every
//! raw value.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// Measured times of one quantity.
#[derive(Debug, Clone)]
pub struct Times {
    /// What was measured.
    pub quantity: String,
    /// Each run's time, in order.
    pub runs: Vec<Duration>,
}

impl Times {
    /// Minimum, median and maximum; nothing without runs.
    pub fn spread(&self) -> Option<(Duration, Duration, Duration)> {
        let mut sorted = self.runs.clone();
        sorted.sort();
        let median = *sorted.get(sorted.len() / 2)?;
        Some((*sorted.first()?, median, *sorted.last()?))
    }
}

/// One section of the file, under its title.
///
/// # Errors
/// When a time has no runs.
pub fn section(title: &str, command: &str, notes: &str, times: &[Times]) -> Result<String> {
    let mut text = format!("## {title}\n\n{}\n\n{notes}\n\n", origin(command));
    text += "| quantity | runs | min s | median s | max s | every run, s |\n|---|---|---|---|---|---|\n";
    for measured in times {
        let Times { quantity, runs } = measured;
        let (min, median, max) = measured.spread().context("a figure has at least one run")?;
        let every: Vec<_> = runs.iter().map(|run| format!("{:.1}", run.as_secs_f64())).collect();
        writeln!(
            text,
            "| {quantity} | {} | {:.1} | {:.1} | {:.1} | {} |",
            runs.len(),
            min.as_secs_f64(),
            median.as_secs_f64(),
            max.as_secs_f64(),
            every.join(" ")
        )?;
    }
    Ok(text)
}

/// One section of the file whose figures are tables of their own.
pub fn section_of_tables(title: &str, command: &str, notes: &str, tables: &str) -> String {
    format!("## {title}\n\n{}\n\n{notes}\n\n{tables}", origin(command))
}

/// Puts a section into the file: in place of the one with the same title, or at the end.
///
/// # Errors
/// When the file cannot be written.
pub fn record(path: &Path, section: &str) -> Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "# Measurements\n\nWritten by the commands that each section names, never by hand.\n\n"
                .to_owned()
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    if let Some(directory) = path.parent() {
        let made = fs::create_dir_all(directory);
        made.with_context(|| format!("make {}", directory.display()))?;
    }
    fs::write(path, merged(&old, section)).with_context(|| format!("write {}", path.display()))
}

fn merged(old: &str, section: &str) -> String {
    let title = section.lines().next().unwrap_or_default();
    let mut kept = String::new();
    let mut inside = false;
    for line in old.lines() {
        if line.starts_with("## ") {
            inside = line == title;
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    format!("{}\n\n{}\n", kept.trim_end(), section.trim_end())
}

/// Command, commit, date and machine.
pub fn origin(command: &str) -> String {
    format!("`{command}` · {}", provenance())
}

/// Commit, date and machine.
pub fn provenance() -> String {
    let commit = output(Command::new("git").args(["describe", "--always", "--dirty"]));
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let kernel = output(Command::new("uname").args(["-sr"]));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("commit {commit} · {date} · {cpus} cores, {kernel}")
}

fn output(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    output.map_or_else(
        || "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_its_former_self_and_no_other() {
        let old = "# M\n\n## A\n\nold\n\n## B\n\nb\n";
        assert_eq!(merged(old, "## A\n\nnew\n"), "# M\n\n## B\n\nb\n\n## A\n\nnew\n");
        assert_eq!(merged("# M\n", "## A\n\nnew"), "# M\n\n## A\n\nnew\n");
    }

    #[test]
    fn the_first_section_makes_the_file_and_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("benches/RESULTS.md");
        record(&path, "## A\n\na").expect("written");
        assert!(fs::read_to_string(&path).expect("it is there").contains("## A"));
    }

    #[test]
    fn the_median_of_the_runs_is_one_of_them() {
        let seconds = |seconds| Duration::from_secs(seconds);
        let times =
            Times { quantity: String::new(), runs: vec![seconds(3), seconds(1), seconds(2)] };
        assert_eq!(times.spread(), Some((seconds(1), seconds(2), seconds(3))));
        assert_eq!(Times { quantity: String::new(), runs: Vec::new() }.spread(), None);
    }
}
