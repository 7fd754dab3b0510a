//! Transitions of the past, from the store.

use axum::Json;
use axum::extract::State;
use haidang_proto::model::agency::AgencyId;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::agencies::json;
use super::problem::Problem;
use super::query::{Params, limit};
use super::{Web, rfc3339};
use crate::store::TransitionRow;

/// What a query may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    agency: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    cursor: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Transitions<'a> {
    items: Vec<Transition<'a>>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct Transition<'a> {
    id: i64,
    at: String,
    agency: &'a str,
    from: &'a str,
    to: &'a str,
    detail: Option<&'a str>,
}

pub(super) async fn transitions(
    State(web): State<Web>,
    Params(filter): Params<Filter>,
) -> Result<Json<serde_json::Value>, Problem> {
    let limit = limit(filter.limit)?;
    let agency: Option<AgencyId> = filter
        .agency
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error| Problem::bad_query(format!("agency: {error}")))?;
    let since = filter
        .since
        .as_deref()
        .map(|text| {
            let expected = "since is a time such as 2026-11-24T07:00:00Z; write + as %2B";
            rfc3339::parse(text).ok_or_else(|| Problem::bad_query(expected))
        })
        .transpose()?;
    let rows_max = u32::try_from(limit).unwrap_or(u32::MAX);
    let mut rows =
        web.store.transitions(agency, filter.cursor, rows_max).await.map_err(|error| {
            tracing::warn!(%error, "transitions cannot be read for the API");
            let detail = "the store cannot be read now; current states are under /api/v1/agencies";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
    let page_is_full = rows.len() == limit;
    // Newest first: with the first one that is too old, all further pages are too old as well.
    if let Some(since) = since {
        rows.retain(|row| row.at >= since);
    }
    let more = page_is_full && rows.len() == limit;
    let oldest = rows.last().map(|row| row.id.to_string());
    json(&Transitions {
        items: rows.iter().map(transition).collect(),
        next_cursor: oldest.filter(|_| more),
    })
}

fn transition(row: &TransitionRow) -> Transition<'_> {
    Transition {
        id: row.id,
        at: rfc3339::text(row.at),
        agency: &row.agency,
        from: &row.from,
        to: &row.to,
        detail: Some(row.detail.as_str()).filter(|detail| !detail.is_empty()),
    }
}
