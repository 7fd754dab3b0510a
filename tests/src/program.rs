//! A program under test: started with its output in a file, ended by its process id.
//!
//! Inside a namespace it runs as `nobody` with no capability at all, as the units run it; and it
//! gets a parent-death signal, so that it ends even when the laboratory is killed. That signal
//! follows the *thread* that starts it: start programs from a thread that lives as long as they
//! should, never from one of a blocking pool.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Netns;
use crate::wait;

/// Debian's `nobody` and `nogroup`.
pub const NOBODY: u32 = 65_534;
/// How long a program may take for a clean stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Lines of a program's output that an error message repeats.
const LAST_LINES: usize = 15;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Program {
    /// Starts a command with its output going to `<directory>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        let output = directory.join(format!("{name}.log"));
        let log = File::options().append(true).create(true).open(&output);
        let log = log.with_context(|| format!("open {}", output.display()))?;
        let errors = log.try_clone().context("share the log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self { name: name.into(), child, output })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// The end of its output, for messages.
    pub fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Fails when it has ended, with the end of its output.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait().context("ask for its status")? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.last_lines()),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process id is positive")?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let awaited = format!("the end of {}", self.name);
        let (status, _) = wait::until(&awaited, STOP_TIMEOUT, || {
            let status = self.child.try_wait();
            std::future::ready(match status {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err("it still runs".to_owned()),
                Err(error) => Err(error.to_string()),
            })
        })
        .await?;
        Ok(status)
    }

    /// Kills it, as a power cut would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command inside a namespace, as `nobody`, without any capability.
pub fn unprivileged(netns: &Netns, program: &Path) -> Command {
    let mut command = netns.command("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"])
        .arg(program);
    command
}

/// Makes a directory that `nobody` may write, when this process is root; else an ordinary one.
///
/// # Errors
/// When it cannot be made.
pub fn directory_for_nobody(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY))
            .with_context(|| format!("give {} to nobody", path.display()))?;
    }
    Ok(())
}
