//! Power cuts of the store, at every operation on its files.
//!
//! A kill keeps the page cache and cannot see a missing sync. Here the product's own store is
//! filled under [`recording`]; then, for every operation that it did, the files are made as a power
//! cut just after it may leave them ([`disk`]): all that was not synced gone, or none of it, or some
//! sectors and names at random. Each such directory is opened by the store's own code, and has to
//! hold every record that had been acknowledged by then, once and as written, and nothing beyond
//! that but the records that follow.
//!
//! That the check can fail is shown in the same run: the same cuts with the syncs of files, and
//! then those of the directory, left out of the recording.

mod disk;
mod recording;
mod writer;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use haidang_collector::store::{Opened, Store};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::dice::Dice;
use crate::figures;

use self::disk::{Disk, Files, Loss};
use self::recording::Operation;
use self::writer::{JOURNALS, SESSIONS, STORE, journal_id, mark};

pub use self::writer::write;

/// Files in memory: thousands of stores are opened, and what they sync is of no interest.
const MEMORY: &str = "/dev/shm";
/// With so many deliveries the log reaches the thousand pages at which SQLite merges it, within
/// each session; some 8,000 operations.
pub const DELIVERIES: u32 = 50;
/// With syncs left out, so many of the cuts are tried: most of them fail.
const CONTROL_CUTS: usize = 50;

/// What is done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `haidang-faults`, whose `store-writer` is recorded.
    pub program: PathBuf,
    /// Deliveries of each of three journals in each of two sessions.
    pub deliveries: u32,
    /// After each operation so many cuts lose things at random, beside the two that lose all and
    /// nothing.
    pub random_losses: u32,
    /// Fixes deliveries and losses.
    pub seed: u64,
}

/// What came of it. [`run`] fails when a record is missing.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    /// Operations on files.
    pub operations: usize,
    /// Of these, syncs of files and of the directory.
    pub syncs: [usize; 2],
    /// Times that the log was merged into the store's file: at the end of each session, and within
    /// one as often as the log has grown to SQLite's thousand pages.
    pub checkpoints: usize,
    /// Acknowledgements.
    pub acknowledgements: usize,
    /// Records that were acknowledged at the end.
    pub records: u64,
    /// Cuts after which every acknowledged record was there.
    pub cuts: usize,
    /// Without syncs of files, and without those of the directory: cuts that were tried, and those
    /// in which a loss was found.
    pub controls: [(usize, usize); 2],
    /// How long it took.
    pub took: Duration,
}

/// Records the store at work, and cuts the power after every operation.
///
/// # Errors
/// When an acknowledged record is lost, changed or there twice, or the check finds nothing where
/// syncs are missing.
pub fn run(plan: Plan) -> Result<Outcome> {
    let began = Instant::now();
    let place = tempfile::tempdir().context("make a directory")?;
    let directory = place.path().join("store");
    fs::create_dir(&directory).context("make a directory for the store")?;
    let mut command = Command::new(&plan.program);
    command.arg("store-writer").arg("--directory").arg(&directory);
    command.args(["--deliveries", &plan.deliveries.to_string(), "--seed", &plan.seed.to_string()]);
    let operations = recording::record(&command, &directory)?;

    let losses = [Loss::Everything, Loss::Nothing].into_iter();
    let random = std::iter::repeat_n(Loss::AtRandom, plan.random_losses as usize);
    let losses: Vec<_> = losses.chain(random).collect();
    let mut bench = Bench::new(plan.seed)?;
    let mut disk = Disk::default();
    let mut acknowledged = [0; JOURNALS];
    let mut cuts = 0;
    for (number, operation) in operations.iter().enumerate() {
        disk.apply(operation);
        if let Operation::Acknowledged { journal, seq } = operation {
            acknowledged[*journal] = *seq;
        }
        for loss in &losses {
            let held = bench.open(&disk, *loss, &acknowledged);
            held.with_context(|| format!("cut after operation {number}, loss: {loss:?}"))?;
            cuts += 1;
        }
    }
    let count = |kind: fn(&Operation) -> bool| operations.iter().filter(|one| kind(one)).count();
    let file_sync = |one: &Operation| matches!(one, Operation::Synced(_));
    let directory_sync = |one: &Operation| matches!(one, Operation::DirectorySynced);
    let controls =
        [bench.control(&operations, file_sync)?, bench.control(&operations, directory_sync)?];
    for (tried, found) in controls {
        ensure!(found > 0, "of {tried} cuts without syncs none lost a record: the check is blind");
    }
    let acknowledgements = count(|one| matches!(one, Operation::Acknowledged { .. }));
    ensure!(acknowledgements > 0, "nothing was acknowledged");
    let checkpoints = checkpoints(&operations);
    let sessions = usize::try_from(SESSIONS)?;
    let least = if plan.deliveries >= DELIVERIES { sessions + 1 } else { sessions };
    ensure!(checkpoints >= least, "the log was merged {checkpoints} times, {least} are expected");
    Ok(Outcome {
        plan,
        operations: operations.len() - acknowledgements,
        syncs: [count(file_sync), count(directory_sync)],
        checkpoints,
        acknowledgements,
        records: acknowledged.iter().sum(),
        cuts,
        controls,
        took: began.elapsed(),
    })
}

/// How often the store's file itself is written after its log was.
fn checkpoints(operations: &[Operation]) -> usize {
    let written: Vec<_> = operations
        .iter()
        .filter_map(|operation| match operation {
            Operation::Wrote { file, .. } => Some(file.as_str()),
            _ => None,
        })
        .collect();
    let merges = |pair: &&[&str]| pair[0].ends_with("-wal") && pair[1] == STORE;
    written.windows(2).filter(merges).count()
}

/// Where stores are laid out and opened.
struct Bench {
    place: TempDir,
    dice: Dice,
}

impl Bench {
    fn new(seed: u64) -> Result<Self> {
        let place = match Path::new(MEMORY).is_dir() {
            true => tempfile::tempdir_in(MEMORY),
            false => tempfile::tempdir(),
        };
        Ok(Self { place: place.context("make a directory")?, dice: Dice(seed) })
    }

    /// Lays out what a power cut leaves, and looks for every acknowledged record.
    fn open(&mut self, disk: &Disk, loss: Loss, acknowledged: &[u64; JOURNALS]) -> Result<()> {
        let directory = self.place.path().join("store");
        fs::create_dir(&directory).context("make a directory")?;
        let files: Files = disk.after(loss, &mut self.dice);
        for (name, bytes) in &files {
            fs::write(directory.join(name), bytes).with_context(|| format!("write {name}"))?;
        }
        let held = holds(&directory.join(STORE), acknowledged);
        fs::remove_dir_all(&directory).context("remove a directory")?;
        held
    }

    /// Cuts with some operations left out; answers how many were tried and how many lost a record.
    fn control(
        &mut self,
        operations: &[Operation],
        left_out: impl Fn(&Operation) -> bool,
    ) -> Result<(usize, usize)> {
        let step = operations.len().div_ceil(CONTROL_CUTS).max(1);
        let (mut disk, mut acknowledged) = (Disk::default(), [0; JOURNALS]);
        let (mut tried, mut found) = (0, 0);
        for (number, operation) in operations.iter().enumerate() {
            if !left_out(operation) {
                disk.apply(operation);
            }
            if let Operation::Acknowledged { journal, seq } = operation {
                acknowledged[*journal] = *seq;
            }
            if number % step == 0 {
                tried += 1;
                found += usize::from(self.open(&disk, Loss::Everything, &acknowledged).is_err());
            }
        }
        Ok((tried, found))
    }
}

/// The store's own code opens what is there, and it holds what was acknowledged.
fn holds(path: &Path, acknowledged: &[u64; JOURNALS]) -> Result<()> {
    let Opened { store: _store, writer, reader: _reader } = Store::open(path)?;
    let connection = writer.connection();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "the store is damaged: {verdict}");
    for (journal, acknowledged) in acknowledged.iter().enumerate() {
        let held = records(connection, journal)?;
        ensure!(
            held >= *acknowledged,
            "{acknowledged} records of journal {journal} were acknowledged and {held} are there"
        );
    }
    Ok(())
}

/// How many records of a journal there are: from the first on without a hole, each as it was
/// written and applied once.
fn records(connection: &Connection, journal: usize) -> Result<u64> {
    let id = journal_id(journal);
    let mut statement = connection.prepare(
        "SELECT r.seq, json_extract(r.body, '$.event.bad_cycles')
         FROM records r JOIN journals j ON r.journal = j.id WHERE j.journal = ?1 ORDER BY r.seq",
    )?;
    let rows = statement.query_map([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut held = 0;
    for row in rows {
        let (seq, found): (i64, u32) = row?;
        held += 1;
        if (u64::try_from(seq)?, found) != (held, mark(journal, held)) {
            bail!("in place of record {held} of journal {journal} there is {seq}, or another one");
        }
    }
    let outages: i64 = connection.query_row(
        "SELECT count(*) FROM outages o JOIN journals j ON o.journal = j.id WHERE j.journal = ?1",
        [id.as_bytes()],
        |row| row.get(0),
    )?;
    ensure!(
        u64::try_from(outages)? == held,
        "{held} records of journal {journal} were applied {outages} times"
    );
    Ok(held)
}

impl Outcome {
    /// The section of `benches/RESULTS.md`.
    ///
    /// # Errors
    /// Never; writing to a text cannot fail.
    pub fn section(&self) -> Result<String> {
        let Plan { program: _, deliveries, random_losses, seed } = &self.plan;
        let command = format!(
            "haidang-faults power-cut --deliveries {deliveries} --random-losses {random_losses} \
             --seed {seed}"
        );
        let mut text = format!(
            "## The power cut at every operation of the store\n\n{}\n\n",
            figures::origin(&command)
        );
        writeln!(
            text,
            "The store takes records of {JOURNALS} journals at once, is closed and opened again, \
             under strace. After each operation on its files the power is cut: all that was not \
             synced is gone, or nothing of it, or sectors and names at random ({random_losses} \
             times). The store's own code opens each, and every record that had been acknowledged \
             by then has to be there, once and as written. Took {} s.\n",
            self.took.as_secs(),
        )?;
        text += "| what | count |\n|---|---|\n";
        let [(files_tried, files_found), (names_tried, names_found)] = self.controls;
        let rows = [
            ("operations on files", self.operations.to_string()),
            ("syncs of files", self.syncs[0].to_string()),
            ("syncs of the directory", self.syncs[1].to_string()),
            ("merges of the log into the file", self.checkpoints.to_string()),
            ("acknowledgements", self.acknowledgements.to_string()),
            ("records acknowledged at the end", self.records.to_string()),
            ("power cuts", self.cuts.to_string()),
            (
                "cuts after which an acknowledged record was lost, changed or there twice",
                "0".into(),
            ),
            (
                "the same check without syncs of files: losses found",
                format!("{files_found} of {files_tried}"),
            ),
            (
                "the same check without syncs of the directory: losses found",
                format!("{names_found} of {names_tried}"),
            ),
        ];
        for (what, count) in rows {
            writeln!(text, "| {what} | {count} |")?;
        }
        Ok(text)
    }
}
