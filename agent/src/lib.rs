//! The agent: watches one machine's path to the dedicated network.
//!
//! One way for the data: `link` and `probe` see → `evidence` → `connectivity` judges →
//! `report` and `journal` keep → `uplink` sends. `run` alone spawns.

pub mod config;
pub mod clock;
mod durable;
pub mod identity;
pub mod enrol;
pub mod host;
pub mod settings;
pub mod link;
pub mod probe;
pub mod schedule;
pub mod evidence;
pub mod connectivity;
pub mod posture;
pub mod language;
pub mod check;
pub mod live;
pub mod observer;
pub mod journal;
pub mod report;
pub mod uplink;
pub mod status;
pub mod run;
#[doc(hidden)]
pub mod parsers;
