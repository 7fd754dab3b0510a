//! The store fails while agents report and couriers deliver: it is locked, read-only, its disk is
//! full, fails, hangs or is slow. States, metrics and reports have to go on as if nothing were,
//! nothing may be acknowledged once no room is left for it, the operator has to be told, and when
//! the fault is over all has to be well by itself, with every acknowledged record there, once.
//!
//! A full disk is a real one, in memory (`tmpfs`, needs root). What a disk answers is put into the
//! running collector's system calls by strace(1), so that the product is what is shipped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::Connection;

use crate::collector::{Collector, Tempo};
use crate::duty::Duty;
use crate::figures;
use crate::kills::courier::BATCH_MAX;
use crate::load::couriers::Couriers;
use crate::load::crowd::{Crowd, CrowdPlan, What};
use crate::program::Program;
use crate::wait;

/// Who deliver.
const COURIERS: usize = 4;
/// Between an acknowledgement and a courier's next delivery: as fast as they can they fill the disk
/// by themselves within minutes, and no fault of it would ever end.
const REST: Duration = Duration::from_millis(100);
/// The collector's directory: a full disk is reached soon, and half an hour's records fit.
const DISK: &str = "512m";
/// Share of it that is free at the end of a fault.
const FREE_RATIO_MIN: f64 = 0.25;
/// What a slow disk takes for each sync.
const SLOW_SYNC: Duration = Duration::from_millis(250);
/// A courier's deliveries share commits of two syncs at most, some of them with a checkpoint's.
const SLOW_ACKNOWLEDGEMENT_MAX: Duration = Duration::from_secs(4);
/// Until the fault shows: a write is tried every five seconds, hangs for ten, and a machine may be
/// busy with other things.
const SHOWS_WITHIN: Duration = Duration::from_secs(60);
/// What the operator is told, and within how long: half a minute of patience and, at the end, a
/// minute in which a relapse is no second alert.
const ALERT: &str = "StoreUnavailable";
const CALLED_WITHIN: Duration = Duration::from_secs(120);
/// Until nothing is acknowledged any more: an answer is on its way when the fault shows, and a full
/// disk takes small commits while there is room in the log's last block.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Between two looks at all states.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// What is the matter with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreFault {
    /// Another program holds it for writing, as a backup tool or an operator's shell would.
    Locked,
    /// The file system has turned read-only.
    ReadOnly,
    /// The disk is full.
    Full,
    /// The disk fails to sync.
    Failing,
    /// The disk does not answer.
    Hanging,
    /// The disk takes a quarter of a second for each sync.
    Slow,
}

impl StoreFault {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Locked, Self::ReadOnly, Self::Full, Self::Failing, Self::Hanging, Self::Slow];

    /// The name in figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked by another program",
            Self::ReadOnly => "read-only (EROFS)",
            Self::Full => "disk full (ENOSPC)",
            Self::Failing => "sync fails (EIO)",
            Self::Hanging => "sync hangs",
            Self::Slow => "each sync takes 250 ms",
        }
    }

    fn begin(self, collector: &mut Collector) -> Result<Standing> {
        let directory = &collector.plan.directory;
        Ok(match self {
            Self::Locked => {
                let holder = Connection::open(directory.join("state/collector.db"))?;
                holder.busy_timeout(SHOWS_WITHIN)?;
                holder.execute_batch("BEGIN IMMEDIATE").context("hold the store")?;
                Standing::Held { _holder: holder }
            }
            Self::Full => Standing::Filled(fill(&directory.join("ballast"))?),
            Self::ReadOnly => Standing::injected(collector, "pwrite64,ftruncate:error=EROFS")?,
            Self::Failing => Standing::injected(collector, "fsync,fdatasync:error=EIO")?,
            Self::Hanging => {
                let hour = Duration::from_secs(3_600).as_micros();
                Standing::injected(collector, &format!("fsync,fdatasync:delay_enter={hour}"))?
            }
            Self::Slow => {
                let delay = SLOW_SYNC.as_micros();
                Standing::injected(collector, &format!("fsync,fdatasync:delay_enter={delay}"))?
            }
        })
    }
}

/// A fault that stands until it is ended.
enum Standing {
    Held { _holder: Connection },
    Filled(PathBuf),
    Injected(Program),
}

impl Standing {
    fn injected(collector: &mut Collector, injection: &str) -> Result<Self> {
        let directory = collector.plan.directory.clone();
        let pid = collector.process().pid();
        let (calls, _) = injection.split_once(':').context("calls and what becomes of them")?;
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={injection}"), "-p", &pid.to_string()]);
        let program = Program::start("strace", &mut strace, &directory)
            .context("start strace: apt-get install strace")?;
        Ok(Self::Injected(program))
    }

    async fn end(self) -> Result<()> {
        match self {
            Self::Held { .. } => {}
            Self::Filled(ballast) => fs::remove_file(ballast).context("make room")?,
            // It lets go of the collector, and says that it was asked to.
            Self::Injected(program) => drop(program.stop().await?),
        }
        Ok(())
    }
}

/// Writes a file until nothing more fits.
fn fill(ballast: &Path) -> Result<PathBuf> {
    let mut file = File::create(ballast).context("make the ballast")?;
    for bytes in [1 << 20, 4_096, 1] {
        let block = vec![7; bytes];
        while file.write(&block).is_ok() {}
    }
    Ok(ballast.to_owned())
}

/// A disk in memory, mounted where the collector is to keep everything.
struct DiskInMemory(PathBuf);

impl DiskInMemory {
    fn mount(at: &Path) -> Result<Self> {
        fs::create_dir_all(at).with_context(|| format!("make {}", at.display()))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK},mode=755"), "haidang-test"]).arg(at);
        let status = mount.status().context("start mount")?;
        ensure!(status.success(), "{mount:?}: {status}; a disk in memory needs root");
        Ok(Self(at.to_owned()))
    }

    fn free_ratio(&self) -> Result<f64> {
        let disk = rustix::fs::statvfs(&self.0).context("ask how full the disk is")?;
        Ok(disk.f_bavail as f64 / disk.f_blocks.max(1) as f64)
    }
}

impl Drop for DiskInMemory {
    fn drop(&mut self) {
        // Fails only when it is gone already.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// What is done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The faults, one after another, and for how long each stands once it shows.
    pub faults: Vec<(StoreFault, Duration)>,
    /// Agents that report meanwhile.
    pub agents: usize,
    /// How often.
    pub tempo: Tempo,
    /// Whether Prometheus and Alertmanager look on, and have to call somebody.
    pub on_duty: bool,
}

/// What came of it. [`run`] fails when anything else did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    /// One for each fault.
    pub endured: Vec<Endured>,
    /// Couriers' records, each found once with its content.
    pub records: u64,
}

/// One fault, and its end.
#[derive(Debug, Clone)]
pub struct Endured {
    /// Which.
    pub fault: StoreFault,
    /// How long it stood, from its beginning.
    pub stood: Duration,
    /// Until the metric showed it; a slow store is none that is down.
    pub shown_after: Option<Duration>,
    /// Until somebody was called, where anybody was on duty.
    pub called_after: Option<Duration>,
    /// After the end of the fault, until the metric showed that, and records were acknowledged.
    pub healed_after: Duration,
    /// Records that were acknowledged while it showed.
    pub acknowledged: u64,
    /// Reports that were taken while it stood; none was refused or lost.
    pub reports: usize,
    /// The longest wait while it stood: for a scrape, a report's answer, an acknowledgement.
    pub slowest: [Duration; 3],
}

/// Lets the store fail, and heals it.
///
/// # Errors
/// When a state changes, a report is not taken, something is acknowledged that cannot be durable, a
/// record is lost or there twice, or nothing shows.
pub async fn run(plan: Plan) -> Result<Outcome> {
    let mut disk = None;
    let prepare = |directory: &Path| {
        disk = Some(DiskInMemory::mount(directory)?);
        Ok(())
    };
    let crowd = CrowdPlan { agents: plan.agents, couriers: COURIERS, tempo: plan.tempo };
    let mut crowd = Crowd::gather(crowd, prepare).await?;
    let mut duty = match plan.on_duty {
        true => Some(Duty::begin(crowd.directory(), crowd.collector()?.plan.http).await?),
        false => None,
    };
    let couriers = Couriers::start(&crowd, REST)?;
    couriers.more(0, SHOWS_WITHIN).await?;
    let mut endured = Vec::new();
    for (fault, lasting) in &plan.faults {
        let stood = stand(*fault, *lasting, &mut crowd, &couriers, duty.as_mut()).await;
        endured.push(stood.with_context(|| format!("the store: {}", fault.as_str()))?);
        let free_ratio = disk.as_ref().context("it is mounted")?.free_ratio()?;
        ensure!(free_ratio >= FREE_RATIO_MIN, "{DISK} are too little for what is delivered");
    }
    if let Some(duty) = &mut duty {
        let called = duty.called().await?;
        ensure!(called.iter().all(|name| name == ALERT), "somebody was called: {called:?}");
    }
    let records = couriers.end(crowd, &["connected"]).await?;
    drop(disk);
    Ok(Outcome { plan, endured, records })
}

/// One fault, from its beginning to when all is well.
async fn stand(
    fault: StoreFault,
    lasting: Duration,
    crowd: &mut Crowd,
    couriers: &Couriers,
    mut duty: Option<&mut Duty>,
) -> Result<Endured> {
    couriers.slowest();
    let began = Instant::now();
    let standing = fault.begin(crowd.collector.as_mut().context("it is there")?)?;
    let shown_after = match fault {
        StoreFault::Slow => None,
        _ => Some(shows(crowd.collector()?, 0.0).await?),
    };
    if shown_after.is_some() {
        let before = couriers.acknowledged();
        settles(crowd.collector()?, couriers).await?;
        let under_way = couriers.acknowledged() - before;
        ensure!(
            fault == StoreFault::Full || under_way <= COURIERS as u64 * BATCH_MAX,
            "{under_way} records were acknowledged, more than were under way"
        );
    }
    let before = couriers.acknowledged();
    let called_after = match (&mut duty, shown_after) {
        (Some(duty), Some(_)) => {
            duty.told(ALERT, "firing", CALLED_WITHIN).await?;
            Some(began.elapsed())
        }
        _ => None,
    };
    let shown = Instant::now();
    let mut slowest_scrape = Duration::ZERO;
    while shown.elapsed() < lasting {
        let asked = Instant::now();
        let metrics = crowd.collector()?.metrics().await.context("metrics go on")?;
        slowest_scrape = slowest_scrape.max(asked.elapsed());
        crowd.check_states(&metrics).with_context(|| format!("after {:?}", began.elapsed()))?;
        let up: f64 = metrics.find(STORE_UP, &[]).map(|sample| sample.value).sum();
        ensure!(up == f64::from(u8::from(shown_after.is_none())), "the store shows as {up}");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    let acknowledged = couriers.acknowledged() - before;
    let slowest_acknowledgement = couriers.slowest();
    if shown_after.is_some() {
        ensure!(acknowledged == 0, "{acknowledged} records were acknowledged, and none is durable");
    } else {
        ensure!(acknowledged > 0, "a slow store takes nothing at all");
        ensure!(
            slowest_acknowledgement <= SLOW_ACKNOWLEDGEMENT_MAX,
            "an acknowledgement took {slowest_acknowledgement:?}"
        );
    }
    let (happened, stood) = (crowd.since(began), began.elapsed());
    let ends = Instant::now();
    standing.end().await?;
    shows(crowd.collector()?, 1.0).await?;
    couriers.more(before + acknowledged, SHOWS_WITHIN).await?;
    let healed_after = ends.elapsed();
    crowd.all_connected(SHOWS_WITHIN).await?;
    if let (Some(duty), Some(_)) = (duty, called_after) {
        duty.told(ALERT, "resolved", CALLED_WITHIN).await?;
    }

    let (mut reports, mut slowest_report) = (0, Duration::ZERO);
    for happening in happened {
        let What::Heard { after } = happening.what else {
            bail!("agent {} while the fault stood: {:?}", happening.agent, happening.what)
        };
        reports += 1;
        slowest_report = slowest_report.max(after);
    }
    Ok(Endured {
        fault,
        stood,
        shown_after,
        called_after,
        healed_after,
        acknowledged,
        reports,
        slowest: [slowest_scrape, slowest_report, slowest_acknowledgement],
    })
}

/// The gauge that the operator's alert hangs on.
const STORE_UP: &str = "haidang_collector_store_up";

async fn shows(collector: &Collector, wanted: f64) -> Result<Duration> {
    let ((), took) = wait::until(STORE_UP, SHOWS_WITHIN, || async {
        let metrics = collector.metrics().await.map_err(|error| format!("{error:#}"))?;
        let up: f64 = metrics.find(STORE_UP, &[]).map(|sample| sample.value).sum();
        if up == wanted { Ok(()) } else { Err(up.to_string()) }
    })
    .await?;
    Ok(took)
}

/// Waits until the store has shown as down for a while in which nothing was acknowledged. Whether
/// what was acknowledged until then is durable, the audit at the end tells.
async fn settles(collector: &Collector, couriers: &Couriers) -> Result<()> {
    let mut quiet = (couriers.acknowledged(), Instant::now());
    let began = Instant::now();
    while quiet.1.elapsed() < SETTLED_AFTER {
        ensure!(began.elapsed() < SHOWS_WITHIN, "records go on being acknowledged: {}", quiet.0);
        tokio::time::sleep(LOOK_PERIOD).await;
        let up: f64 = collector.metrics().await?.find(STORE_UP, &[]).map(|one| one.value).sum();
        let acknowledged = couriers.acknowledged();
        if up > 0.0 || acknowledged != quiet.0 {
            quiet = (acknowledged, Instant::now());
        }
    }
    Ok(())
}

impl Outcome {
    /// The section of `benches/RESULTS.md`.
    ///
    /// # Errors
    /// Never; writing to a text cannot fail.
    pub fn section(&self) -> Result<String> {
        let Self { plan, endured, records } = self;
        let mut text = format!(
            "## The store fails under load\n\n{}\n\n",
            figures::origin("haidang-faults store")
        );
        writeln!(
            text,
            "{} agents report every {} s, {COURIERS} couriers deliver, each {} ms after it \
             was acknowledged. While a fault stood no agency's state changed, every report was taken, \
             and nothing was acknowledged from {} s after it showed in `{STORE_UP}`; after it \
             everything was well by itself. The alert \
             `{ALERT}` of the shipped rules was told to a webhook and resolved, and no other one. \
             At the end each of the couriers' {records} records was found once, as written; none was \
             lost or there twice.\n",
            plan.agents,
            plan.tempo.report_interval().as_secs(),
            REST.as_millis(),
            SETTLED_AFTER.as_secs(),
        )?;
        text += "| the store | stood, s | shown after, s | webhook told after, s | well again after, s | acknowledged \
                 meanwhile | reports taken | slowest scrape, s | slowest report, s | slowest \
                 acknowledgement, s |\n|---|---|---|---|---|---|---|---|---|---|\n";
        for one in endured {
            let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
            let [scrape, report, acknowledgement] = one.slowest;
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                one.fault.as_str(),
                one.stood.as_secs(),
                one.shown_after.map_or_else(|| "–".into(), seconds),
                one.called_after.map_or_else(|| "–".into(), seconds),
                seconds(one.healed_after),
                one.acknowledged,
                one.reports,
                seconds(scrape),
                seconds(report),
                seconds(acknowledgement),
            )?;
        }
        Ok(text)
    }
}
