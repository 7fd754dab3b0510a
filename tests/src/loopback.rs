//! A collector and agents on loopback, without root: addresses in 127/8 stand for agencies'
//! prefixes, as in the quickstart.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net};
use tempfile::TempDir;

use crate::agent::{Agent, AgentPlan};
use crate::binaries::Binaries;
use crate::collector::{AgencySeen, Collector, CollectorPlan, Tempo, free_port};
use crate::prefixes::{self, Participant};
use crate::wait;

/// Where the collector listens: every address in 127/8 is this machine's.
const COLLECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 0, 10));

/// From the first report to `connected`, warm-up and a busy machine included.
const STATE_TIMEOUT: Duration = Duration::from_secs(60);

/// A collector with a roster in which some agencies have loopback prefixes.
#[derive(Debug)]
pub struct Loopback {
    /// The collector.
    pub collector: Collector,
    /// The programs.
    pub binaries: Binaries,
    /// Configurations, states and outputs.
    pub directory: TempDir,
}

impl Loopback {
    /// Starts a collector for these agencies of the shipped roster. The first one's machines are
    /// in 127.18.11.0/24, the next one's in 127.18.12.0/24.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(agencies: &[&str]) -> Result<Self> {
        Self::start_with(agencies, "").await
    }

    /// The same, with more in the collector's configuration.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_with(agencies: &[&str], more: &str) -> Result<Self> {
        Self::start_edited(agencies, |_, config| Ok(config + more)).await
    }

    /// The same, with a listener for a second way too.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_with_fallback(agencies: &[&str], more: &str) -> Result<Self> {
        let fallback = Some(free_port(COLLECTOR)?);
        let edit = |_: &Path, config| Ok(config + more);
        Self::start_planned(agencies, |plan| CollectorPlan { fallback, ..plan }, edit).await
    }

    /// The same, with this working calendar.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_in_hours(agencies: &[&str], calendar: &str) -> Result<Self> {
        let edit = |directory: &Path, config| {
            let path = directory.join("calendar.toml");
            fs::write(&path, calendar).with_context(|| format!("write {}", path.display()))?;
            Ok(format!("calendar = {:?}\n{config}", path.display().to_string()))
        };
        Self::start_edited(agencies, edit).await
    }

    async fn start_edited(
        agencies: &[&str],
        edit: impl FnOnce(&Path, String) -> Result<String>,
    ) -> Result<Self> {
        Self::start_planned(agencies, |plan| plan, edit).await
    }

    async fn start_planned(
        agencies: &[&str],
        planned: impl FnOnce(CollectorPlan) -> CollectorPlan,
        edit: impl FnOnce(&Path, String) -> Result<String>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let binaries = Binaries::find()?;
        let plan = planned(plan(agencies, &binaries, directory.path())?);
        plan.write_config()?;
        let config = fs::read_to_string(plan.config_path()).context("read the configuration")?;
        fs::write(plan.config_path(), edit(directory.path(), config)?)
            .context("write the configuration")?;
        Ok(Self { collector: Collector::start_again(plan).await?, binaries, directory })
    }

    /// An agent's plan for the agency with this number, from 0.
    pub fn agent(&self, agency: &str, number: u8, name: &str) -> AgentPlan {
        AgentPlan {
            program: self.binaries.agent.clone(),
            agency: agency.into(),
            directory: self.directory.path().join(name),
            netns: None,
            interface: "{ name = \"lo\" }".into(),
            prefixes: vec![prefix(number)],
            network_prefixes: vec![network()],
            gateways: Vec::new(),
            anchors: vec![(COLLECTOR, Some(self.collector.plan.dedicated[0].port()))],
            resolvers: Vec::new(),
            services: Vec::new(),
            fallback: Vec::new(),
            stepped_clock: None,
            tempo: Tempo::Short,
        }
    }

    /// Waits until the collector shows an agency connected.
    ///
    /// # Errors
    /// When it does not in time, with what it shows instead.
    pub async fn connected(&self, agency: &str) -> Result<Duration> {
        self.state(agency, "connected").await
    }

    /// Waits until the collector shows an agency in this state.
    ///
    /// # Errors
    /// When it does not in time, with what it shows instead.
    pub async fn state(&self, agency: &str, state: &str) -> Result<Duration> {
        let awaited = format!("{agency} {state}");
        let ((), took) = wait::until(&awaited, STATE_TIMEOUT, || async {
            let metrics = self.collector.metrics().await.map_err(|error| format!("{error:#}"))?;
            match AgencySeen::read(&metrics, agency) {
                Some(seen) if seen.state == state => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await?;
        Ok(took)
    }

    /// Enrols and starts an agent.
    ///
    /// # Errors
    /// When it is refused.
    pub fn start_agent(&self, agency: &str, number: u8, name: &str) -> Result<Agent> {
        let code = self.collector.create_token(agency, 1, "1h")?;
        Agent::enrol_and_start(self.agent(agency, number, name), &code)
    }
}

fn plan(agencies: &[&str], binaries: &Binaries, directory: &Path) -> Result<CollectorPlan> {
    let mut participants = Vec::new();
    for (number, agency) in (0..).zip(agencies) {
        participants.push(Participant {
            agency: (*agency).into(),
            name: prefixes::name_of(agency)?,
            prefixes: vec![prefix(number)],
            gateways: Vec::new(),
        });
    }
    Ok(CollectorPlan {
        program: binaries.collector.clone(),
        directory: directory.join("collector"),
        netns: None,
        dedicated: vec![free_port(COLLECTOR)?],
        fallback: None,
        enrolment: free_port(COLLECTOR)?,
        advertise_enrolment: None,
        recovery: free_port(COLLECTOR)?,
        http: free_port(Ipv4Addr::LOCALHOST.into())?,
        roster: prefixes::write(&participants, directory)?,
        demo: true,
        core_check: None,
        tempo: Tempo::Short,
    })
}

fn prefix(number: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 18, 11 + number, 0), 24))
}

fn network() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 18, 0, 0), 15))
}
