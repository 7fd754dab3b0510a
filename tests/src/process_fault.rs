//! Faults of the agent's own process, as data: what a suspended or an overloaded machine does to
//! it, without touching this machine's clock or its other programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// Of each second a starved process runs so long.
const RUNS: Duration = Duration::from_millis(60);
const STOPPED: Duration = Duration::from_millis(940);

/// A fault of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessFault {
    /// It does not run at all, and its clocks go on: a frozen machine.
    Frozen,
    /// It gets a sixteenth of its time, in lumps.
    Starved,
}

/// A fault that stands until it is dropped.
#[derive(Debug)]
pub struct Standing {
    pid: Pid,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProcessFault {
    /// Begins the fault of a process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn begin(self, pid: u32) -> Result<Standing> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process id is positive")?;
        let over = Arc::new(AtomicBool::new(false));
        kill_process(pid, Signal::STOP).context("stop the agent")?;
        let thread = match self {
            Self::Frozen => None,
            Self::Starved => {
                let over = Arc::clone(&over);
                let starve = move || {
                    while !over.load(Ordering::Relaxed) {
                        // Both fail only when the process is gone, which its owner notices.
                        let _ = kill_process(pid, Signal::CONT);
                        thread::sleep(RUNS);
                        let _ = kill_process(pid, Signal::STOP);
                        thread::sleep(STOPPED);
                    }
                };
                let named = thread::Builder::new().name("starve".into());
                Some(named.spawn(starve).context("start a thread")?)
            }
        };
        Ok(Standing { pid, over, thread })
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = kill_process(self.pid, Signal::CONT);
    }
}
