//! The harness of the tests and the network laboratory.
//!
//! From the bottom up: namespaces and devices (`netns`, `tun`, `relay`), what stands in the core
//! (`core_services`), the network and its faults (`topology`, `fault`, `process_fault`), real programs (`program`,
//! `binaries`, `collector`, `agent`, `monitoring`, `webhook`), what is read from them (`web`,
//! `exposition`, `expressions`), and whole worlds: `laboratory`, `alert_path` and `accuracy` in namespaces, `loopback`
//! without root, `load` with thousands of agents (`cost` is what they cost a process, `bench` the
//! figures of it), `clocks`, `herd`, `pressure` and `store_fault` with what befalls them (`duty` is
//! who is called), `kills` that end them at random, `power_cut` that drops what the store did not
//! sync. `trial` runs scenarios, `pass_budget` measures the posture pass of a running agent,
//! `agent_cost` the agent beside other programs, `peers` sets our checks beside other tools'.
//! `parsers` names every parser of outside bytes, `fuzzing` records what became of each; `peer`,
//! `flood` and `siege` are what a collector endures, `captured` (watched by `wire_tap`) what an agent
//! does. `tcp_tap` keeps what is said on the path and `tls_wire` reads its greetings; `python` has
//! the peers of other hands, `tls_scan` what sslyze finds.
//! `forward` and `control` make a laboratory usable from a shell.

pub mod netns;
mod tun;
pub mod wire_tap;
pub mod relay;
pub mod core_services;
mod middlebox;
mod portal;
pub mod topology;
pub mod fault;
pub mod process_fault;
pub mod wait;
pub mod program;
pub mod binaries;
pub mod web;
pub mod exposition;
pub mod expressions;
pub mod prefixes;
pub mod collector;
pub mod agent;
pub mod agent_cost;
pub mod captured;
pub mod webhook;
pub mod monitoring;
pub mod duty;
pub mod scenario;
pub mod laboratory;
pub mod trial;
pub mod alert_path;
pub mod accuracy;
pub mod loopback;
mod dice;
pub mod kills;
pub mod power_cut;
pub mod cost;
pub mod load;
pub mod store_fault;
pub mod clocks;
pub mod herd;
pub mod pressure;
pub mod figures;
pub mod target;
pub mod bench;
pub mod pass_budget;
pub mod peers;
pub mod forward;
pub mod control;
pub mod parsers;
pub mod fuzzing;
mod anybody;
pub mod peer;
pub mod tcp_tap;
pub mod tls_wire;
pub mod python;
pub mod tls_scan;
pub mod flood;
pub mod siege;

/// Waits for Ctrl-C or a polite request to end.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
