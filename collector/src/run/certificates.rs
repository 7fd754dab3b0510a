//! The collector's own certificate: issued at every start, and again at half-life while it runs.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{Authority, CertifiedServer};
use crate::listen::ServerCertificate;
use crate::metrics::{Certificate, CollectorMetrics};

/// The certificates that the listeners present.
pub(super) struct Certificates {
    pub(super) agents: Arc<ServerCertificate>,
    pub(super) newcomers: Arc<ServerCertificate>,
    renew_in: Duration,
}

impl Certificates {
    pub(super) fn issue(
        config: &Config,
        authority: &Authority,
        clock: Clock,
        metrics: &CollectorMetrics,
    ) -> anyhow::Result<Self> {
        metrics.certificate_expires(Certificate::Ca, authority.not_after());
        let issued = issue(config, authority, clock, metrics)?;
        Ok(Self {
            agents: ServerCertificate::new(issued.leaf_only),
            newcomers: ServerCertificate::new(issued.with_root),
            renew_in: config.identity.certificate_lifetime / 2,
        })
    }

    /// Issues a new one at half-life, until the stop signal.
    pub(super) async fn renew(
        self,
        config: Config,
        authority: Arc<Authority>,
        clock: Clock,
        metrics: CollectorMetrics,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.renew_in) => {}
            }
            match issue(&config, &authority, clock, &metrics) {
                Ok(issued) => {
                    self.agents.replace(issued.leaf_only);
                    self.newcomers.replace(issued.with_root);
                    tracing::info!("the collector's own certificate was renewed");
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "cannot renew the own certificate"
                    );
                }
            }
        }
    }
}

fn issue(
    config: &Config,
    authority: &Authority,
    clock: Clock,
    metrics: &CollectorMetrics,
) -> anyhow::Result<CertifiedServer> {
    let term = authority.term(config.identity.certificate_lifetime, clock.now().wall);
    let issued = authority.issue_server(&config.endpoints().hosts(), term)?;
    metrics.certificate_expires(Certificate::Server, issued.not_after);
    Ok(issued)
}
