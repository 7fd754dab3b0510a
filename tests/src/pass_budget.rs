//! What the first full posture pass of a running agent costs: processor time, as the agent itself
//! measures it, and memory, as the kernel counts it for the process before and at its peak.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use haidang_agent::status;
use tempfile::TempDir;

use crate::binaries::Binaries;
use crate::figures;
use crate::program::Program;
use crate::wait;

/// The agent rests so long before it makes its first pass, and does nothing else new meanwhile.
const REST: Duration = Duration::from_secs(25);
/// The first pass comes within two minutes, and takes seconds on a busy machine.
const PASS_DEADLINE: Duration = Duration::from_secs(240);
/// Target of the posture's design.
const MEMORY_MAX_KIB: u64 = 4 << 10;
/// Target of the posture's design.
const PROCESSOR_MAX: Duration = Duration::from_secs(1);

/// One pass.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Checks that it made.
    pub checks: usize,
    /// Processor time.
    pub processor: Duration,
    /// Resident memory of the idle agent.
    pub idle_kib: u64,
    /// Resident memory at its peak, during the pass.
    pub peak_kib: u64,
}

/// Starts agents side by side and waits for the first pass of each.
///
/// # Errors
/// When one cannot be started, or makes no pass in time.
pub async fn measure(runs: usize) -> Result<Vec<Cost>> {
    let agent = Binaries::find()?.agent;
    let mut running = Vec::new();
    for _ in 0..runs {
        running.push(Running::start(&agent)?);
    }
    for agent in &mut running {
        agent.rest().await?;
    }
    let mut costs = Vec::new();
    for agent in running {
        costs.push(agent.cost().await?);
    }
    Ok(costs)
}

struct Running {
    directory: TempDir,
    program: Program,
    idle_kib: u64,
}

impl Running {
    fn start(agent: &Path) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let config = directory.path().join("agent.toml");
        let text = format!(
            "state_dir = {:?}\nstatus_socket = {:?}\n\n[dedicated]\n\
             interface = {{ name = \"lo\" }}\nlocal_prefixes = [\"198.18.10.0/24\"]\n\
             network_prefixes = [\"198.18.0.0/16\"]\n",
            directory.path().join("state"),
            directory.path().join("status.sock"),
        );
        fs::write(&config, text).context("write the configuration")?;
        let mut command = Command::new(agent);
        command.args(["run", "--config"]).arg(&config);
        let program = Program::start("agent", &mut command, directory.path())?;
        Ok(Self { directory, program, idle_kib: 0 })
    }

    /// Waits until the agent idles, notes its memory, and lets the kernel count its peak anew.
    async fn rest(&mut self) -> Result<()> {
        let socket = self.directory.path().join("status.sock");
        let (document, _) = wait::until("an idle agent", PASS_DEADLINE, || {
            std::future::ready(match status::ask(&socket) {
                Ok(document) if document.uptime_seconds >= REST.as_secs() => Ok(document),
                Ok(document) => Err(format!("it runs for {} s", document.uptime_seconds)),
                Err(error) => Err(error.to_string()),
            })
        })
        .await?;
        ensure!(document.posture.checks.is_empty(), "the first pass came too early");
        let pid = self.program.pid();
        // proc(5): 5 resets the peak of the resident set.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak")?;
        self.idle_kib = memory_kib(pid, "VmRSS:")?;
        Ok(())
    }

    async fn cost(self) -> Result<Cost> {
        let socket = self.directory.path().join("status.sock");
        let (posture, _) = wait::until("a posture pass", PASS_DEADLINE, || {
            std::future::ready(match status::ask(&socket) {
                Ok(document) if document.posture.checks.is_empty() => Err("none yet".to_owned()),
                Ok(document) => Ok(document.posture),
                Err(error) => Err(error.to_string()),
            })
        })
        .await?;
        let cost = Cost {
            checks: posture.checks.len(),
            processor: Duration::from_micros(posture.last_pass_processor_us),
            idle_kib: self.idle_kib,
            peak_kib: memory_kib(self.program.pid(), "VmHWM:")?,
        };
        self.program.stop().await?;
        Ok(cost)
    }
}

fn memory_kib(pid: u32, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read its memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("{key} is no number"))
}

/// The section of the figures.
///
/// # Errors
/// Never but when text cannot be put together.
pub fn section(command: &str, costs: &[Cost]) -> Result<String> {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut text = format!(
        "## A posture pass of the running agent\n\n{}, {build} build of the measuring program\n\n\
         All checks at once, as root, which reads everything; memory is the peak of the resident \
         set (VmHWM) over the idle agent's. Target: at most {} s and {} KiB.\n\n\
         | agent | checks | processor ms | idle KiB | peak KiB | over idle KiB |\n\
         |---|---|---|---|---|---|\n",
        figures::origin(command),
        PROCESSOR_MAX.as_secs(),
        MEMORY_MAX_KIB,
    );
    for (number, cost) in costs.iter().enumerate() {
        let Cost { checks, processor, idle_kib, peak_kib } = cost;
        writeln!(
            text,
            "| {} | {checks} | {:.1} | {idle_kib} | {peak_kib} | {} |",
            number + 1,
            processor.as_secs_f64() * 1000.0,
            peak_kib.saturating_sub(*idle_kib)
        )?;
    }
    Ok(text)
}
