//! A real agent: its configuration, its enrolment and its process.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use crate::collector::Tempo;
use crate::netns::Netns;
use crate::process_fault;
use crate::program::{self, Program};

/// An agent's place.
#[derive(Debug, Clone)]
pub struct AgentPlan {
    /// The program.
    pub program: PathBuf,
    /// Its agency.
    pub agency: String,
    /// Its configuration, state and output.
    pub directory: PathBuf,
    /// Its namespace, if any.
    pub netns: Option<Arc<Netns>>,
    /// Its dedicated interface, as the configuration writes it.
    pub interface: String,
    /// Its agency's prefixes.
    pub prefixes: Vec<IpNet>,
    /// The prefixes of the dedicated network.
    pub network_prefixes: Vec<IpNet>,
    /// Its gateways.
    pub gateways: Vec<IpAddr>,
    /// Anchors; those with a port prove to be the collector.
    pub anchors: Vec<(IpAddr, Option<u16>)>,
    /// Its resolvers.
    pub resolvers: Vec<IpAddr>,
    /// Its services.
    pub services: Vec<IpAddr>,
    /// Fallback listeners that it may use.
    pub fallback: Vec<SocketAddr>,
    /// The file by which its wall clock is stepped, see [`crate::process_fault`].
    pub stepped_clock: Option<PathBuf>,
    /// The length of its rules.
    pub tempo: Tempo,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// How it was started.
    pub plan: AgentPlan,
    process: Program,
}

impl AgentPlan {
    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }

    /// The directory that identity and journal are kept in.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self) -> Result<()> {
        program::directory_for_nobody(&self.directory)?;
        let path = self.config_path();
        fs::write(&path, self.config()).with_context(|| format!("write {}", path.display()))
    }

    fn config(&self) -> String {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let fallback: Vec<_> = self.fallback.iter().map(|at| format!("\"{at}\"")).collect();
        let mut text = format!(
            "state_dir = {state}\ndemo = {demo}\nstatus_socket = {socket}\n\n\
             [collector]\nfallback_endpoints = [{fallback}]\n\n\
             [dedicated]\ninterface = {interface}\nlocal_prefixes = {prefixes:?}\n\
             network_prefixes = {networks:?}\ngateways = {gateways:?}\n",
            state = quoted(&self.state_dir()),
            demo = self.netns.is_none(),
            socket = quoted(&self.directory.join("status.sock")),
            fallback = fallback.join(", "),
            interface = self.interface,
            prefixes = texts(&self.prefixes),
            networks = texts(&self.network_prefixes),
            gateways = texts(&self.gateways),
        );
        for (number, (address, port)) in self.anchors.iter().enumerate() {
            let port = port.map_or_else(String::new, |port| format!("tcp_port = {port}\n"));
            text += &format!(
                "\n[[anchor]]\nname = \"anchor-{number}\"\naddress = \"{address}\"\n{port}"
            );
        }
        if !self.resolvers.is_empty() {
            let resolvers = texts(&self.resolvers);
            text += &format!("\n[dns]\nresolvers = {resolvers:?}\nname = \"svc.tslcd.test\"\n");
        }
        for (number, service) in self.services.iter().enumerate() {
            let at = SocketAddr::new(*service, 80);
            text += &format!(
                "\n[[service]]\nname = \"portal-{number}\"\nurl = \"http://{at}/\"\n\
                 echoes_nonce = true\n"
            );
        }
        if self.tempo == Tempo::Short {
            // Two cores under many agents and a debug build lag more than an office's machine.
            text += "\n[verdict]\nkernel_confirm = \"500ms\"\nrecovering = \"2s\"\n\
                     quality_window = \"10s\"\nstarved_lag = \"400ms\"\nwarm_up = \"2s\"\n\
                     path_mtu_period = \"5s\"\n";
        }
        text
    }

    /// A command of the agent's program, with the configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.launcher(&self.program);
        command.args(arguments).arg("--config").arg(self.config_path());
        command
    }

    /// The same under the clock of this machine: one that can be stepped, where one is wanted.
    ///
    /// # Errors
    /// When no clock can be stepped here.
    pub fn command_by_its_clock(&self, arguments: &[&str]) -> Result<Command> {
        let Some(file) = &self.stepped_clock else { return Ok(self.command(arguments)) };
        let mut command = self.launcher(Path::new("env"));
        command.args(process_fault::stepped_by(file)?).arg(&self.program);
        command.args(arguments).arg("--config").arg(self.config_path());
        Ok(command)
    }

    fn launcher(&self, program: &Path) -> Command {
        match &self.netns {
            Some(netns) => program::unprivileged(netns, program),
            None => Command::new(program),
        }
    }

    /// Runs `enroll` and pastes the code.
    ///
    /// # Errors
    /// When it cannot be started; a refusal is in the output.
    pub fn enrol(&self, code: &str) -> Result<Output> {
        let mut command = self.command(&["enroll"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        // A program that has ended already says why by its output.
        let _ = writeln!(stdin, "{code}");
        drop(stdin);
        child.wait_with_output().context("wait for the enrolment")
    }
}

impl Agent {
    /// Writes the configuration, enrols and starts to run.
    ///
    /// # Errors
    /// When it is refused.
    pub fn enrol_and_start(plan: AgentPlan, code: &str) -> Result<Self> {
        plan.write_config()?;
        let output = plan.enrol(code)?;
        ensure!(
            output.status.success(),
            "the enrolment for {} failed: {}",
            plan.agency,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Self::start(plan)
    }

    /// Starts to run with the configuration and identity that are there.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(plan: AgentPlan) -> Result<Self> {
        let process =
            Program::start("agent", &mut plan.command_by_its_clock(&["run"])?, &plan.directory)?;
        Ok(Self { plan, process })
    }

    /// What `status --json` says. Its socket is a file, which needs no namespace.
    ///
    /// # Errors
    /// When it does not run, or says what is not JSON.
    pub async fn status(&self) -> Result<serde_json::Value> {
        let output = tokio::process::Command::new(&self.plan.program)
            .args(["status", "--json", "--config"])
            .arg(self.plan.config_path())
            .stdin(Stdio::null())
            .output()
            .await
            .context("start status")?;
        let error = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("status --json of {}: {}", self.plan.agency, error.trim()))
    }

    /// Stops it cleanly and starts it again: what it remembered of its path is gone.
    ///
    /// # Errors
    /// When it does not stop in time, or cannot be started.
    pub async fn restart(self) -> Result<Self> {
        Self::start(self.stop().await?)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Program {
        &mut self.process
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub async fn stop(self) -> Result<AgentPlan> {
        self.process.stop().await?;
        Ok(self.plan)
    }

    /// Kills it.
    pub fn kill(self) -> AgentPlan {
        self.process.kill();
        self.plan
    }
}

/// As TOML writes a list of them.
fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(T::to_string).collect()
}
