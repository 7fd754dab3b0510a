//! The fold: reports, goodbyes, gateway checks, silence and the roster become the state of
//! every agency. Pure: time is an argument.
//!
//! The rules stand in `judge`. Liveness counts on the collector's monotonic receipt clock
//! alone; an agent's own clock is shown as skew and decides nothing. A report costs the same
//! whatever the size of the fleet: it updates one agent, and the agencies are judged once a
//! second by [`Fleet::tick`].

mod agent;
mod gateway;
mod judge;
mod posture;
mod process;
mod restore;
mod tick;
mod view;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::goodbye::{Goodbye, GoodbyeReason};
use haidang_proto::model::report::Report;
use jiff::civil::{Date, DateTime};

use crate::calendar::Calendar;
use crate::incident::Incidents;
use crate::posture::{Exceptions, Policies};
use crate::roster::Roster;
use crate::snapshot::{AgencyState, Conflict, Snapshot, Suppression};
use agent::{Agent, Heard, Place};
use gateway::Gateway;
use process::Turn;
pub use restore::RestoredAgent;

/// A moment on both of the collector's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic, from an arbitrary start.
    pub mono: Duration,
    /// Wall clock, for people and for validity dates.
    pub wall: SystemTime,
}

impl Now {
    /// The day for validity dates, in Vietnam's time (UTC+7 all year).
    pub fn day(self) -> Date {
        self.local().date()
    }

    /// The moment for working hours, in Vietnam's time.
    pub fn local(self) -> DateTime {
        let unix = self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds)
            .map_or(DateTime::MAX, |now| jiff::tz::offset(7).to_datetime(now))
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

/// At most; agents that report more often than every ten seconds are also back sooner.
const BACK_WITHIN: Duration = Duration::from_secs(80);

/// Timing of the fold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FleetConfig {
    /// Interval in which agents report.
    pub report_interval: Duration,
    /// Share of the roster that the plan asks for.
    pub goal_target_ratio: f64,
    /// Share of the roster that is asked to be in good security order.
    pub security_goal_target_ratio: f64,
}

impl FleetConfig {
    /// Age beyond which a message says nothing any more.
    fn fresh_for(&self) -> Duration {
        self.report_interval * 3
    }

    /// Uptime within which whoever lives has come back after a start, also of a collector that was
    /// away for long: agents spread their attempts over a minute (`RETRY_CAP` in the agent's
    /// `uplink::choice`), and the handshakes of a crowd take a while.
    fn back_within(&self) -> Duration {
        self.fresh_for().max(BACK_WITHIN.min(self.report_interval * 8))
    }

    /// Age from which an unanswering gateway is believed, and gateways are checked.
    fn doubt_after(&self) -> Duration {
        self.report_interval * 3 / 2
    }
}

/// A change of one agency's state, its cause or its reason.
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
    /// Why alerts about it are held back, if they are.
    pub suppressed: Option<Suppression>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It is the agent's present state.
    Accepted {
        /// The host facts of this process are not known yet: ask for a full report.
        full_report_wanted: bool,
    },
    /// Something as new is held already; nothing changed.
    Stale,
    /// The identity speaks from two machines. Neither counts until [`Fleet::settle_conflict`];
    /// returned for the report that proves it and for every one after it.
    Cloned(Conflict),
    /// The agent was never enrolled, or is retired.
    AgentUnknown,
    /// The agent's agency has no row that holds today.
    AgencyNotInRoster,
}

/// A gateway to send an echo to, and the agency that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayCheck {
    /// The agency.
    pub agency: AgencyId,
    /// The gateway.
    pub address: IpAddr,
}

/// The live state of all agencies.
#[derive(Debug)]
pub struct Fleet {
    roster: Arc<Roster>,
    config: FleetConfig,
    calendar: Calendar,
    started: Duration,
    started_wall: SystemTime,
    /// The latest message of all from before this process, as the wall clock was then.
    last_life: Option<SystemTime>,
    /// The latest tick, on the monotonic clock.
    ticked: Option<Duration>,
    /// By roster row.
    agencies: Vec<Agency>,
    agents: HashMap<AgentId, Agent>,
    incidents: Incidents,
    exceptions: Arc<Exceptions>,
    policies: Arc<Policies>,
}

#[derive(Debug)]
struct Agency {
    agents: Vec<AgentId>,
    gateways: Vec<Gateway>,
    ever_verified: bool,
    /// It was connected or degraded when the collector stopped, and nothing was heard since.
    up_restored: bool,
    /// An outage was open when the collector stopped, and nothing was heard since.
    outage_restored: bool,
    /// It had stopped cleanly when the collector stopped, and nothing was heard since.
    stop_restored: Option<GoodbyeReason>,
    /// How long it has been stopped while its machines were expected to be on.
    stopped_for: Duration,
    state: AgencyState,
    since: SystemTime,
    /// The state that was told last, so that the next transition begins where the last ended.
    told: AgencyState,
    suppressed: Option<Suppression>,
}

impl Agency {
    const fn new(since: SystemTime) -> Self {
        Self {
            agents: Vec::new(),
            gateways: Vec::new(),
            ever_verified: false,
            up_restored: false,
            outage_restored: false,
            stop_restored: None,
            stopped_for: Duration::ZERO,
            state: AgencyState::NotEnrolled,
            since,
            told: AgencyState::NotEnrolled,
            suppressed: None,
        }
    }
}

impl Fleet {
    /// A fleet that has heard nothing yet.
    pub fn new(roster: Arc<Roster>, config: FleetConfig, now: Now) -> Self {
        let mut fleet = Self {
            roster: Arc::clone(&roster),
            config,
            calendar: Calendar::default(),
            started: now.mono,
            started_wall: now.wall,
            last_life: None,
            ticked: None,
            agencies: Vec::new(),
            agents: HashMap::new(),
            incidents: Incidents::default(),
            exceptions: Arc::default(),
            policies: Arc::default(),
        };
        fleet.replace_roster(roster, now);
        fleet
    }

    /// Puts a working calendar in force.
    pub fn set_calendar(&mut self, calendar: Calendar) {
        self.calendar = calendar;
    }

    /// The roster in force.
    pub const fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Puts another roster in force. Agents, and the states of agencies that are in both, stay.
    pub fn replace_roster(&mut self, roster: Arc<Roster>, now: Now) {
        let old_roster = std::mem::replace(&mut self.roster, roster);
        let mut old: Vec<Option<Agency>> =
            std::mem::take(&mut self.agencies).into_iter().map(Some).collect();
        let rows = self.roster.agencies();
        let former: Vec<Option<usize>> = rows
            .iter()
            .map(|entry| old_roster.row(&entry.id).filter(|row| *row < old.len()))
            .collect();
        self.incidents.replace_roster(&self.roster, &former);
        for (entry, former) in rows.iter().zip(former) {
            let kept = former.and_then(|row| old[row].take());
            let mut agency = kept.unwrap_or_else(|| Agency::new(now.wall));
            agency.agents.clear();
            let mut known = std::mem::take(&mut agency.gateways);
            for address in &entry.gateways {
                let at = known.iter().position(|gateway| gateway.address == *address);
                agency.gateways.push(at.map_or(Gateway::new(*address), |at| known.swap_remove(at)));
            }
            self.agencies.push(agency);
        }
        let mut agents: Vec<(&AgentId, &Agent)> = self.agents.iter().collect();
        agents.sort_unstable_by_key(|(id, _)| **id);
        for (id, agent) in agents {
            if let Some(row) = self.roster.row(&agent.agency) {
                self.agencies[row].agents.push(*id);
                self.agencies[row].ever_verified |= agent.last_verified.is_some();
            }
        }
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

    /// A report of an authorized agent: the latest of its process wins, so repeats and
    /// reordering change nothing.
    pub fn report(
        &mut self,
        agent: AgentId,
        report: Report,
        arrival: Arrival,
        now: Now,
    ) -> ReportOutcome {
        let Some(live) = self.agents.get_mut(&agent) else { return ReportOutcome::AgentUnknown };
        let in_force = |row: &usize| self.roster.agencies()[*row].validity.holds_on(now.day());
        let Some(row) = self.roster.row(&live.agency).filter(in_force) else {
            return ReportOutcome::AgencyNotInRoster;
        };
        if let Some(conflict) = live.conflict {
            return ReportOutcome::Cloned(conflict);
        }
        let has_host = report.host.is_some();
        let known_host = live.report.as_ref().is_some_and(|report| report.host.is_some());
        let full_report_wanted = match live.turn(&report, self.config.report_interval, now.mono) {
            Turn::Next => !has_host && !known_host,
            Turn::Another => !has_host,
            Turn::Stale => return ReportOutcome::Stale,
            Turn::Returned => {
                let accepted = live.heard.map_or(arrival.source, |heard| heard.source);
                let conflict = Conflict { accepted, returned: arrival.source };
                live.conflict = Some(conflict);
                return ReportOutcome::Cloned(conflict);
            }
        };
        let place = place(&self.roster, row, arrival, now.day());
        let agency = &mut self.agencies[row];
        agency.up_restored = false;
        agency.outage_restored = false;
        agency.stop_restored = None;
        if place == Place::Verified {
            live.last_verified = Some(now.wall);
            agency.ever_verified = true;
            for gateway in &mut agency.gateways {
                gateway.agency_verified();
            }
        }
        let heard = Heard { mono: now.mono, wall: now.wall, source: arrival.source, place };
        live.take(report, heard, now);
        ReportOutcome::Accepted { full_report_wanted }
    }

    /// A clean stop. Only the process that is known may stop itself.
    pub fn goodbye(&mut self, agent: AgentId, goodbye: Goodbye) {
        if let Some(live) = self.agents.get_mut(&agent)
            && live.is_current(goodbye.process_nonce)
        {
            live.stopped = Some(goodbye.reason);
        }
    }

    /// An operator has decided which machine keeps the identity.
    pub fn settle_conflict(&mut self, agent: AgentId) {
        if let Some(live) = self.agents.get_mut(&agent) {
            live.settle();
        }
    }

    /// Gateways worth an echo from the core now: those of agencies that were verified, either to
    /// learn whether the gateway answers at all, or because the agency is late.
    pub fn gateways_to_check(&self, now: Now) -> Vec<GatewayCheck> {
        let day = now.day();
        let mut checks = Vec::new();
        for (agency, entry) in self.agencies.iter().zip(self.roster.agencies()) {
            if !agency.ever_verified || agency.gateways.is_empty() || !entry.validity.holds_on(day)
            {
                continue;
            }
            let late = self.is_late(agency, now);
            let closed = !self.calendar.expects(&entry.id, entry.kind, now.local());
            let due = agency.gateways.iter().filter(|gateway| {
                // Its router may be off by now; only one that was lost before is looked for.
                (!late || !closed || gateway.is_lost()) && gateway.wants_check(late, now.mono)
            });
            checks.extend(
                due.map(|due| GatewayCheck { agency: entry.id.clone(), address: due.address }),
            );
        }
        checks
    }

    /// The outcome of one echo to a gateway.
    pub fn gateway_checked(&mut self, check: &GatewayCheck, answered: bool, now: Now) {
        let Some(row) = self.roster.row(&check.agency) else { return };
        let late = self.is_late(&self.agencies[row], now);
        let mut gateways = self.agencies[row].gateways.iter_mut();
        if let Some(gateway) = gateways.find(|gateway| gateway.address == check.address) {
            gateway.checked(answered, late, now.mono);
        }
    }

    /// Whether any of the collector's own anchors answered.
    pub fn anchors_checked(&mut self, answered: bool, now: Now) {
        self.incidents.anchors_checked(answered, now.mono);
    }

    /// What readers see: the states as of the last tick.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        view::snapshot(self, now)
    }

    fn agents_of<'a>(&'a self, agency: &'a Agency) -> impl Iterator<Item = &'a Agent> {
        agency.agents.iter().filter_map(|id| self.agents.get(id))
    }

    fn is_warming_up(&self, now: Now) -> bool {
        now.mono.saturating_sub(self.started) < self.config.fresh_for()
    }

    /// Whether the agents of before the start may still be on their way back.
    fn is_awaiting(&self, now: Now) -> bool {
        now.mono.saturating_sub(self.started) < self.config.back_within()
    }

    /// Whether no verified message is younger than 1.5 intervals.
    fn is_late(&self, agency: &Agency, now: Now) -> bool {
        let limit = self.config.doubt_after();
        !self
            .agents_of(agency)
            .any(|agent| agent.verified_age(now.mono).is_some_and(|age| age <= limit))
    }
}

/// Where a message came from, as far as the roster can tell.
fn place(roster: &Roster, row: usize, arrival: Arrival, day: Date) -> Place {
    match (arrival.listener, roster.owner_of(arrival.source, day)) {
        (Listener::Fallback, _) => Place::Fallback,
        (Listener::Dedicated, Some(owner)) if owner == row => Place::Verified,
        (Listener::Dedicated, Some(_)) => Place::ForeignPrefix,
        (Listener::Dedicated, None) if roster.has_prefixes(row, day) => Place::OutsidePrefixes,
        (Listener::Dedicated, None) => Place::PrefixesUnknown,
    }
}
