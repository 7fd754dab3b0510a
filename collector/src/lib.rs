//! The collector: folds the agents' reports, silence and the roster into the state of every
//! agency, and shows it.
//!
//! One way for the data: `listen` and `ingest` receive → `fleet` folds → `snapshot` →
//! `metrics` and `web` show. `run` alone spawns.

#![allow(
    dead_code,
    unused_imports,
    reason = "run.rs, the listeners and main.rs, which call the rest, are not written yet"
)]

pub mod config;
pub mod fleet;
mod goal;
pub mod identity;
mod incident;
pub mod metrics;
pub mod roster;
pub mod snapshot;
pub mod store;
pub mod token;
pub mod web;
