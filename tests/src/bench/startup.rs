//! How long a start takes, and how much memory, with a store that has grown: agents, a posture
//! each, and a year of transitions. The peer is the Pushgateway with a persisted group an agent.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use haidang_collector::posture::{HeldPosture, Order};
use haidang_collector::store::Store;
use haidang_proto::model::posture::MachineKind;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::pushgateway::{Mode, Pushgateway};
use super::{Figure, Floor, Row};
use crate::collector::CollectorPlan;
use crate::cost::{Cost, peak_bytes};
use crate::exposition::Exposition;
use crate::load;
use crate::program::Program;
use crate::target::Target;
use crate::web::Endpoint;

/// Changes of one agency's state in a day: an office that is switched off and on.
const TRANSITIONS_PER_DAY: usize = 2;
/// With the largest store, on a machine that does other work.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// Between two tries to be answered.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// Series of one group of the peer: the state and the moment of the last word.
const SERIES_PER_GROUP: usize = 2;

/// One start.
#[derive(Debug, Clone, Copy)]
struct Started {
    took: Duration,
    cpu: Duration,
    resident_mib: f64,
    peak_mib: f64,
}

/// Measures with each number of agents; the transitions grow likewise, to so many days' at the
/// largest.
///
/// # Errors
/// When a program does not start, or does not know again what it knew.
pub async fn run(agents: &[usize], days: usize) -> Result<Figure> {
    let largest = agents.iter().copied().max().context("a number of agents is asked for")?;
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for n in agents {
        let directory = tempfile::tempdir().context("make a directory")?;
        let plan = load::collector_plan(&directory)?;
        plan.write_config()?;
        let state = plan.directory.join("state");
        let agencies = load::agencies()?;
        let transitions = agencies.len() * TRANSITIONS_PER_DAY * days * n / largest;
        fill(&state, &agencies, *n, transitions)?;
        let own = product(plan, *n).await?;
        let peer = pushgateway(directory.path(), *n).await?;
        notes.push(format!("{n} agents with {transitions} transitions"));
        let row = |quantity, target, of: fn(Started) -> f64| Row {
            quantity,
            n: *n,
            value: of(own),
            target,
            floor: Floor::Unknown,
            peer: Some((of(peer), format!("{SERIES_PER_GROUP} series a group"))),
        };
        rows.extend([
            row("seconds to the first scrape", Target::NONE, |start| start.took.as_secs_f64()),
            row("CPU-s until then", Target::NONE, |start| start.cpu.as_secs_f64()),
            row("RSS MiB then", Target::NONE, |start| start.resident_mib),
            row("peak RSS MiB", Target::NONE, |start| start.peak_mib),
        ]);
    }
    Ok(Figure {
        title: "Start with a grown store",
        size: "agents",
        peer: "Pushgateway 1.5.1, persisted groups",
        notes: format!(
            "From the start of the process until a scrape is answered that shows every agent as \
             enrolled: {}. Each agent has a posture; the file is in the page cache. The design \
             names no target. The peer reads as many groups back and is asked for its metrics.",
            notes.join(", ")
        ),
        rows,
    })
}

async fn product(plan: CollectorPlan, agents: usize) -> Result<Started> {
    let began = Instant::now();
    let process = Program::start("collector", &mut plan.command(&["serve"]), &plan.directory)?;
    let scrape = first_scrape(&Endpoint::here(plan.http)).await;
    let scrape = scrape.with_context(|| process.last_lines())?;
    let started = started(process.pid(), began)?;
    let enrolled = scrape.find("haidang_agency_agents", &[("stat", "enrolled")]);
    let enrolled = enrolled.map(|sample| sample.value as usize).sum::<usize>();
    ensure!(enrolled == agents, "{agents} agents are in the store and {enrolled} were taken over");
    process.stop().await?;
    Ok(started)
}

async fn pushgateway(directory: &Path, groups: usize) -> Result<Started> {
    let gateway = Pushgateway::start(&Mode::Unchecked, directory).await?;
    gateway.push(groups, groups, SERIES_PER_GROUP).await?;
    Cost::settled(gateway.process.pid()).await?;
    gateway.process.stop().await?;
    let began = Instant::now();
    let gateway = Pushgateway::spawn(&Mode::Unchecked, directory)?;
    let scrape = first_scrape(&Endpoint::here(gateway.address)).await?;
    let started = started(gateway.process.pid(), began)?;
    let held = scrape.find("push_time_seconds", &[]).count();
    ensure!(held == groups, "{groups} groups were persisted and {held} read back");
    gateway.process.stop().await?;
    Ok(started)
}

async fn first_scrape(web: &Endpoint) -> Result<Exposition> {
    let began = Instant::now();
    loop {
        match web.text("/metrics").await {
            Ok(text) => return Exposition::parse(&text),
            Err(error) if began.elapsed() > START_TIMEOUT => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_PERIOD).await,
        }
    }
}

fn started(pid: u32, began: Instant) -> Result<Started> {
    let took = began.elapsed();
    let cost = Cost::of(pid)?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (resident_mib, peak_mib) = (mib(cost.resident_bytes), mib(peak_bytes(pid)?));
    Ok(Started { took, cpu: cost.cpu, resident_mib, peak_mib })
}

/// Fills a store of the product's own schema: what the product would have written one by one.
fn fill(state: &Path, agencies: &[String], agents: usize, transitions: usize) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).create(state);
    made.with_context(|| format!("make {}", state.display()))?;
    let path = state.join("collector.db");
    drop(Store::open(&path)?);
    let mut store = Connection::open(&path).context("open the store")?;
    let now_ms =
        i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
    let posture = serde_json::to_string(&posture())?;
    let transaction = store.transaction()?;
    {
        let mut identity = transaction.prepare(
            "INSERT INTO identities (agent, agency, state, serial, not_after_ms, fingerprint,
                 hostname, token, enrolled_ms, enrolled_from, last_heard_ms, last_verified_ms)
             VALUES (?1, ?2, 'active', ?3, ?4, ?5, ?6, 'bench', ?7, '127.0.0.1', ?7, ?7)",
        )?;
        let mut held = transaction.prepare("INSERT INTO postures (agent, body) VALUES (?1, ?2)")?;
        for number in 0..agents {
            let agent = Uuid::new_v4();
            let agency = &agencies[number % agencies.len()];
            let (serial, fingerprint) = (Uuid::new_v4().into_bytes(), [3_u8; 32]);
            let ends_ms = now_ms + 80 * 86_400_000;
            identity.execute(params![
                agent.to_string(),
                agency,
                serial,
                ends_ms,
                fingerprint,
                format!("pc-{number}"),
                now_ms - 1_000,
            ])?;
            held.execute(params![agent.to_string(), posture])?;
        }
        let mut transition = transaction.prepare(
            "INSERT INTO agency_transitions (agency, at_ms, from_state, to_state, detail)
             VALUES (?1, ?2, ?3, ?4, '')",
        )?;
        let year_ms = 365 * 86_400_000_i64;
        for number in 0..transitions {
            let agency = &agencies[number % agencies.len()];
            let at =
                now_ms - year_ms + year_ms * i64::try_from(number)? / i64::try_from(transitions)?;
            let states = if (number / agencies.len()).is_multiple_of(2) {
                ("connected", "silent")
            } else {
                ("silent", "connected")
            };
            transition.execute(params![agency, at, states.0, states.1])?;
        }
    }
    transaction.commit().context("fill the store")
}

/// A machine that has answered nothing yet but once.
fn posture() -> HeldPosture {
    HeldPosture {
        order: Order { journal: 1, seq: 1 },
        taken_at: SystemTime::now(),
        whole_at: Some(SystemTime::now()),
        machine: MachineKind::Workstation,
        catalogue_version: 1,
        unrecognised: 0,
        updates_pending: Some(3),
        update_pending_since: None,
        signatures_made: None,
        certificate_ends: None,
        answers: Vec::new(),
    }
}
