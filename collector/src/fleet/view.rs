//! From the fleet to what readers see.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::fact::{FACTS_MAX, Fact, FactKind};
use haidang_proto::model::flag::Flag;
use haidang_proto::model::verdict::{Family, Verdict};

use crate::goal;
use crate::snapshot::{
    AgencyState, AgencyView, AgentView, Finding, Incident, IncidentKind, QualityView, Snapshot,
};

use super::agent::{Agent, Place};
use super::{Agency, Fleet, Now};

pub(super) fn snapshot(fleet: &Fleet, now: Now) -> Snapshot {
    let day = now.day();
    let mut agencies = Vec::with_capacity(fleet.agencies.len());
    let mut agents = Vec::with_capacity(fleet.agents.len());
    // The agents of a large fleet lie scattered in memory: each is looked up once.
    let mut of_agency: Vec<&Agent> = Vec::new();
    for (row, (entry, agency)) in fleet.roster.agencies().iter().zip(&fleet.agencies).enumerate() {
        of_agency.clear();
        for id in &agency.agents {
            let Some(agent) = fleet.agents.get(id) else { continue };
            of_agency.push(agent);
            agents.push(agent_view(fleet, *id, agent, now));
        }
        if entry.validity.holds_on(day) {
            agencies.push(agency_view(fleet, row, agency, &of_agency, now));
        }
    }
    Snapshot {
        taken_at: now.wall,
        roster: Arc::clone(&fleet.roster),
        goals: vec![
            goal::dedicated_network(&agencies, fleet.config.goal_target_ratio),
            goal::information_security(&agencies, fleet.config.security_goal_target_ratio),
        ],
        agents,
        incidents: incidents(fleet),
        exceptions: Arc::clone(&fleet.exceptions),
        policies: Arc::clone(&fleet.policies),
        agencies,
    }
}

fn agency_view(
    fleet: &Fleet,
    row: usize,
    agency: &Agency,
    agents: &[&Agent],
    now: Now,
) -> AgencyView {
    let fresh: Vec<&Agent> = agents.iter().copied().filter(|a| is_fresh(fleet, a, now)).collect();
    let verified: Vec<&Agent> =
        fresh.iter().copied().filter(|agent| place(agent) == Some(Place::Verified)).collect();
    let mut flag_machines = [0; Flag::ALL.len()];
    for flag in fresh.iter().filter_map(|agent| agent.report.as_ref()).flat_map(|r| r.flags.iter())
    {
        let at = Flag::ALL.iter().position(|other| *other == flag);
        flag_machines[at.expect("ALL holds every flag")] += 1;
    }
    AgencyView {
        row,
        state: agency.state,
        since: agency.since,
        last_verified: agents.iter().filter_map(|agent| agent.last_verified).max(),
        verdict: verdict(agency.state, &fresh, &verified),
        flag_machines,
        findings: findings(fleet, row, agents, &fresh, &verified, now),
        speaks_from: speaks_from(fleet, &fresh, now),
        surroundings: surroundings(&fresh),
        partial_ratio: partial_ratio(&fresh, &verified),
        agents_enrolled: count(agency.agents.len()),
        agents_fresh: count(fresh.len()),
        agents_verified: count(verified.len()),
        quality: quality(&verified),
        certificate_expiry: agents.iter().map(|agent| agent.certificate_expiry).min(),
        suppressed: agency.suppressed,
        posture: fleet.agency_posture(row, agents, now),
    }
}

/// The words behind the state: of a verified agent that sees it so, or else of any fresh one.
fn verdict(state: AgencyState, fresh: &[&Agent], verified: &[&Agent]) -> Option<Verdict> {
    let words = |agents: &[&Agent]| -> Vec<Verdict> {
        agents.iter().filter_map(|agent| agent.report.as_ref().map(|r| r.verdict)).collect()
    };
    match state {
        AgencyState::Connected => words(verified)
            .into_iter()
            .find(|verdict| matches!(verdict, Verdict::Connected))
            .or_else(|| words(verified).first().copied()),
        // Of several faulty agents the one that still sees the path up tells more.
        AgencyState::Degraded => words(verified)
            .into_iter()
            .find(|verdict| verdict.family() == Family::Up)
            .or_else(|| words(verified).first().copied()),
        AgencyState::Disconnected(_) => words(fresh)
            .into_iter()
            .find(|verdict| verdict.family() == Family::Down)
            .or_else(|| words(fresh).first().copied()),
        AgencyState::OffNetwork
        | AgencyState::Silent { .. }
        | AgencyState::Unknown
        | AgencyState::NotEnrolled => words(fresh).first().copied(),
    }
}

fn findings(
    fleet: &Fleet,
    row: usize,
    agents: &[&Agent],
    fresh: &[&Agent],
    verified: &[&Agent],
    now: Now,
) -> Vec<Finding> {
    let family = |agent: &&Agent| agent.report.as_ref().map(|report| report.verdict.family());
    let sees = |agents: &[&Agent], wanted| agents.iter().any(|a| family(a) == Some(wanted));
    Finding::ALL
        .iter()
        .copied()
        .filter(|finding| match finding {
            Finding::Contradiction => sees(verified, Family::Down),
            Finding::Partial => partial_ratio(fresh, verified).is_some(),
            Finding::PrefixesUnknown => {
                !agents.is_empty() && !fleet.roster.has_prefixes(row, now.day())
            }
            Finding::ForeignPrefix => {
                fresh.iter().any(|agent| place(agent) == Some(Place::ForeignPrefix))
            }
            Finding::Cloned => agents.iter().any(|agent| agent.conflict.is_some()),
        })
        .collect()
}

/// Other agencies whose prefixes messages come from today: mis-cabling, a moved machine, or a
/// stolen key.
fn speaks_from(fleet: &Fleet, fresh: &[&Agent], now: Now) -> Vec<AgencyId> {
    let day = now.day();
    let foreign = fresh.iter().filter_map(|agent| agent.heard);
    let foreign = foreign.filter(|heard| heard.place == Place::ForeignPrefix);
    let owners = foreign.filter_map(|heard| fleet.roster.owner_of(heard.source, day));
    let rows: BTreeSet<usize> = owners.collect();
    rows.into_iter().map(|row| fleet.roster.agencies()[row].id.clone()).collect()
}

/// What any fresh agent tells of its surroundings, each fact once, joints first.
fn surroundings(fresh: &[&Agent]) -> Vec<Fact> {
    let mut seen: Vec<Fact> = Vec::new();
    let told = || fresh.iter().filter_map(|agent| agent.report.as_ref());
    let facts = || told().flat_map(|report| &report.surroundings);
    let joints = facts().filter(|fact| fact.kind == FactKind::Joint);
    let others = facts().filter(|fact| fact.kind != FactKind::Joint);
    for fact in joints.chain(others) {
        if seen.len() < FACTS_MAX && !seen.contains(fact) {
            seen.push(fact.clone());
        }
    }
    seen
}

/// Of the fresh agents, those that say "down" or are not verified, when at least one is verified
/// and sees the path up; those that cannot tell count for neither.
fn partial_ratio(fresh: &[&Agent], verified: &[&Agent]) -> Option<f64> {
    let sees = |agent: &Agent, wanted| {
        agent.report.as_ref().is_some_and(|report| report.verdict.family() == wanted)
    };
    let up = verified.iter().filter(|agent| sees(agent, Family::Up)).count();
    let told_down = verified.iter().filter(|agent| sees(agent, Family::Down)).count();
    let down = fresh.len() - verified.len() + told_down;
    let partial = up > 0 && down > 0;
    partial.then(|| f64::from(count(down)) / f64::from(count(up + down)))
}

/// The median of the agents, figure by figure: one machine on bad cabling does not stand for its
/// agency.
fn quality(verified: &[&Agent]) -> Option<QualityView> {
    let each: Vec<QualityView> =
        verified.iter().filter_map(|agent| agent.report.as_ref()?.quality).collect();
    let median = |figure: fn(&QualityView) -> Duration| {
        let mut figures: Vec<Duration> = each.iter().map(figure).collect();
        figures.sort_unstable();
        figures.get(figures.len().checked_sub(1)? / 2).copied()
    };
    let mut losses: Vec<f64> = each.iter().map(|quality| quality.loss_ratio).collect();
    losses.sort_unstable_by(f64::total_cmp);
    Some(QualityView {
        rtt_p50: median(|quality| quality.rtt_p50)?,
        rtt_p95: median(|quality| quality.rtt_p95)?,
        loss_ratio: *losses.get(losses.len().checked_sub(1)? / 2)?,
        jitter: median(|quality| quality.jitter)?,
    })
}

fn agent_view(fleet: &Fleet, id: AgentId, agent: &Agent, now: Now) -> AgentView {
    AgentView {
        agent: id,
        agency: agent.agency.clone(),
        last_heard: agent.heard.map(|heard| heard.wall),
        last_verified: agent.last_verified,
        fresh: is_fresh(fleet, agent, now),
        source: agent.heard.map(|heard| heard.source),
        report: agent.report.clone(),
        stopped: agent.stopped,
        certificate_expiry: agent.certificate_expiry,
        conflict: agent.conflict,
        posture: fleet.machine_view(agent, now),
    }
}

fn incidents(fleet: &Fleet) -> Vec<Incident> {
    let ids = |rows: Vec<usize>| {
        rows.into_iter().map(|row| fleet.roster.agencies()[row].id.clone()).collect()
    };
    let parents = fleet.incidents.of_parents().map(|(scope, since, rows)| Incident {
        kind: IncidentKind::Parent,
        scope: scope.to_owned(),
        since,
        agencies: ids(rows),
    });
    let suspicion = fleet.incidents.suspicion().map(|(since, rows)| Incident {
        kind: IncidentKind::CollectorSuspected,
        scope: "collector".to_owned(),
        since,
        agencies: ids(rows),
    });
    suspicion.into_iter().chain(parents).collect()
}

pub(super) fn is_fresh(fleet: &Fleet, agent: &Agent, now: Now) -> bool {
    let limit = fleet.config.fresh_for();
    agent.age(now.mono).is_some_and(|age| age <= limit)
}

fn place(agent: &Agent) -> Option<Place> {
    agent.heard.map(|heard| heard.place)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
