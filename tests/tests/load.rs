//! The load generator against a real collector, shortly: that it measures, not how much.

use std::time::Duration;

use haidang_tests::load::{self, LoadPlan};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_report_of_simulated_agents_is_acknowledged_and_costs_something() {
    let plan = LoadPlan { agents: 40, rate: 200, duration: Duration::from_secs(2) };
    let outcome = load::run(plan).await.expect("the load runs");
    assert_eq!(outcome.errors, 0, "{outcome:?}");
    assert!(outcome.reports > 0, "{outcome:?}");
    assert_eq!(outcome.latencies.len(), outcome.reports);
    assert_eq!(outcome.counted, outcome.reports + plan.agents, "the collector counts the same");
    assert!(outcome.connecting_cpu > Duration::ZERO, "{outcome:?}");
    assert!(outcome.connections_bytes > 0, "{outcome:?}");
}

#[tokio::test]
async fn more_than_the_collector_takes_of_an_agent_is_not_tried() {
    let plan = LoadPlan { agents: 1, rate: 21, duration: Duration::from_secs(1) };
    let error = load::run(plan).await.expect_err("one agent may send 20 a second");
    assert!(error.to_string().contains("20 reports a second"), "{error}");
}
