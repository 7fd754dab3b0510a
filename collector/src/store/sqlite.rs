//! SQLite with one writer and one reader, each a thread with a bounded [`queue`] of jobs.
//!
//! The writer commits in groups: whatever waits in the queue joins the transaction that is open,
//! up to [`GROUP_RECORDS_MAX`] records or [`GROUP_TIME_MAX`], and backlogs up to twice as much; then
//! it commits once and answers all of them. Each job runs in its own savepoint, so that one that fails takes no other with
//! it. With nothing waiting, a job is committed at once.

mod queue;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::oneshot;

use self::queue::{Job, Queue, Run, Settle, Takes, Waiting};
use super::{StoreError, schema};

pub(super) use self::queue::Lane;

/// Records of one commit: 318,000 a second at this size, and no gain beyond. Backlogs may bring it to
/// twice as many.
const GROUP_RECORDS_MAX: usize = 1_024;
/// Time for which a transaction is kept open for further jobs, and once more for backlogs.
const GROUP_TIME_MAX: Duration = Duration::from_millis(20);
/// How long a caller waits for its answer; a backup takes as long as the file is large.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long SQLite waits for a lock that another process holds, such as an operator's shell.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// A write that has waited so long stands for a store that hangs: a commit takes milliseconds, and
/// a disk that is merely slow seconds.
const HANGS_AFTER: Duration = Duration::from_secs(10);
/// What a group writes first while the store is down. A commit in which nothing is written succeeds
/// on a disk that takes nothing, and would show as the end of the trouble.
const PROOF: &str = "INSERT INTO meta (key, content, version) VALUES ('proof', '', 1)
                     ON CONFLICT (key) DO UPDATE SET version = version + 1";
/// Pages copied by a backup before the reader's other callers would be served; 4 MiB.
const BACKUP_PAGES: i32 = 1_024;

/// The store, for everyone who asks it. Clones share it; it closes when the last is dropped.
#[derive(Clone)]
pub struct Store {
    writes: Queue,
    reads: Queue,
    health: Arc<Health>,
}

/// How the store fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether the last commit succeeded, and no prompt write has been waiting for ten seconds: a
    /// disk that hangs reports no failure.
    pub up: bool,
    /// Age of the oldest prompt write that waits or has failed, or of the commit under way.
    pub lag: Duration,
}

#[derive(Debug)]
struct Health {
    base: Instant,
    up: AtomicBool,
    /// Microseconds after `base` at which the oldest unfinished write was queued; 0 for none.
    waiting_since: AtomicU64,
}

/// What opening gives: the handle, and two loops that the caller has to run on threads.
pub struct Opened {
    /// For everyone who asks.
    pub store: Store,
    /// Must run for writes to be done.
    pub writer: StoreThread,
    /// Must run for questions to be answered.
    pub reader: StoreThread,
}

/// One of the store's loops.
pub struct StoreThread {
    connection: Connection,
    jobs: Waiting,
    health: Option<Arc<Health>>,
    /// Why nothing can be written, as it was logged.
    trouble: Option<String>,
}

impl Store {
    /// Opens or makes the store and brings it to the current schema.
    ///
    /// # Errors
    /// When the file cannot be used or was written by a newer program.
    pub fn open(path: &Path) -> Result<Opened, StoreError> {
        let failed = |error| StoreError::Open { path: path.to_owned(), source: Arc::new(error) };
        let mut writer = connect(path).map_err(failed)?;
        restrict(path)?;
        schema::migrate(&mut writer)?;
        let reader = connect(path).map_err(failed)?;
        reader.pragma_update(None, "query_only", true).map_err(failed)?;
        let (writes, write_jobs) = queue::queue();
        let (reads, read_jobs) = queue::queue();
        let health = Arc::new(Health {
            base: Instant::now(),
            up: AtomicBool::new(true),
            waiting_since: AtomicU64::new(0),
        });
        Ok(Opened {
            store: Self { writes, reads, health: Arc::clone(&health) },
            writer: StoreThread {
                connection: writer,
                jobs: write_jobs,
                health: Some(health),
                trouble: None,
            },
            reader: StoreThread {
                connection: reader,
                jobs: read_jobs,
                health: None,
                trouble: None,
            },
        })
    }

    /// How it fares.
    pub fn health(&self) -> StoreHealth {
        self.health.at(Instant::now())
    }

    /// Runs a change that somebody looks at; the answer comes when it is durable.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        records: usize,
        change: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_in(Lane::Prompt, records, change).await
    }

    /// Runs a change of a lane; the answer comes when it is durable.
    pub(super) async fn write_in<T: Send + 'static>(
        &self,
        lane: Lane,
        records: usize,
        change: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        submit(&self.writes, lane, records, change).await
    }

    /// Runs a change, and `then` as soon as it is durable, whether or not the caller still waits:
    /// what is kept in memory of it must not be lost with a connection.
    pub(super) async fn write_then<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StoreError> {
        submit_then(&self.writes, Lane::Prompt, 1, change, then).await
    }

    /// Leaves a change for later, without waiting for it or for room. Whoever calls this has
    /// said what it means if the change is lost.
    pub(super) fn post(
        &self,
        what: &'static str,
        change: impl FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    ) {
        let run: Run = Box::new(move |connection| {
            let result = connection.and_then(change);
            let good = result.is_ok();
            let settle: Settle = Box::new(move |committed| {
                if let Err(error) = committed.and(result) {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, what, "a change was not stored");
                }
            });
            (good, settle)
        });
        if let Err(error) = self.writes.try_send(Lane::Prompt, 1, run) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, what, "a change was not stored");
        }
    }

    /// Runs a question.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        submit(&self.reads, Lane::Prompt, 0, question).await
    }

    /// Version of a piece of content that is told to agents: grows when the content changes.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn version_of(&self, key: &'static str, content: String) -> Result<u64, StoreError> {
        self.write(1, move |connection| schema::version_of(connection, key, &content)).await
    }

    /// Copies the whole store into a new file while it is in use (SQLite's backup interface).
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub async fn backup(&self, to: std::path::PathBuf) -> Result<(), StoreError> {
        self.read(move |connection| {
            let failed = |source| StoreError::Open { path: to.clone(), source: Arc::new(source) };
            // Opened without "create if it exists": a backup never overwrites another one.
            let exclusive = std::fs::OpenOptions::new().write(true).create_new(true).open(&to);
            exclusive.map_err(|error| {
                let message = Some(error.to_string());
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
                failed(rusqlite::Error::SqliteFailure(code, message))
            })?;
            restrict(&to)?;
            let mut copy = Connection::open(&to).map_err(failed)?;
            let backup = rusqlite::backup::Backup::new(connection, &mut copy).map_err(failed)?;
            backup.run_to_completion(BACKUP_PAGES, Duration::ZERO, None).map_err(failed)?;
            drop(backup);
            // One self-contained file, without a write-ahead log beside it.
            copy.pragma_update(None, "journal_mode", "DELETE").map_err(failed)
        })
        .await
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("health", &self.health()).finish_non_exhaustive()
    }
}

async fn submit<T: Send + 'static>(
    queue: &Queue,
    lane: Lane,
    records: usize,
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    submit_then(queue, lane, records, work, |_| ()).await
}

async fn submit_then<T: Send + 'static>(
    queue: &Queue,
    lane: Lane,
    records: usize,
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    then: impl FnOnce(&T) + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    let run: Run = Box::new(move |connection| {
        let result = connection.and_then(work);
        let good = result.is_ok();
        // Who asked may have gone; the work stands all the same.
        let settle: Settle = Box::new(move |committed| {
            let result = committed.and(result);
            if let Ok(done) = &result {
                then(done);
            }
            drop(reply.send(result));
        });
        (good, settle)
    });
    queue.send(lane, records, run).await?;
    match tokio::time::timeout(ANSWER_WAIT, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(StoreError::Stopped),
        Err(_) => Err(StoreError::Overloaded),
    }
}

impl StoreThread {
    /// The connection, for questions before the loops run.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Does jobs until every handle has been dropped. Blocks; give it a thread.
    pub fn run(mut self) {
        while let Some(first) = self.jobs.first() {
            match self.health.clone() {
                Some(health) => self.group(first, &health),
                None => {
                    let (_, settle) = (first.run)(Ok(&self.connection));
                    settle(Ok(()));
                }
            }
        }
        if self.health.is_some() {
            // The log is merged, so that the file alone is whole. It is whole without, too.
            let checkpoint = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            if let Err(error) = checkpoint {
                tracing::debug!(%error, "the write-ahead log was left for the next start");
            }
        }
    }

    fn group(&mut self, first: Job, health: &Health) {
        let began = Instant::now();
        let first_waits = if first.is_backlog() { began } else { first.queued };
        let oldest = self.jobs.oldest_prompt().map_or(first_waits, |one| one.min(first_waits));
        health.waits_since(oldest);
        let mut settles = Vec::new();
        let proof = (!health.up.load(Ordering::Relaxed)).then_some(PROOF);
        let outcome = self.commit_group(first, proof, began, &mut settles);
        match &outcome {
            Ok(()) => {
                health.written();
                self.trouble = None;
            }
            Err(error) => {
                health.failed();
                self.tell(error);
            }
        }
        for settle in settles {
            settle(outcome.clone());
        }
    }

    /// Logs a trouble once: everybody tries again, and each attempt fails alike.
    fn tell(&mut self, error: &StoreError) {
        let trouble = format!("{error:?}");
        if self.trouble.as_ref() != Some(&trouble) {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "the store cannot be written");
            self.trouble = Some(trouble);
        }
    }

    fn commit_group(
        &mut self,
        first: Job,
        proof: Option<&str>,
        began: Instant,
        settles: &mut Vec<Settle>,
    ) -> Result<(), StoreError> {
        // Begun as a writer, so that a store which is locked or read-only fails here and shows as
        // down. Begun as a reader, each job would fail by itself and an empty commit succeed.
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let begun = begun.and_then(|transaction| {
            transaction.execute_batch(proof.unwrap_or_default())?;
            Ok(transaction)
        });
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) => {
                let error = StoreError::from(error);
                settles.push((first.run)(Err(error.clone())).1);
                return Err(error);
            }
        };
        let mut next = Some(first);
        let (mut records, mut has_backlog) = (0, false);
        while let Some(job) = next.take() {
            records += job.records.max(1);
            has_backlog |= job.is_backlog();
            let begun = transaction.execute_batch("SAVEPOINT job").map_err(StoreError::from);
            let (good, settle) = (job.run)(begun.map(|()| &*transaction));
            settles.push(settle);
            transaction.execute_batch(match good {
                true => "RELEASE job",
                false => "ROLLBACK TO job; RELEASE job",
            })?;
            next = self.jobs.join(takes(records, began.elapsed(), has_backlog));
        }
        Ok(transaction.commit()?)
    }
}

/// What a group takes after so many records and so long, with or without any of the backlog.
fn takes(records: usize, open_for: Duration, has_backlog: bool) -> Takes {
    let reaches =
        |times| records >= GROUP_RECORDS_MAX * times || open_for >= GROUP_TIME_MAX * times as u32;
    match (reaches(1), reaches(2)) {
        (false, _) => Takes::All,
        (true, true) if has_backlog => Takes::Nothing,
        (true, _) => Takes::Backlog,
    }
}

impl Health {
    fn at(&self, now: Instant) -> StoreHealth {
        let lag = match self.waiting_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => {
                let elapsed = now.saturating_duration_since(self.base);
                elapsed.saturating_sub(Duration::from_micros(since))
            }
        };
        StoreHealth { up: self.up.load(Ordering::Relaxed) && lag < HANGS_AFTER, lag }
    }

    fn waits_since(&self, queued: Instant) {
        let since = queued.saturating_duration_since(self.base).as_micros();
        let since = u64::try_from(since).unwrap_or(u64::MAX).max(1);
        // A failure before this one keeps its earlier time.
        let _ = self.waiting_since.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn written(&self) {
        self.up.store(true, Ordering::Relaxed);
        self.waiting_since.store(0, Ordering::Relaxed);
    }

    fn failed(&self) {
        self.up.store(false, Ordering::Relaxed);
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A burst's log is cut back to 64 MiB when it has been merged.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Only the service's user reads the store: it knows which machine sits where.
fn restrict(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, owner_only).map_err(|error| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_PERM);
        let source = rusqlite::Error::SqliteFailure(code, Some(error.to_string()));
        StoreError::Open { path: path.to_owned(), source: Arc::new(source) }
    })
}

impl std::fmt::Debug for StoreThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreThread")
            .field("writes", &self.health.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
