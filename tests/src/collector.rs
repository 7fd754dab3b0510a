//! A real collector: its configuration, its process and its command line.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;

use crate::exposition::Exposition;
use crate::netns::Netns;
use crate::prefixes::RosterFiles;
use crate::program::{self, Program};
use crate::wait;
use crate::web::Endpoint;

/// A start with a new CA and an empty store.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How fast everything goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tempo {
    /// The product's defaults.
    Default,
    /// Shortened, for scenarios in parallel on two cores.
    Short,
    /// Reports every two seconds, so that silence is judged after six: for crowds of simulated
    /// agents on a machine that is busy with other things.
    Brisk,
}

impl Tempo {
    /// How often agents report.
    pub const fn report_interval(self) -> Duration {
        match self {
            Self::Default => Duration::from_secs(10),
            Self::Short => Duration::from_secs(1),
            Self::Brisk => Duration::from_secs(2),
        }
    }
}

/// Where a collector runs and listens.
#[derive(Debug, Clone)]
pub struct CollectorPlan {
    /// The program.
    pub program: PathBuf,
    /// Its configuration, state and output.
    pub directory: PathBuf,
    /// Its namespace, if any.
    pub netns: Option<Arc<Netns>>,
    /// Where agents report.
    pub dedicated: Vec<SocketAddr>,
    /// Where they may report on a second way.
    pub fallback: Option<SocketAddr>,
    /// Where they enrol.
    pub enrolment: SocketAddr,
    /// What codes name instead, where it listens on every address.
    pub advertise_enrolment: Option<SocketAddr>,
    /// Where they recover expired certificates.
    pub recovery: SocketAddr,
    /// Metrics and API.
    pub http: SocketAddr,
    /// The roster.
    pub roster: RosterFiles,
    /// Whether prefixes in 127/8 are allowed.
    pub demo: bool,
    /// Device and prefixes for checks of gateways, if they are made.
    pub core_check: Option<(String, Vec<String>)>,
    /// The agents' intervals.
    pub tempo: Tempo,
}

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    /// How it was started.
    pub plan: CollectorPlan,
    /// Metrics and API.
    pub web: Endpoint,
    process: Program,
}

impl CollectorPlan {
    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("collector.toml")
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self) -> Result<()> {
        program::directory_for_nobody(&self.directory)?;
        let path = self.config_path();
        fs::write(&path, self.config()?).with_context(|| format!("write {}", path.display()))
    }

    fn config(&self) -> Result<String> {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let mut text = format!(
            "state_dir = {}\nroster = {}\nprefixes = {}\ntrust_domain = \"lab.test\"\ndemo = {}\n\n\
             [listen]\ndedicated = {:?}\nenrolment = \"{}\"\nrecovery = \"{}\"\nhttp = \"{}\"\n",
            quoted(&self.directory.join("state")),
            quoted(&self.roster.roster),
            quoted(&self.roster.prefixes),
            self.demo,
            self.dedicated.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
            self.enrolment,
            self.recovery,
            self.http,
        );
        if let Some(fallback) = self.fallback {
            writeln!(text, "fallback = [\"{fallback}\"]")?;
        }
        if let Some(told) = self.advertise_enrolment {
            writeln!(text, "\n[advertise]\nenrolment = \"{told}\"")?;
        }
        if self.tempo != Tempo::Default {
            let seconds = self.tempo.report_interval().as_secs();
            writeln!(
                text,
                "\n[report]\ninterval = \"{seconds}s\"\nprobe_period = \"1s\"\n\
                 confirm_period = \"400ms\""
            )?;
        }
        if let Some((device, prefixes)) = &self.core_check {
            writeln!(
                text,
                "\n[core_check]\nenabled = true\ndevice = \"{device}\"\n\
                 network_prefixes = {prefixes:?}"
            )?;
        }
        Ok(text)
    }

    /// A command of the collector's program, with the configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.netns {
            Some(netns) => program::unprivileged(netns, &self.program),
            None => Command::new(&self.program),
        };
        command.args(arguments).arg("--config").arg(self.config_path());
        command
    }
}

impl Collector {
    /// Writes the configuration, starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time, with the end of its output.
    pub async fn start(plan: CollectorPlan) -> Result<Self> {
        plan.write_config()?;
        Self::start_again(plan).await
    }

    /// Starts it on the configuration and state that are there.
    ///
    /// # Errors
    /// When it is not ready in time, with the end of its output.
    pub async fn start_again(plan: CollectorPlan) -> Result<Self> {
        let process = Program::start("collector", &mut plan.command(&["serve"]), &plan.directory)?;
        Self::adopt(plan, process).await
    }

    /// Takes one that was started by hand on the plan's configuration, and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time, with the end of its output.
    pub async fn adopt(plan: CollectorPlan, process: Program) -> Result<Self> {
        let web = match &plan.netns {
            Some(netns) => Endpoint::inside(Arc::clone(netns), plan.http),
            None => Endpoint::here(plan.http),
        };
        let mut collector = Self { plan, web, process };
        let process = &mut collector.process;
        let web = &collector.web;
        let ready = wait::until("a ready collector", START_TIMEOUT, || {
            let running = process.check_running().map_err(|error| error.to_string());
            async move {
                running?;
                match web.get("/readyz").await {
                    Ok(answer) if answer.status == StatusCode::OK => Ok(()),
                    Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
                    Err(error) => Err(format!("{error:#}")),
                }
            }
        })
        .await;
        ready.with_context(|| collector.process.last_lines())?;
        Ok(collector)
    }

    /// Makes an enrolment code for an agency.
    ///
    /// # Errors
    /// When the collector refuses.
    pub fn create_token(&self, agency: &str, uses: u32, expires: &str) -> Result<String> {
        let uses = uses.to_string();
        let output = self.run(&[
            "token",
            "create",
            "--agency",
            agency,
            "--uses",
            &uses,
            "--expires",
            expires,
        ])?;
        ensure!(output.status.success(), "token create: {}", text(&output.stderr));
        let printed = text(&output.stdout);
        let code = printed.split_whitespace().find(|word| word.starts_with("haidang1."));
        Ok(code.with_context(|| format!("token create printed no code: {printed}"))?.to_owned())
    }

    /// Runs a command of the collector's program to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.plan.command(arguments);
        command.output().with_context(|| format!("start {command:?}"))
    }

    /// What `/metrics` says now.
    ///
    /// # Errors
    /// When it does not answer, or not with metrics.
    pub async fn metrics(&self) -> Result<Exposition> {
        Exposition::parse(&self.web.text("/metrics").await?)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Program {
        &mut self.process
    }

    /// Stops it cleanly and returns what is needed to start it again.
    ///
    /// # Errors
    /// When it does not stop, or not cleanly.
    pub async fn stop(self) -> Result<CollectorPlan> {
        let output = self.process.output().to_owned();
        let status = self.process.stop().await?;
        if !status.success() {
            let said = fs::read_to_string(&output).unwrap_or_default();
            let last: Vec<_> = said.lines().rev().take(15).collect();
            bail!("the collector stopped with {status}; last first:\n{}", last.join("\n"));
        }
        Ok(self.plan)
    }

    /// Kills it and returns what is needed to start it again.
    pub fn kill(self) -> CollectorPlan {
        self.process.kill();
        self.plan
    }
}

/// What `/metrics` says of one agency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgencySeen {
    /// Its state.
    pub state: String,
    /// The cause, when disconnected.
    pub cause: Option<String>,
    /// Its flags.
    pub flags: Vec<String>,
}

impl AgencySeen {
    /// Reads an agency out of a scrape.
    pub fn read(metrics: &Exposition, agency: &str) -> Option<Self> {
        let labels = [("agency", agency)];
        let state = metrics.label_of_one("haidang_agency_state", &labels, "state")?.to_owned();
        let cause = metrics.label_of_one("haidang_agency_disconnect_cause", &labels, "cause");
        let flags = metrics.find("haidang_agency_flag", &labels);
        let flags = flags.filter(|flag| flag.value > 0.0);
        Some(Self {
            state,
            cause: cause.map(str::to_owned),
            flags: flags.filter_map(|flag| flag.labels.get("flag").cloned()).collect(),
        })
    }
}

/// Ports that no connection is given as its own: below Linux's range for those (32768 to 60999,
/// `ip_local_port_range` in ip(7)).
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A free TCP port of an address. No two callers of this process get the same, and what another
/// test connects from cannot take it before it is listened on.
///
/// # Errors
/// When none is left.
pub fn free_port(address: IpAddr) -> Result<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Other processes begin elsewhere.
    let first = std::process::id().wrapping_mul(97);
    for _ in 0..count {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(offset).context("an offset within the ports")?;
        if std::net::TcpListener::bind((address, port)).is_ok() {
            return Ok((address, port).into());
        }
    }
    bail!("no port from {} to {} is free on {address}", PORTS.start, PORTS.end)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
