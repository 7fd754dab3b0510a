//! The collector: folds the agents' reports, silence and the roster into the state of every
//! agency, and shows it.
//!
//! One way for the data: `listen`, `unary` and `ingest` receive → `fleet` folds → `snapshot` →
//! `metrics` and `web` show. `run` alone spawns.

pub mod admin;
pub mod calendar;
pub mod clock;
pub mod config;
pub mod core_check;
pub mod enrol;
pub mod fleet;
mod goal;
pub mod identity;
pub mod import;
mod incident;
pub mod ingest;
pub mod listen;
pub mod live;
pub mod metrics;
#[doc(hidden)]
pub mod parsers;
pub mod recover;
pub mod posture;
mod refuse;
pub mod roster;
pub mod run;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod token;
mod unary;
pub mod web;
