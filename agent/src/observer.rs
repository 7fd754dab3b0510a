//! The observer: one probe cycle after another, judged at once.
//!
//! It runs on a current-thread runtime of its own, because a busy uplink must not look like a bad
//! path. What it finds goes to the journal, without waiting, and to the present state.

use std::sync::Arc;
use std::time::Duration;

use haidang_proto::model::settings::Settings;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, random};
use crate::config::Config;
use crate::connectivity::Detector;
use crate::evidence::Cycle;
use crate::journal::keeper::Keeper;
use crate::link::Changes;
use crate::live::Live;
use crate::probe::Prober;
use crate::schedule::{CyclePlan, Schedule};
use crate::uplink::{Roots, chain};

/// Wait before another subscription to the kernel's events: cycles go on by the clock meanwhile.
const SUBSCRIBE_PAUSE: Duration = Duration::from_secs(60);

/// Everything that the observer works with.
#[derive(Debug)]
pub struct Observer {
    /// The configuration.
    pub config: Arc<Config>,
    /// The clocks.
    pub clock: Clock,
    /// Fixes the phase of the cycles.
    pub fingerprint: [u8; 32],
    /// Where transitions go.
    pub keeper: Keeper,
    /// Where the present state goes.
    pub live: Live,
    /// The settings in force.
    pub settings: watch::Receiver<Settings>,
    /// The certificate authorities in force.
    pub roots: watch::Receiver<Roots>,
    /// Made with these authorities.
    pub prober: Prober,
}

impl Observer {
    /// Observes until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let settings = self.settings.borrow_and_update().clone();
        let mut schedule = Schedule::new(
            settings,
            self.config.verdict.path_mtu_period,
            &self.fingerprint,
            self.clock.boottime(),
        );
        let mut detector =
            Detector::new(&self.config.verdict, &self.config.dedicated, self.clock.now())
                .declaring(&self.config.posture.permitted_interfaces);
        let mut events = KernelEvents::subscribe();
        loop {
            let wait = schedule.next().saturating_sub(self.clock.boottime());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = events.next() => {
                    schedule.kernel_event(self.clock.boottime());
                    continue;
                }
                () = changed(&mut self.settings) => {
                    let settings = self.settings.borrow_and_update().clone();
                    schedule.apply(settings, self.clock.boottime());
                    continue;
                }
                () = changed(&mut self.roots) => {
                    self.renew_prober();
                    continue;
                }
            }
            let started = self.clock.moment();
            let plan = schedule.begin(started.boottime);
            let cycle = tokio::select! {
                () = stop.cancelled() => return,
                cycle = look(&mut self.prober, plan, &mut events, &mut schedule, self.clock) => cycle,
            };
            let now = self.clock.now();
            let before = detector.verdict();
            let found = detector.observe(&cycle, started, now);
            schedule.finish(detector.outlook(), now.moment.boottime, random());
            if detector.verdict() != before {
                let (from, to) = (before, detector.verdict());
                tracing::info!(
                    from = from.state(),
                    to = to.state(),
                    cause = to.cause(),
                    "verdict changed"
                );
            }
            for event in found {
                self.keeper.append(now.moment, event);
            }
            let quality = detector.take_quality();
            self.live.surround(detector.surroundings().to_vec());
            self.live.observe(
                detector.verdict(),
                detector.verdict_since(),
                detector.proved_at(),
                detector.flags(),
                detector.evidence(),
                &quality,
            );
        }
    }

    /// New authorities reach the probes. A service's own `ca_file` may have gone since the start:
    /// old authorities are better than an agent that sees nothing.
    fn renew_prober(&mut self) {
        let roots = Arc::clone(&self.roots.borrow_and_update());
        match Prober::new(&self.config, &roots) {
            Ok(prober) => self.prober = prober,
            Err(error) => {
                tracing::error!(error = chain(&error), "probes keep the former authorities");
            }
        }
    }
}

/// Runs a cycle, and notes kernel events that come meanwhile: it may have missed what they are
/// about.
async fn look(
    prober: &mut Prober,
    plan: CyclePlan,
    events: &mut KernelEvents,
    schedule: &mut Schedule,
    clock: Clock,
) -> Cycle {
    let mut cycle = std::pin::pin!(prober.cycle(plan));
    loop {
        tokio::select! {
            cycle = &mut cycle => return cycle,
            () = events.next() => schedule.kernel_event(clock.boottime()),
        }
    }
}

/// The subscription, renewed when it breaks.
struct KernelEvents {
    changes: Option<Changes>,
    subscribe_at: Instant,
}

impl KernelEvents {
    fn subscribe() -> Self {
        let changes = match Changes::subscribe() {
            Ok(changes) => Some(changes),
            Err(error) => {
                tracing::warn!(error = chain(&error), "cycles start by the clock alone");
                None
            }
        };
        Self { changes, subscribe_at: Instant::now() + SUBSCRIBE_PAUSE }
    }

    /// Waits for an event; a new subscription counts as one. Cancel-safe.
    async fn next(&mut self) {
        let Some(changes) = &mut self.changes else {
            tokio::time::sleep_until(self.subscribe_at).await;
            *self = Self::subscribe();
            return;
        };
        if let Err(error) = changes.next().await {
            tracing::warn!(error = chain(&error), "kernel events are lost for a while");
            self.changes = None;
            self.subscribe_at = Instant::now() + SUBSCRIBE_PAUSE;
        }
    }
}

/// Waits for a change; for ever once whoever writes is gone, which the stop signal follows.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
