//! Every scenario of `tests/scenarios/`, each at a site of its own, many at the same time: real
//! agents and a real collector in namespaces, with shortened timers. Needs root.
//!
//! The times are printed as figures; only the scenarios' generous deadlines are asserted.
//! `HAIDANG_SCENARIO=<part of a name>` runs fewer.

use haidang_tests::scenario;
use haidang_tests::trial::{self, HEADING};

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gets_its_state_and_cause_and_healing_connects_again() {
    let part = std::env::var("HAIDANG_SCENARIO").unwrap_or_default();
    let mut scenarios = scenario::all().expect("every scenario file loads");
    scenarios.retain(|scenario| scenario.name.contains(&part));
    assert!(!scenarios.is_empty(), "no scenario's name contains {part:?}");
    let mut failed = Vec::new();
    println!("{HEADING}");
    trial::run_all(&scenarios, |outcome| match outcome {
        Ok(measured) => println!("{measured}"),
        Err(error) => failed.push(error),
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
