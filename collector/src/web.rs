//! The HTTP side: metrics, status page, JSON API, health.
//!
//! Everything is read from one snapshot per request, so a page never mixes two moments; only
//! the history asks the store, and only the history is missing when the store is. Reads only: GET
//! and HEAD without a body, for known host names, with a token where one is configured. The OpenAPI
//! document (`web/openapi.json`) is the contract of what is under `/api/v1`.

mod agencies;
mod agents;
mod goals;
mod guard;
mod health;
mod history;
mod outages;
mod page;
mod places;
mod posture;
mod problem;
mod query;
mod reader;
mod rfc3339;
mod serve;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::watch;

use crate::metrics::{self, CollectorMetrics, Exposition};
use crate::snapshot::Snapshot;
use crate::store::Store;

pub use guard::{BearerToken, BearerTokenError, Guard};
pub use serve::serve;

use problem::Problem;

/// What the pages are made from. Clones share it.
#[derive(Clone)]
pub struct Web {
    /// The fleet, once a second.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The collector's own metrics.
    pub metrics: CollectorMetrics,
    /// Transitions of the past, and whether writes succeed.
    pub store: Store,
    /// Whether the exposition has series of every machine.
    pub machine_series: bool,
    /// Whether every configured listener is bound.
    pub listeners_bound: watch::Receiver<bool>,
}

impl Web {
    fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }
}

/// Every path, behind the guard.
pub fn router(web: Web, guard: Guard) -> Router {
    let from_store = Router::new()
        .route("/api/v1/agencies/{id}/outages", get(outages::of_agency))
        .route("/api/v1/agents/{id}/posture", get(posture::of_agent))
        .route("/api/v1/transitions", get(history::transitions));
    let router = Router::new()
        .merge(guard::within_room(from_store, guard.clone()))
        .route("/", get(page::index))
        .route("/style.css", get(page::style))
        .route("/metrics", get(exposition))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/api/v1/agencies", get(agencies::list))
        .route("/api/v1/agencies/{id}", get(agencies::one))
        .route("/api/v1/agencies/{id}/agents", get(agents::of_agency))
        .route("/api/v1/agencies/{id}/posture", get(posture::of_agency))
        .route("/api/v1/agents", get(agents::list))
        .route("/api/v1/goals", get(goals::list))
        .fallback(async || {
            Problem::not_found("there is nothing at this path; see /api/v1/openapi.json")
        })
        .with_state(web);
    guard::guarded(router, guard)
}

/// Streams the exposition: a chunk is made when the connection wants one.
async fn exposition(State(web): State<Web>) -> Response {
    let exposition = Exposition::new(web.current(), &web.metrics);
    let exposition = if web.machine_series { exposition.with_machines() } else { exposition };
    let chunks = exposition.map(Ok::<_, Infallible>);
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], body).into_response()
}

async fn openapi() -> Response {
    let document = include_str!("web/openapi.json");
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")];
    (headers, document).into_response()
}

#[cfg(test)]
mod tests;
