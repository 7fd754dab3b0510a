//! The whole laboratory: the network, a collector in its core and an agent in each site.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use haidang_proto::model::enrolment_code::EnrolmentCode;
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
use crate::topology::{
    CORE, CORE_ON_INTERNET, CORE_V6, DEDICATED, DEDICATED_V6, Families, Leg, Network, Site,
    SitePlan,
};
use crate::wait;
use crate::web::Endpoint;

/// Where agents report on the dedicated network.
pub const REPORTS: SocketAddr = SocketAddr::new(IpAddr::V4(CORE), 7443);
/// The same in IPv6.
const REPORTS_V6: SocketAddr = SocketAddr::new(IpAddr::V6(CORE_V6), REPORTS.port());
/// Where they enrol: one listener for both families.
const ENROLMENT: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 7444);
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
#[derive(Debug, Clone, Default)]
pub struct Seat {
    /// Its id in the shipped roster.
    pub agency: String,
    /// Its site.
    pub site: SitePlan,
    /// Whether the roster names its gateway.
    pub gateway: bool,
    /// How its agent finds the dedicated interface.
    pub selector: Selector,
    /// Whether the wall clock of its agent can be stepped.
    pub stepped_clock: bool,
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
        let plans: Vec<_> = seats.iter().map(|seat| seat.site).collect();
        let mut network = Network::build(&plans).await?;
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

    /// Notes from now on every state that an agency is seen in.
    pub fn note(&self, agency: &str) -> Noted {
        let noted = Arc::new(Mutex::new(BTreeSet::new()));
        let (mut seen, agency, states) = (self.0.clone(), agency.to_owned(), Arc::clone(&noted));
        let noting = tokio::spawn(async move {
            while seen.changed().await.is_ok() {
                if let Some(agency) = seen.borrow_and_update().get(&agency) {
                    let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
                    states.insert(agency.state.clone());
                }
            }
        });
        Noted { noted, _noting: AbortOnDropHandle::new(noting) }
    }
}

/// States that an agency was seen in.
#[derive(Debug)]
pub struct Noted {
    noted: Arc<Mutex<BTreeSet<String>>>,
    _noting: AbortOnDropHandle<()>,
}

impl Noted {
    /// All of them so far.
    pub fn states(&self) -> BTreeSet<String> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            prefixes: site.legs().iter().map(|leg| leg.prefix).collect(),
            gateways: match seat.gateway {
                true => site.legs().iter().map(|leg| leg.gateway).collect(),
                false => Vec::new(),
            },
        });
    }
    let plan = CollectorPlan {
        program: binaries.collector.clone(),
        directory: directory.path().join("collector"),
        netns: Some(Arc::clone(&network.core)),
        dedicated: vec![REPORTS, REPORTS_V6],
        fallback: Some(FALLBACK),
        enrolment: ENROLMENT,
        advertise_enrolment: Some((CORE, ENROLMENT.port()).into()),
        recovery: (CORE, 7446).into(),
        http: HTTP,
        roster: prefixes::write(&participants, directory.path())?,
        demo: false,
        core_check: Some((CORE_DEVICE.into(), vec![DEDICATED.into(), DEDICATED_V6.into()])),
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
    let code = match seat.site.families {
        Families::Ipv6 => told_in_v6(&code)?,
        Families::Ipv4 | Families::Dual => code,
    };
    let legs = site.legs();
    let directory = directory.join(&seat.agency);
    let anchors = |leg: &Leg| {
        let [collector, second] = leg.anchors;
        [(collector, Some(REPORTS.port())), (second, None)]
    };
    let networks = legs.iter().map(|leg| leg.dedicated.parse());
    let plan = AgentPlan {
        program: binaries.agent.clone(),
        agency: seat.agency.clone(),
        stepped_clock: seat.stepped_clock.then(|| directory.join("clock")),
        directory,
        netns: Some(Arc::clone(&site.netns)),
        interface: match seat.selector {
            Selector::Name => "{ name = \"eth0\" }".into(),
            Selector::Prefix => format!("{{ prefix = \"{}\" }}", site.leg().prefix),
        },
        prefixes: legs.iter().map(|leg| leg.prefix).collect(),
        network_prefixes: networks.collect::<Result<_, _>>().context("the dedicated prefixes")?,
        gateways: legs.iter().map(|leg| leg.gateway).collect(),
        anchors: legs.iter().flat_map(anchors).collect(),
        resolvers: legs.iter().map(|leg| leg.resolver).collect(),
        services: legs.iter().map(|leg| leg.service).collect(),
        fallback: if seat.site.internet { vec![FALLBACK] } else { Vec::new() },
        tempo,
    };
    let agent = Agent::enrol_and_start(plan, &code)?;
    let name = prefixes::name_of(&seat.agency)?;
    Ok(LabAgency { agency: seat.agency.clone(), name, site, agent })
}

/// The code as an operator hands it to an agency that speaks IPv6 alone: the collector names one
/// endpoint, here the IPv4 one.
fn told_in_v6(code: &str) -> Result<String> {
    let code: EnrolmentCode = code.parse().context("read the enrolment code")?;
    let endpoint = SocketAddr::from((CORE_V6, ENROLMENT.port())).to_string();
    Ok(EnrolmentCode { endpoint, ..code }.reveal().to_string())
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
