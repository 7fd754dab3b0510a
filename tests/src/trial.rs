//! Scenarios at work: each at a site of its own, many side by side in one laboratory, from calm
//! over the cut to health.

use std::fmt;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::agent::Agent;
use crate::collector::{AgencySeen, Tempo};
use crate::laboratory::{LabAgency, Laboratory, Seat, Seen, agencies_of_one_district};
use crate::process_fault::ProcessFault;
use crate::scenario::{AgentExpected, CheckExpected, Scenario};
use crate::topology::SitePlan;
use crate::wait;

/// Sites of one laboratory: with more, two cores lag behind the shortened timers.
const SITES: usize = 21;
/// How far a stepped clock may be from where it was stepped to, when the agent tells it.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// What one scenario took.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// From the cut to the agent's verdict; nothing where the agent cannot be asked.
    pub agent: Option<Duration>,
    /// From the cut to the collector's state.
    pub collector: Duration,
    /// From healing to `connected` at the collector.
    pub healed: Duration,
}

/// The heading of [`Measured`].
pub const HEADING: &str = "scenario                    agent s collector s healed s";

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |took: Duration| format!("{:.1}", took.as_secs_f64());
        let Self { name, agent, collector, healed } = self;
        let (collector, healed) = (seconds(*collector), seconds(*healed));
        let agent = agent.map_or_else(String::new, seconds);
        write!(f, "{name:<26} {agent:>8} {collector:>11} {healed:>8}")
    }
}

/// Runs scenarios in as many laboratories as they need, one after another, with shortened
/// timers. Each outcome is told as soon as its laboratory is done.
///
/// # Errors
/// When a laboratory cannot be built; a scenario that fails is an outcome.
pub async fn run_all(
    scenarios: &[Scenario],
    mut tell: impl FnMut(Result<Measured, String>),
) -> Result<()> {
    for batch in scenarios.chunks(SITES) {
        run_together(batch).await?.into_iter().for_each(&mut tell);
    }
    Ok(())
}

/// Runs scenarios side by side.
async fn run_together(scenarios: &[Scenario]) -> Result<Vec<Result<Measured, String>>> {
    let agencies = agencies_of_one_district(scenarios.len())?;
    let seats: Vec<_> = agencies.into_iter().zip(scenarios).map(seat).collect();
    let mut laboratory = Laboratory::build(&seats, Tempo::Short).await?;
    let seen = laboratory.seen();
    let mut running = Vec::new();
    for (scenario, place) in scenarios.iter().zip(laboratory.agencies.drain(..)) {
        let run = tokio::spawn(run(scenario.clone(), place, seen.clone()));
        running.push((&scenario.name, run));
    }
    let mut outcomes = Vec::new();
    for (name, scenario) in running {
        let outcome = scenario.await.with_context(|| format!("{name} panicked"))?;
        outcomes.push(outcome.map_err(|error| format!("{name}: {error:#}")));
    }
    Ok(outcomes)
}

fn seat((agency, scenario): (String, &Scenario)) -> Seat {
    let Scenario { internet, family, gateway, selector, process, .. } = scenario;
    Seat {
        agency,
        site: SitePlan { internet: *internet, families: *family },
        gateway: *gateway,
        selector: *selector,
        stepped_clock: process.is_some_and(|fault| fault.step_seconds().is_some()),
    }
}

/// One scenario from cut to health.
async fn run(scenario: Scenario, mut place: LabAgency, seen: Seen) -> Result<Measured> {
    // The collector says connected while the agent is still in its warm-up.
    calm(&scenario, &place.agent).await.context("before the cut")?;
    for cut in &scenario.already {
        place.site.cut(*cut).await?;
    }
    if !scenario.already.is_empty() {
        calm(&scenario, &place.agent).await.context("before the cut")?;
    }
    let noted = seen.note(&place.agency);
    let begun = Instant::now();
    if let Some(cut) = scenario.cut {
        place.site.cut(cut).await?;
    }
    if scenario.process == Some(ProcessFault::Restart) {
        collector_says(&scenario, &place.agency, &seen).await.context("before the restart")?;
        place.agent = place.agent.restart().await?;
    }
    let fault = scenario.process.map(|fault| fault.begin(&mut place.agent)).transpose()?;
    let (agent, collector) = both_say(&scenario, &place, &seen).await.context("while it is cut")?;
    if let Some(check) = &scenario.check {
        check_says(check, &place.agent).await?;
    }
    let lasts = scenario.lasts.unwrap_or_default();
    tokio::time::sleep(lasts.saturating_sub(begun.elapsed())).await;
    drop(fault);
    place.site.heal().await?;
    let healed = heals(&scenario, &place, &seen).await.context("after healing")?;
    let states = noted.states();
    let forbidden = scenario.agency.never.iter().find(|state| states.contains(*state));
    ensure!(forbidden.is_none(), "the agency was {forbidden:?} for a while, among {states:?}");
    Ok(Measured { name: scenario.name, agent, collector, healed })
}

async fn calm(scenario: &Scenario, agent: &Agent) -> Result<()> {
    wait::until("the agent's calm", scenario.deadline, || async {
        let (state, cause) = verdict(agent).await.map_err(|error| format!("{error:#}"))?;
        if state == "connected" { Ok(()) } else { Err(format!("{state} ({cause})")) }
    })
    .await?;
    Ok(())
}

async fn both_say(
    scenario: &Scenario,
    place: &LabAgency,
    seen: &Seen,
) -> Result<(Option<Duration>, Duration)> {
    let agent = async {
        match &scenario.agent {
            Some(expected) => {
                stays(scenario, expected, &place.agent).await?;
                let took = agent_says(expected, scenario.deadline, &place.agent).await?;
                if let Some(seconds) = scenario.process.and_then(ProcessFault::step_seconds) {
                    clock_is_told(seconds, scenario.deadline, &place.agent).await?;
                }
                anyhow::Ok(Some(took))
            }
            None => Ok(None),
        }
    };
    let (agent, collector) = tokio::join!(agent, collector_says(scenario, &place.agency, seen));
    anyhow::Ok((agent?, collector?))
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
        let status = agent.status().await.map_err(|error| format!("{error:#}"))?;
        let path = &status["path"];
        if says(expected, path) { Ok(()) } else { Err(path.to_string()) }
    })
    .await?;
    Ok(took)
}

fn says(expected: &AgentExpected, path: &Value) -> bool {
    let is_one_of = |texts: &[String], value: &Value| {
        value.as_str().is_some_and(|value| texts.iter().any(|text| text == value))
    };
    let flagged = |flag: &String| {
        path["flags"].as_array().is_some_and(|flags| flags.iter().any(|one| one == flag.as_str()))
    };
    let told = |text: &String| path["evidence"].to_string().contains(text.as_str());
    is_one_of(&expected.states, &path["state"])
        && (expected.causes.is_empty() || is_one_of(&expected.causes, &path["cause"]))
        && expected.flags.iter().all(flagged)
        && !expected.no_flags.iter().any(flagged)
        && expected.evidence.iter().all(told)
}

/// State and cause, as the agent tells them over its socket.
async fn verdict(agent: &Agent) -> Result<(String, String)> {
    let status = agent.status().await?;
    let text = |key: &str| status["path"][key].as_str().map(str::to_owned);
    let Some(state) = text("state") else { bail!("its status has no state: {status}") };
    Ok((state, text("cause").unwrap_or_default()))
}

/// The agent tells how far its clock is from the collector's.
async fn clock_is_told(seconds: i64, deadline: Duration, agent: &Agent) -> Result<()> {
    wait::until("the clock's error", deadline, || async {
        let status = agent.status().await.map_err(|error| format!("{error:#}"))?;
        let ahead = &status["uplink"]["clock_ahead_ms"];
        let off = ahead.as_i64().map(|ahead| ahead.abs_diff(seconds * 1000));
        let is_told = off.is_some_and(|off| u128::from(off) < CLOCK_TOLERANCE.as_millis());
        if is_told { Ok(()) } else { Err(ahead.to_string()) }
    })
    .await?;
    Ok(())
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

/// One sentence in each language says what is broken, and somebody is named.
async fn check_says(expected: &CheckExpected, agent: &Agent) -> Result<()> {
    let mut command = tokio::process::Command::from(agent.plan.command(&["check", "--json"]));
    let Output { stdout, stderr, .. } = command.output().await.context("start check")?;
    let page: Value = serde_json::from_slice(&stdout)
        .with_context(|| format!("check --json: {}", String::from_utf8_lossy(&stderr).trim()))?;
    let (sentences, call) = match &expected.flag {
        None => (&page["diagnosis"], &page["call"]),
        Some(flag) => {
            let findings = page["findings"].as_array();
            let found =
                findings.and_then(|all| all.iter().find(|one| one["flag"] == flag.as_str()));
            let found = found.with_context(|| format!("check finds no {flag}: {page}"))?;
            (found, &found["call"])
        }
    };
    ensure!(*call == expected.call.as_str(), "check says to call {call}: {sentences}");
    for language in ["vi", "en"] {
        let sentence = sentences[language].as_str().unwrap_or_default();
        let is_one = sentence.ends_with('.') && sentence.matches(['.', '!', '?']).count() == 1;
        ensure!(is_one, "check says no single sentence in {language}: {sentence:?}");
    }
    Ok(())
}

/// Until the collector, and where the scenario asks for it the agent, say connected again.
async fn heals(scenario: &Scenario, place: &LabAgency, seen: &Seen) -> Result<Duration> {
    let agent = async {
        if scenario.afterwards.is_empty() {
            return Ok(());
        }
        let end = Instant::now() + scenario.deadline;
        while Instant::now() < end {
            let Ok((state, cause)) = verdict(&place.agent).await else { continue };
            ensure!(scenario.afterwards.contains(&state), "the agent says {state} ({cause})");
            if state == "connected" {
                return Ok(());
            }
        }
        bail!("the agent does not say connected within {:?}", scenario.deadline)
    };
    let connected = |agency: &AgencySeen| agency.state == "connected";
    let collector = seen.until(&place.agency, scenario.deadline, connected);
    let (agent, collector) = tokio::join!(agent, collector);
    agent?;
    Ok(collector?.1)
}
