//! The plan's goals with their figures, and what each divides by what.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::agencies::json;
use super::problem::Problem;
use super::{Web, rfc3339};
use crate::snapshot::Goal;

#[derive(Debug, Serialize)]
struct Goals<'a> {
    taken_at: String,
    roster_version: &'a str,
    items: Vec<Item<'a>>,
}

#[derive(Debug, Serialize)]
struct Item<'a> {
    goal: &'a str,
    ratio: f64,
    target_ratio: f64,
    definition: &'a str,
}

pub(super) async fn list(State(web): State<Web>) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = web.current();
    let item = |goal: &Goal| {
        let Goal { goal, ratio, target_ratio, definition } = *goal;
        Item { goal, ratio, target_ratio, definition }
    };
    json(&Goals {
        taken_at: rfc3339::text(snapshot.taken_at),
        roster_version: snapshot.roster.version(),
        items: snapshot.goals.iter().map(item).collect(),
    })
}
