//! Once a second: every agency is judged by its own facts, the incidents are looked for over all of
//! them, and what changed is told.

use std::time::{Duration, SystemTime};

use haidang_proto::model::verdict::DownCause;

use crate::incident::{Effect, Member, SILENCE_WINDOW, Standing};
use crate::snapshot::{AgencyState, DisconnectCause, Suppression};

use super::agent::Agent;
use super::gateway::Gateway;
use super::{Agency, AgencyTransition, Fleet, Now, judge};

/// How long a clean stop explains silence, in hours that the office works: a full day of them.
/// Whoever stops the service to be unseen is seen then, and no switched-off office alerts before.
const STOP_EXCUSE_WORKED: Duration = Duration::from_secs(8 * 3_600);
/// The same without a calendar, where every hour counts: a weekend.
const STOP_EXCUSE_ALWAYS: Duration = Duration::from_secs(72 * 3_600);

/// A step of the wall clock from which certificates may be refused by mistake: they are backdated by
/// 24 hours.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(12 * 3_600);

impl Fleet {
    /// Judges every agency. Call once a second; returns what changed.
    pub fn tick(&mut self, now: Now) -> Vec<AgencyTransition> {
        let day = now.day();
        let in_force: Vec<bool> =
            self.roster.agencies().iter().map(|entry| entry.validity.holds_on(day)).collect();
        let local = now.local();
        let expected: Vec<bool> = self
            .roster
            .agencies()
            .iter()
            .map(|entry| self.calendar.expects(&entry.id, entry.kind, local))
            .collect();
        self.forget_gateways(&expected, now);
        let mut judged = Vec::with_capacity(self.agencies.len());
        let mut members = Vec::with_capacity(self.agencies.len());
        for (row, agency) in self.agencies.iter().enumerate() {
            let agents: Vec<&Agent> = self.agents_of(agency).collect();
            let state = self.judge(agency, &agents, now);
            let mut member = self.member(&agents, state, in_force[row], now);
            let missed = self.missed_since_the_start(agency, &agents, now);
            member.agents_late += missed;
            member.is_missed = missed > 0;
            // Machines that are switched off at the end of the day are nobody's incident.
            members.push(if expected[row] { member } else { member.not_expected() });
            judged.push(state);
        }
        self.incidents.doubt_clock(self.clock_stepped(now) > CLOCK_STEP_MAX);
        self.incidents.update(&members, now.mono, now.wall);
        let passed = now.mono.saturating_sub(self.ticked.replace(now.mono).unwrap_or(now.mono));
        let excuse = match self.calendar.is_empty() {
            true => STOP_EXCUSE_ALWAYS,
            false => STOP_EXCUSE_WORKED,
        };
        let mut transitions = Vec::new();
        for (row, mut to) in judged.into_iter().enumerate() {
            let effect = self.incidents.effect(row);
            if effect == Effect::Suspected {
                to = AgencyState::Unknown;
            }
            let agency = &mut self.agencies[row];
            agency.stopped_for = match to {
                AgencyState::Silent { stopped: Some(_) } if expected[row] => {
                    agency.stopped_for + passed
                }
                AgencyState::Silent { stopped: Some(_) } => agency.stopped_for,
                _ => Duration::ZERO,
            };
            let is_excused = agency.stopped_for <= excuse;
            let warming_up = self.is_warming_up(now).then_some(Suppression::WarmUp);
            let suppressed = match effect {
                Effect::Suspected => Some(Suppression::CollectorSuspected),
                Effect::Parent => Some(Suppression::ParentIncident),
                Effect::None => warming_up.or(of_its_own(to, expected[row], is_excused)),
            };
            let agency = &mut self.agencies[row];
            agency.state = to;
            agency.suppressed = suppressed;
            let from = std::mem::replace(&mut agency.told, to);
            if from == to {
                continue;
            }
            if from.index() != to.index() {
                agency.since = now.wall;
            }
            if in_force[row] {
                let agency = self.roster.agencies()[row].id.clone();
                transitions.push(AgencyTransition { agency, from, to, at: now.wall, suppressed });
            }
        }
        transitions
    }

    /// Voids what is known of gateways whose office is closed.
    fn forget_gateways(&mut self, expected: &[bool], now: Now) {
        for (row, expected) in expected.iter().enumerate() {
            if !expected && self.is_late(&self.agencies[row], now) {
                self.agencies[row].gateways.iter_mut().for_each(Gateway::office_closed);
            }
        }
    }

    /// How far the wall clock has moved beyond the monotonic one since the start, in either
    /// direction.
    fn clock_stepped(&self, now: Now) -> Duration {
        let passed = now.mono.saturating_sub(self.started);
        let expected = self.started_wall + passed;
        let ahead = now.wall.duration_since(expected);
        ahead.unwrap_or_else(|behind| behind.duration())
    }

    fn judge(&self, agency: &Agency, agents: &[&Agent], now: Now) -> AgencyState {
        let mut facts = judge::Facts::new(&self.config);
        facts.ever_verified = agency.ever_verified;
        let is_awaited =
            || self.is_awaiting(now) && agents.iter().all(|agent| agent.heard.is_none());
        facts.warm_up = self.is_warming_up(now) || is_awaited();
        facts.outage_restored = agency.outage_restored;
        facts.stop_restored = agency.stop_restored;
        facts.gateway_lost =
            !agency.gateways.is_empty() && agency.gateways.iter().all(Gateway::is_lost);
        for agent in agents {
            facts.add(agent, now.mono);
        }
        judge::judge(&facts)
    }

    fn member(&self, agents: &[&Agent], judged: AgencyState, in_force: bool, now: Now) -> Member {
        let standing = match judged {
            _ if !in_force => Standing::Aside,
            AgencyState::Connected | AgencyState::Degraded => Standing::Up,
            AgencyState::Disconnected(DisconnectCause::Agent(DownCause::CoreUnreachable)) => {
                Standing::CoreDown
            }
            AgencyState::Disconnected(DisconnectCause::Agent(_)) => Standing::Down,
            AgencyState::Disconnected(DisconnectCause::NoAnswerFromCore)
            | AgencyState::Silent { stopped: None } => Standing::Missing,
            AgencyState::Disconnected(DisconnectCause::Unconfirmed)
            | AgencyState::Silent { stopped: Some(_) }
            | AgencyState::OffNetwork
            | AgencyState::Unknown
            | AgencyState::NotEnrolled => Standing::Aside,
        };
        let mut member = Member { standing, agents_prompt: 0, agents_late: 0, is_missed: false };
        for age in agents.iter().filter_map(|agent| agent.age(now.mono)) {
            if age <= self.config.doubt_after() {
                member.agents_prompt += 1;
            } else if age <= self.config.fresh_for() + SILENCE_WINDOW {
                member.agents_late += 1;
            }
        }
        member
    }

    /// Agents that lived until the collector stopped and have not come back, in the minute after
    /// the time that this takes them: a collector that starts on a broken network, or with
    /// a wrong clock, hears nobody, and that is nobody's outage; and a parent may have failed
    /// meanwhile.
    fn missed_since_the_start(&self, agency: &Agency, agents: &[&Agent], now: Now) -> u32 {
        let up_for = now.mono.saturating_sub(self.started);
        let is_due = !self.is_awaiting(now) && up_for <= self.config.back_within() + SILENCE_WINDOW;
        if !is_due || agency.outage_restored || agency.stop_restored.is_some() {
            return 0;
        }
        let lived = |at: SystemTime| {
            self.last_life.is_some_and(|last| {
                last.duration_since(at).unwrap_or_default() <= self.config.fresh_for()
            })
        };
        let missed = agents.iter().filter(|agent| {
            agent.heard.is_none()
                && agent.conflict.is_none()
                && agent.last_verified.is_some_and(lived)
        });
        // When agents were last heard is kept every half minute, an agency's state at once.
        let at_least = u32::from(agency.up_restored);
        u32::try_from(missed.count()).unwrap_or(u32::MAX).max(at_least)
    }
}

/// Why an agency's state by itself is no cause for an alert.
const fn of_its_own(state: AgencyState, expected: bool, is_excused: bool) -> Option<Suppression> {
    match state {
        AgencyState::Silent { stopped: Some(_) } if is_excused => Some(Suppression::Stopped),
        AgencyState::Silent { .. } | AgencyState::Disconnected(_) if !expected => {
            Some(Suppression::OutsideHours)
        }
        AgencyState::Silent { .. }
        | AgencyState::Disconnected(_)
        | AgencyState::Connected
        | AgencyState::Degraded
        | AgencyState::OffNetwork
        | AgencyState::Unknown
        | AgencyState::NotEnrolled => None,
    }
}
