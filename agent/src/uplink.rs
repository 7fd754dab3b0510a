//! The uplink: takes what holds true and what the journal keeps to a collector.
//!
//! Here is the life of the identity: without one the agent probes and journals, and looks every
//! few seconds whether somebody has enrolled it; a revoked one stops reporting, keeps its key and
//! waits for the same. `conversation` is the life of the connection. What is decided is pure and
//! has a file each: `choice` which collector, `backoff` when, `renewal` the certificate.

mod backoff;
mod choice;
pub(crate) mod connector;
mod conversation;
mod recovery;
mod renewal;
mod retry;
pub(crate) mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::settings::Settings;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{Identity, IdentityError, Store};
use crate::journal::keeper::Keeper;
use crate::live::Live;
use crate::posture::kernel_clock::ClockOffset;
use crate::report::{Process, Reporter};
use crate::settings::{self, InForce};

use self::conversation::{Conversation, Ended};

pub use self::choice::{Target, Way};
pub use self::connector::ConnectError;
pub use self::session::CallError;

/// How often an agent without a usable identity looks for one.
const IDENTITY_POLL: Duration = Duration::from_secs(3);

/// Everything that the uplink works with.
#[derive(Debug)]
pub struct Uplink {
    config: Arc<Config>,
    store: Store,
    clock: Clock,
    keeper: Keeper,
    live: Live,
    process: Process,
    reporter: Reporter,
    settings: InForce,
    settings_in_force: watch::Sender<Settings>,
    roots: watch::Sender<Roots>,
    status: watch::Sender<Status>,
}

/// The certificate authorities in force, in DER; none before enrolment.
pub type Roots = Arc<[CertificateDer<'static>]>;

/// What the uplink lets others know.
#[derive(Debug)]
pub struct Outlets {
    /// The settings in force.
    pub settings: watch::Receiver<Settings>,
    /// The certificate authorities in force.
    pub roots: watch::Receiver<Roots>,
    /// How it fares.
    pub status: watch::Receiver<Status>,
}

/// How the uplink fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The identity's life, and the connection's.
    pub standing: Standing,
    /// Agency, its name, agent, and the certificate's end.
    pub speaker: Option<Speaker>,
    /// When a collector last took a report.
    pub reported_at: Option<SystemTime>,
    /// What went wrong last, until a report arrives.
    pub problem: Option<String>,
    /// By this machine's clock, no collector's certificate is valid: until one takes a report, the
    /// clock is the likeliest reason.
    pub is_clock_doubted: bool,
    /// How far this machine's clock is ahead of the collector's, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// The same at most, as an answer takes time, and when that was, on CLOCK_BOOTTIME.
    pub clock_ahead_at_most: Option<(i64, Duration)>,
}

/// Where the uplink stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No identity.
    NotEnrolled,
    /// An identity that cannot be used; the problem says why.
    Unusable,
    /// No collector has taken a report yet.
    Connecting,
    /// Reports arrive there.
    Reporting(Target),
    /// The identity was revoked: nothing is sent until the machine is enrolled again.
    Revoked,
}

/// Whom the agent speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// The agency.
    pub agency: String,
    /// Its name.
    pub agency_name: String,
    /// The agent.
    pub agent: String,
    /// When its certificate ends.
    pub certificate_ends: SystemTime,
}

/// What `run` hands to the uplink.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// Where the identity is.
    pub store: Store,
    /// The clocks.
    pub clock: Clock,
    /// The journal.
    pub keeper: Keeper,
    /// The present state.
    pub live: Live,
    /// This process.
    pub process: Process,
    /// The last known good settings.
    pub settings: Settings,
}

impl Status {
    /// How far this machine's clock was ahead of the collector's, if that is known since `since`.
    pub fn clock_offset(&self, since: Duration) -> Option<ClockOffset> {
        let (most_ms, at) = self.clock_ahead_at_most?;
        let least_ms = self.clock_ahead_ms.filter(|_| at >= since)?;
        Some(ClockOffset { least_ms, most_ms })
    }
}

impl Uplink {
    /// An uplink, and what it lets others know.
    pub fn new(parts: Parts) -> (Self, Outlets) {
        let Parts { config, store, clock, keeper, live, process, settings } = parts;
        let settings = InForce::new(settings);
        let (settings_in_force, settings_receiver) = watch::channel(settings.current().clone());
        let (status, status_receiver) = watch::channel(Status {
            standing: Standing::NotEnrolled,
            speaker: None,
            reported_at: None,
            problem: None,
            is_clock_doubted: false,
            clock_ahead_ms: None,
            clock_ahead_at_most: None,
        });
        let (roots, roots_receiver) = watch::channel(Roots::default());
        let reporter = Reporter::new(process);
        let uplink = Self {
            config,
            store,
            clock,
            keeper,
            live,
            process,
            reporter,
            settings,
            settings_in_force,
            roots,
            status,
        };
        let outlets =
            Outlets { settings: settings_receiver, roots: roots_receiver, status: status_receiver };
        (uplink, outlets)
    }

    /// Works until it is stopped. Nothing that a collector does ends it.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            // Taken before the identity is read, so that no enrolment slips in between.
            let stamp = self.store.stamp();
            match self.store.load() {
                Ok(Some(identity)) => match self.converse(identity, &stop).await {
                    Ok(Ended::Stopped) => return,
                    Ok(Ended::Enrolled) => {
                        self.reload_settings();
                        continue;
                    }
                    Ok(Ended::Revoked) => {
                        tracing::error!(
                            "the collector has revoked this identity; nothing is reported until \
                             the machine is enrolled again: haidang-agent enroll --replace"
                        );
                        self.status.send_modify(|status| status.standing = Standing::Revoked);
                    }
                    Err(error) => self.unusable(&error),
                },
                Ok(None) => self.status.send_modify(|status| {
                    status.standing = Standing::NotEnrolled;
                    status.speaker = None;
                }),
                Err(error) => self.unusable(&error),
            }
            if self.wait_for_enrolment(stamp, &stop).await == Wait::Stopped {
                return;
            }
            self.reload_settings();
        }
    }

    async fn converse(
        &mut self,
        identity: Identity,
        stop: &CancellationToken,
    ) -> Result<Ended, IdentityError> {
        tracing::info!(agency = %identity.agency, agent = %identity.agent, "identity in force");
        self.put_roots_in_force(&identity);
        self.status.send_modify(|status| {
            status.standing = Standing::Connecting;
            status.speaker = Some(speaker(&identity));
            status.problem = None;
        });
        Ok(Conversation::new(self, identity)?.run(stop).await)
    }

    /// Settings are an agency's: enrolment has removed those of the former one.
    fn reload_settings(&mut self) {
        self.settings = InForce::new(settings::load(&self.config.state_dir));
        self.settings_in_force.send_replace(self.settings.current().clone());
    }

    fn put_roots_in_force(&self, identity: &Identity) {
        let roots: Roots = identity.roots.as_slice().into();
        self.roots.send_if_modified(|held| {
            let is_new = *held != roots;
            *held = roots;
            is_new
        });
    }

    fn unusable(&self, error: &IdentityError) {
        let text = chain(error);
        self.status.send_if_modified(|status| {
            let is_new = status.problem.as_ref() != Some(&text);
            if is_new {
                tracing::error!(error = text, "the identity cannot be used");
            }
            status.standing = Standing::Unusable;
            status.problem = Some(text);
            is_new
        });
    }

    /// Waits until the identity on disk is another one. One that could not be used is read again
    /// in any case: its permissions may have been set right, which leaves no stamp.
    async fn wait_for_enrolment(
        &self,
        stamp: Option<(u64, SystemTime)>,
        stop: &CancellationToken,
    ) -> Wait {
        let may_heal = self.status.borrow().standing == Standing::Unusable;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Wait::Stopped,
                () = tokio::time::sleep(IDENTITY_POLL) => {}
            }
            if may_heal || self.store.stamp() != stamp {
                return Wait::Over;
            }
        }
    }

    /// Listeners to report to: the configuration's, else those that enrolment told; never one
    /// outside the pinned prefixes. A fallback is the configuration's alone.
    fn endpoints(&self, identity: &Identity) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let configured = &self.config.collector.endpoints;
        let told = &identity.contacts.report_endpoints;
        let dedicated = if configured.is_empty() { told } else { configured };
        let (inside, outside): (Vec<SocketAddr>, Vec<SocketAddr>) =
            dedicated.iter().partition(|address| self.is_dedicated(**address));
        if !outside.is_empty() {
            tracing::warn!(?outside, "collectors outside network_prefixes are not used");
        }
        (inside, self.config.collector.fallback_endpoints.clone())
    }

    /// Listeners that renew an expired certificate. They were told at enrolment, so only those count
    /// that the installer's own words allow: inside the pinned prefixes, or a permitted fallback.
    fn recovery_endpoints(&self, identity: &Identity) -> Vec<SocketAddr> {
        let fallback = &self.config.collector.fallback_endpoints;
        let is_permitted = |address: &SocketAddr| {
            self.is_dedicated(*address) || fallback.iter().any(|one| one.ip() == address.ip())
        };
        let told = identity.contacts.recovery_endpoints.iter();
        told.copied().filter(is_permitted).collect()
    }

    fn is_dedicated(&self, address: SocketAddr) -> bool {
        self.config.dedicated.network_prefixes.iter().any(|net| net.contains(&address.ip()))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wait {
    Over,
    Stopped,
}

fn speaker(identity: &Identity) -> Speaker {
    Speaker {
        agency: identity.agency.to_string(),
        agency_name: identity.agency_name.clone(),
        agent: identity.agent.to_string(),
        certificate_ends: identity.not_after,
    }
}

/// An error with everything behind it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod double;
#[cfg(test)]
mod tests;
