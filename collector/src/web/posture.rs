//! Posture: an agency's figures with its machines, and one machine's answers with what was seen.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::posture::{CheckId, CheckSet, Level, Severity, Threshold};
use serde::Serialize;

use super::agencies::{self, json};
use super::problem::Problem;
use super::query::Id;
use super::{Web, rfc3339};
use crate::posture::{Answer, Exception, HeldPosture, Policies, PolicyTerms, Scope};
use crate::snapshot::{AgencyView, AgentView, MachineView, Snapshot};

/// One agency.
#[derive(Debug, Serialize)]
struct Agency<'a> {
    taken_at: String,
    roster_version: &'a str,
    agency: &'a AgencyId,
    /// Score from which a machine complies.
    score_min: u8,
    policy: Asked<'a>,
    meets_goal: bool,
    machines: Counts,
    score_p10: u8,
    score_worst: u8,
    update_pending_since: Option<String>,
    signatures_made: Option<String>,
    /// Checks that fail or are unknown on any machine.
    checks: Vec<Check>,
    exceptions: Vec<Accepted<'a>>,
    /// The worst first.
    agents: Vec<Machine>,
}

/// What is asked of the agency where somebody decided on it.
#[derive(Debug, Serialize)]
struct Asked<'a> {
    level: Option<u8>,
    /// In force where they are not the catalogue's.
    thresholds: BTreeMap<String, u32>,
    allowed_ports: Option<BTreeSet<u16>>,
    /// Labels of what asks less than the catalogue.
    laxer: Vec<String>,
    weighs_usb_storage: bool,
    /// Who decided for this agency and for all.
    decisions: Vec<Decided<'a>>,
}

#[derive(Debug, Serialize)]
struct Decided<'a> {
    for_all: bool,
    owner: &'a str,
    reason: &'a str,
    decided: String,
}

#[derive(Debug, Serialize)]
struct Counts {
    enrolled: u32,
    compliant: u32,
    covered: u32,
    stale: u32,
    critical: u32,
}

#[derive(Debug, Serialize)]
struct Check {
    check: CheckId,
    severity: Severity,
    fail: u32,
    unknown: u32,
    /// An exception holds: the failures are accepted, and count all the same.
    is_accepted: bool,
}

#[derive(Debug, Serialize)]
struct Accepted<'a> {
    check: CheckId,
    owner: &'a str,
    reason: &'a str,
    created: String,
    expires: String,
    holds: bool,
}

/// One machine without its answers.
#[derive(Debug, Serialize)]
struct Machine {
    agent: AgentId,
    score: u8,
    standing: &'static str,
    is_covered: bool,
    machine: Option<&'static str>,
    whole_at: Option<String>,
    critical: CheckSet,
    fail: CheckSet,
    unknown: CheckSet,
    not_applicable: CheckSet,
    parked: CheckSet,
}

/// One machine with its answers.
#[derive(Debug, Serialize)]
struct Answers<'a> {
    taken_at: String,
    agency: &'a AgencyId,
    #[serde(flatten)]
    machine: Machine,
    catalogue_version: Option<u32>,
    unrecognised: Option<usize>,
    updates_pending: Option<u32>,
    update_pending_since: Option<String>,
    signatures_made: Option<String>,
    certificate_ends: Option<String>,
    checks: Vec<Answered<'a>>,
}

#[derive(Debug, Serialize)]
struct Answered<'a> {
    check: CheckId,
    severity: Severity,
    verdict: &'static str,
    reason: &'static str,
    observed: &'a str,
    evaluated_at: String,
    took_seconds: f64,
    is_parked: bool,
    /// The failure is from an earlier reading.
    unread: bool,
}

pub(super) async fn of_agency(
    State(web): State<Web>,
    Id(id): Id,
) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = web.current();
    let view = agencies::find(&snapshot, &id)?;
    json(&agency(&snapshot, view))
}

pub(super) async fn of_agent(
    State(web): State<Web>,
    Id(id): Id,
) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = web.current();
    let id: Option<AgentId> = id.parse().ok();
    let view = id.and_then(|id| snapshot.agents.iter().find(|view| view.agent == id));
    let view = view.ok_or_else(|| Problem::not_found("no agent with this id is enrolled"))?;
    let held = web.store.posture(view.agent).await.map_err(|error| {
        tracing::warn!(%error, "a posture cannot be read from the store");
        let status = http::StatusCode::SERVICE_UNAVAILABLE;
        Problem::new(status, "the store cannot be read now; ask again later")
    })?;
    json(&answers(&snapshot, view, held.as_ref()))
}

fn agency<'a>(snapshot: &'a Snapshot, view: &'a AgencyView) -> Agency<'a> {
    let id = &snapshot.roster.agencies()[view.row].id;
    let posture = &view.posture;
    let exceptions = snapshot.exceptions.of(id);
    let holds = |exception: &Exception| exception.holds(snapshot.taken_at);
    let checks = CheckId::ALL.iter().filter_map(|check| {
        let (fail, unknown) = (posture.fail[*check as usize], posture.unknown[*check as usize]);
        (fail + unknown > 0).then(|| Check {
            check: *check,
            severity: check.severity(),
            fail,
            unknown,
            is_accepted: exceptions.iter().any(|one| one.check == *check && holds(one)),
        })
    });
    let mut agents: Vec<Machine> = snapshot
        .agents
        .iter()
        .filter(|agent| agent.agency == *id)
        .map(|agent| machine(agent.agent, &agent.posture))
        .collect();
    agents.sort_by_key(|machine| (machine.score, machine.agent));
    Agency {
        taken_at: rfc3339::text(snapshot.taken_at),
        roster_version: snapshot.roster.version(),
        agency: id,
        score_min: posture.policy.score_min,
        policy: asked(&snapshot.policies, id),
        meets_goal: posture.meets_goal(),
        machines: Counts {
            enrolled: posture.enrolled,
            compliant: posture.compliant,
            covered: posture.covered,
            stale: posture.stale,
            critical: posture.critical,
        },
        score_p10: posture.score_p10,
        score_worst: posture.score_worst,
        update_pending_since: posture.update_pending_since.map(rfc3339::text),
        signatures_made: posture.signatures_made.map(rfc3339::text),
        checks: checks.collect(),
        exceptions: exceptions
            .iter()
            .map(|exception| Accepted {
                check: exception.check,
                owner: &exception.owner,
                reason: &exception.reason,
                created: rfc3339::text(exception.created),
                expires: rfc3339::text(exception.expires),
                holds: holds(exception),
            })
            .collect(),
        agents,
    }
}

fn asked<'a>(policies: &'a Policies, agency: &AgencyId) -> Asked<'a> {
    let scope = Scope::Agency(agency.clone());
    let terms = policies.terms(&scope);
    let decided =
        [(true, Scope::All), (false, scope)].into_iter().filter_map(|(for_all, scope)| {
            let decision = policies.decision(&scope)?;
            (decision.terms != PolicyTerms::default()).then(|| Decided {
                for_all,
                owner: &decision.owner,
                reason: &decision.reason,
                decided: rfc3339::text(decision.decided),
            })
        });
    let laxer = terms.laxer();
    let asked = terms.requirements;
    let other = Threshold::ALL.iter().filter(|one| asked.threshold(**one) != one.usual());
    Asked {
        level: asked.level.map(Level::number),
        thresholds: other.map(|one| (one.to_string(), asked.threshold(*one))).collect(),
        laxer,
        weighs_usb_storage: terms.weighs_usb_storage.unwrap_or_default(),
        decisions: decided.collect(),
        allowed_ports: asked.allowed_ports,
    }
}

fn machine(agent: AgentId, view: &MachineView) -> Machine {
    let findings = view.figures.findings;
    Machine {
        agent,
        score: view.figures.score,
        standing: view.figures.standing.as_str(),
        is_covered: view.figures.is_covered,
        machine: view.held.map(|held| held.machine.as_str()),
        whole_at: view.held.and_then(|held| held.whole_at).map(rfc3339::text),
        critical: findings.critical(),
        fail: findings.fail(),
        unknown: findings.unknown(),
        not_applicable: findings.not_applicable(),
        parked: view.held.map_or(CheckSet::NONE, |held| held.parked),
    }
}

fn answers<'a>(
    snapshot: &Snapshot,
    view: &'a AgentView,
    held: Option<&'a HeldPosture>,
) -> Answers<'a> {
    Answers {
        taken_at: rfc3339::text(snapshot.taken_at),
        agency: &view.agency,
        machine: machine(view.agent, &view.posture),
        catalogue_version: held.map(|held| held.catalogue_version),
        unrecognised: held.map(|held| held.unrecognised),
        updates_pending: held.and_then(|held| held.updates_pending),
        update_pending_since: held.and_then(|held| held.update_pending_since).map(rfc3339::text),
        signatures_made: held.and_then(|held| held.signatures_made).map(rfc3339::text),
        certificate_ends: held.and_then(|held| held.certificate_ends).map(rfc3339::text),
        checks: held.map_or_else(Vec::new, |held| held.answers.iter().map(answered).collect()),
    }
}

fn answered(answer: &Answer) -> Answered<'_> {
    Answered {
        check: answer.check,
        severity: answer.check.severity(),
        verdict: answer.outcome.as_str(),
        reason: answer.outcome.reason().as_str(),
        observed: &answer.observed,
        evaluated_at: rfc3339::text(answer.evaluated_at),
        took_seconds: std::time::Duration::from_micros(answer.took_us).as_secs_f64(),
        is_parked: answer.is_parked,
        unread: answer.unread,
    }
}
