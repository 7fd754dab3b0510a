//! The thread that makes the passes: it sleeps, reads, judges, and hands snapshots to the journal.
//! Nothing waits for it, and it waits for nothing but the disk. `run` starts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use haidang_proto::model::posture::{CheckId, MachineKind, Outcome, PostureMeasures};
use haidang_proto::model::record::Event;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, random};
use crate::config::{Config, Dedicated};
use crate::durable;
use crate::evidence::Surroundings;
use crate::journal::keeper::Keeper;
use crate::link;

use super::continuity::certificate_remaining;
use super::finding::{Unknown, reported};
use super::kernel::Kernel;
use super::malware::signatures_built;
use super::passes::Passes;
use super::policy::Policy;
use super::root::Root;
use super::updates::Memory;
use super::{Catalogue, Check, Evidence, Sources};

/// Bytes of the memory of updates: some thousand of them.
const MEMORY_BYTES_MAX: u64 = 1 << 20;
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
}

/// A pass that cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The data blocks of the program.
    #[error("the catalogue of checks is damaged; install the agent anew")]
    Catalogue(#[source] toml::de::Error),
    /// The root directory.
    #[error("cannot open /: {0}")]
    Root(Unknown),
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The check.
    pub check: CheckId,
    /// What it found.
    pub outcome: Outcome,
    /// What was seen.
    pub observed: String,
    /// How long it took.
    pub took: Duration,
}

impl Watch {
    /// Makes passes until it is stopped.
    ///
    /// # Errors
    /// When the program's own data is damaged or there is no root directory.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WatchError> {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "posture passes keep the usual priority");
        }
        let mut passes = Passes::new(self.clock.boottime(), random());
        loop {
            let wait = passes.next().saturating_sub(self.clock.boottime());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            let due = passes.due(self.clock.boottime(), random());
            let (machine, measures) = self.pass(&due, &mut passes).await?;
            let now = self.clock.moment();
            if let Some(snapshot) = passes.snapshot(machine, measures, now.boottime) {
                tracing::info!(results = snapshot.results.len(), "posture changed");
                self.keeper.append(now, Event::Posture(snapshot));
            }
        }
    }

    async fn pass(
        &self,
        due: &[&'static Check],
        passes: &mut Passes,
    ) -> Result<(MachineKind, PostureMeasures), WatchError> {
        let catalogue = Catalogue::load().map_err(WatchError::Catalogue)?;
        let root = Root::open(Path::new("/")).map_err(WatchError::Root)?;
        let dedicated = &self.config.dedicated;
        let path = memory_path(&self.config.state_dir);
        let mut memory = load_memory(&path);
        let now = SystemTime::now();
        let kernel = Kernel::ask(surroundings(dedicated).await);
        let evidence = Evidence::new(Sources {
            root: root.clone(),
            kernel: &kernel,
            state_dir: &self.config.state_dir,
            dedicated_prefixes: Some(&dedicated.local_prefixes),
            policy: &self.config.posture,
            catalogue: &catalogue,
            now,
            memory: memory.as_ref(),
        });
        for check in due {
            let Answer { check, outcome, observed, took } = make(check, &evidence);
            passes.take(check, (outcome, observed), self.clock.boottime(), took);
        }
        let updates = evidence.pending_updates_read().map(<[_]>::to_vec);
        let mut measures = measures(&root, &self.config.state_dir, now);
        drop(evidence);
        if let Some(updates) = updates {
            let memory = memory.get_or_insert_with(|| Memory::new(now));
            memory.observe(&updates, now);
            measures.security_updates_pending = u32::try_from(updates.len()).ok();
            measures.oldest_security_update_age =
                memory.oldest(&updates, now).map(super::updates::Waiting::known);
            keep_memory(&path, memory);
        }
        Ok((machine(&root), measures))
    }
}

/// Makes every check once, for a person in front of the machine.
///
/// # Errors
/// When the program's own data is damaged or there is no root directory.
pub fn look(
    policy: &Policy,
    dedicated_prefixes: Option<&[IpNet]>,
    surroundings: Result<Surroundings, Unknown>,
    state_dir: &Path,
    catalogue: &Catalogue,
) -> Result<Vec<Answer>, WatchError> {
    let memory = load_memory(&memory_path(state_dir));
    let kernel = Kernel::ask(surroundings);
    let evidence = Evidence::new(Sources {
        root: Root::open(Path::new("/")).map_err(WatchError::Root)?,
        kernel: &kernel,
        state_dir,
        dedicated_prefixes,
        policy,
        catalogue,
        now: SystemTime::now(),
        memory: memory.as_ref(),
    });
    Ok(super::checks().map(|check| make(check, &evidence)).collect())
}

/// What rtnetlink says of the dedicated interface's surroundings.
pub async fn surroundings(dedicated: &Dedicated) -> Result<Surroundings, Unknown> {
    let snapshot = link::Kernel::new().snapshot(dedicated, &[]).await;
    if snapshot.index.is_none() && snapshot.link.surroundings.is_ok() {
        return Err(Unknown::Absent { what: "the dedicated interface".into() });
    }
    snapshot
        .link
        .surroundings
        .map_err(|fault| Unknown::Unreadable { what: "rtnetlink".into(), problem: fault.0 })
}

fn make(check: &Check, evidence: &Evidence<'_>) -> Answer {
    let begun = Instant::now();
    let (outcome, observed) = reported(&check.judge(evidence));
    Answer { check: check.id, outcome, observed, took: begun.elapsed() }
}

/// Figures beside the checks; what cannot be read is not known.
fn measures(root: &Root, state_dir: &Path, now: SystemTime) -> PostureMeasures {
    root.allow(super::Tier::T0.deadline());
    let signatures = signatures_built(root).ok().flatten();
    PostureMeasures {
        security_updates_pending: None,
        oldest_security_update_age: None,
        malware_signature_age: signatures.and_then(|built| now.duration_since(built).ok()),
        certificate_remaining: certificate_remaining(root, state_dir, now).ok().flatten(),
    }
}

/// A machine with a desktop is somebody's PC; less is forgiven to what is not known.
fn machine(root: &Root) -> MachineKind {
    root.allow(super::Tier::T0.deadline());
    let has_sessions = |directory: &str| {
        matches!(root.names(directory), Ok(Some(names))
        if names.iter().any(|name| name.ends_with(".desktop")))
    };
    if has_sessions("/usr/share/xsessions") || has_sessions("/usr/share/wayland-sessions") {
        MachineKind::Workstation
    } else {
        MachineKind::Server
    }
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
