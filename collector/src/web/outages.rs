//! Outages of an agency as its agents saw them, from the store.

use axum::Json;
use axum::extract::State;
use haidang_proto::model::agency::AgentId;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

use super::agencies::{self, json};
use super::problem::Problem;
use super::query::{Id, Params, limit};
use super::{Web, rfc3339};
use crate::store::{OutageCursor, OutageEnd, OutageRow};

/// Which page is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct Outages<'a> {
    items: Vec<Outage<'a>>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct Outage<'a> {
    id: i64,
    agent: AgentId,
    began: String,
    end: &'static str,
    ended: Option<String>,
    duration_seconds: Option<f64>,
    cause: &'a str,
    evidence: &'a serde_json::Value,
    short: bool,
    interrupted: bool,
}

pub(super) async fn of_agency(
    State(web): State<Web>,
    Id(id): Id,
    Params(paging): Params<Paging>,
) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = web.current();
    let row = agencies::find(&snapshot, &id)?.row;
    let agency = snapshot.roster.agencies()[row].id.clone();
    let limit = limit(paging.limit)?;
    let after = paging.cursor.as_deref().map(parse).transpose()?;
    // One more than asked for tells whether there is another page.
    let rows_max = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let mut rows = web.store.outages(agency, after, rows_max).await.map_err(|error| {
        tracing::warn!(%error, "outages cannot be read for the API");
        let detail = "the store cannot be read now; current states are under /api/v1/agencies";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(text);
    json(&Outages { items: rows.iter().map(outage).collect(), next_cursor })
}

fn outage(row: &OutageRow) -> Outage<'_> {
    let (ended, lasted) = match row.end {
        OutageEnd::Healed { at, lasted } => (Some(at), Some(lasted)),
        OutageEnd::Open | OutageEnd::Lost => (None, None),
    };
    Outage {
        id: row.id,
        agent: row.agent,
        began: rfc3339::text(row.began),
        end: row.end.as_str(),
        ended: ended.map(rfc3339::text),
        duration_seconds: lasted.map(|lasted| lasted.as_secs_f64()),
        cause: &row.cause,
        evidence: &row.evidence,
        short: row.short,
        interrupted: row.interrupted,
    }
}

/// The place in the list: beginning in milliseconds, and id.
fn text(row: &OutageRow) -> String {
    let began = row.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", began.as_millis(), row.id)
}

fn parse(cursor: &str) -> Result<OutageCursor, Problem> {
    let parsed = cursor.split_once('-').and_then(|(began_ms, id)| {
        let began = Duration::from_millis(began_ms.parse().ok()?);
        Some(OutageCursor {
            began: SystemTime::UNIX_EPOCH.checked_add(began)?,
            id: id.parse().ok()?,
        })
    });
    parsed.ok_or_else(|| Problem::bad_query("cursor is the next_cursor of a page before"))
}
