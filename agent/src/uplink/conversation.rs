//! The life of an enrolled agent's connection: connect, report on the beat, renew, deliver, and
//! do it again elsewhere when it fails.
//!
//! One thing at a time, in the order of its worth: the present state first, then the identity,
//! then the backlog at a capped rate. Attempts to connect and deliveries run beside: the liveness
//! path waits for the data path neither at the collector nor at this machine's disk, and a delivery
//! that fails never costs the connection. Every call has a deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::goodbye::{Goodbye, GoodbyeReason};
use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::report::{Reply, TrustBundle};
use haidang_proto::model::settings::Settings;
use haidang_proto::model::verdict::Family;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::random;
use crate::host;
use crate::identity::{Identity, IdentityError};
use crate::live::View;
use crate::report::Versions;
use crate::settings;

use super::choice::{Choice, Target, Way};
use super::recovery::RecoveryError;
use super::renewal::Renewal;
use super::session::{CallError, Session};
use super::{ConnectError, Standing, Uplink, backoff, chain, connector, recovery, speaker};

/// Longest wait for the answer to a report.
pub(super) const REPORT_DEADLINE: Duration = Duration::from_secs(5);
/// The same while the probes say that the path is down: the fallback is waiting.
const REPORT_DEADLINE_DOWN: Duration = Duration::from_secs(2);
/// Longest wait until a batch is durable.
pub(super) const DELIVERY_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for a new certificate.
const RENEWAL_DEADLINE: Duration = Duration::from_secs(10);
/// A change of verdict or flags is reported at once, but not more often than this.
const REPORT_GAP_MIN: Duration = Duration::from_secs(1);
/// Batches are this far apart: 16 KiB each make 32 kbit/s, half of the slowest line in use.
const DELIVERY_PAUSE: Duration = Duration::from_secs(4);
/// First and longest wait after a delivery that failed.
const DELIVERY_RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// First and longest wait between attempts at the recovery listener, which is rate-limited.
const RECOVERY_RETRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// Longest time over which a collector may spread reconnections.
const RECONNECT_WITHIN_MAX: Duration = Duration::from_secs(3600);
/// A renewed certificate is presented on a new connection within so long.
const RENEWED_RECONNECT_WITHIN: Duration = Duration::from_secs(60);
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
type Delivering = Pin<Box<dyn Future<Output = Delivered> + Send>>;

/// What became of a delivery.
enum Delivered {
    /// The collector holds more than before.
    Onwards,
    /// There was nothing to deliver, it could not be read, or the collector holds no more than
    /// before.
    Stalled,
    Failed(CallError),
}

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

/// When something is tried next.
#[derive(Debug, Clone, Copy, Default)]
struct Retry {
    failures: u32,
    at: Duration,
}

impl Retry {
    fn failed(&mut self, now: Duration, (first, cap): (Duration, Duration)) {
        self.failures = self.failures.saturating_add(1);
        self.at = now + backoff::delay(self.failures, first, cap, random());
    }

    fn succeeded(&mut self, next: Duration) {
        *self = Self { failures: 0, at: next };
    }
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

    /// Whether there is a connection, and the present state may be told over it. That the path is
    /// up, while the dedicated listeners fail, is told over a fallback only when the probes have
    /// seen it after that: a listener that stops answering is often the first sign of a cut, and
    /// "up" would be the contrary of what follows. Every cycle asks again.
    fn may_report(&self) -> bool {
        let Some(session) = &self.session else { return false };
        let view = self.uplink.live.view();
        session.target.way == Way::Dedicated
            || view.verdict.family() != Family::Up
            || self.choice.is_missed_on_a_good_path(self.family_since, view.proved_at)
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

    /// Whether records wait, none are under way, and this connection has carried a report of the
    /// present state: that comes first.
    fn may_deliver(&self) -> bool {
        let is_proved = matches!(self.uplink.status.borrow().standing, Standing::Reporting(_));
        let is_told = self.uplink.live.watch().borrow().changes == self.changes_told;
        let waits = self.uplink.keeper.status().waiting_records > 0;
        self.session.is_some() && self.delivering.is_none() && is_proved && is_told && waits
    }

    async fn report(&mut self) -> Option<Ended> {
        let host = match self.is_full_report_wanted {
            true => tokio::task::spawn_blocking(host::facts).await.ok(),
            false => None,
        };
        let session = self.session.as_mut()?;
        let view = self.uplink.live.take();
        let quality = view.quality.clone();
        let View { changes, verdict, .. } = view;
        let deadline = match verdict.family() {
            Family::Down => REPORT_DEADLINE_DOWN,
            Family::Up | Family::Unknown => REPORT_DEADLINE,
        };
        let versions = Versions {
            settings: self.uplink.settings.current().version,
            trust_bundle: self.identity.contacts.trust_bundle_version,
        };
        let moment = self.uplink.clock.moment();
        let journal = self.uplink.keeper.status();
        let report = self.uplink.reporter.assemble(view, journal, versions, host, moment);
        self.last_report = moment.boottime;
        self.choice.tried(session.index, moment.boottime);
        let mut present = self.uplink.live.watch();
        let answer = tokio::select! {
            answer = session.report(report, deadline) => answer,
            () = went_down(&mut present, verdict.family()) => {
                Err(CallError::Failed("no answer while the path went down".into()))
            }
        };
        match answer {
            Ok(reply) => {
                self.changes_told = changes;
                self.is_full_report_wanted = reply.full_report_wanted;
                self.accept(reply, moment.wall);
                None
            }
            Err(error) => {
                self.uplink.live.give_back(&quality);
                self.turned_away(&error)
            }
        }
    }

    /// A report has arrived.
    fn accept(&mut self, reply: Reply, sent: SystemTime) {
        let now = self.now();
        let Some(session) = &self.session else { return };
        let (index, target) = (session.index, session.target);
        self.choice.proved(index, now, random());
        self.is_refused_as_expired = false;
        let wait = match reply.next_report_in {
            // Not said: our own beat.
            Duration::ZERO => backoff::next_beat(now, self.interval(), self.phase) - now,
            wait => wait.clamp(Settings::REPORT_INTERVAL_MIN, Settings::REPORT_INTERVAL_MAX),
        };
        self.next_report = now + wait;
        if let Some(within) = reply.reconnect_within {
            self.reconnect_at =
                Some(now + backoff::share(within.min(RECONNECT_WITHIN_MAX), random()));
        }
        let ahead_at_most = (ahead_ms(SystemTime::now(), reply.server_time), now);
        let ahead_ms = ahead_ms(sent, reply.server_time);
        self.uplink.status.send_modify(|status| {
            if status.standing != Standing::Reporting(target) {
                tracing::info!(address = %target.address, way = ?target.way, "reporting");
            }
            status.standing = Standing::Reporting(target);
            status.reported_at = Some(sent);
            status.problem = None;
            status.is_clock_doubted = false;
            status.clock_ahead_ms = Some(ahead_ms);
            status.clock_ahead_at_most = Some(ahead_at_most);
        });
        if let Some(proved) = self.uplink.settings.reported()
            && let Err(error) = settings::keep(&self.uplink.config.state_dir, &proved)
        {
            tracing::warn!(error = chain(&error), "settings are in force but not kept");
        }
        if let Some(offered) = reply.settings
            && let Some(settings) = self.uplink.settings.offer(offered, now)
        {
            tracing::info!(version = settings.version, "settings on trial");
            self.put_in_force(settings);
        }
        if let Some(bundle) = reply.trust_bundle {
            self.trust(bundle);
        }
    }

    /// A call was answered by a refusal, or not at all.
    fn turned_away(&mut self, error: &CallError) -> Option<Ended> {
        let now = self.now();
        match error {
            CallError::Refused(Refusal::Revoked) => return Some(Ended::Revoked),
            CallError::Refused(Refusal::CertificateExpired) => self.is_refused_as_expired = true,
            _ => {}
        }
        self.problem(chain(error));
        if error.ends_session() {
            if let Some(session) = self.session.take() {
                tracing::warn!(address = %session.target.address, %error, "report not taken");
                self.choice.failed(session.index, now, random());
            }
            // What is under way on the same connection is tried again on the next.
            self.delivering = None;
            self.uplink.status.send_modify(|status| status.standing = Standing::Connecting);
        } else {
            // Busy: one beat later, and not all at the same moment of it.
            self.next_report = now + self.interval() + backoff::share(self.interval(), random());
        }
        None
    }

    /// Begins to deliver what waits, on the connection that carries the reports.
    fn start_delivery(&mut self) {
        let Some(session) = &self.session else { return };
        let (mut session, keeper) = (session.clone(), self.uplink.keeper.clone());
        self.delivering = Some(Box::pin(async move {
            let Some(batch) = keeper.batch(SystemTime::now()).await else {
                return Delivered::Stalled;
            };
            let (journal_id, first_seq) = (batch.journal_id, batch.first_seq);
            match session.deliver(batch, DELIVERY_DEADLINE).await {
                Ok(receipt) => {
                    let is_onwards =
                        receipt.conflicting_seq.is_none() && receipt.acknowledged_seq >= first_seq;
                    keeper.receipt(journal_id, receipt).await;
                    if is_onwards { Delivered::Onwards } else { Delivered::Stalled }
                }
                Err(error) => Delivered::Failed(error),
            }
        }));
    }

    fn delivered(&mut self, outcome: Delivered) -> Option<Ended> {
        let now = self.now();
        match outcome {
            Delivered::Onwards => self.delivery.succeeded(now + DELIVERY_PAUSE),
            Delivered::Stalled => self.delivery.failed(now, DELIVERY_RETRY),
            Delivered::Failed(CallError::Refused(Refusal::Revoked)) => {
                return Some(Ended::Revoked);
            }
            Delivered::Failed(error) => {
                tracing::info!(%error, "records not delivered; they stay in the journal");
                self.delivery.failed(now, DELIVERY_RETRY);
            }
        }
        None
    }

    async fn renew(&mut self) -> Option<Ended> {
        let session = self.session.as_mut()?;
        let outcome = match self.identity.request() {
            Ok(request) => session.renew(request, RENEWAL_DEADLINE).await,
            Err(error) => Err(CallError::Failed(chain(&error))),
        };
        match outcome {
            Ok(chain) => self.take_renewed(chain),
            Err(CallError::Refused(Refusal::Revoked)) => return Some(Ended::Revoked),
            Err(error) => {
                tracing::warn!(%error, "certificate not renewed; it will be tried again");
                self.renewal.failed(self.now(), random());
            }
        }
        None
    }

    /// The certificate has expired: only the recovery listener still hears this machine.
    async fn recover(&mut self) {
        let targets = self.uplink.recovery_endpoints(&self.identity);
        match recovery::renew_expired(&self.uplink.config, &self.identity, &targets).await {
            Ok(chain) => {
                self.is_refused_as_expired = false;
                self.recovery.succeeded(self.now());
                self.take_renewed(chain);
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the expired certificate was not renewed");
                self.problem(chain(&error));
                if let RecoveryError::Connect(error) = &error {
                    self.doubt_clock(error);
                }
                self.recovery.failed(self.now(), RECOVERY_RETRY);
            }
        }
    }

    fn take_renewed(&mut self, certificates: Vec<CertificateDer<'static>>) {
        let now = self.now();
        let kept = self.uplink.store.renew(&self.identity, certificates, SystemTime::now());
        match kept.and_then(|identity| self.adopt(identity)) {
            Ok(()) => {
                tracing::info!(agent = %self.identity.agent, "certificate renewed");
                self.renewal =
                    Renewal::of_fresh(SystemTime::now(), self.identity.not_after, self.phase);
                let within = backoff::share(RENEWED_RECONNECT_WITHIN, random());
                self.reconnect_at = Some(now + within);
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the renewed certificate was not taken");
                self.renewal.failed(now, random());
                self.recovery.failed(now, RECOVERY_RETRY);
            }
        }
    }

    fn trust(&mut self, TrustBundle { version, roots_der }: TrustBundle) {
        let roots = roots_der.into_iter().map(CertificateDer::from).collect();
        let kept = self.uplink.store.trust(&self.identity, version, roots);
        match kept.and_then(|identity| self.adopt(identity)) {
            Ok(()) => tracing::info!(version, "trusted certificate authorities replaced"),
            Err(error) => {
                tracing::warn!(error = chain(&error), version, "trust bundle not taken");
            }
        }
    }

    /// Takes over an identity that the store now holds.
    fn adopt(&mut self, identity: Identity) -> Result<(), IdentityError> {
        self.tls = connector::tls_of(&identity)?;
        self.uplink.put_roots_in_force(&identity);
        self.identity = identity;
        self.stamp = self.uplink.store.stamp();
        let speaker = speaker(&self.identity);
        self.uplink.status.send_modify(|status| status.speaker = Some(speaker));
        Ok(())
    }

    fn put_in_force(&mut self, settings: Settings) {
        self.choice.set_first_window(settings.report_interval);
        self.uplink.settings_in_force.send_replace(settings);
    }

    /// A listener that proves to be the collector's by everything but its dates.
    fn doubt_clock(&self, error: &ConnectError) {
        if matches!(error, ConnectError::Clock { .. }) {
            let is_new = self
                .uplink
                .status
                .send_if_modified(|status| !std::mem::replace(&mut status.is_clock_doubted, true));
            if is_new {
                tracing::error!(
                    error = chain(error),
                    "nothing can be reported until this machine's clock is right"
                );
            }
        }
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

/// Waits until the path, not known to be down when a report was sent, is down for as long as a
/// report then may take. Never ends for one that was sent as a report of a broken path: its own
/// deadline is as short.
async fn went_down(present: &mut watch::Receiver<View>, sent: Family) {
    if sent == Family::Down || present.wait_for(is_down).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(REPORT_DEADLINE_DOWN).await;
}

fn is_down(view: &View) -> bool {
    view.verdict.family() == Family::Down
}

/// Waits for a change; for ever once whoever writes is gone, which the stop signal follows.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn ahead_ms(ours: SystemTime, theirs: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match ours.duration_since(theirs) {
        Ok(ahead) => ms(ahead),
        Err(behind) => -ms(behind.duration()),
    }
}
