//! Faults of the agent's own process, as data: what a suspended, an overloaded or a restarted
//! machine does to it, without touching this machine's clock or its other programs.
//!
//! A step of the clock is libfaketime's (<https://github.com/wolfcw/libfaketime>): it stands
//! between the agent and libc, and only CLOCK_REALTIME is stepped. CLOCK_MONOTONIC and the
//! kernel's stamps go on, as they do when an administrator sets the clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::agent::Agent;

/// Of each second a starved process runs so long.
const RUNS: Duration = Duration::from_millis(60);
const STOPPED: Duration = Duration::from_millis(940);
/// How far a clock is stepped.
const HOUR_SECONDS: i64 = 3600;
/// Beyond every certificate's term, and before its beginning.
const YEAR_SECONDS: i64 = 365 * 86_400;
/// Where Debian keeps the library, below the folder of the architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A fault of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessFault {
    /// It does not run at all, and its clocks go on: a frozen machine.
    Frozen,
    /// It gets a sixteenth of its time, in lumps.
    Starved,
    /// It is stopped and started again while the cut stands: what it knew of the path is gone.
    Restart,
    /// Its wall clock is set forward by an hour.
    ClockAhead,
    /// Its wall clock is set back by an hour.
    ClockBehind,
    /// Its wall clock is set forward by a year.
    ClockYearAhead,
    /// Its wall clock is set back by a year, as by a flat battery.
    ClockYearBehind,
}

/// A fault that stands until it is dropped.
#[derive(Debug)]
pub enum Standing {
    /// It is stopped, or runs in lumps.
    Stopped(Stopped),
    /// Its clock is wrong, by this file.
    Stepped(PathBuf),
    /// It is over already.
    Over,
}

/// A process that does not run as it should.
#[derive(Debug)]
pub struct Stopped {
    pid: Pid,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProcessFault {
    /// How far the clock is ahead while the fault stands.
    pub const fn step_seconds(self) -> Option<i64> {
        match self {
            Self::ClockAhead => Some(HOUR_SECONDS),
            Self::ClockBehind => Some(-HOUR_SECONDS),
            Self::ClockYearAhead => Some(YEAR_SECONDS),
            Self::ClockYearBehind => Some(-YEAR_SECONDS),
            Self::Frozen | Self::Starved | Self::Restart => None,
        }
    }

    /// Begins the fault. A restart is made by who owns the agent.
    ///
    /// # Errors
    /// When there is no such process, or its clock cannot be stepped.
    pub fn begin(self, agent: &mut Agent) -> Result<Standing> {
        if let Some(seconds) = self.step_seconds() {
            let file = agent.plan.stepped_clock.clone();
            let file = file.context("the agent was started without a clock to step")?;
            step(&file, seconds)?;
            return Ok(Standing::Stepped(file));
        }
        if self == Self::Restart {
            return Ok(Standing::Over);
        }
        let pid = i32::try_from(agent.process().pid()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process id is positive")?;
        let over = Arc::new(AtomicBool::new(false));
        kill_process(pid, Signal::STOP).context("stop the agent")?;
        let thread = (self == Self::Starved).then(|| starve(pid, Arc::clone(&over)));
        Ok(Standing::Stopped(Stopped { pid, over, thread: thread.transpose()? }))
    }
}

fn starve(pid: Pid, over: Arc<AtomicBool>) -> Result<JoinHandle<()>> {
    let starve = move || {
        while !over.load(Ordering::Relaxed) {
            // Both fail only when the process is gone, which its owner notices.
            let _ = kill_process(pid, Signal::CONT);
            thread::sleep(RUNS);
            let _ = kill_process(pid, Signal::STOP);
            thread::sleep(STOPPED);
        }
    };
    thread::Builder::new().name("starve".into()).spawn(starve).context("start a thread")
}

/// What the environment of a program has to hold so that its wall clock is stepped by a file, which
/// is made with the right time where there is none. Only the program itself may have it: the library leaves
/// shared memory behind that another user with the same process id cannot open.
///
/// # Errors
/// When the library is not installed.
pub(crate) fn stepped_by(file: &Path) -> Result<[String; 4]> {
    let libraries = fs::read_dir("/usr/lib").context("read /usr/lib")?;
    let mut libraries = libraries.filter_map(|entry| Some(entry.ok()?.path().join(LIBRARY)));
    let library = libraries
        .find(|path| path.is_file())
        .context("a clock is stepped by libfaketime: apt-get install libfaketime")?;
    if !file.exists() {
        step(file, 0)?;
    }
    Ok([
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        "FAKETIME_NO_CACHE=1".into(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
    ])
}

/// Steps the clock of whoever reads the file. Replaced at once: it may be being read.
pub(crate) fn step(file: &Path, seconds: i64) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, format!("{seconds:+}\n"))
        .with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, file).with_context(|| format!("replace {}", file.display()))
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Self::Stepped(file) = self {
            // A clock that stays wrong is noticed by who waits for the healing.
            let _ = step(file, 0);
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = kill_process(self.pid, Signal::CONT);
    }
}
