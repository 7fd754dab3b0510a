//! Agents: the machines behind the agencies, which metrics do not list.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::fact::Fact;
use haidang_proto::model::flag::Flags;
use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::host::HostFacts;
use haidang_proto::model::report::JournalStatus;
use haidang_proto::model::verdict::Verdict;
use serde::{Deserialize, Serialize};

use super::agencies::{self, Quality, json};
use super::problem::Problem;
use super::query::{Id, Page, Params, cut, limit, stale_cursor};
use super::{Web, rfc3339};
use crate::snapshot::{AgentView, Conflict, ReportView, Snapshot};

/// Which page is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// One agent.
#[derive(Debug, Serialize)]
struct Agent<'a> {
    id: AgentId,
    agency: &'a AgencyId,
    last_heard: Option<String>,
    last_verified: Option<String>,
    fresh: bool,
    source: Option<IpAddr>,
    stopped: Option<&'static str>,
    certificate_expiry: String,
    conflict: Option<Conflict>,
    report: Option<Report<'a>>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    verdict: Verdict,
    flags: Flags,
    evidence: &'a [Fact],
    surroundings: &'a [Fact],
    quality: Option<Quality>,
    agent_version: &'a str,
    journal: JournalStatus,
    clock_skew_seconds: f64,
    host: Option<&'a HostFacts>,
}

pub(super) async fn list(
    State(web): State<Web>,
    Params(paging): Params<Paging>,
) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = web.current();
    let all: Vec<&AgentView> = snapshot.agents.iter().collect();
    page(&snapshot, &all, &paging)
}

pub(super) async fn of_agency(
    State(web): State<Web>,
    Id(id): Id,
    Params(paging): Params<Paging>,
) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = web.current();
    let row = agencies::find(&snapshot, &id)?.row;
    let agency = &snapshot.roster.agencies()[row].id;
    let its = snapshot.agents.iter().filter(|agent| agent.agency == *agency).collect::<Vec<_>>();
    page(&snapshot, &its, &paging)
}

fn page(
    snapshot: &Snapshot,
    agents: &[&AgentView],
    paging: &Paging,
) -> Result<Json<serde_json::Value>, Problem> {
    let limit = limit(paging.limit)?;
    let begin = match &paging.cursor {
        None => 0,
        Some(cursor) => {
            let last: AgentId = cursor.parse().map_err(|_| stale_cursor())?;
            let at = agents.iter().position(|view| view.agent == last);
            at.ok_or_else(stale_cursor)? + 1
        }
    };
    let page = cut(agents, begin, limit);
    json(&Page {
        taken_at: rfc3339::text(snapshot.taken_at),
        roster_version: snapshot.roster.version().to_owned(),
        total: agents.len(),
        next_cursor: page.continues_after.map(|view| view.agent.to_string()),
        items: page.items.iter().map(|view| agent(view)).collect(),
    })
}

fn agent(view: &AgentView) -> Agent<'_> {
    Agent {
        id: view.agent,
        agency: &view.agency,
        last_heard: view.last_heard.map(rfc3339::text),
        last_verified: view.last_verified.map(rfc3339::text),
        fresh: view.fresh,
        source: view.source,
        stopped: view.stopped.map(GoodbyeReason::as_str),
        certificate_expiry: rfc3339::text(view.certificate_expiry),
        conflict: view.conflict,
        report: view.report.as_deref().map(report),
    }
}

fn report(view: &ReportView) -> Report<'_> {
    Report {
        verdict: view.verdict,
        flags: view.flags,
        evidence: &view.evidence,
        surroundings: &view.surroundings,
        quality: view.quality.map(Quality::from),
        agent_version: &view.agent_version,
        journal: view.journal,
        clock_skew_seconds: view.clock_skew_seconds,
        host: view.host.as_deref(),
    }
}
