//! The whole path of an alert: a laboratory with monitoring in its core, where one agency is cut
//! and the webhook is listened to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::collector::{AgencySeen, Tempo};
use crate::fault::Cut;
use crate::laboratory::{HTTP, Laboratory, Seat};
use crate::monitoring::{Monitoring, MonitoringPlan};
use crate::topology::SitePlan;
use crate::wait;
use crate::webhook::{Alert, Webhook};

/// The agency that is cut: Gia Lâm district.
pub const CUT_AGENCY: &str = "01-018";
/// Others, of different levels, so that the cut is one agency's and no incident.
const OTHER_AGENCIES: [&str; 2] = ["01-so-y-te", "01-018-00565"];
/// Prometheus, inside the core.
pub const PROMETHEUS: SocketAddr = loopback(9090);
/// Alertmanager, inside the core.
pub const ALERTMANAGER: SocketAddr = loopback(9093);
/// The webhook, inside the core.
const WEBHOOK: SocketAddr = loopback(9095);
/// The alert of a confirmed outage.
const ALERT: &str = "AgencyDisconnected";
/// Scrape, evaluation and group_wait: below a second Prometheus gains nothing.
const PERIOD_SECONDS: u32 = 1;

/// How the collector can learn of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Witness {
    /// The agent tells it by its second way.
    Agent,
    /// The agency has one way only: the collector asks its gateway.
    Core,
}

/// When a cut was known, from its beginning.
#[derive(Debug)]
pub struct Known {
    /// The collector calls the agency disconnected.
    pub collector: Duration,
    /// The webhook has been told.
    pub webhook: Duration,
    /// What it was told.
    pub alert: Alert,
}

/// The path, ready. Its parts end in this order when it is dropped.
#[derive(Debug)]
pub struct AlertPath {
    monitoring: Monitoring,
    webhook: Webhook,
    laboratory: Laboratory,
}

impl AlertPath {
    /// Builds all of it; the witness says whether the agencies have a second way.
    ///
    /// # Errors
    /// Without root or programs, in a sentence; or when a part does not start.
    pub async fn build(tempo: Tempo, witness: Witness) -> Result<Self> {
        let seat = |agency: &str| Seat {
            agency: agency.into(),
            site: SitePlan { internet: witness == Witness::Agent, ..SitePlan::default() },
            gateway: true,
            ..Seat::default()
        };
        let agencies = [CUT_AGENCY].into_iter().chain(OTHER_AGENCIES);
        let laboratory = Laboratory::build(&agencies.map(seat).collect::<Vec<_>>(), tempo).await?;
        let core = &laboratory.network.core;
        let webhook = Webhook::start(Some(core), WEBHOOK)?;
        let monitoring = Monitoring::start(&MonitoringPlan {
            directory: laboratory.directory.path().join("monitoring"),
            netns: Some(Arc::clone(core)),
            collector: HTTP,
            prometheus: PROMETHEUS,
            alertmanager: ALERTMANAGER,
            webhook: webhook.address,
            period_seconds: PERIOD_SECONDS,
        })
        .await?;
        let mut path = Self { monitoring, webhook, laboratory };
        path.heartbeat().await?;
        Ok(path)
    }

    /// Cuts [`CUT_AGENCY`], and waits for the collector to say so and the webhook to be told.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn cut(&mut self, cut: Cut, deadline: Duration) -> Result<Known> {
        self.laboratory.agencies[0].site.cut(cut).await?;
        let started = Instant::now();
        let seen = self.laboratory.seen();
        let is_down = |agency: &AgencySeen| agency.state == "disconnected";
        let collector = async {
            seen.until(CUT_AGENCY, deadline, is_down).await?;
            Ok(started.elapsed())
        };
        let webhook = self.webhook.alert(ALERT, CUT_AGENCY, "firing", deadline);
        let webhook = async { Ok((webhook.await?, started.elapsed())) };
        let known: Result<_> = tokio::try_join!(collector, webhook);
        let (collector, (alert, webhook)) = self.explained(known).await?;
        Ok(Known { collector, webhook, alert })
    }

    /// Heals it and waits for the webhook to be told.
    ///
    /// # Errors
    /// When it is not told in time.
    pub async fn heal(&mut self, deadline: Duration) -> Result<(Alert, Duration)> {
        self.laboratory.agencies[0].site.heal().await?;
        let started = Instant::now();
        let alert = self.webhook.alert(ALERT, CUT_AGENCY, "resolved", deadline).await;
        Ok((self.explained(alert).await?, started.elapsed()))
    }

    /// Waits until the agent itself, past its warm-up or recovery, and the collector say
    /// connected: a cut before that is measured from nowhere.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn connected(&self, deadline: Duration) -> Result<()> {
        let agent = &self.laboratory.agencies[0].agent;
        wait::until("the agent's own word that it is connected", deadline, || async {
            let status = agent.status().await.map_err(|error| format!("{error:#}"))?;
            let state = &status["path"]["state"];
            if state == "connected" { Ok(()) } else { Err(state.to_string()) }
        })
        .await?;
        let seen = self.laboratory.seen();
        seen.until(CUT_AGENCY, deadline, |agency| agency.state == "connected").await?;
        Ok(())
    }

    /// Restarts the agent of [`CUT_AGENCY`], so that an earlier cut does not make the next one a
    /// flapping path.
    ///
    /// # Errors
    /// When it does not stop or start.
    pub async fn forget(&mut self) -> Result<()> {
        let mut place = self.laboratory.agencies.remove(0);
        place.agent = place.agent.restart().await?;
        self.laboratory.agencies.insert(0, place);
        Ok(())
    }

    /// Adds to an error what Prometheus and the collector say.
    async fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Ok(value) => Ok(value),
            Err(error) => {
                let alerts = self.monitoring.prometheus.text("/api/v1/alerts").await;
                let seen = self.laboratory.seen().now(CUT_AGENCY);
                Err(error).context(format!("Prometheus: {alerts:?}; collector: {seen:?}"))
            }
        }
    }

    /// The heartbeat proves that the chain from Prometheus to the webhook works.
    async fn heartbeat(&mut self) -> Result<()> {
        /// Scrape, evaluation, group_wait, and a busy machine.
        const DEADLINE: Duration = Duration::from_secs(60);
        loop {
            let notification = self.webhook.next(DEADLINE).await?;
            let is_heartbeat = |alert: &Alert| {
                alert.labels.get("alertname").is_some_and(|name| name == "Watchdog")
            };
            if notification.alerts.iter().any(is_heartbeat) {
                return Ok(());
            }
        }
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
