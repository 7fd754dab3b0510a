//! Agencies: the list with its filters, and one.

use axum::Json;
use axum::extract::State;
use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::fact::Fact;
use haidang_proto::model::flag::Flag;
use haidang_proto::model::verdict::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use unicode_normalization::UnicodeNormalization;

use super::problem::Problem;
use super::query::{Id, Page, Params, cut, limit, stale_cursor};
use super::{Web, rfc3339};
use crate::roster::AgencyKind;
use crate::snapshot::{AgencyState, AgencyView, Finding, QualityView, Snapshot, Suppression};

/// Characters of a search text: the longest official name has 71.
const SEARCH_CHARS_MAX: usize = 100;

/// What the list can be narrowed by.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    state: Option<String>,
    parent: Option<String>,
    kind: Option<String>,
    q: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// One agency.
#[derive(Debug, Serialize)]
pub(super) struct Agency<'a> {
    id: &'a AgencyId,
    name: String,
    kind: &'static str,
    parent: &'a AgencyId,
    uplink: Option<&'a str>,
    state: &'static str,
    /// The cause of `disconnected`, the reason of a clean stop.
    detail: Option<&'static str>,
    since: String,
    last_verified: Option<String>,
    verdict: Option<Verdict>,
    findings: Vec<&'static str>,
    /// Other agencies whose prefixes its agents speak from.
    speaks_from: Vec<AgencyId>,
    /// What else its machines are attached to, and what joins the networks.
    surroundings: Vec<Fact>,
    /// Share of its agents that do not see the path up, while others do.
    partial_ratio: Option<f64>,
    /// Machines with each flag that any shows.
    flags: BTreeMap<&'static str, u32>,
    agents: AgentCounts,
    quality: Option<Quality>,
    certificate_expiry: Option<String>,
    suppressed: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct AgentCounts {
    enrolled: u32,
    expected: Option<u32>,
    fresh: u32,
    verified: u32,
}

/// Path quality in base units.
#[derive(Debug, Serialize)]
pub(super) struct Quality {
    rtt_p50_seconds: f64,
    rtt_p95_seconds: f64,
    loss_ratio: f64,
    jitter_seconds: f64,
}

impl From<QualityView> for Quality {
    fn from(QualityView { rtt_p50, rtt_p95, loss_ratio, jitter }: QualityView) -> Self {
        Self {
            rtt_p50_seconds: rtt_p50.as_secs_f64(),
            rtt_p95_seconds: rtt_p95.as_secs_f64(),
            loss_ratio,
            jitter_seconds: jitter.as_secs_f64(),
        }
    }
}

pub(super) async fn list(
    State(web): State<Web>,
    Params(filter): Params<Filter>,
) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = web.current();
    let limit = limit(filter.limit)?;
    let matching = Matcher::try_from(&filter)?.matching(&snapshot);
    let begin = match &filter.cursor {
        None => 0,
        Some(cursor) => position_after(&snapshot, &matching, cursor)?,
    };
    let page = cut(&matching, begin, limit);
    let id = |view: &AgencyView| snapshot.roster.agencies()[view.row].id.to_string();
    let body = Page {
        taken_at: rfc3339::text(snapshot.taken_at),
        roster_version: snapshot.roster.version().to_owned(),
        total: matching.len(),
        next_cursor: page.continues_after.map(|view| id(view)),
        items: page.items.iter().map(|view| agency(&snapshot, view)).collect(),
    };
    json(&body)
}

pub(super) async fn one(
    State(web): State<Web>,
    Id(id): Id,
) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = web.current();
    let view = find(&snapshot, &id)?;
    json(&agency(&snapshot, view))
}

/// The agency with this id, if its row holds today.
pub(super) fn find<'a>(snapshot: &'a Snapshot, id: &str) -> Result<&'a AgencyView, Problem> {
    let row = id.parse().ok().and_then(|id: AgencyId| snapshot.roster.row(&id));
    let view = row.and_then(|row| snapshot.agencies.iter().find(|view| view.row == row));
    view.ok_or_else(|| Problem::not_found("the roster in force has no agency with this id"))
}

/// Serialises an answer while the snapshot it borrows from is at hand.
pub(super) fn json<T: Serialize>(body: &T) -> Result<Json<serde_json::Value>, Problem> {
    serde_json::to_value(body).map(Json).map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        let status = http::StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "the answer could not be written; the log says why")
    })
}

fn agency<'a>(snapshot: &'a Snapshot, view: &AgencyView) -> Agency<'a> {
    let row = &snapshot.roster.agencies()[view.row];
    let flags = Flag::ALL.iter().zip(view.flag_machines).filter(|(_, machines)| *machines > 0);
    Agency {
        id: &row.id,
        name: row.full_name(),
        kind: row.kind.as_str(),
        parent: &row.parent,
        uplink: row.uplink.as_deref(),
        state: view.state.as_str(),
        detail: Some(view.state.detail()).filter(|detail| !detail.is_empty()),
        since: rfc3339::text(view.since),
        last_verified: view.last_verified.map(rfc3339::text),
        verdict: view.verdict,
        findings: view.findings.iter().copied().map(Finding::as_str).collect(),
        speaks_from: view.speaks_from.clone(),
        surroundings: view.surroundings.clone(),
        partial_ratio: view.partial_ratio,
        flags: flags.map(|(flag, machines)| (flag.as_str(), machines)).collect(),
        agents: AgentCounts {
            enrolled: view.agents_enrolled,
            expected: row.agents_expected,
            fresh: view.agents_fresh,
            verified: view.agents_verified,
        },
        quality: view.quality.map(Quality::from),
        certificate_expiry: view.certificate_expiry.map(rfc3339::text),
        suppressed: view.suppressed.map(Suppression::as_str),
    }
}

/// A filter that was understood.
struct Matcher {
    state: Option<&'static str>,
    parent: Option<AgencyId>,
    kind: Option<AgencyKind>,
    /// In lower case and NFC, as the roster's names are once lowered.
    text: Option<String>,
}

impl TryFrom<&Filter> for Matcher {
    type Error = Problem;

    fn try_from(filter: &Filter) -> Result<Self, Problem> {
        let parent = filter.parent.as_deref().map(str::parse).transpose();
        let too_long = |text: &String| text.chars().count() > SEARCH_CHARS_MAX;
        if filter.q.as_ref().is_some_and(too_long) {
            return Err(Problem::bad_query("q has at most 100 characters"));
        }
        Ok(Self {
            state: filter.state.as_deref().map(state_label).transpose()?,
            parent: parent.map_err(|error| Problem::bad_query(format!("parent: {error}")))?,
            kind: filter.kind.as_deref().map(kind).transpose()?,
            text: filter.q.as_ref().map(|text| text.nfc().collect::<String>().to_lowercase()),
        })
    }
}

impl Matcher {
    fn matching<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a AgencyView> {
        snapshot.agencies.iter().filter(|view| self.matches(snapshot, view)).collect()
    }

    fn matches(&self, snapshot: &Snapshot, view: &AgencyView) -> bool {
        let row = &snapshot.roster.agencies()[view.row];
        let holds_text = |text: &String| {
            row.id.as_str().contains(text.as_str()) || row.full_name().to_lowercase().contains(text)
        };
        self.state.is_none_or(|state| view.state.as_str() == state)
            && self.parent.as_ref().is_none_or(|parent| row.parent == *parent)
            && self.kind.is_none_or(|kind| row.kind == kind)
            && self.text.as_ref().is_none_or(holds_text)
    }
}

fn state_label(label: &str) -> Result<&'static str, Problem> {
    let known = AgencyState::LABELS.into_iter().find(|known| *known == label);
    let expected = || format!("state is one of {}", AgencyState::LABELS.join(", "));
    known.ok_or_else(|| Problem::bad_query(expected()))
}

fn kind(label: &str) -> Result<AgencyKind, Problem> {
    let labels: Vec<&str> = AgencyKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let known = AgencyKind::ALL.iter().copied().find(|kind| kind.as_str() == label);
    known.ok_or_else(|| Problem::bad_query(format!("kind is one of {}", labels.join(", "))))
}

/// Views are in roster order, so the page goes on behind the cursor's row even when that agency
/// does not match any more.
fn position_after(
    snapshot: &Snapshot,
    matching: &[&AgencyView],
    cursor: &str,
) -> Result<usize, Problem> {
    let id: AgencyId = cursor.parse().map_err(|_| stale_cursor())?;
    let row = snapshot.roster.row(&id).ok_or_else(stale_cursor)?;
    Ok(matching.partition_point(|view| view.row <= row))
}
