//! Real Prometheus and Alertmanager on the shipped rules and configuration. Only what a place
//! must fill in is changed: addresses, the webhook's URL, and the period of scrape and
//! evaluation.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;

use crate::binaries::repository;
use crate::netns::Netns;
use crate::program::{self, Program};
use crate::wait;
use crate::web::Endpoint;

/// A start on an empty data directory.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Where they run.
#[derive(Debug, Clone)]
pub struct MonitoringPlan {
    /// Configuration, data and output.
    pub directory: PathBuf,
    /// Their namespace, if any.
    pub netns: Option<Arc<Netns>>,
    /// The collector's metrics.
    pub collector: SocketAddr,
    /// Prometheus.
    pub prometheus: SocketAddr,
    /// Alertmanager.
    pub alertmanager: SocketAddr,
    /// The receiver of notifications.
    pub webhook: SocketAddr,
    /// Scrape, evaluation and group_wait, in seconds.
    pub period_seconds: u32,
}

/// Both, running.
#[derive(Debug)]
pub struct Monitoring {
    /// Prometheus.
    pub prometheus: Endpoint,
    /// Alertmanager.
    pub alertmanager: Endpoint,
    _processes: [Program; 2],
}

impl Monitoring {
    /// Writes configurations, starts both and waits until both are ready.
    ///
    /// # Errors
    /// When a program is missing or not ready in time, with the end of its output.
    pub async fn start(plan: &MonitoringPlan) -> Result<Self> {
        let directory = &plan.directory;
        program::directory_for_nobody(directory)?;
        let config = plan.write_configs()?;
        let mut prometheus = plan.command("prometheus");
        prometheus
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("prometheus-data").display()))
            .arg(format!("--web.listen-address={}", plan.prometheus))
            // What fires before Prometheus has found Alertmanager is lost until it is sent again;
            // the default of a minute would be all that a test measures.
            .arg("--rules.alert.resend-delay=2s");
        let prometheus = start("prometheus", &mut prometheus, directory)?;
        let mut alertmanager = plan.command("prometheus-alertmanager");
        alertmanager
            .arg(format!("--config.file={}", directory.join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", directory.join("alertmanager-data").display()))
            .arg(format!("--web.listen-address={}", plan.alertmanager))
            .arg("--cluster.listen-address=");
        let alertmanager = start("alertmanager", &mut alertmanager, directory)?;
        let endpoint = |address| match &plan.netns {
            Some(netns) => Endpoint::inside(Arc::clone(netns), address),
            None => Endpoint::here(address),
        };
        let mut monitoring = Self {
            prometheus: endpoint(plan.prometheus),
            alertmanager: endpoint(plan.alertmanager),
            _processes: [prometheus, alertmanager],
        };
        monitoring.ready().await?;
        Ok(monitoring)
    }

    async fn ready(&mut self) -> Result<()> {
        let endpoints = [&self.prometheus, &self.alertmanager];
        for (endpoint, process) in endpoints.into_iter().zip(&mut self._processes) {
            let ready = wait::until("a ready monitoring program", START_TIMEOUT, || {
                let running = process.check_running().map_err(|error| error.to_string());
                async move {
                    running?;
                    match endpoint.get("/-/ready").await {
                        Ok(answer) if answer.status == StatusCode::OK => Ok(()),
                        Ok(answer) => Err(answer.status.to_string()),
                        Err(error) => Err(format!("{error:#}")),
                    }
                }
            })
            .await;
            ready.with_context(|| process.last_lines())?;
        }
        Ok(())
    }
}

impl MonitoringPlan {
    fn command(&self, program: &str) -> Command {
        match &self.netns {
            Some(netns) => program::unprivileged(netns, Path::new(program)),
            None => Command::new(program),
        }
    }

    /// Returns the path of Prometheus' configuration.
    fn write_configs(&self) -> Result<PathBuf> {
        let period = format!("{}s", self.period_seconds);
        let rules = shipped("deploy/prometheus/haidang.rules.yml")?;
        self.write(
            "haidang.rules.yml",
            &replaced(&rules, "interval: 5s", &format!("interval: {period}"))?,
        )?;
        let config = shipped("deploy/prometheus/prometheus.yml")?;
        let config = replaced(&config, "interval: 5s", &format!("interval: {period}"))?;
        let config = replaced(&config, "scrape_timeout: 4s", &format!("scrape_timeout: {period}"))?;
        let config = replaced(&config, "127.0.0.1:9093", &self.alertmanager.to_string())?;
        let config = replaced(&config, "127.0.0.1:7080", &self.collector.to_string())?;
        let alerts = shipped("deploy/alertmanager/alertmanager.yml")?;
        let alerts = with_webhook(&alerts, self.webhook)?;
        let alerts = replaced(&alerts, "group_wait: 5s", &format!("group_wait: {period}"))?;
        let alerts =
            replaced(&alerts, "group_interval: 10s", &format!("group_interval: {period}"))?;
        self.write("haidang.tmpl", &shipped("deploy/alertmanager/haidang.tmpl")?)?;
        self.write("alertmanager.yml", &alerts)?;
        self.write("prometheus.yml", &config)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

fn shipped(path: &str) -> Result<String> {
    let path = repository(path);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Replaces every occurrence, and fails when there is none: the shipped file has changed, and
/// what is tested would no longer be what was meant.
fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "the shipped configuration no longer holds {from:?}");
    Ok(text.replace(from, to))
}

/// The configuration with the URL of every webhook receiver filled in.
fn with_webhook(text: &str, webhook: SocketAddr) -> Result<String> {
    let mut found = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start().trim_start_matches("- ");
        if trimmed.starts_with("url:") {
            found = true;
            let indent = &line[..line.len() - trimmed.len()];
            let receiver = trimmed.rsplit('/').next().unwrap_or_default();
            lines.push(format!("{indent}url: http://{webhook}/{receiver}"));
        } else {
            lines.push(line.to_owned());
        }
    }
    if !found {
        bail!("the shipped Alertmanager configuration has no webhook receiver to fill in");
    }
    Ok(lines.join("\n"))
}

fn start(name: &str, command: &mut Command, directory: &Path) -> Result<Program> {
    Program::start(name, command, directory).with_context(|| {
        format!("start {name}: apt-get install prometheus prometheus-alertmanager")
    })
}
