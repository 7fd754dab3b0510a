//! What a command costs: CPU time and the largest resident set, of it and all that it waited for.
//!
//! The kernel counts both for the children that a process has waited for (getrusage(2),
//! `RUSAGE_CHILDREN`), over its whole life. So each command is run by a process of its own, this
//! program again with the word [`WORD`]; it hands on the command's output and exit status and
//! leaves the figures in a file.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// The subcommand of the program that calls [`measure_here`].
pub const WORD: &str = "measured";

/// The cost of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident set of the largest process, in KiB.
    pub rss_max_kib: u64,
}

/// Runs a command in a process of its own and tells what it cost.
///
/// # Errors
/// When it cannot be started or leaves no figures.
pub fn run(command: &[&str], directory: &Path) -> Result<(Output, Usage)> {
    let this = std::env::current_exe().context("ask where this program is")?;
    let figures = tempfile::NamedTempFile::new_in(directory).context("make a file for figures")?;
    let mut measured = Command::new(this);
    measured.arg(WORD).arg(figures.path()).arg("--").args(command);
    // Tools write to the directory that they are started in.
    let output = measured.current_dir(directory).output();
    let output = output.with_context(|| format!("start {command:?}"))?;
    let text = fs::read_to_string(figures.path()).context("read the figures")?;
    let usage = serde_json::from_str(&text).with_context(|| {
        format!("{command:?} left no figures: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok((output, usage))
}

/// The other half, in the process of its own.
///
/// # Errors
/// When the command cannot be started or the figures cannot be written.
pub fn measure_here(figures: &Path, command: &[OsString]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("a command has a name")?;
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("start {}", program.display()))?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for the usage")?;
    let time = |time: nix::sys::time::TimeVal| {
        let micros = u64::try_from(time.tv_usec()).unwrap_or_default();
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or_default())
            + Duration::from_micros(micros)
    };
    let usage = Usage {
        cpu: time(usage.user_time()) + time(usage.system_time()),
        rss_max_kib: u64::try_from(usage.max_rss()).unwrap_or_default(),
    };
    let text = serde_json::to_string(&usage).context("write the figures as JSON")?;
    fs::write(figures, text).with_context(|| format!("write {}", figures.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
