//! The life of an enrolled agent's connection: connect, report on the beat, renew, deliver, and
//! do it again elsewhere when it fails.
//!
//! One thing at a time, in the order of its worth: the present state first, then the identity,
//! then the backlog at a capped rate. Attempts to connect and deliveries run beside: the liveness
//! path waits for the data path neither at the collector nor at this machine's disk, and a delivery
//! that fails never costs the connection. Every call has a deadline.

pub(super) mod delivery;
mod identity;
pub(super) mod reporting;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::goodbye::{Goodbye, GoodbyeReason};
use haidang_proto::model::settings::Settings;
use haidang_proto::model::verdict::Family;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::delivery::Delivering;
use super::backoff;
use super::choice::{Choice, Target, Way};
use super::renewal::Renewal;
use super::retry::Retry;
use super::session::Session;
use super::{ConnectError, Uplink, chain, connector};
use crate::clock::random;
use crate::identity::{Identity, IdentityError};

/// A change of verdict or flags is reported at once, but not more often than this.
const REPORT_GAP_MIN: Duration = Duration::from_secs(1);
/// Longest sleep, so that an identity which changed on disk is noticed.
const NAP_MAX: Duration = Duration::from_secs(5);

/// Why a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The agent stops.
    Stopped,
    /// There is another identity on disk.
    Enrolled,
    /// The collector revoked this one.
    Revoked,
}

type Attempt = Pin<Box<dyn Future<Output = (usize, Target, Result<Session, ConnectError>)> + Send>>;

/// Times on CLOCK_BOOTTIME.
pub(super) struct Conversation<'a> {
    uplink: &'a mut Uplink,
    identity: Identity,
    /// What the store looked like when `identity` was in it.
    stamp: Option<(u64, SystemTime)>,
    tls: Arc<ClientConfig>,
    /// Drawn from the agent's id.
    phase: u32,
    choice: Choice,
    attempt: Option<Attempt>,
    session: Option<Session>,
    renewal: Renewal,
    recovery: Retry,
    is_refused_as_expired: bool,
    next_report: Duration,
    last_report: Duration,
    reconnect_at: Option<Duration>,
    delivering: Option<Delivering>,
    delivery: Retry,
    is_full_report_wanted: bool,
    /// The changes of the view that a report has told, or is about to tell.
    changes_told: u64,
    family: Family,
    /// When this family was noticed.
    family_since: Duration,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(uplink: &'a mut Uplink, identity: Identity) -> Result<Self, IdentityError> {
        let tls = connector::tls_of(&identity)?;
        let (dedicated, fallback) = uplink.endpoints(&identity);
        if dedicated.is_empty() && fallback.is_empty() {
            let problem = "no collector is known inside network_prefixes; set collector.endpoints";
            tracing::error!(problem);
            uplink.status.send_modify(|status| status.problem = Some(problem.into()));
        }
        let interval = uplink.settings.current().report_interval;
        let phase = crc32fast::hash(identity.agent.0.as_bytes());
        let view = uplink.live.view();
        Ok(Self {
            stamp: uplink.store.stamp(),
            tls,
            phase,
            choice: Choice::new(&dedicated, &fallback, interval),
            attempt: None,
            session: None,
            renewal: Renewal::new(identity.not_before, identity.not_after, phase),
            recovery: Retry::default(),
            is_refused_as_expired: false,
            next_report: Duration::ZERO,
            last_report: Duration::ZERO,
            reconnect_at: None,
            delivering: None,
            delivery: Retry::default(),
            is_full_report_wanted: true,
            changes_told: view.changes,
            family: view.verdict.family(),
            family_since: uplink.clock.boottime(),
            identity,
            uplink,
        })
    }

    pub(super) async fn run(mut self, stop: &CancellationToken) -> Ended {
        let mut view = self.uplink.live.watch();
        let mut journal = self.uplink.keeper.status_changes();
        loop {
            let now = self.now();
            self.start_attempt(now);
            let nap = self.nap(now);
            tokio::select! {
                () = stop.cancelled() => return self.say_goodbye().await,
                (index, target, outcome) = finished(&mut self.attempt) => {
                    self.attempt = None;
                    self.attempted(index, target, outcome);
                }
                outcome = finished(&mut self.delivering) => {
                    self.delivering = None;
                    if let Some(ended) = self.delivered(outcome) {
                        return ended;
                    }
                }
                () = tokio::time::sleep(nap) => {}
                () = changed(&mut view) => {
                    let view = view.borrow_and_update();
                    let (changes, family) = (view.changes, view.verdict.family());
                    drop(view);
                    self.notice(changes, family);
                }
                () = changed(&mut journal) => {
                    journal.mark_unchanged();
                }
            }
            if self.uplink.store.stamp() != self.stamp {
                return Ended::Enrolled;
            }
            let ended = tokio::select! {
                () = stop.cancelled() => return self.say_goodbye().await,
                ended = self.work() => ended,
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    fn now(&self) -> Duration {
        self.uplink.clock.boottime()
    }

    fn interval(&self) -> Duration {
        self.uplink.settings.current().report_interval
    }

    /// How long nothing is due.
    fn nap(&self, now: Duration) -> Duration {
        let report = self.may_report().then_some(self.next_report);
        let delivery = self.may_deliver().then_some(self.delivery.at);
        let attempt = match self.attempt {
            Some(_) => None,
            None => self.choice.next(now).map(|(_, at)| at),
        };
        let due = [report, delivery, attempt, self.reconnect_at];
        let first = due.into_iter().flatten().min().unwrap_or(Duration::MAX);
        first.saturating_sub(now).min(NAP_MAX)
    }

    /// Begins to connect where that is due: to a better listener, or anew to the same one.
    fn start_attempt(&mut self, now: Duration) {
        if self.attempt.is_some() {
            return;
        }
        let again = self.reconnect_at.is_some_and(|at| at <= now);
        let index = match self.choice.next(now) {
            Some((index, at)) if at <= now => index,
            _ => match self.choice.connected() {
                Some(index) if again => index,
                _ => return,
            },
        };
        self.reconnect_at = self.reconnect_at.filter(|_| !again);
        let Some(target) = self.choice.target(index) else { return };
        self.choice.tried(index, now);
        let (config, tls) = (Arc::clone(&self.uplink.config), Arc::clone(&self.tls));
        self.attempt = Some(Box::pin(async move {
            let work = async {
                let binding = match target.way {
                    Way::Dedicated => Some(
                        connector::dedicated_binding(&config.dedicated, target.address.ip())
                            .await?,
                    ),
                    Way::Fallback => None,
                };
                let stream = connector::connect(target.address, binding.as_ref(), tls).await?;
                let channel = connector::channel(target.address, stream).await?;
                Ok(Session::new(index, target, channel))
            };
            (index, target, work.await)
        }));
    }

    fn attempted(&mut self, index: usize, target: Target, outcome: Result<Session, ConnectError>) {
        let now = self.now();
        match outcome {
            Ok(session) => {
                tracing::debug!(address = %target.address, "connected");
                self.choice.reached(index);
                self.session = Some(session);
                self.next_report = now;
            }
            Err(error) => {
                tracing::debug!(address = %target.address, error = chain(&error), "not connected");
                // The connection that is to be replaced is still there.
                if self.choice.connected() != Some(index) {
                    self.choice.failed(index, now, random());
                }
                if self.session.is_none() {
                    self.problem(chain(&error));
                    self.doubt_clock(&error);
                }
            }
        }
    }

    /// The observer has finished a cycle.
    fn notice(&mut self, changes: u64, family: Family) {
        let now = self.now();
        if changes != self.changes_told {
            let soon = now + backoff::share(REPORT_GAP_MIN, random());
            self.next_report = self.next_report.min(soon.max(self.last_report + REPORT_GAP_MIN));
        }
        if family == Family::Up && self.family != Family::Up {
            self.choice.hurry(now, random());
        }
        if family != self.family {
            self.family_since = now;
        }
        self.family = family;
    }

    /// Does what is due.
    async fn work(&mut self) -> Option<Ended> {
        let now = self.now();
        if let Some(settings) = self.uplink.settings.tick(now) {
            tracing::warn!(version = settings.version, "no report arrived: settings rolled back");
            self.put_in_force(settings);
            // Whatever kept reports from arriving may be over with it.
            self.next_report = now;
        }
        if self.next_report <= now && self.may_report() {
            let ended = self.report().await;
            if ended.is_some() {
                return ended;
            }
        }
        let wall = SystemTime::now();
        if (self.is_refused_as_expired || wall >= self.identity.not_after)
            && self.recovery.at <= now
        {
            self.recover().await;
        } else if self.session.is_some() && self.renewal.is_due(wall, now) {
            let ended = self.renew().await;
            if ended.is_some() {
                return ended;
            }
        }
        if self.may_deliver() && self.delivery.at <= now {
            self.start_delivery();
        }
        None
    }

    fn put_in_force(&mut self, settings: Settings) {
        self.choice.set_first_window(settings.report_interval);
        self.uplink.settings_in_force.send_replace(settings);
    }

    fn problem(&self, text: String) {
        self.uplink.status.send_modify(|status| status.problem = Some(text));
    }

    /// Says why silence follows. Bounded, because a machine that shuts down does not wait.
    async fn say_goodbye(mut self) -> Ended {
        let process_nonce = self.uplink.process.nonce;
        if let Some(session) = &mut self.session {
            let goodbye = Goodbye { reason: GoodbyeReason::Shutdown, process_nonce };
            if let Err(error) = session.goodbye(goodbye).await {
                tracing::debug!(%error, "goodbye not heard");
            }
        }
        Ended::Stopped
    }
}

/// The outcome of what is under way; waits for ever where nothing is.
async fn finished<T>(under_way: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// Waits for a change; for ever once whoever writes is gone, which the stop signal follows.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
