//! The running agent: the only place that spawns.
//!
//! Four threads. The main one runs uplink and status socket on a current-thread runtime; one
//! runs the probes on another, so that nothing delays them; one waits for the disk on behalf of
//! the journal; one, of low priority, makes the posture passes, by threads that `posture::pass`
//! starts and a dead file server may keep. They end in the order observer and uplink (with its
//! goodbye), then journal, whose mark of a clean stop comes last. One that ends early is an error.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use haidang_proto::model::record::Event;
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::host;
use crate::identity::{IdentityError, Store};
use crate::journal::keeper::{self, Keeper};
use crate::journal::{Journal, JournalError};
use crate::live::Live;
use crate::observer::Observer;
use crate::posture::watch::{Looker, Shown, Watch};
use crate::probe::{Prober, ProberError};
use crate::report::{Process, VERSION};
use crate::settings;
use crate::status::{self, Document};
use crate::uplink::{Outlets, Parts, Uplink, chain};

/// A stop takes so long at most: the goodbye has two seconds of it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
/// Stack of a thread; probes and journal go a few calls deep.
const STACK_BYTES: usize = 1 << 20;

/// An agent that cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory.
    #[error("cannot use the state directory {}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// The journal.
    #[error("cannot use the journal")]
    Journal(#[source] JournalError),
    /// The system.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is to be probed.
    #[error("cannot probe what the configuration names")]
    Targets(#[source] ProberError),
    /// The random source.
    #[error("the kernel gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// A part ended before it was told to.
    #[error("the {0} ended early; see the log")]
    EndedEarly(&'static str),
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a part of it ends early.
pub fn run(config: Config, looker: Looker) -> Result<(), RunError> {
    let config = Arc::new(config);
    let clock = Clock::new();
    let store = Store::new(&config.state_dir);
    let state_failed = |source| RunError::State { path: config.state_dir.clone(), source };
    let instance = store.instance().map_err(state_failed)?;
    store.keep_instance(&instance).map_err(state_failed)?;
    let fingerprint = instance.fingerprint(&host::machine_id());
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(RunError::Random)?;

    let journal = Journal::open(&config.state_dir.join("journal"), &config.journal)
        .map_err(RunError::Journal)?;
    if journal.torn_tails() > 0 {
        tracing::info!("the journal's last write was interrupted, and cut off");
    }
    let started = Event::Started {
        agent_version: VERSION.into(),
        previous_stop_was_clean: journal.previous_stop_was_clean(),
    };
    let (keeper, requests) = keeper::channel(&journal);
    keeper.append(clock.moment(), started);
    let live = Live::new(clock.moment());
    let (uplink, outlets) = Uplink::new(Parts {
        config: Arc::clone(&config),
        store,
        clock,
        keeper: keeper.clone(),
        live: live.clone(),
        process: Process { nonce, fingerprint },
        settings: settings::load(&config.state_dir),
    });
    let Outlets { settings, roots, status } = outlets;
    let prober = Prober::new(&config, &roots.borrow()).map_err(RunError::Targets)?;
    let observer = Observer {
        config: Arc::clone(&config),
        clock,
        fingerprint,
        keeper: keeper.clone(),
        live: live.clone(),
        settings: settings.clone(),
        roots,
        prober,
    };
    let (shown, posture) = watch::channel(Shown::default());
    let watch = Watch {
        config: Arc::clone(&config),
        clock,
        keeper: keeper.clone(),
        settings: settings.clone(),
        shown,
        looker,
        uplink: status.clone(),
    };
    let begun = Instant::now();
    let running = Running { config, clock, live, keeper, settings, status, posture, begun };

    let stop = CancellationToken::new();
    let main = runtime()?;
    let probes = runtime()?;
    let journal = spawn("journal", move || keeper::keep(journal, requests))?;
    let (observer_ended, observer_end) = oneshot::channel();
    let told = stop.clone();
    let observer = spawn("probes", move || {
        probes.block_on(observer.run(told));
        // Nobody listens once the agent stops.
        let _ = observer_ended.send(());
    })?;
    let passes = runtime()?;
    let told = stop.clone();
    // Whoever stops the agent does not wait for a disk that hangs: this thread is not joined.
    spawn("posture", move || {
        if let Err(error) = passes.block_on(watch.run(told)) {
            tracing::error!(error = chain(&error), "no posture passes are made");
        }
    })?;
    let outcome = main.block_on(running.until_stopped(uplink, observer_end, stop.clone()));
    stop.cancel();
    for thread in [observer, journal] {
        if thread.join().is_err() {
            tracing::error!("a thread panicked");
        }
    }
    outcome
}

struct Running {
    config: Arc<Config>,
    clock: Clock,
    live: Live,
    keeper: Keeper,
    settings: watch::Receiver<haidang_proto::model::settings::Settings>,
    status: watch::Receiver<crate::uplink::Status>,
    posture: watch::Receiver<Shown>,
    begun: Instant,
}

impl Running {
    async fn until_stopped(
        self,
        uplink: Uplink,
        observer: oneshot::Receiver<()>,
        stop: CancellationToken,
    ) -> Result<(), RunError> {
        let failed = |action| move |source| RunError::System { action, source };
        let listen = |kind| signal(kind).map_err(failed("listen for signals"));
        let (mut terminate, mut interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let mut tasks = JoinSet::new();
        tasks.spawn(uplink.run(stop.clone()));
        self.serve_status(&mut tasks, &stop);
        notify(NotifyState::Ready);
        tracing::info!(version = VERSION, state_dir = %self.config.state_dir.display(), "running");

        let outcome = tokio::select! {
            () = received(&mut terminate) => Ok(()),
            () = received(&mut interrupt) => Ok(()),
            _ = tasks.join_next() => Err(RunError::EndedEarly("uplink or status socket")),
            _ = observer => Err(RunError::EndedEarly("observer")),
            () = self.keeper.closed() => Err(RunError::EndedEarly("journal")),
        };
        notify(NotifyState::Stopping);
        tracing::info!("stopping");
        stop.cancel();
        let drained = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("a task did not end in time");
        }
        // A stop after a failure is none of the clean ones.
        if outcome.is_ok() && tokio::time::timeout(DRAIN_TIMEOUT, self.keeper.stop()).await.is_err()
        {
            tracing::warn!("the disk did not take the mark of a clean stop in time");
        }
        outcome
    }

    /// Without the socket the agent does its work all the same.
    fn serve_status(&self, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        let path = &self.config.status_socket;
        let listener = match status::listen(path) {
            Ok(listener) => listener,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "no status socket; status cannot be asked");
                return;
            }
        };
        let (live, keeper, begun) = (self.live.clone(), self.keeper.clone(), self.begun);
        let (settings, status) = (self.settings.clone(), self.status.clone());
        let (posture, clock) = (self.posture.clone(), self.clock);
        let document = move || {
            let (status, settings) = (status.borrow().clone(), settings.borrow().clone());
            let uptime = begun.elapsed();
            Document::new(live.view(), status, keeper.status(), &settings, uptime)
                .with_posture(&posture.borrow(), clock.boottime())
        };
        tasks.spawn(status::serve(listener, document, stop.clone()));
    }
}

fn spawn(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, RunError> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map_err(|source| RunError::System { action: "start a thread", source })
}

/// A current-thread runtime.
///
/// # Errors
/// When the system refuses.
pub fn runtime() -> Result<Runtime, RunError> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_stack_size(STACK_BYTES)
        .build()
        .map_err(|source| RunError::System { action: "start a runtime", source })
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Tells systemd; where there is none, nobody.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd not told");
    }
}
