//! Every scenario of `tests/scenarios/`, each at a site of its own, all at the same time: real
//! agents and a real collector in namespaces, with shortened timers. Needs root.
//!
//! The times are printed as figures; only the scenarios' generous deadlines are asserted.
//! `HAIDANG_SCENARIO=<part of a name>` runs fewer, `HAIDANG_FULL_LENGTH=1` also the long ones.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use haidang_tests::agent::Agent;
use haidang_tests::collector::{AgencySeen, Tempo};
use haidang_tests::laboratory::{LabAgency, Laboratory, Seat, Seen, agencies_of_one_district};
use haidang_tests::scenario::{self, AgentExpected, Scenario};
use haidang_tests::wait;

/// What one scenario took.
struct Measured {
    name: String,
    /// Nothing where the agent cannot be asked.
    agent: Option<Duration>,
    collector: Duration,
    healed: Duration,
}

/// Sites of one laboratory: with more, two cores lag behind the shortened timers.
const SITES: usize = 21;

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gets_its_state_and_cause_and_healing_connects_again() {
    let scenarios = chosen();
    let mut failed = Vec::new();
    println!("{:<26} {:>8} {:>10} {:>8}", "scenario", "agent s", "collector s", "healed s");
    for batch in scenarios.chunks(SITES) {
        for outcome in run_together(batch).await {
            match outcome {
                Ok(measured) => println!("{measured}"),
                Err(error) => failed.push(error),
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |took: Duration| format!("{:.1}", took.as_secs_f64());
        let Self { name, agent, collector, healed } = self;
        let (collector, healed) = (seconds(*collector), seconds(*healed));
        let agent = agent.map_or_else(String::new, seconds);
        write!(f, "{name:<26} {agent:>8} {collector:>10} {healed:>8}")
    }
}

/// Runs scenarios side by side.
async fn run_together(scenarios: &[Scenario]) -> Vec<Result<Measured, String>> {
    let agencies = agencies_of_one_district(scenarios.len()).expect("the roster is there");
    let seats: Vec<_> = agencies
        .into_iter()
        .zip(scenarios)
        .map(|(agency, Scenario { internet, gateway, selector, .. })| Seat {
            agency,
            internet: *internet,
            gateway: *gateway,
            selector: *selector,
        })
        .collect();
    let mut laboratory =
        Laboratory::build(&seats, Tempo::Short).await.unwrap_or_else(|error| panic!("{error:#}"));
    let seen = laboratory.seen();
    let mut running = Vec::new();
    for (scenario, place) in scenarios.iter().zip(laboratory.agencies.drain(..)) {
        let run = tokio::spawn(run(scenario.clone(), place, seen.clone()));
        running.push((&scenario.name, run));
    }
    let mut outcomes = Vec::new();
    for (name, scenario) in running {
        let outcome = scenario.await.expect("a scenario does not panic");
        outcomes.push(outcome.map_err(|error| format!("{name}: {error:#}")));
    }
    outcomes
}

fn chosen() -> Vec<Scenario> {
    let part = std::env::var("HAIDANG_SCENARIO").unwrap_or_default();
    let full_length = std::env::var_os("HAIDANG_FULL_LENGTH").is_some();
    let mut scenarios = scenario::all().expect("every scenario file loads");
    scenarios
        .retain(|scenario| scenario.name.contains(&part) && (full_length || !scenario.full_length));
    assert!(!scenarios.is_empty(), "no scenario's name contains {part:?}");
    scenarios
}

/// One scenario from cut to health.
async fn run(scenario: Scenario, mut place: LabAgency, seen: Seen) -> Result<Measured> {
    // The collector says connected while the agent is still in its warm-up.
    let settled = AgentExpected { states: vec!["connected".into()], causes: Vec::new() };
    agent_says(&settled, scenario.deadline, &place.agent).await.context("before the cut")?;
    if let Some(cut) = scenario.cut {
        place.site.cut(cut).await?;
    }
    let pid = place.agent.process().pid();
    let fault = scenario.process.map(|fault| fault.begin(pid)).transpose()?;
    let agent = async {
        match &scenario.agent {
            Some(expected) => {
                stays(&scenario, expected, &place.agent).await?;
                agent_says(expected, scenario.deadline, &place.agent).await.map(Some)
            }
            None => Ok(None),
        }
    };
    let collector = collector_says(&scenario, &place.agency, &seen);
    let (agent, collector) = tokio::join!(agent, collector);
    let (agent, collector) =
        (agent.context("while it is cut")?, collector.context("while it is cut")?);
    drop(fault);
    place.site.heal().await?;
    let connected = |agency: &AgencySeen| agency.state == "connected";
    let healed = seen.until(&place.agency, scenario.deadline, connected).await;
    let (_, healed) = healed.context("after healing")?;
    Ok(Measured { name: scenario.name, agent, collector, healed })
}

/// For as long as the scenario asks, the agent says nothing but what is expected.
async fn stays(scenario: &Scenario, expected: &AgentExpected, agent: &Agent) -> Result<()> {
    let Some(period) = scenario.stays else { return Ok(()) };
    let end = Instant::now() + period;
    while Instant::now() < end {
        // A starved agent may answer late: that is no verdict of it.
        let Ok((state, cause)) = verdict(agent).await else { continue };
        ensure!(expected.states.contains(&state), "the agent says {state} ({cause})");
    }
    Ok(())
}

async fn agent_says(
    expected: &AgentExpected,
    deadline: Duration,
    agent: &Agent,
) -> Result<Duration> {
    let ((), took) = wait::until("the agent's verdict", deadline, || async {
        let (state, cause) = verdict(agent).await.map_err(|error| format!("{error:#}"))?;
        let right_cause = expected.causes.is_empty() || expected.causes.contains(&cause);
        let right = expected.states.contains(&state) && right_cause;
        if right { Ok(()) } else { Err(format!("{state} ({cause})")) }
    })
    .await?;
    Ok(took)
}

/// State and cause, as the agent tells them over its socket.
async fn verdict(agent: &Agent) -> Result<(String, String)> {
    let status = agent.status().await?;
    let text = |key: &str| status["path"][key].as_str().map(str::to_owned);
    let Some(state) = text("state") else { bail!("its status has no state: {status}") };
    Ok((state, text("cause").unwrap_or_default()))
}

async fn collector_says(scenario: &Scenario, agency: &str, seen: &Seen) -> Result<Duration> {
    let expected = &scenario.agency;
    let holds = |agency: &AgencySeen| {
        let cause = agency.cause.as_ref();
        expected.states.contains(&agency.state)
            && (expected.causes.is_empty()
                || cause.is_some_and(|cause| expected.causes.contains(cause)))
            && scenario.flags.iter().all(|flag| agency.flags.contains(flag))
            && !scenario.no_flags.iter().any(|flag| agency.flags.contains(flag))
    };
    let (_, took) = seen.until(agency, scenario.deadline, holds).await?;
    Ok(took)
}
