//! One pass: checks made one by one, each with a deadline that holds even where the kernel never
//! answers.
//!
//! A read from a network file system whose server is gone does not return, and no signal ends it.
//! Checks are therefore made on a thread of their own. One that does not answer in time is
//! unknown, its thread is given up, and the next check gets a new one; as long as the old thread
//! hangs, its check is not tried again. [`Workers`] outlives a pass, because hanging threads do.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use haidang_proto::model::posture::{CheckId, MachineKind, Outcome, PostureMeasures, Requirements};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::{settings, status};

use super::continuity::certificate_remaining;
use super::finding::{Unknown, reported};
use super::kernel::Kernel;
use super::kernel_clock::ClockOffset;
use super::malware::signatures_built;
use super::policy::Policy;
use super::root::Root;
use super::updates::{Memory, Update};
use super::{Catalogue, Check, Evidence, Sources, Tier};

/// A whole pass; a sound one takes a second.
pub const PASS_MAX: Duration = Duration::from_secs(120);
/// What a check's own look at its deadline is given before its thread is given up.
const GRACE: Duration = Duration::from_millis(500);
/// Threads that may hang at once; the unit's `TasksMax` is four times as many.
const STUCK_MAX: usize = 8;
/// Stack of a thread; the parsers go a few calls deep.
const STACK_BYTES: usize = 1 << 20;

/// What a pass is about: what was asked beforehand, and what it is judged by.
#[derive(Debug)]
pub struct Subject {
    /// See [`Evidence::kernel`].
    pub kernel: Kernel,
    /// See [`Evidence::state_dir`].
    pub state_dir: PathBuf,
    /// See [`Evidence::dedicated_prefixes`].
    pub dedicated_prefixes: Option<Vec<IpNet>>,
    /// See [`Evidence::policy`].
    pub policy: Policy,
    /// See [`Evidence::catalogue`].
    pub catalogue: Catalogue,
    /// See [`Evidence::now`].
    pub now: SystemTime,
    /// See [`Evidence::memory`].
    pub memory: Option<Memory>,
}

/// What the agent knows from its collector and a pass is judged by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guidance {
    /// What the agency's machines are asked for.
    pub requirements: Requirements,
    /// How far this machine's clock is ahead of the collector's, where that is known.
    pub clock: Option<ClockOffset>,
}

impl Guidance {
    /// From the settings that were kept, and from the agent, where it runs: it knows the
    /// collector's clock.
    pub fn kept(config: &Config) -> Self {
        let running = status::ask(&config.status_socket).ok();
        let clock = running.and_then(|document| document.uplink.clock_offset());
        Self { requirements: settings::load(&config.state_dir).posture, clock }
    }
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
    /// How long that took.
    pub took: Duration,
}

impl Answer {
    /// The answer of a check that was not made.
    pub fn unknown(check: CheckId, why: Unknown, took: Duration) -> Self {
        let (outcome, observed) = reported(&Err(why));
        Self { check, outcome, observed, took }
    }
}

/// What stands beside the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// What sort of machine it is.
    pub machine: MachineKind,
    /// Figures that need no memory of former passes.
    pub measures: PostureMeasures,
    /// Security updates that are not installed, when a check of this pass asked.
    pub updates: Option<Vec<Update>>,
}

impl Figures {
    /// Nothing is known; a machine of unknown kind is forgiven least.
    pub fn unknown() -> Self {
        Self { machine: MachineKind::Server, measures: PostureMeasures::default(), updates: None }
    }
}

/// Threads that make checks, and those that hang.
#[derive(Debug, Default)]
pub struct Workers {
    stuck: Vec<Stuck>,
}

/// A thread that was given up.
#[derive(Debug)]
struct Stuck {
    task: Task,
    /// Gone once the thread has ended after all.
    lives: Weak<()>,
}

/// What a thread was busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Check(CheckId),
    Figures,
}

type Job = Box<dyn FnOnce(&Evidence<'_>) + Send>;

#[derive(Debug)]
struct Worker {
    jobs: SyncSender<Job>,
    lives: Weak<()>,
}

impl Workers {
    /// Begins a pass.
    pub fn pass(&mut self, subject: Subject) -> Pass<'_> {
        self.forget_ended();
        Pass {
            workers: self,
            subject: Arc::new(subject),
            worker: None,
            updates: None,
            ends: Instant::now() + PASS_MAX,
        }
    }

    /// Threads that hang now.
    pub fn stuck(&mut self) -> usize {
        self.forget_ended();
        self.stuck.len()
    }

    fn forget_ended(&mut self) {
        self.stuck.retain(|stuck| stuck.lives.strong_count() > 0);
    }

    fn hangs(&self, task: Task) -> bool {
        self.stuck.iter().any(|stuck| stuck.task == task && stuck.lives.strong_count() > 0)
    }
}

/// A pass that is being made. What its checks read in common is forgotten with it.
#[derive(Debug)]
pub struct Pass<'a> {
    workers: &'a mut Workers,
    subject: Arc<Subject>,
    worker: Option<Worker>,
    updates: Option<Vec<Update>>,
    ends: Instant,
}

impl Pass<'_> {
    /// Makes a check. Takes half a second longer than its tier's deadline at most.
    pub fn make(&mut self, check: &'static Check) -> Answer {
        let begun = Instant::now();
        let made = self.order(Task::Check(check.id), check.tier, move |evidence| {
            let begun = Instant::now();
            let (outcome, observed) = reported(&check.judge(evidence));
            let answer = Answer { check: check.id, outcome, observed, took: begun.elapsed() };
            let asks_updates = check.id == CheckId::SecurityUpdatesPending;
            let updates = asks_updates.then(|| evidence.pending_updates_read()).flatten();
            (answer, updates.map(<[_]>::to_vec))
        });
        match made {
            Ok((answer, updates)) => {
                self.updates = updates.or(self.updates.take());
                answer
            }
            Err(unknown) => Answer::unknown(check.id, unknown, begun.elapsed()),
        }
    }

    /// The figures, after the checks.
    pub fn figures(mut self) -> Figures {
        let read = self.order(Task::Figures, Tier::T1, |evidence| {
            let root = &evidence.root;
            root.allow(Tier::T1.deadline());
            (machine(root), measures(root, evidence.state_dir, evidence.now))
        });
        let updates = self.updates.take();
        match read {
            Ok((machine, measures)) => Figures { machine, measures, updates },
            Err(_) => Figures { updates, ..Figures::unknown() },
        }
    }

    /// Has a thread do something within the tier's deadline.
    fn order<T: Send + 'static>(
        &mut self,
        task: Task,
        tier: Tier,
        work: impl FnOnce(&Evidence<'_>) -> T + Send + 'static,
    ) -> Result<T, Unknown> {
        let budget = tier.deadline();
        if self.workers.hangs(task) || Instant::now() >= self.ends {
            return Err(Unknown::TimedOut(budget));
        }
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.hire(budget)?,
        };
        let (reply, answer) = sync_channel(1);
        let job = move |evidence: &Evidence<'_>| {
            // Nobody listens any more to a thread that was given up.
            let _ = reply.send(work(evidence));
        };
        let ended_early = || Unknown::Unreadable {
            what: "the check".into(),
            problem: "ended early; the agent's log says why".into(),
        };
        worker.jobs.send(Box::new(job)).map_err(|_| ended_early())?;
        match answer.recv_timeout(budget + GRACE) {
            Ok(value) => {
                self.worker = Some(worker);
                Ok(value)
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(?task, "a read hangs in the kernel; its thread is given up");
                self.workers.stuck.push(Stuck { task, lives: worker.lives });
                Err(Unknown::TimedOut(budget))
            }
            Err(RecvTimeoutError::Disconnected) => Err(ended_early()),
        }
    }

    fn hire(&mut self, budget: Duration) -> Result<Worker, Unknown> {
        if self.workers.stuck() >= STUCK_MAX {
            return Err(Unknown::TimedOut(budget));
        }
        let (jobs, orders) = sync_channel(1);
        let alive = Arc::new(());
        let lives = Arc::downgrade(&alive);
        let subject = Arc::clone(&self.subject);
        let work = move || {
            let _alive = alive;
            obey(&subject, &orders);
        };
        let thread = thread::Builder::new().name("check".into()).stack_size(STACK_BYTES);
        thread.spawn(work).map_err(|error| Unknown::Unreadable {
            what: "a thread for the check".into(),
            problem: error.to_string(),
        })?;
        Ok(Worker { jobs, lives })
    }
}

/// Does jobs until the pass ends or gives this thread up.
fn obey(subject: &Subject, orders: &Receiver<Job>) {
    let root = match Root::open(Path::new("/")) {
        Ok(root) => root,
        Err(unknown) => {
            tracing::error!(%unknown, "no check can be made");
            return;
        }
    };
    let evidence = Evidence::new(Sources {
        root,
        kernel: &subject.kernel,
        state_dir: &subject.state_dir,
        dedicated_prefixes: subject.dedicated_prefixes.as_deref(),
        policy: &subject.policy,
        catalogue: &subject.catalogue,
        now: subject.now,
        memory: subject.memory.as_ref(),
    });
    for job in orders {
        job(&evidence);
    }
}

/// Figures beside the checks; what cannot be read is not known.
fn measures(root: &Root, state_dir: &Path, now: SystemTime) -> PostureMeasures {
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

#[cfg(test)]
mod tests {
    use haidang_proto::model::posture::UnknownReason;

    use super::*;
    use crate::posture::finding::{Finding, Judged};

    fn subject() -> Subject {
        Subject {
            kernel: Kernel::unanswered(&Unknown::Unsupported("not asked".into())),
            state_dir: "/nonexistent".into(),
            dedicated_prefixes: None,
            policy: Policy::default(),
            catalogue: Catalogue::load().unwrap(),
            now: SystemTime::now(),
            memory: None,
        }
    }

    /// Reads a FIFO as no [`Root`] does: the open returns when somebody writes.
    fn hangs(_: &Evidence<'_>) -> Judged {
        std::fs::read(fifo()).map(|_| Finding::Pass("read".into())).map_err(|error| {
            Unknown::Unreadable { what: "FIFO".into(), problem: error.to_string() }
        })
    }

    fn answers(_: &Evidence<'_>) -> Judged {
        Ok(Finding::Pass("read".into()))
    }

    fn panics(_: &Evidence<'_>) -> Judged {
        panic!("on purpose")
    }

    fn fifo() -> PathBuf {
        std::env::temp_dir().join(format!("haidang-pass-{}.fifo", std::process::id()))
    }

    static HANGING: Check = Check::new(CheckId::IpForwarding, Tier::T0, hangs);
    static SOUND: Check = Check::new(CheckId::TimeSynchronised, Tier::T0, answers);
    static BROKEN: Check = Check::new(CheckId::RebootRequired, Tier::T0, panics);

    #[test]
    fn a_read_that_never_returns_costs_its_own_check_and_is_not_tried_while_it_hangs() {
        let path = fifo();
        let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
        nix::unistd::mkfifo(&path, mode).unwrap();
        let timeout = Outcome::Unknown(UnknownReason::Timeout);
        let mut workers = Workers::default();
        for _ in 0..3 {
            let mut pass = workers.pass(subject());
            assert_eq!(pass.make(&SOUND).outcome, Outcome::Pass);
            assert_eq!(pass.make(&HANGING).outcome, timeout);
            assert_eq!(pass.make(&SOUND).outcome, Outcome::Pass);
            assert_eq!(pass.figures().updates, None);
            assert_eq!(workers.stuck(), 1, "one thread hangs, however often it was its turn");
        }
        // Whoever opens it for writing lets the reader go.
        drop(std::fs::OpenOptions::new().write(true).open(&path).unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while workers.stuck() > 0 {
            assert!(Instant::now() < deadline, "the thread ends once its read returns");
            thread::yield_now();
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_check_that_panics_is_unknown_and_the_next_one_is_made() {
        let mut workers = Workers::default();
        let mut pass = workers.pass(subject());
        let broken = pass.make(&BROKEN);
        assert_eq!(broken.outcome, Outcome::Unknown(UnknownReason::Unsupported));
        assert_eq!(pass.make(&SOUND).outcome, Outcome::Pass);
        assert_eq!(workers.stuck(), 0);
    }
}
