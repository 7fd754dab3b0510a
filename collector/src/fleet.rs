//! The fold: reports, goodbyes, gateway checks, silence and the roster become the state of
//! every agency. Pure: time is an argument, and one task owns the fleet.
//!
//! The rules stand in `judge`. Liveness counts on the collector's monotonic receipt clock
//! alone; an agent's own clock is shown as skew and decides nothing. A report costs the same
//! whatever the size of the fleet: it updates one agent, and the agencies are judged once a
//! second by [`Fleet::tick`].

mod agent;
mod gateway;
mod judge;
mod view;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::report::Report;
use jiff::civil::Date;

use crate::incident::{Incidents, Member};
use crate::roster::Roster;
use crate::snapshot::{AgencyState, Incident, Snapshot, Suppression};
use agent::{Agent, Heard, Place};
use gateway::Gateway;

/// A moment on both of the collector's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic, from an arbitrary start.
    pub mono: Duration,
    /// Wall clock, for people and for validity dates.
    pub wall: SystemTime,
}

impl Now {
    /// The day for validity dates, in Vietnam's time (UTC+7 all year, no leap seconds matter).
    pub fn day(self) -> Date {
        let unix = self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds)
            .unwrap_or(jiff::Timestamp::MAX)
            .to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(7)))
            .date()
    }
}

/// Which listener a message arrived on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listener {
    /// Bound to the dedicated address.
    Dedicated,
    /// For permitted second paths: it can explain and lower a state, never raise one.
    Fallback,
}

impl Listener {
    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Fallback => "fallback",
        }
    }
}

/// How a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The listener.
    pub listener: Listener,
    /// The peer's address as the kernel has it; no header is believed.
    pub source: IpAddr,
}

/// Timing of the fold.
#[derive(Debug, Clone, Copy)]
pub struct FleetConfig {
    /// Interval in which agents report.
    pub report_interval: Duration,
    /// Share of the roster that the plan asks for.
    pub goal_target_ratio: f64,
}

impl FleetConfig {
    /// Age beyond which a message says nothing any more.
    fn fresh_for(&self) -> Duration {
        self.report_interval * 3
    }

    /// Age from which an unanswering gateway is believed, and gateways are checked.
    fn doubt_after(&self) -> Duration {
        self.report_interval * 3 / 2
    }
}

/// A change of one agency's state or cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgencyTransition {
    /// The agency.
    pub agency: AgencyId,
    /// Its state before.
    pub from: AgencyState,
    /// Its state now.
    pub to: AgencyState,
    /// When the fold saw it.
    pub at: SystemTime,
}

/// What is known of an agent from before this process started.
#[derive(Debug, Clone)]
pub struct RestoredAgent {
    /// Its id.
    pub agent: AgentId,
    /// Its agency.
    pub agency: AgencyId,
    /// Receipt of its last verified message, if there ever was one.
    pub last_verified: Option<SystemTime>,
    /// End of its certificate.
    pub certificate_expiry: SystemTime,
}

/// The live state of all agencies.
#[derive(Debug)]
pub struct Fleet {
    roster: Arc<Roster>,
    config: FleetConfig,
    started: Duration,
    /// By roster row.
    agencies: Vec<Agency>,
    agents: HashMap<AgentId, Agent>,
    incidents: Incidents,
}

#[derive(Debug)]
struct Agency {
    agents: Vec<AgentId>,
    gateways: Vec<Gateway>,
    ever_verified: bool,
    /// An outage was open when the collector stopped, and nothing was heard since.
    outage_restored: bool,
    state: AgencyState,
    since: SystemTime,
    suppressed: Option<Suppression>,
}

impl Fleet {
    /// A fleet that has heard nothing yet.
    pub fn new(roster: Arc<Roster>, config: FleetConfig, now: Now) -> Self {
        let mut fleet = Self {
            roster: Arc::clone(&roster),
            config,
            started: now.mono,
            agencies: Vec::new(),
            agents: HashMap::new(),
            incidents: Incidents::default(),
        };
        fleet.replace_roster(roster, now);
        fleet
    }

    /// Puts another roster in force. Agents and states of agencies that are in both stay.
    pub fn replace_roster(&mut self, roster: Arc<Roster>, now: Now) {
        let old_roster = std::mem::replace(&mut self.roster, roster);
        let mut old: HashMap<AgencyId, Agency> = old_roster
            .agencies()
            .iter()
            .map(|agency| agency.id.clone())
            .zip(std::mem::take(&mut self.agencies))
            .collect();
        self.agencies = self
            .roster
            .agencies()
            .iter()
            .map(|row| {
                let mut agency = old.remove(&row.id).unwrap_or(Agency {
                    agents: Vec::new(),
                    gateways: Vec::new(),
                    ever_verified: false,
                    outage_restored: false,
                    state: AgencyState::NotEnrolled,
                    since: now.wall,
                    suppressed: None,
                });
                agency.agents.clear();
                agency.gateways = row.gateways.iter().copied().map(Gateway::new).collect();
                agency
            })
            .collect();
        let mut by_agency: Vec<(AgentId, AgencyId)> =
            self.agents.iter().map(|(id, agent)| (*id, agent.agency.clone())).collect();
        by_agency.sort_unstable();
        for (agent, agency) in by_agency {
            if let Some(row) = self.roster.row(&agency) {
                self.agencies[row].agents.push(agent);
            }
        }
    }

    /// An agent known from the store.
    pub fn restore(&mut self, restored: RestoredAgent) {
        let RestoredAgent { agent, agency, last_verified, certificate_expiry } = restored;
        self.enrolled(agent, agency.clone(), certificate_expiry);
        let Some(live) = self.agents.get_mut(&agent) else { return };
        live.last_verified = last_verified;
        if let Some(row) = self.roster.row(&agency) {
            self.agencies[row].ever_verified |= last_verified.is_some();
        }
    }

    /// An agency's state when the collector stopped: an open outage stays one, unconfirmed.
    pub fn restore_state(&mut self, agency: &AgencyId, disconnected: bool, since: SystemTime) {
        let Some(row) = self.roster.row(agency) else { return };
        self.agencies[row].outage_restored = disconnected;
        self.agencies[row].since = since;
    }

    /// An agent was enrolled, or its certificate renewed.
    pub fn enrolled(&mut self, agent: AgentId, agency: AgencyId, certificate_expiry: SystemTime) {
        if let Some(live) = self.agents.get_mut(&agent) {
            live.certificate_expiry = certificate_expiry;
            return;
        }
        if let Some(row) = self.roster.row(&agency) {
            self.agencies[row].agents.push(agent);
        }
        self.agents.insert(agent, Agent::new(agency, certificate_expiry));
    }

    /// An agent was revoked or superseded: it counts no more.
    pub fn retired(&mut self, agent: AgentId) {
        let Some(live) = self.agents.remove(&agent) else { return };
        if let Some(row) = self.roster.row(&live.agency) {
            self.agencies[row].agents.retain(|other| *other != agent);
        }
    }

    /// A report of an authorized agent. Unknown agents and reports older than the last one of
    /// the same process change nothing.
    pub fn report(&mut self, agent: AgentId, report: Report, arrival: Arrival, now: Now) {
        let Some(live) = self.agents.get_mut(&agent) else { return };
        if !live.is_news(&report) {
            return;
        }
        let row = self.roster.row(&live.agency);
        let place = place(&self.roster, row, arrival, now);
        live.stopped = None;
        if place == Place::Verified {
            live.last_verified = Some(now.wall);
            if let Some(row) = row {
                self.agencies[row].ever_verified = true;
                self.agencies[row].outage_restored = false;
                for gateway in &mut self.agencies[row].gateways {
                    gateway.agency_verified();
                }
            }
        }
        live.heard =
            Some(Heard { mono: now.mono, wall: now.wall, source: arrival.source, place });
        live.take(report, now);
    }

    /// A clean stop. Only the process that is known may stop itself.
    pub fn goodbye(&mut self, agent: AgentId, nonce: [u8; 16], reason: GoodbyeReason) {
        if let Some(live) = self.agents.get_mut(&agent)
            && live.process_nonce == Some(nonce)
        {
            live.stopped = Some(reason);
        }
    }

    /// Gateways worth an echo from the core now: those of agencies that were verified, either to
    /// learn whether the gateway answers at all, or because the agency is late.
    pub fn gateways_to_check(&self, now: Now) -> Vec<IpAddr> {
        let mut targets = Vec::new();
        for agency in &self.agencies {
            let late = !self.heard_within(agency, self.config.doubt_after(), now);
            for gateway in &agency.gateways {
                if agency.ever_verified && gateway.wants_check(late, now.mono) {
                    targets.push(gateway.address);
                }
            }
        }
        targets
    }

    /// The outcome of one echo to a gateway.
    pub fn gateway_checked(&mut self, address: IpAddr, answered: bool, now: Now) {
        let doubt_after = self.config.doubt_after();
        for row in 0..self.agencies.len() {
            let verified_now = self.heard_within(&self.agencies[row], doubt_after, now);
            for gateway in &mut self.agencies[row].gateways {
                if gateway.address == address {
                    gateway.checked(answered, verified_now, now.mono);
                }
            }
        }
    }

    /// Judges every agency. Call once a second; returns what changed.
    pub fn tick(&mut self, now: Now) -> Vec<AgencyTransition> {
        let day = now.day();
        let members: Vec<Member> =
            (0..self.agencies.len()).map(|row| self.member(row, day, now)).collect();
        self.incidents.update(&members, now.mono);
        let warm_up = now.mono.saturating_sub(self.started) < self.config.fresh_for();
        let mut transitions = Vec::new();
        for (row, member) in members.iter().enumerate() {
            let judged = self.incidents.overrule(row, member.state);
            let agency = &mut self.agencies[row];
            agency.suppressed =
                self.incidents.suppression(row).or(warm_up.then_some(Suppression::WarmUp));
            if judged == agency.state {
                continue;
            }
            transitions.push(AgencyTransition {
                agency: self.roster.agencies()[row].id.clone(),
                from: agency.state,
                to: judged,
                at: now.wall,
            });
            if judged.index() != agency.state.index() && !agency.outage_restored {
                agency.since = now.wall;
            }
            agency.state = judged;
        }
        transitions
    }

    /// What readers see.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        view::snapshot(self, now)
    }

    fn incidents(&self) -> Vec<Incident> {
        self.incidents.active()
    }

    fn member(&self, row: usize, day: Date, now: Now) -> Member {
        let entry = &self.roster.agencies()[row];
        let agency = &self.agencies[row];
        let state = judge::judge(&self.facts(agency, now));
        let limit = self.config.fresh_for();
        let agents = agency.agents.iter().filter_map(|id| self.agents.get(id));
        let (mut fresh, mut lost) = (0, 0);
        for agent in agents {
            match agent.age(now.mono) {
                Some(age) if age <= limit => fresh += 1,
                Some(age) if age <= limit + crate::incident::SILENCE_WINDOW => lost += 1,
                _ => {}
            }
        }
        Member {
            in_force: entry.validity.holds_on(day),
            parent: entry.uplink.clone().unwrap_or_else(|| entry.parent.to_string()),
            was_connected: agency.state.counts_as_connected(),
            state,
            agents_fresh: fresh,
            agents_lost: lost,
        }
    }

    fn facts(&self, agency: &Agency, now: Now) -> judge::Facts {
        let mut facts = judge::Facts {
            ever_verified: agency.ever_verified,
            warm_up: now.mono.saturating_sub(self.started) < self.config.fresh_for(),
            outage_restored: agency.outage_restored,
            gateway_lost: !agency.gateways.is_empty()
                && agency.gateways.iter().all(Gateway::is_lost),
            ..judge::Facts::default()
        };
        for agent in agency.agents.iter().filter_map(|id| self.agents.get(id)) {
            facts.add(agent, &self.config, now);
        }
        facts
    }

    fn heard_within(&self, agency: &Agency, limit: Duration, now: Now) -> bool {
        agency
            .agents
            .iter()
            .filter_map(|id| self.agents.get(id))
            .any(|agent| agent.verified_age(now.mono).is_some_and(|age| age <= limit))
    }
}

/// Where a message came from, as far as the roster can tell.
fn place(roster: &Roster, row: Option<usize>, arrival: Arrival, now: Now) -> Place {
    let day = now.day();
    let Some(row) = row else { return Place::PrefixesUnknown };
    let owner = roster.owner_of(arrival.source, day);
    match (arrival.listener, owner) {
        (Listener::Fallback, _) => Place::Fallback,
        (Listener::Dedicated, Some(owner)) if owner == row => Place::Verified,
        (Listener::Dedicated, Some(_)) => Place::ForeignPrefix,
        (Listener::Dedicated, None) if roster.has_prefixes(row, day) => Place::OutsidePrefixes,
        (Listener::Dedicated, None) => Place::PrefixesUnknown,
    }
}
