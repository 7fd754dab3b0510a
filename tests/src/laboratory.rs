//! The whole laboratory: the network, a collector in its core and an agent in each site.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::{Agent, AgentPlan};
use crate::binaries::Binaries;
use crate::collector::{AgencySeen, Collector, CollectorPlan, Tempo};
use crate::exposition::Exposition;
use crate::netns;
use crate::prefixes::{self, Participant};
use crate::relay::CORE_DEVICE;
use crate::topology::{CORE, CORE_ON_INTERNET, DEDICATED, Network, SECOND_ANCHOR, Site};
use crate::wait;
use crate::web::Endpoint;

/// Where agents report on the dedicated network.
pub const REPORTS: SocketAddr = SocketAddr::new(IpAddr::V4(CORE), 7443);
/// Where they report on the second way.
pub const FALLBACK: SocketAddr = SocketAddr::new(IpAddr::V4(CORE_ON_INTERNET), 7445);
/// Metrics and API, inside the core.
pub const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7080);
/// How often the collector's states are read: it makes a snapshot once a second.
const READ_PERIOD: Duration = Duration::from_millis(250);
/// From the first report to `connected`, the collector's own warm-up of three intervals and a
/// busy machine included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);

/// An agency that takes part.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Its id in the shipped roster.
    pub agency: String,
    /// Whether it has a second way.
    pub internet: bool,
    /// Whether the roster names its gateway.
    pub gateway: bool,
    /// How its agent finds the dedicated interface.
    pub selector: Selector,
}

/// How an agent finds the dedicated interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// By the name that it has at the beginning.
    #[default]
    Name,
    /// By an address inside the agency's prefix.
    Prefix,
}

/// A running laboratory. Its parts end in this order when it is dropped.
#[derive(Debug)]
pub struct Laboratory {
    /// Each agency with its site and agent, in the order of the seats.
    pub agencies: Vec<LabAgency>,
    /// The collector.
    pub collector: Collector,
    _reader: AbortOnDropHandle<()>,
    seen: watch::Receiver<BTreeMap<String, AgencySeen>>,
    /// The network.
    pub network: Network,
    /// Configurations, states and outputs.
    pub directory: TempDir,
}

/// One agency.
#[derive(Debug)]
pub struct LabAgency {
    /// Its id.
    pub agency: String,
    /// Its official name.
    pub name: String,
    /// Its place in the network.
    pub site: Site,
    /// Its agent.
    pub agent: Agent,
}

impl Laboratory {
    /// Builds everything and waits until every agency is connected.
    ///
    /// # Errors
    /// Without root or programs, in a sentence; or when an agency does not connect.
    pub async fn build(seats: &[Seat], tempo: Tempo) -> Result<Self> {
        let internet: Vec<_> = seats.iter().map(|seat| seat.internet).collect();
        let mut network = Network::build(&internet).await?;
        let directory = netns::directory()?;
        let binaries = Binaries::find()?.copy_to(directory.path())?;
        let sites = std::mem::take(&mut network.sites);
        let collector = start_collector(&network, seats, &sites, &binaries, &directory, tempo);
        let collector = collector.await?;
        let mut agencies = Vec::new();
        for (seat, site) in seats.iter().zip(sites) {
            agencies.push(start_agent(seat, site, &collector, &binaries, directory.path(), tempo)?);
        }
        let (reader, seen) = read_states(&collector.web, seats);
        let laboratory = Self { agencies, collector, _reader: reader, seen, network, directory };
        laboratory.all_connected().await?;
        Ok(laboratory)
    }

    /// What the collector says of the agencies that take part, always the latest.
    pub fn seen(&self) -> Seen {
        Seen(self.seen.clone())
    }

    /// Stops the collector cleanly and starts it again.
    ///
    /// # Errors
    /// When it does not stop or start.
    pub async fn restart_collector(mut self) -> Result<Self> {
        self.collector = Collector::start_again(self.collector.stop().await?).await?;
        Ok(self)
    }

    async fn all_connected(&self) -> Result<()> {
        for LabAgency { agency, agent, .. } in &self.agencies {
            let connected = |seen: &AgencySeen| seen.state == "connected";
            let waited = self.seen().until(agency, CONNECT_TIMEOUT, connected).await;
            waited.with_context(|| {
                format!("the agent of {agency}: {}", last_lines(&agent.plan.directory))
            })?;
        }
        Ok(())
    }
}

/// The collector's states, always the latest.
#[derive(Debug, Clone)]
pub struct Seen(watch::Receiver<BTreeMap<String, AgencySeen>>);

impl Seen {
    /// What is seen of an agency now.
    pub fn now(&self, agency: &str) -> Option<AgencySeen> {
        self.0.borrow().get(agency).cloned()
    }

    /// Waits until an agency is seen so, and says how long it took.
    ///
    /// # Errors
    /// When it is not in time, with what is seen instead.
    pub async fn until(
        &self,
        agency: &str,
        deadline: Duration,
        holds: impl Fn(&AgencySeen) -> bool,
    ) -> Result<(AgencySeen, Duration)> {
        let awaited = format!("the awaited state of {agency}");
        wait::until(&awaited, deadline, || {
            let seen = self.now(agency);
            std::future::ready(match seen {
                Some(seen) if holds(&seen) => Ok(seen),
                Some(seen) => Err(format!("{seen:?}")),
                None => Err("no answer from the collector".to_owned()),
            })
        })
        .await
    }
}

async fn start_collector(
    network: &Network,
    seats: &[Seat],
    sites: &[Site],
    binaries: &Binaries,
    directory: &TempDir,
    tempo: Tempo,
) -> Result<Collector> {
    let mut participants = Vec::new();
    for (seat, site) in seats.iter().zip(sites) {
        participants.push(Participant {
            agency: seat.agency.clone(),
            name: prefixes::name_of(&seat.agency)?,
            prefix: site.prefix(),
            gateway: seat.gateway.then(|| site.gateway().into()),
        });
    }
    let plan = CollectorPlan {
        program: binaries.collector.clone(),
        directory: directory.path().join("collector"),
        netns: Some(Arc::clone(&network.core)),
        dedicated: REPORTS,
        fallback: Some(FALLBACK),
        enrolment: (CORE, 7444).into(),
        recovery: (CORE, 7446).into(),
        http: HTTP,
        roster: prefixes::write(&participants, directory.path())?,
        demo: false,
        core_check: Some((CORE_DEVICE.into(), DEDICATED.into())),
        tempo,
    };
    Collector::start(plan).await
}

fn start_agent(
    seat: &Seat,
    site: Site,
    collector: &Collector,
    binaries: &Binaries,
    directory: &Path,
    tempo: Tempo,
) -> Result<LabAgency> {
    let code = collector.create_token(&seat.agency, 1, "1h")?;
    let plan = AgentPlan {
        program: binaries.agent.clone(),
        agency: seat.agency.clone(),
        directory: directory.join(&seat.agency),
        netns: Some(Arc::clone(&site.netns)),
        interface: match seat.selector {
            Selector::Name => "{ name = \"eth0\" }".into(),
            Selector::Prefix => format!("{{ prefix = \"{}\" }}", site.prefix()),
        },
        prefix: site.prefix(),
        network_prefix: DEDICATED.parse().context("the dedicated prefix")?,
        gateway: Some(site.gateway().into()),
        anchors: vec![(CORE.into(), Some(REPORTS.port())), (SECOND_ANCHOR.into(), None)],
        resolver: Some(site.resolver()),
        service: Some(site.service()),
        fallback: if site.internet { vec![FALLBACK] } else { Vec::new() },
        tempo,
    };
    let agent = Agent::enrol_and_start(plan, &code)?;
    let name = prefixes::name_of(&seat.agency)?;
    Ok(LabAgency { agency: seat.agency.clone(), name, site, agent })
}

/// Reads the states of the agencies that take part, and of no others: 631 are many for a build
/// without optimisation.
fn read_states(
    web: &Endpoint,
    seats: &[Seat],
) -> (AbortOnDropHandle<()>, watch::Receiver<BTreeMap<String, AgencySeen>>) {
    let (sender, receiver) = watch::channel(BTreeMap::new());
    let web = web.clone();
    let agencies: Vec<_> = seats.iter().map(|seat| seat.agency.clone()).collect();
    let task = tokio::spawn(async move {
        loop {
            let seen = match web.text("/metrics").await {
                Ok(text) => states_of(&text, &agencies).unwrap_or_default(),
                Err(_) => BTreeMap::new(),
            };
            if sender.send(seen).is_err() {
                return;
            }
            tokio::time::sleep(READ_PERIOD).await;
        }
    });
    (AbortOnDropHandle::new(task), receiver)
}

fn states_of(text: &str, agencies: &[String]) -> Result<BTreeMap<String, AgencySeen>> {
    let labels: Vec<_> = agencies.iter().map(|agency| format!("agency=\"{agency}\"")).collect();
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("haidang_agency_")) {
        for (agency, label) in agencies.iter().zip(&labels) {
            if line.contains(label) {
                let lines = lines.entry(agency).or_default();
                lines.push_str(line);
                lines.push('\n');
            }
        }
    }
    let mut states = BTreeMap::new();
    for (agency, lines) in lines {
        if let Some(seen) = AgencySeen::read(&Exposition::parse(&lines)?, agency) {
            states.insert(agency.to_owned(), seen);
        }
    }
    Ok(states)
}

fn last_lines(directory: &Path) -> String {
    let text = fs::read_to_string(directory.join("agent.log")).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Agencies of one district for so many seats: all under one parent, so that many cuts at once
/// are an incident of that parent and no suspicion of the collector against itself.
///
/// # Errors
/// When the shipped roster cannot be read, or the district is too small.
pub fn agencies_of_one_district(count: usize) -> Result<Vec<String>> {
    // Chương Mỹ: 32 communes, the most of any district.
    agencies_of("01-277", count)
}

/// The first communes of a district.
///
/// # Errors
/// When the shipped roster cannot be read, or the district is too small.
pub fn agencies_of(district: &str, count: usize) -> Result<Vec<String>> {
    let children = prefixes::children_of(district)?;
    ensure!(
        children.len() >= count,
        "the district {district} has {} communes, not {count}",
        children.len()
    );
    Ok(children.into_iter().take(count).map(|(id, _)| id).collect())
}
