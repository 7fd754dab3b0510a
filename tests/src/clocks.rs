//! The collector's clock is wrong: stepped by a year or an hour in either direction under a crowd of
//! agents and couriers, and a year ahead at a start. No agency may be called down, the operator has
//! to be told, and with the right time all has to be well by itself, with every record there once.
//!
//! The clock is the collector's alone (libfaketime), and only the wall clock is wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::collector::Tempo;
use crate::figures;
use crate::load::couriers::Couriers;
use crate::load::crowd::{Crowd, CrowdPlan};
use crate::process_fault;
use crate::wait;

/// Who deliver.
const COURIERS: usize = 2;
const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 86_400;
/// A step stands for so many report intervals: silence is judged after three.
const STEP_INTERVALS: u32 = 5;
/// The same of a collector that starts so: who is missed then is judged after eight.
const START_INTERVALS: u32 = 12;
/// Until all is well: agents that were turned away come back within a minute, a certificate of the
/// future is replaced within seconds.
const WELL_WITHIN: Duration = Duration::from_secs(150);
/// What an agency may be while the collector turns its agents away by mistake.
const STATES: [&str; 4] = ["connected", "degraded", "unknown", "not_enrolled"];
/// What a step shows in.
const CLOCK_STEP: &str = "haidang_collector_clock_step_seconds";

/// A wrong time, in seconds; ahead is positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The clock is stepped so far while the collector runs.
    Stepped(i64),
    /// The collector starts with it.
    FromTheStart(i64),
}

/// Every wrong time.
pub const ALL: [Wrong; 5] = [
    Wrong::Stepped(HOUR),
    Wrong::Stepped(-HOUR),
    Wrong::Stepped(YEAR),
    Wrong::Stepped(-YEAR),
    Wrong::FromTheStart(YEAR),
];
/// Those in which agents are turned away: of a running collector and of one that starts.
pub const WORST: [Wrong; 2] = [Wrong::Stepped(YEAR), Wrong::FromTheStart(YEAR)];

/// What came of it. [`run`] fails when anything else did.
#[derive(Debug, Clone)]
pub struct Outcome {
    agents: usize,
    tempo: Tempo,
    endured: Vec<Endured>,
    records: u64,
}

#[derive(Debug, Clone)]
struct Endured {
    wrong: Wrong,
    /// Agencies by state at the end of the wrong time.
    states: BTreeMap<String, usize>,
    /// Requests that were turned away by then, by reason.
    refused: BTreeMap<String, u64>,
    /// From the right time until every agency was connected and records were acknowledged.
    well_after: Duration,
}

/// Makes the clock wrong and right again, in each of these ways.
///
/// # Errors
/// When an agency is called down, a step does not show, a record is lost or there twice, or what was
/// well before is not well again.
pub async fn run(agents: usize, tempo: Tempo, ways: &[Wrong]) -> Result<Outcome> {
    let mut crowd =
        Crowd::gather(CrowdPlan { agents, couriers: COURIERS, tempo }, |_| Ok(())).await?;
    let clock = crowd.directory().join("clock");
    crowd.restart_under(&clock, 0).await?;
    crowd.all_connected(WELL_WITHIN).await?;
    let couriers = Couriers::start(&crowd, Duration::ZERO)?;
    couriers.more(0, WELL_WITHIN).await?;
    let mut endured = Vec::new();
    for wrong in ways.iter().copied() {
        match wrong {
            Wrong::Stepped(seconds) => process_fault::step(&clock, seconds)?,
            Wrong::FromTheStart(seconds) => crowd.restart_under(&clock, seconds).await?,
        }
        let intervals = match wrong {
            Wrong::Stepped(_) => STEP_INTERVALS,
            Wrong::FromTheStart(_) => START_INTERVALS,
        };
        let stands = Instant::now();
        let mut last = (BTreeMap::new(), BTreeMap::new());
        while stands.elapsed() < tempo.report_interval() * intervals {
            last = looked(&crowd).await?;
            let may_be = |state: &String| STATES.contains(&state.as_str());
            ensure!(last.0.keys().all(may_be), "{wrong:?}: {:?}", last.0);
            tokio::time::sleep(tempo.report_interval() / 4).await;
        }
        if let Wrong::Stepped(seconds) = wrong {
            shows(&crowd, seconds as f64).await?;
        }
        let before = couriers.acknowledged();
        let right = Instant::now();
        process_fault::step(&clock, 0)?;
        crowd.all_connected(WELL_WITHIN).await.with_context(|| format!("after {wrong:?}"))?;
        couriers.more(before, WELL_WITHIN).await?;
        let well_after = right.elapsed();
        if let Wrong::Stepped(_) = wrong {
            shows(&crowd, 0.0).await?;
        }
        let (states, refused) = last;
        endured.push(Endured { wrong, states, refused, well_after });
    }
    let output = crowd.collector.as_mut().context("it is there")?.process().output().to_owned();
    let said = fs::read_to_string(&output).context("read the collector's output")?;
    ensure!(!said.contains("panicked"), "the collector panicked:\n{said}");
    ensure!(said.contains("the clock was stepped"), "the collector says nothing of its clock");
    let records = couriers.end(crowd, &STATES).await?;
    Ok(Outcome { agents, tempo, endured, records })
}

/// Agencies by state and refusals by reason.
async fn looked(crowd: &Crowd) -> Result<(BTreeMap<String, usize>, BTreeMap<String, u64>)> {
    let metrics = crowd.collector()?.metrics().await?;
    let mut states = BTreeMap::new();
    for sample in metrics.find("haidang_agency_state", &[]).filter(|one| one.value == 1.0) {
        let state = sample.labels.get("state").context("a state has its name")?;
        *states.entry(state.clone()).or_default() += 1;
    }
    states.remove("not_enrolled");
    let refused = metrics.find("haidang_collector_rejected_total", &[]);
    let refused = refused.filter(|sample| sample.value > 0.0).map(|sample| {
        let reason = sample.labels.get("reason").context("a refusal has its reason")?;
        Ok((reason.clone(), sample.value as u64))
    });
    Ok((states, refused.collect::<Result<_>>()?))
}

async fn shows(crowd: &Crowd, seconds: f64) -> Result<()> {
    wait::until("the step in the metrics", WELL_WITHIN, || async {
        let collector = crowd.collector().map_err(|error| error.to_string())?;
        let metrics = collector.metrics().await.map_err(|error| format!("{error:#}"))?;
        let shown: f64 = metrics.find(CLOCK_STEP, &[]).map(|sample| sample.value).sum();
        if (shown - seconds).abs() < 30.0 { Ok(()) } else { Err(shown.to_string()) }
    })
    .await?;
    Ok(())
}

impl Outcome {
    /// The section of `benches/RESULTS.md`.
    ///
    /// # Errors
    /// Never; writing to a text cannot fail.
    pub fn section(&self) -> Result<String> {
        let command = format!("haidang-faults clocks --agents {}", self.agents);
        let mut text =
            format!("## A collector with a wrong clock\n\n{}\n\n", figures::origin(&command));
        let interval = self.tempo.report_interval();
        writeln!(
            text,
            "{} agents report every {} s and {COURIERS} couriers deliver, while the collector's wall \
             clock alone is wrong for {} s, and for {} s from a start. No agency was called \
             disconnected, silent or off the network; with the right time all was well by itself, \
             without a restart; each of the couriers' {} records was found once, as written.\n",
            self.agents,
            interval.as_secs(),
            (interval * STEP_INTERVALS).as_secs(),
            (interval * START_INTERVALS).as_secs(),
            self.records,
        )?;
        text += "| the clock | agencies at the end of it | turned away until then, in all | well again after, s |\n\
                 |---|---|---|---|\n";
        for Endured { wrong, states, refused, well_after } in &self.endured {
            let clock = match wrong {
                Wrong::Stepped(seconds) => format!("stepped by {seconds:+} s"),
                Wrong::FromTheStart(seconds) => format!("{seconds:+} s from the start"),
            };
            let states: Vec<_> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
            let refused: Vec<_> = refused.iter().map(|(why, n)| format!("{why} {n}")).collect();
            writeln!(
                text,
                "| {clock} | {} | {} | {:.1} |",
                states.join(", "),
                refused.join(", "),
                well_after.as_secs_f64()
            )?;
        }
        Ok(text)
    }
}
