//! Goals of the plan, each with its definition: a ratio without one is an opinion.

use crate::snapshot::{AgencyView, Goal};

/// "100 % of the city's administrative agencies are connected to the dedicated network".
pub(crate) fn dedicated_network(agencies: &[AgencyView], target_ratio: f64) -> Goal {
    let connected = agencies.iter().filter(|agency| agency.state.counts_as_connected()).count();
    Goal {
        goal: "dedicated_network",
        ratio: share(connected, agencies.len()),
        target_ratio,
        definition: "(connected + degraded) / agencies of the roster",
    }
}

/// "Information security raised": the share of agencies of which every machine is in order.
pub(crate) fn information_security(agencies: &[AgencyView], target_ratio: f64) -> Goal {
    let reached = agencies.iter().filter(|agency| agency.posture.meets_goal()).count();
    Goal {
        goal: "information_security",
        ratio: share(reached, agencies.len()),
        target_ratio,
        definition: "agencies with enrolled machines, none of them with a critical check failing or \
                     unknown, nine of ten with the score asked for (80) / agencies of the roster",
    }
}

/// A share of nothing is nothing: an empty roster has reached no goal.
fn share(part: usize, whole: usize) -> f64 {
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { count(part) / count(whole) }
}
