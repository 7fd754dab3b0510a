//! Kills by SIGKILL at random moments under load: collector and agents, again and again, until
//! a number of kills is reached. Then every record is looked for, one by one: what was
//! acknowledged has to be in the store, once, as it was written.
//!
//! The load: [`courier`]s deliver numbered records over mTLS as fast as they are acknowledged, and
//! repeat, overlap and run ahead at random; real agents write a record with every start of
//! theirs. What an agent's disk held is read after each kill by [`on_disk`], which knows the
//! journal's shape and shares no code with it.
//!
//! A kill keeps the page cache: it shows what a crash of a program does. What a power cut does is
//! shown where writes can be dropped: for the journal by its own tests, for the store by
//! [`crate::power_cut`].

pub(crate) mod audit;
pub(crate) mod courier;
mod on_disk;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::agent::{Agent, AgentPlan};
use crate::collector::Collector;
use crate::dice::Dice;
use crate::figures;
use crate::loopback::Loopback;
use crate::wait;

use self::audit::Audit;
use self::courier::Courier;
pub(crate) use self::courier::record;
use self::on_disk::Ledger;

/// Agencies with a real agent each.
const AGENT_AGENCIES: [&str; 4] = ["01-001", "01-002", "01-003", "01-004"];
/// Agencies with a courier each.
const COURIER_AGENCIES: [&str; 4] = ["01-005", "01-006", "01-007", "01-008"];
/// Kills are so far apart, counted from when the victim before was back.
const PAUSE_MS: std::ops::Range<u64> = 5..400;
/// Until the last record is acknowledged, on a machine that is busy with other things.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(180);

/// What a run found. [`run`] fails when any record is missing or there twice.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Fixes victims, pauses and what couriers do.
    pub seed: u64,
    /// Kills of the collector.
    pub collector_kills: u32,
    /// Kills of agents.
    pub agent_kills: u32,
    /// Deliveries of couriers: acknowledged, and failed.
    pub deliveries: [u64; 2],
    /// Of all, those that repeated acknowledged records, and those that ran ahead of a hole.
    pub disturbed: [u64; 2],
    /// Couriers' records, each found once with its content.
    pub courier_records: u64,
    /// Agents' acknowledged records, each found once as it was on the agent's disk.
    pub agent_records: u64,
    /// How long it took.
    pub took: Duration,
}

/// Kills so many times, and looks for every record.
///
/// # Errors
/// When a record is lost, changed or there twice, a program does not come back, or the world
/// cannot be built.
pub async fn run(kills: u32, seed: u64, mut tell: impl FnMut(&str)) -> Result<Outcome> {
    let began = Instant::now();
    let agencies: Vec<_> = AGENT_AGENCIES.into_iter().chain(COURIER_AGENCIES).collect();
    let world = Loopback::start(&agencies).await?;
    let mut agents = Vec::new();
    for (number, agency) in (0..).zip(AGENT_AGENCIES) {
        let agent = world.start_agent(agency, number, agency)?;
        agents.push((agent, Ledger::default()));
    }
    let stop = CancellationToken::new();
    let mut couriers = tokio::task::JoinSet::new();
    for (number, agency) in (AGENT_AGENCIES.len() as u64..).zip(COURIER_AGENCIES) {
        let courier = enrolled(&world, agency, u8::try_from(number)?)?;
        couriers.spawn(courier.run(Dice(seed ^ number), stop.clone()));
    }
    let Loopback { mut collector, binaries: _, directory } = world;

    let mut dice = Dice(seed);
    let mut outcome = Outcome { seed, ..Outcome::default() };
    for kill in 1..=kills {
        tokio::time::sleep(Duration::from_millis(dice.within(PAUSE_MS))).await;
        if dice.within(0..2) == 0 {
            collector = Collector::start_again(collector.kill()).await?;
            outcome.collector_kills += 1;
        } else {
            let victim = usize::try_from(dice.within(0..agents.len() as u64))?;
            let (agent, mut ledger) = agents.swap_remove(victim);
            let plan = agent.kill();
            ledger.read(&plan.state_dir().join("journal"))?;
            agents.push((Agent::start(plan)?, ledger));
            outcome.agent_kills += 1;
        }
        if kill % 50 == 0 {
            tell(&format!("{kill} kills in {:.0?}", began.elapsed()));
        }
    }

    stop.cancel();
    let mut delivered = Vec::new();
    while let Some(ended) = couriers.join_next().await {
        delivered.push(ended.context("a courier panicked")??);
    }
    let mut kept = Vec::new();
    for (agent, ledger) in agents {
        kept.push(settled(agent, ledger).await?);
    }
    let store = collector.stop().await?.directory.join("state/collector.db");
    let audit = Audit::open(&store)?;
    for courier in &delivered {
        audit.courier(courier)?;
        outcome.courier_records += courier.written.len() as u64;
        for (sum, one) in outcome.deliveries.iter_mut().zip(courier.deliveries) {
            *sum += one;
        }
        for (sum, one) in outcome.disturbed.iter_mut().zip(courier.disturbed) {
            *sum += one;
        }
    }
    for ledger in &kept {
        outcome.agent_records += audit.agent(ledger)?;
    }
    drop(directory);
    outcome.took = began.elapsed();
    Ok(outcome)
}

fn enrolled(world: &Loopback, agency: &str, number: u8) -> Result<Courier> {
    let plan: AgentPlan = world.agent(agency, number, agency);
    plan.write_config()?;
    let output = plan.enrol(&world.collector.create_token(agency, 1, "1h")?)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let identity = plan.state_dir().join("identity");
    let tls = courier::tls(&identity)?;
    Ok(Courier::new(tls, world.collector.plan.dedicated[0], Uuid::new_v4()))
}

/// Has an agent deliver all it holds, stops it, and reads its journal for the last time.
async fn settled(agent: Agent, mut ledger: Ledger) -> Result<Ledger> {
    // After many failures it would wait for minutes; a start tries at once.
    let agent = agent.restart().await?;
    wait::until("an empty journal", DRAIN_TIMEOUT, || async {
        let status = agent.status().await.map_err(|error| format!("{error:#}"))?;
        match status["journal"]["waiting_records"].as_u64() {
            Some(0) => Ok(()),
            _ => Err(status["journal"].to_string()),
        }
    })
    .await?;
    let plan = agent.stop().await?;
    ledger.read(&plan.state_dir().join("journal"))?;
    let aside = plan.state_dir().join("journal.damaged");
    ensure!(!aside.exists(), "{} was set aside", aside.display());
    Ok(ledger)
}

impl Outcome {
    /// The section of `benches/RESULTS.md`.
    ///
    /// # Errors
    /// Never; writing to a text cannot fail.
    pub fn section(&self) -> Result<String> {
        let Self { seed, collector_kills, agent_kills, took, .. } = self;
        let kills = collector_kills + agent_kills;
        let command = format!("haidang-faults kills --runs {kills} --seed {seed}");
        let mut text =
            format!("## Killed at random under load\n\n{}\n\n", figures::origin(&command));
        writeln!(
            text,
            "SIGKILL to the collector or one of {} agents, {} to {} ms after the victim before was \
             back, while {} couriers deliver over mTLS and repeat, overlap and run ahead at \
             random. At the end every record was looked for in the store. Took {} s.\n",
            AGENT_AGENCIES.len(),
            PAUSE_MS.start,
            PAUSE_MS.end,
            COURIER_AGENCIES.len(),
            took.as_secs(),
        )?;
        text += "| what | count |\n|---|---|\n";
        let rows = [
            ("kills of the collector", u64::from(*collector_kills)),
            ("kills of agents", u64::from(*agent_kills)),
            ("deliveries acknowledged", self.deliveries[0]),
            ("deliveries that failed and were made again", self.deliveries[1]),
            ("deliveries that repeated acknowledged records", self.disturbed[0]),
            ("deliveries ahead of a hole", self.disturbed[1]),
            ("couriers' records, found once and as written", self.courier_records),
            ("agents' acknowledged records, found once and as written", self.agent_records),
            ("acknowledged records lost, changed or applied twice", 0),
        ];
        for (what, count) in rows {
            writeln!(text, "| {what} | {count} |")?;
        }
        Ok(text)
    }
}
