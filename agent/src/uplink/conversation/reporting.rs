//! Reports: the present state told, and what the collector says to it.

use std::time::{Duration, SystemTime};

use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::report::Reply;
use haidang_proto::model::settings::Settings;
use haidang_proto::model::verdict::Family;
use tokio::sync::watch;

use super::{Conversation, Ended};
use crate::clock::random;
use crate::host;
use crate::live::View;
use crate::report::Versions;
use crate::settings;
use crate::uplink::choice::Way;
use crate::uplink::session::CallError;
use crate::uplink::{Standing, backoff, chain};

/// Longest wait for the answer to a report.
pub(in crate::uplink) const REPORT_DEADLINE: Duration = Duration::from_secs(5);
/// The same while the probes say that the path is down: the fallback is waiting.
const REPORT_DEADLINE_DOWN: Duration = Duration::from_secs(2);
/// Longest time over which a collector may spread reconnections.
const RECONNECT_WITHIN_MAX: Duration = Duration::from_secs(3600);

impl Conversation<'_> {
    /// Whether there is a connection, and the present state may be told over it. That the path is
    /// up, while the dedicated listeners fail, is told over a fallback only when the probes have
    /// seen it after that: a listener that stops answering is often the first sign of a cut, and
    /// "up" would be the contrary of what follows. Every cycle asks again.
    pub(super) fn may_report(&self) -> bool {
        let Some(session) = &self.session else { return false };
        let view = self.uplink.live.view();
        session.target.way == Way::Dedicated
            || view.verdict.family() != Family::Up
            || self.choice.is_missed_on_a_good_path(self.family_since, view.proved_at)
    }

    pub(super) async fn report(&mut self) -> Option<Ended> {
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

fn ahead_ms(ours: SystemTime, theirs: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match ours.duration_since(theirs) {
        Ok(ahead) => ms(ahead),
        Err(behind) => -ms(behind.duration()),
    }
}
