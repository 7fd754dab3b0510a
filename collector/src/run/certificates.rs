//! The collector's own certificate: issued at every start, and again at half-life while it runs, or
//! when the clock has gone back to before it was issued: whoever starts with a clock that is ahead
//! issues a certificate that nobody may believe yet.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{Authority, CertifiedServer};
use crate::listen::ServerCertificate;
use crate::metrics::{Certificate, CollectorMetrics};

/// How often it is looked whether a new one is due.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// A clock that is set back by less changes nothing.
const CLOCK_SLACK: Duration = Duration::from_secs(3_600);

/// The certificates that the listeners present.
pub(super) struct Certificates {
    pub(super) agents: Arc<ServerCertificate>,
    pub(super) newcomers: Arc<ServerCertificate>,
    half_life: Duration,
    issued_at: SystemTime,
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
            half_life: config.identity.certificate_lifetime / 2,
            issued_at: clock.now().wall,
        })
    }

    /// Issues a new one when it is due, until the stop signal.
    pub(super) async fn renew(
        mut self,
        config: Config,
        authority: Arc<Authority>,
        clock: Clock,
        metrics: CollectorMetrics,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_PERIOD) => {}
            }
            let now = clock.now().wall;
            if !is_due(self.issued_at, self.half_life, now) {
                continue;
            }
            // One that fails is tried at the next half-life, or step: it is logged as an error.
            self.issued_at = now;
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

fn is_due(issued_at: SystemTime, half_life: Duration, now: SystemTime) -> bool {
    match now.duration_since(issued_at) {
        Ok(age) => age >= half_life,
        Err(before) => before.duration() > CLOCK_SLACK,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_the_future_is_replaced_like_one_at_half_life() {
        let day = Duration::from_secs(86_400);
        let issued = SystemTime::UNIX_EPOCH + day * 20_000;
        let due = |now| is_due(issued, day * 45, now);
        assert!(!due(issued) && !due(issued + day * 44) && due(issued + day * 45));
        assert!(!due(issued - CLOCK_SLACK), "NTP");
        assert!(due(issued - day * 365));
    }
}
