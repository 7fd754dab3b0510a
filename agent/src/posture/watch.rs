//! The thread that makes the passes: it sleeps, has checks made, and hands snapshots to the
//! journal. Nothing waits for it, and it waits for nothing but the disk. `run` starts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::posture::{CheckId, MachineKind, PostureMeasures, Requirements};
use haidang_proto::model::record::Event;
use haidang_proto::model::settings::Settings;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, random};
use crate::config::{Config, DEFAULT_STATE_DIR, Dedicated, Readers};
use crate::durable;
use crate::evidence::Surroundings;
use crate::journal::keeper::Keeper;
use crate::link;
use crate::uplink::Status;

use super::finding::Unknown;
use super::kernel::Kernel;
use super::pass::{Answer, Figures, Guidance, Subject, Workers};
use super::passes::{CheckStanding, Passes};
use super::policy::Policy;
use super::readers::whole::Reader;
use super::updates::Memory;
use super::{Catalogue, Check, checks};

/// Bytes of the memory of updates: some thousand of them.
const MEMORY_BYTES_MAX: u64 = 1 << 20;
/// Age to which what is known of the collector's clock counts; reports come by the second.
const OFFSET_AGE_MAX: Duration = Duration::from_secs(900);
/// The machine's own work comes first (nice(2)); the disk's schedulers follow it.
const NICE: i32 = 19;

/// Everything that the passes work with.
#[derive(Debug)]
pub struct Watch {
    /// The configuration.
    pub config: Arc<Config>,
    /// The clocks.
    pub clock: Clock,
    /// Where snapshots go.
    pub keeper: Keeper,
    /// The settings in force.
    pub settings: watch::Receiver<Settings>,
    /// How the uplink fares: it knows the collector's clock.
    pub uplink: watch::Receiver<Status>,
    /// Where the state of each check is shown.
    pub shown: watch::Sender<Shown>,
    /// Who looks at the machine.
    pub looker: Looker,
}

/// How the checks stood after the last pass.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// On CLOCK_BOOTTIME; `None` before the first.
    pub at: Option<Duration>,
    /// Processor time that this process spent meanwhile; a reader's is not in it.
    pub processor: Duration,
    /// Each check.
    pub standings: Vec<CheckStanding>,
}

/// Who looks at the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looker {
    /// This process, which sees what its user may.
    Agent,
    /// The readers: this process is confined, and what it would see is not the machine.
    Readers,
}

/// A pass that cannot be made at all.
#[derive(Debug, thiserror::Error)]
#[error("the catalogue of checks is damaged; install the agent anew")]
pub struct WatchError(#[from] toml::de::Error);

impl Watch {
    /// Makes passes until it is stopped.
    ///
    /// # Errors
    /// When the program's own data is damaged.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WatchError> {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "posture passes keep the usual priority");
        }
        let within = self.config.posture.first_pass_within;
        let mut passes = Passes::new(self.clock.boottime(), within, random());
        let mut workers = Workers::default();
        let mut reader = Reader::new(&self.config.readers.posture_socket);
        let mut asked = self.settings.borrow_and_update().posture.clone();
        self.tell_ignored(&asked);
        loop {
            let wait = passes.next().saturating_sub(self.clock.boottime());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
                () = changed(&mut self.settings) => {
                    let now_asked = self.settings.borrow_and_update().posture.clone();
                    if now_asked != asked {
                        asked = now_asked;
                        self.tell_ignored(&asked);
                        passes.anew(self.clock.boottime(), within, random());
                    }
                    continue;
                }
            }
            let due = passes.due(self.clock.boottime(), random());
            let begun = self.clock.processor();
            let guidance = self.guidance(&asked);
            let mut take = |answer| passes.take(answer, self.clock.boottime());
            let figures = match self.looker {
                Looker::Agent => {
                    let subject = subject(Some(&self.config), &guidance).await?;
                    self.look(subject, &mut workers, &due, &mut take)
                }
                Looker::Readers => {
                    self.ask(&guidance, &mut workers, &mut reader, &due, &mut take)?
                }
            };
            let (machine, measures) = self.remember(figures);
            let now = self.clock.moment();
            self.shown.send_replace(Shown {
                at: Some(now.boottime),
                processor: self.clock.processor().saturating_sub(begun),
                standings: passes.standings(now.boottime),
            });
            if let Some(snapshot) = passes.snapshot(machine, measures, now.boottime) {
                tracing::info!(results = snapshot.results.len(), "posture changed");
                self.keeper.append(now, Event::Posture(snapshot));
            }
        }
    }

    fn guidance(&self, asked: &Requirements) -> Guidance {
        let since = self.clock.boottime().saturating_sub(OFFSET_AGE_MAX);
        let clock = self.uplink.borrow().clock_offset(since);
        Guidance { requirements: asked.clone(), clock }
    }

    fn tell_ignored(&self, asked: &Requirements) {
        for threshold in self.config.posture.laxer_than(asked) {
            tracing::warn!(
                %threshold,
                asked = asked.threshold(threshold),
                "the configuration asks less than the agency: it has no effect"
            );
        }
    }

    fn look(
        &self,
        subject: Subject,
        workers: &mut Workers,
        due: &[&'static Check],
        take: &mut impl FnMut(Answer),
    ) -> Figures {
        let mut pass = workers.pass(subject);
        for check in due {
            take(pass.make(check));
        }
        pass.figures()
    }

    /// The agent's program and process are what no other process sees as well.
    fn ask(
        &self,
        guidance: &Guidance,
        workers: &mut Workers,
        reader: &mut Reader,
        due: &[&'static Check],
        take: &mut impl FnMut(Answer),
    ) -> Result<Figures, WatchError> {
        let (own, others): (Vec<&'static Check>, Vec<&'static Check>) =
            due.iter().partition(|check| check.id == CheckId::AgentIntegrity);
        let (answers, figures) = reader.ask(&others, guidance);
        answers.into_iter().for_each(&mut *take);
        let not_asked = Unknown::Unsupported("only the readers ask the kernel".into());
        let subject = Subject {
            kernel: Kernel::unanswered(&not_asked),
            state_dir: self.config.state_dir.clone(),
            dedicated_prefixes: None,
            policy: Policy::default(),
            catalogue: Catalogue::load()?,
            now: SystemTime::now(),
            memory: None,
        };
        let mut pass = workers.pass(subject);
        for check in own {
            take(pass.make(check));
        }
        Ok(figures)
    }

    /// Notes when updates were first seen, and adds what that tells.
    fn remember(&self, figures: Figures) -> (MachineKind, PostureMeasures) {
        let Figures { machine, mut measures, updates } = figures;
        if let Some(updates) = updates {
            let path = memory_path(&self.config.state_dir);
            let now = SystemTime::now();
            let mut memory = load_memory(&path).unwrap_or_else(|| Memory::new(now));
            memory.observe(&updates, now);
            measures.security_updates_pending = u32::try_from(updates.len()).ok();
            measures.oldest_security_update_age =
                memory.oldest(&updates, now).map(super::updates::Waiting::known);
            keep_memory(&path, &memory);
        }
        (machine, measures)
    }
}

/// Makes every check once, for a person in front of the machine.
pub fn look(subject: Subject) -> Vec<Answer> {
    let mut workers = Workers::default();
    let mut pass = workers.pass(subject);
    checks().map(|check| pass.make(check)).collect()
}

/// What a pass of this machine is about; without configuration, its order can be looked at all
/// the same.
///
/// # Errors
/// When the program's own data is damaged.
pub async fn subject(config: Option<&Config>, guidance: &Guidance) -> Result<Subject, WatchError> {
    let surroundings = match config {
        Some(config) => surroundings(&config.dedicated).await,
        None => Err(Unknown::Unsupported("the dedicated interface is not configured".into())),
    };
    let readers = config.map_or_else(Readers::default, |config| config.readers.clone());
    let state_dir = config.map_or(Path::new(DEFAULT_STATE_DIR), |config| &config.state_dir);
    let mut kernel = Kernel::ask(surroundings, &readers.netfilter_socket);
    kernel.collector_clock = guidance.clock;
    Ok(Subject {
        kernel,
        state_dir: state_dir.into(),
        dedicated_prefixes: config.map(|config| config.dedicated.local_prefixes.clone()),
        policy: config
            .map_or_else(Policy::default, |config| config.posture.clone())
            .under(&guidance.requirements),
        catalogue: Catalogue::load()?,
        now: SystemTime::now(),
        memory: load_memory(&memory_path(state_dir)),
    })
}

/// Waits for other settings; for ever, once nobody can send any.
async fn changed(settings: &mut watch::Receiver<Settings>) {
    if settings.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What rtnetlink says of the dedicated interface's surroundings.
async fn surroundings(dedicated: &Dedicated) -> Result<Surroundings, Unknown> {
    let snapshot = link::Kernel::new().snapshot(dedicated, &[]).await;
    if snapshot.index.is_none() && snapshot.link.surroundings.is_ok() {
        return Err(Unknown::Absent { what: "the dedicated interface".into() });
    }
    snapshot
        .link
        .surroundings
        .map_err(|fault| Unknown::Unreadable { what: "rtnetlink".into(), problem: fault.0 })
}

fn memory_path(state_dir: &Path) -> PathBuf {
    state_dir.join("updates-seen.json")
}

/// `None` where there is none or it cannot be read: ages are then not known.
fn load_memory(path: &Path) -> Option<Memory> {
    let bytes = durable::read(path, MEMORY_BYTES_MAX).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn keep_memory(path: &Path, memory: &Memory) {
    let json = serde_json::to_vec(memory).map_err(std::io::Error::other);
    if let Err(error) = json.and_then(|json| durable::replace(path, &json, 0o644)) {
        tracing::warn!(path = %path.display(), %error, "first sights of updates are not kept");
    }
}
