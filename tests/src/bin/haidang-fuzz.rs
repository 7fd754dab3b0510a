//! Fuzzes every parser of outside bytes, or some, for a given time each and records each parser's
//! last run in `benches/RESULTS.md`. Needs nightly Rust and cargo-fuzz (`cargo install cargo-fuzz`).
//!
//! What libFuzzer finds is kept outside the checkout, beside the build, so that the next run goes
//! on from there. A crash is left in `tests/fuzz/artifacts`; it is mended, and its input is
//! committed to the parser's corpus.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use haidang_tests::binaries::repository;
use haidang_tests::figures;
use haidang_tests::fuzzing::{Run, section};
use haidang_tests::parsers::{all, corpus_directory};

/// One input, with the sanitizer, on a busy machine.
const INPUT_TIMEOUT_SECONDS: u32 = 20;
/// Memory of a fuzzed process, the sanitizer's own share included. The largest honest parser, xz,
/// is allowed 80 MiB.
const MEMORY_MIB_MAX: u32 = 1_024;
/// Bytes of an input: the largest that is read whole in one datagram, and every seed fits.
const INPUT_BYTES_MAX: usize = 64 << 10;

#[derive(Parser)]
#[command(about = "Fuzzes every parser of outside bytes, and records the run")]
struct Arguments {
    /// How long each parser is fuzzed.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Only these; the rows of others stay as they are.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Parsers at a time; as many as there are processors when it is not given.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
}

fn main() -> Result<()> {
    let Arguments { seconds, only, jobs } = Arguments::parse();
    let names: Vec<_> = all().into_iter().map(|(name, _)| name).collect();
    for name in &only {
        ensure!(names.contains(&&**name), "there is no parser {name:?}; there are {names:?}");
    }
    let jobs = match jobs {
        Some(jobs) => jobs,
        None => thread::available_parallelism().context("ask how many processors there are")?,
    };
    let target = target_directory();
    let program = build(&target)?;
    let is_chosen = |name: &&str| only.is_empty() || only.iter().any(|one| one == *name);
    let waiting = Mutex::new(names.iter().copied().filter(is_chosen));
    let results = Mutex::new(repository("tests/benches/RESULTS.md"));
    // Of the sources that run: the first row that is recorded changes the checkout.
    let provenance = format!("{}, {jobs} at a time", figures::provenance());
    let next = || locked(&waiting).next();
    let work = || {
        let mut crashes = 0;
        while let Some(name) = next() {
            let run = fuzz(&program, &target, name, seconds, &provenance)?;
            println!("{}", run.row());
            crashes += run.crashes;
            // One by one: ten minutes for each take hours, and may be interrupted.
            let path = locked(&results);
            let former = fs::read_to_string(&*path);
            let former = former.with_context(|| format!("read {}", path.display()))?;
            figures::record(&path, &section(&former, &names, &run, &notes())?)?;
        }
        anyhow::Ok(crashes)
    };
    let mut crashes = 0;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.get()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            crashes += worker.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(())
    })?;
    ensure!(crashes == 0, "{crashes} inputs failed; see tests/fuzz/artifacts");
    Ok(())
}

fn locked<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

fn target_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| repository("target")).join("fuzz")
}

fn build(target: &Path) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command
        .args(["+nightly", "fuzz", "build", "--fuzz-dir"])
        .arg(repository("tests/fuzz"))
        .arg("--target-dir")
        .arg(target)
        .arg("parser")
        .current_dir(repository(""));
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "cargo fuzz build failed; it needs nightly Rust and cargo-fuzz");
    // cargo-fuzz builds into a folder named for the host's triple.
    let built = fs::read_dir(target).with_context(|| format!("read {}", target.display()))?;
    let mut built = built.filter_map(|entry| Some(entry.ok()?.path().join("release/parser")));
    built.find(|path| path.is_file()).context("cargo fuzz build made no program")
}

fn fuzz(program: &Path, target: &Path, name: &str, seconds: u64, provenance: &str) -> Result<Run> {
    let found = target.join("corpus").join(name);
    let artifacts = repository("tests/fuzz/artifacts").join(name);
    for directory in [&found, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let started = Instant::now();
    let mut command = Command::new(program);
    command
        .env("HAIDANG_PARSER", name)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_TIMEOUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&found)
        .arg(corpus_directory(name))
        .stdin(Stdio::null());
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let took = started.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    let stat = |key: &str| {
        let line = said.lines().rev().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse().ok()
    };
    let crashes = entries(&artifacts)?;
    if !output.status.success() && crashes == 0 {
        let lines: Vec<_> = said.lines().collect();
        bail!("{name} did not run:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
    }
    let mut words = said.lines().rev().filter_map(|line| line.split_once(" cov: "));
    let coverage = words.next().and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    Ok(Run {
        name: name.to_owned(),
        took,
        executions: stat("stat::number_of_executed_units:").unwrap_or_default(),
        coverage: coverage.unwrap_or_default(),
        inputs: entries(&found)? + entries(&corpus_directory(name))?,
        peak_mib: stat("stat::peak_rss_mb:").unwrap_or_default(),
        crashes,
        provenance: provenance.to_owned(),
    })
}

fn entries(directory: &Path) -> Result<usize> {
    let entries = fs::read_dir(directory);
    Ok(entries.with_context(|| format!("read {}", directory.display()))?.count())
}

fn notes() -> String {
    format!(
        "`haidang-fuzz --seconds N [--jobs N] [--only parser,…]`, each row by the last run of its \
         parser, whose commit, day and machine it names.\n\nlibFuzzer with AddressSanitizer and \
         debug assertions, one process a parser, as many at a time as its row says (two where it \
         does not), inputs up to {} KiB, {INPUT_TIMEOUT_SECONDS} s and {MEMORY_MIB_MAX} MiB an \
         input. Seeds are in `tests/fuzz/corpus`, what earlier runs found is kept beside the \
         build. A failure is a panic, a broken invariant, a timeout or too much memory.",
        INPUT_BYTES_MAX >> 10,
    )
}
