//! The identity while it is in use: renewed before its end, recovered after it, and the
//! authorities that the collector has it trust.

use std::time::{Duration, SystemTime};

use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::report::TrustBundle;
use rustls::pki_types::CertificateDer;

use super::{Conversation, Ended};
use crate::clock::random;
use crate::identity::{Identity, IdentityError};
use crate::uplink::recovery::RecoveryError;
use crate::uplink::renewal::Renewal;
use crate::uplink::session::CallError;
use crate::uplink::{ConnectError, backoff, chain, connector, recovery, speaker};

/// Longest wait for a new certificate.
const RENEWAL_DEADLINE: Duration = Duration::from_secs(10);
/// First and longest wait between attempts at the recovery listener, which is rate-limited.
const RECOVERY_RETRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// A renewed certificate is presented on a new connection within so long.
const RENEWED_RECONNECT_WITHIN: Duration = Duration::from_secs(60);

impl Conversation<'_> {
    pub(super) async fn renew(&mut self) -> Option<Ended> {
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
    pub(super) async fn recover(&mut self) {
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
                self.recovery.failed(self.now(), RECOVERY_RETRY, random());
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
                self.recovery.failed(now, RECOVERY_RETRY, random());
            }
        }
    }

    pub(super) fn trust(&mut self, TrustBundle { version, roots_der }: TrustBundle) {
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

    /// A listener that proves to be the collector's by everything but its dates.
    pub(super) fn doubt_clock(&self, error: &ConnectError) {
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
}
