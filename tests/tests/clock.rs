//! A machine whose clock is a year off, with real programs on loopback: what is behind reports all
//! the same, what is ahead says why it cannot. Needs no root.

use std::process::Output;
use std::time::Duration;

use haidang_tests::agent::{Agent, AgentPlan};
use haidang_tests::collector::{AgencySeen, Collector};
use haidang_tests::loopback::Loopback;
use haidang_tests::process_fault::{ProcessFault, Standing};
use haidang_tests::wait;

const AGENCY: &str = "01-018";
/// A collector is tried again within a minute, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

struct World {
    world: Loopback,
    agent: Agent,
}

impl World {
    async fn build() -> Self {
        let world = Loopback::start(&[AGENCY]).await.unwrap_or_else(|error| panic!("{error:#}"));
        let code = world.collector.create_token(AGENCY, 1, "1h").expect("created");
        let plan = world.agent(AGENCY, 0, "old-pc");
        let stepped_clock = Some(plan.directory.join("clock"));
        let plan = AgentPlan { stepped_clock, ..plan };
        let agent = Agent::enrol_and_start(plan, &code).unwrap_or_else(|error| panic!("{error:#}"));
        let built = Self { world, agent };
        built.reporting().await;
        built
    }

    /// Steps the clock and has the collector start anew: a connection that stands asks for nothing.
    async fn under(mut self, fault: ProcessFault) -> (Self, Standing) {
        let standing = fault.begin(&mut self.agent).expect("stepped");
        let stopped = self.world.collector.stop().await.unwrap_or_else(|error| panic!("{error:#}"));
        self.world.collector = Collector::start_again(stopped).await.expect("it starts again");
        (self, standing)
    }

    /// The collector, which may have been started anew, has verified a report; what a busy machine
    /// makes of the path's quality is another matter.
    async fn reporting(&self) {
        let told = wait::until("a verified report", PATIENCE, || async {
            let metrics = self.world.collector.metrics().await;
            let metrics = metrics.map_err(|error| format!("{error:#}"))?;
            match AgencySeen::read(&metrics, AGENCY) {
                Some(seen) if ["connected", "degraded"].contains(&seen.state.as_str()) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        });
        told.await.unwrap_or_else(|error| panic!("{error:#}"));
        self.uplink(|uplink| uplink["is_clock_doubted"] == false).await;
    }

    async fn uplink(&self, holds: impl Fn(&serde_json::Value) -> bool) {
        let told = wait::until("what the agent says of its reports", PATIENCE, || async {
            let status = self.agent.status().await.map_err(|error| format!("{error:#}"))?;
            let uplink = &status["uplink"];
            if holds(uplink) { Ok(()) } else { Err(uplink.to_string()) }
        });
        told.await.unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn says(&self, arguments: &[&str]) -> Output {
        let mut command = self.agent.plan.command_by_its_clock(arguments).expect("a clock");
        command.output().expect("started")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_a_year_ahead_says_that_its_clock_is_why_it_does_not_report() {
    let (world, standing) = World::build().await.under(ProcessFault::ClockYearAhead).await;
    world.uplink(|uplink| uplink["is_clock_doubted"] == true).await;

    for (language, words) in
        [("vi", "Nhiều khả năng ngày giờ của máy sai"), ("en", "Most likely the clock is wrong")]
    {
        for command in ["status", "check"] {
            let Output { stdout, status, .. } = world.says(&[command, "--lang", language]);
            let said =
                String::from_utf8_lossy(&stdout).split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.contains(words) && said.contains("timedatectl"), "{command}: {said}");
            assert_eq!(status.code(), Some(i32::from(command == "check")), "{said}");
        }
    }
    let metrics = world.world.collector.metrics().await.expect("metrics");
    let refused = metrics.find("haidang_collector_rejected_total", &[("reason", "peer_clock")]);
    assert!(refused.map(|series| series.value).sum::<f64>() > 0.0, "the operator is not told");

    drop(standing);
    world.reporting().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_a_year_behind_reports_and_how_far_it_is_behind_is_told() {
    let (world, _standing) = World::build().await.under(ProcessFault::ClockYearBehind).await;
    world.reporting().await;
    let year_ms = 365 * 86_400_000_i64;
    let is_told = |uplink: &serde_json::Value| {
        uplink["clock_ahead_ms"].as_i64().is_some_and(|ms| (ms + year_ms).abs() < 60_000)
    };
    world.uplink(is_told).await;
    let Output { stdout, .. } = world.says(&["check", "--lang", "en"]);
    let said = String::from_utf8_lossy(&stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("This machine's clock is behind"), "{said}");
}
