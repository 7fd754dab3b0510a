//! Pressure on the collector: a flood of posture, a week of journal from a thousand agents at once,
//! and readers that never read, one after another and at last together, while a crowd of agents
//! reports. Who is alive must not depend on any of it: no state changes, every report is taken,
//! nobody is called, the metrics are answered within a scrape's time, and the collector's memory
//! stays bounded. In the end every acknowledged record is looked for, once and as written.

mod answers;
mod backlog;
mod flood;
mod journals;
pub mod readers;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::answers::Answered;
use self::backlog::Backlog;
use self::flood::{Flood, Flooded};
use self::journals::{Journal, busy_days};
use self::readers::{HttpReaders, Unreading};
use crate::collector::Tempo;
use crate::cost::{open_files, peak_bytes, reset_peak};
use crate::duty::Duty;
use crate::exposition::Exposition;
use crate::figures;
use crate::kills::audit::Audit;
use crate::load::couriers::no_other_state;
use crate::load::crowd::{Crowd, CrowdPlan, What};
use crate::wait;

/// Who send posture beyond the collector's limit.
const STRANGERS: usize = 8;
/// Agents that never read their answers.
const UNREADING: usize = 24;
/// Between two looks at states and metrics: twice as often as the shipped Prometheus has it at the
/// least.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Until everybody is connected and heard again, between two pressures.
const WELL_WITHIN: Duration = Duration::from_secs(90);
/// Until a backlog is delivered: beside the posture flood, 50 agents took 35 s on two cores.
const DELIVERED_WITHIN: Duration = Duration::from_secs(1_800);
/// What all of it may add to the collector's memory: 64 MiB of deliveries that wait for the store,
/// 64 connections with two answers of 2 MiB each at the worst, and as much again for the allocator
/// and for what the store keeps of its file.
const MEMORY_MAX: u64 = 512 << 20;

/// What the collector is put under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Every agent's posture ten times as often as it can come, see `flood`.
    Posture,
    /// Agents that have not delivered for a week.
    Backlog,
    /// Readers that ask and never read.
    Readers,
}

impl Pressure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Posture, Self::Backlog, Self::Readers];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Posture => "posture",
            Self::Backlog => "backlog",
            Self::Readers => "readers",
        }
    }
}

/// What is done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Agents that report, and send the posture.
    pub agents: usize,
    /// How often they report.
    pub tempo: Tempo,
    /// How long each pressure stands at least; a backlog until it is delivered.
    pub lasting: Duration,
    /// Agents of the backlog.
    pub backlog_agents: usize,
    /// Busy days that each of them has not delivered.
    pub backlog_days: u32,
    /// Connections of those that never read, over HTTP.
    pub readers: usize,
    /// A scrape's time.
    pub scrape_within: Duration,
    /// Whether Prometheus and Alertmanager look on.
    pub on_duty: bool,
}

/// What came of it. [`run`] fails when anything else did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    endured: Vec<Endured>,
    /// Memory of the collector before any of it.
    calm_bytes: u64,
    /// Records that were found in the store, each once and as written.
    pub records: u64,
}

#[derive(Debug, Clone)]
struct Endured {
    pressures: Vec<Pressure>,
    stood: Duration,
    /// Reports that were taken; none was refused or not answered.
    reports: usize,
    slowest_report: Duration,
    scrapes: usize,
    slowest_scrape: Duration,
    peak_bytes: u64,
    files_max: usize,
    /// Refusals that the collector counted, by reason.
    rejected: BTreeMap<String, u64>,
    done: Done,
}

/// What the pressure came to.
#[derive(Debug, Clone, Default)]
struct Done {
    flooded: Flooded,
    backlog: (Vec<Journal>, Answered),
    delivered_after: Duration,
    http: [u64; 2],
    unread: usize,
}

/// Puts the collector under each pressure, and then under all.
///
/// # Errors
/// When a state changes, a report is not taken, somebody is called, a scrape takes too long, memory
/// grows without bound, or a record is lost or there twice.
pub async fn run(plan: Plan) -> Result<Outcome> {
    let couriers = STRANGERS + UNREADING;
    let crowd_plan = CrowdPlan { agents: plan.agents, couriers, tempo: plan.tempo };
    let mut crowd = Crowd::gather(crowd_plan, |_| Ok(())).await?;
    let mut duty = match plan.on_duty {
        true => Some(Duty::begin(crowd.directory(), crowd.collector()?.plan.http).await?),
        false => None,
    };
    let pid = crowd.collector.as_mut().context("it is there")?.process().pid();
    reset_peak(pid)?;
    let calm_bytes = peak_bytes(pid)?;
    let mut endured: Vec<Endured> = Vec::new();
    let alone = Pressure::ALL.map(|pressure| vec![pressure]);
    for pressures in alone.into_iter().chain([Pressure::ALL.to_vec()]) {
        let names = names(&pressures);
        let one = stand(&plan, pressures, &mut crowd).await;
        let one = one.with_context(|| format!("under pressure: {names}"))?;
        let grown = one.peak_bytes.saturating_sub(calm_bytes);
        ensure!(grown <= MEMORY_MAX, "the collector's memory grew by {grown} bytes under {names}");
        if let Some(duty) = &mut duty {
            let called = duty.called().await?;
            ensure!(called.is_empty(), "somebody was called under {names}: {called:?}");
        }
        endured.push(one);
        let since = Instant::now();
        crowd.heard_since(since, WELL_WITHIN).await?;
        crowd.all_connected(WELL_WITHIN).await?;
    }
    if let Some(duty) = &mut duty {
        let called = duty.called().await?;
        ensure!(called.is_empty(), "somebody was called: {called:?}");
    }
    let (collector, _place) = crowd.end().await?;
    let store = collector.directory.join("state/collector.db");
    let audit = Audit::open(&store)?;
    let mut records = 0;
    for Endured { done, .. } in &endured {
        for journal in done.flooded.journals.iter().chain(&done.backlog.0) {
            records += journal.audit(&audit)?;
        }
    }
    no_other_state(&store, &["connected"])?;
    Ok(Outcome { plan, endured, calm_bytes, records })
}

/// These pressures at once, from their beginning to their end.
async fn stand(plan: &Plan, pressures: Vec<Pressure>, crowd: &mut Crowd) -> Result<Endured> {
    let has = |pressure| pressures.contains(&pressure);
    let pid = crowd.collector.as_mut().context("it is there")?.process().pid();
    reset_peak(pid)?;
    let before = rejected(&scrape(crowd).await?)?;
    let began = Instant::now();
    let (strangers, unreading) = crowd.couriers.split_at(STRANGERS);
    let flood = has(Pressure::Posture).then(|| Flood::begin(crowd, strangers)).transpose()?;
    let records = busy_days(plan.backlog_days);
    let backlog = has(Pressure::Backlog)
        .then(|| Backlog::begin(crowd, plan.backlog_agents, records))
        .transpose()?;
    let collector = &crowd.collector()?.plan;
    let (http, mut unread) = match has(Pressure::Readers) {
        true => (
            Some(HttpReaders::begin(plan.readers, collector.http)?),
            Some(Unreading::begin(unreading, collector.dedicated[0]).await?),
        ),
        false => (None, None),
    };

    let (mut scrapes, mut slowest_scrape, mut files_max) = (0, Duration::ZERO, 0);
    let mut delivered_after = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let metrics = tokio::time::timeout(plan.scrape_within, scrape(crowd)).await;
        let metrics = metrics.with_context(|| {
            format!("after {:?}: no metrics in {:?}", asked - began, plan.scrape_within)
        })??;
        scrapes += 1;
        slowest_scrape = slowest_scrape.max(asked.elapsed());
        crowd.check_states(&metrics).with_context(|| format!("after {:?}", began.elapsed()))?;
        files_max = files_max.max(open_files(pid)?);
        let left = backlog.as_ref().map_or(0, Backlog::left);
        if left == 0 && delivered_after.is_zero() {
            delivered_after = began.elapsed();
        }
        if left == 0 && began.elapsed() >= plan.lasting {
            break;
        }
        ensure!(began.elapsed() < DELIVERED_WITHIN, "{left} agents still have a backlog");
        tokio::time::sleep(LOOK_PERIOD.saturating_sub(asked.elapsed())).await;
    }
    let (happened, stood) = (crowd.since(began), began.elapsed());
    let mut done = Done { delivered_after, ..Done::default() };
    if let Some(flood) = flood {
        done.flooded = flood.end().await?;
        let acknowledged = done.flooded.agents.acknowledged;
        ensure!(acknowledged > 0, "no posture was taken: {:?}", done.flooded.agents);
    }
    if let Some(backlog) = backlog {
        done.backlog = backlog.end().await?;
    }
    if let (Some(http), Some(unread)) = (http, &mut unread) {
        done.http = http.counts();
        ensure!(done.http[1] > 0, "nobody who never reads was sent away: {:?}", done.http);
        done.unread = unread.unanswered();
        let requests = unread.requests;
        ensure!(done.unread == requests, "{} of {requests} are answered", requests - done.unread);
    }
    drop(unread);
    let after = rejected(&scrape(crowd).await?)?;
    let rejected = after
        .into_iter()
        .map(|(reason, count)| (count - before.get(&reason).unwrap_or(&0), reason))
        .filter(|(count, _)| *count > 0)
        .map(|(count, reason)| (reason, count));

    let (mut reports, mut slowest_report) = (0, Duration::ZERO);
    for happening in happened {
        let What::Heard { after } = happening.what else {
            bail!("agent {}: {:?}", happening.agent, happening.what)
        };
        reports += 1;
        slowest_report = slowest_report.max(after);
    }
    ensure!(reports > 0, "nobody reported");
    Ok(Endured {
        stood,
        reports,
        slowest_report,
        scrapes,
        slowest_scrape,
        peak_bytes: peak_bytes(pid)?,
        files_max,
        rejected: rejected.collect(),
        done,
        pressures,
    })
}

/// The metrics; whoever is turned away asks again.
async fn scrape(crowd: &Crowd) -> Result<Exposition> {
    let (metrics, _) = wait::until("the metrics", WELL_WITHIN, || async {
        let collector = crowd.collector().map_err(|error| error.to_string())?;
        collector.metrics().await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    Ok(metrics)
}

fn rejected(metrics: &Exposition) -> Result<BTreeMap<String, u64>> {
    let counts = metrics.find("haidang_collector_rejected_total", &[]);
    let counts = counts.map(|sample| {
        let reason = sample.labels.get("reason").context("a refusal has its reason")?;
        Ok((reason.clone(), sample.value as u64))
    });
    counts.collect()
}

fn names(pressures: &[Pressure]) -> String {
    pressures.iter().map(|pressure| pressure.as_str()).collect::<Vec<_>>().join(" + ")
}

impl Outcome {
    /// The section of `benches/RESULTS.md`.
    ///
    /// # Errors
    /// Never; writing to a text cannot fail.
    pub fn section(&self) -> Result<String> {
        let Self { plan, endured, calm_bytes, records } = self;
        let command = format!(
            "haidang-faults pressure --agents {} --seconds {} --backlog-agents {} --readers {}",
            plan.agents,
            plan.lasting.as_secs(),
            plan.backlog_agents,
            plan.readers
        );
        let mut text =
            format!("## Liveness under pressure of data\n\n{}\n\n", figures::origin(&command));
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        writeln!(
            text,
            "{} agents report every {} s to the collector ({build} build), on the same cores. \
             Posture: each sends all of it, texts at their longest, every 400 ms beside its reports, \
             ten times as often as an agent delivers at its fastest; {STRANGERS} identities beside \
             them ask up to 200 times a second each, ten times what the collector takes of one, \
             eight at a time that wait for their answers: what came of it is in the table. Backlog: \
             {} agents at once deliver the {} records of {} busy days, each batch as soon as the one \
             before was answered. Readers: {} connections ask for metrics, API and page and never \
             read, from Prometheus' own address too, and come back when they are sent away; \
             {UNREADING} agents never read what they are answered. All the while every agency was \
             connected at every look, every report was taken, no scrape took more than {} s, and \
             nobody was called by the shipped alerts. At the end each of {records} records was found \
             once, as written.\n",
            plan.agents,
            plan.tempo.report_interval().as_secs(),
            plan.backlog_agents,
            busy_days(plan.backlog_days),
            plan.backlog_days,
            plan.readers,
            plan.scrape_within.as_secs(),
        )?;
        text += "| pressure | stood, s | reports taken | slowest report, s | scrapes | slowest \
                 scrape, s | peak memory, MiB | open files at most | what it came to | refused by \
                 the collector |\n|---|---|---|---|---|---|---|---|---|---|\n";
        let mib = |bytes: u64| format!("{:.0}", bytes as f64 / f64::from(1 << 20));
        writeln!(text, "| none | – | – | – | – | – | {} | – | – | – |", mib(*calm_bytes))?;
        for one in endured {
            let rejected: Vec<_> =
                one.rejected.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            writeln!(
                text,
                "| {} | {} | {} | {:.2} | {} | {:.2} | {} | {} | {} | {} |",
                names(&one.pressures),
                one.stood.as_secs(),
                one.reports,
                one.slowest_report.as_secs_f64(),
                one.scrapes,
                one.slowest_scrape.as_secs_f64(),
                mib(one.peak_bytes),
                one.files_max,
                one.came_to().join("; "),
                rejected.join(", ")
            )?;
        }
        Ok(text)
    }
}

impl Endured {
    fn came_to(&self) -> Vec<String> {
        let Done { flooded, backlog: (journals, delivered), delivered_after, http, unread } =
            &self.done;
        let has = |pressure| self.pressures.contains(&pressure);
        let mut told = Vec::new();
        if has(Pressure::Posture) {
            let Flooded { journals: _, agents, strangers } = flooded;
            let of_agents = told_of(agents);
            told.push(format!(
                "posture of agents: {of_agents}; of strangers: {}",
                told_of(strangers)
            ));
        }
        if has(Pressure::Backlog) {
            let records: u64 = journals.iter().map(|journal| journal.acknowledged).sum();
            told.push(format!(
                "backlog: {records} records within {:.0} s, deliveries {}",
                delivered_after.as_secs_f64(),
                told_of(delivered)
            ));
        }
        if has(Pressure::Readers) {
            let [connections, sent_away] = http;
            told.push(format!(
                "readers: {connections} connections, {sent_away} sent away; {unread} gRPC answers \
                 unread"
            ));
        }
        told
    }
}

fn told_of(answered: &Answered) -> String {
    let Answered { acknowledged, refused, failed, slowest } = answered;
    let mut told =
        format!("{acknowledged} acknowledged, the slowest after {:.2} s", slowest.as_secs_f64());
    for (reason, count) in refused {
        told += &format!(", {count} refused ({reason})");
    }
    if *failed > 0 {
        told += &format!(", {failed} not answered");
    }
    told
}
