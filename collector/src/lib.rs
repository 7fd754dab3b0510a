//! The collector: folds the agents' reports, silence and the roster into the state of every
//! agency, and shows it.
//!
//! One way for the data: `listen` and `ingest` receive → `fleet` folds → `snapshot` →
//! `metrics` and `web` show. `run` alone spawns.

pub mod fleet;
mod goal;
mod incident;
pub mod metrics;
pub mod roster;
pub mod snapshot;
