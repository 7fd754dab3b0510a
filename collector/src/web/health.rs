//! Health that means something.
//!
//! `/healthz`: the fleet is being folded. The proof is a new snapshot that arrives while the request
//! waits, so no clock is compared and a clock step deceives nobody. `/readyz`: beyond
//! that, the store takes writes, agents can connect and there is a roster.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use tokio::time::timeout;

use super::Web;
use super::problem::Problem;

/// Snapshots are made once a second; three missed ones are a stall.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    snapshot_fresh: bool,
    roster_loaded: bool,
    store_up: bool,
    listeners_bound: bool,
}

pub(super) async fn live(State(web): State<Web>) -> Response {
    if snapshot_arrives(&web).await {
        "ok\n".into_response()
    } else {
        let detail = "no snapshot was made for 3 s: the fleet's task stands still; restart it";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
    }
}

pub(super) async fn ready(State(web): State<Web>) -> Response {
    let snapshot_fresh = snapshot_arrives(&web).await;
    let roster_loaded = !web.snapshot.borrow().agencies.is_empty();
    let store_up = web.store.health().up;
    let listeners_bound = *web.listeners_bound.borrow();
    let ready = snapshot_fresh && roster_loaded && store_up && listeners_bound;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Ready { ready, snapshot_fresh, roster_loaded, store_up, listeners_bound };
    (status, Json(body)).into_response()
}

/// Whether a new snapshot comes in time. A fleet's task that ended makes none.
async fn snapshot_arrives(web: &Web) -> bool {
    let mut snapshot = web.snapshot.clone();
    snapshot.mark_unchanged();
    timeout(SNAPSHOT_WAIT_MAX, snapshot.changed()).await.is_ok_and(|changed| changed.is_ok())
}
