//! Who is on duty: the shipped Prometheus rules and Alertmanager routes on a collector of this
//! machine, and what the webhook is told.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::collector::free_port;
use crate::monitoring::{Monitoring, MonitoringPlan};
use crate::webhook::Webhook;

/// Scrape, evaluation and group_wait.
const PERIOD_SECONDS: u32 = 1;
/// Fires always, and as long as a roll-out is not over: neither is a call.
const EVERYDAY: [&str; 2] = ["Watchdog", "GoalBelowTarget"];
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Monitoring, and the receiver of its notifications.
pub struct Duty {
    _monitoring: Monitoring,
    webhook: Webhook,
    called: BTreeSet<String>,
}

impl Duty {
    /// Starts it, and waits until the chain is known to work.
    ///
    /// # Errors
    /// When a program is missing or does not start.
    pub async fn begin(directory: &Path, collector: SocketAddr) -> Result<Self> {
        let webhook = Webhook::start(None, SocketAddr::new(HERE, 0))?;
        let monitoring = Monitoring::start(&MonitoringPlan {
            directory: directory.join("monitoring"),
            netns: None,
            collector,
            prometheus: free_port(HERE)?,
            alertmanager: free_port(HERE)?,
            webhook: webhook.address,
            period_seconds: PERIOD_SECONDS,
        })
        .await?;
        let mut duty = Self { _monitoring: monitoring, webhook, called: BTreeSet::new() };
        duty.told("Watchdog", "firing", Duration::from_secs(60)).await?;
        Ok(duty)
    }

    /// Waits until it is told an alert with this status, and answers how long that took.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn told(&mut self, name: &str, status: &str, deadline: Duration) -> Result<Duration> {
        let began = Instant::now();
        while let Some(left) = deadline.checked_sub(began.elapsed()) {
            let Ok(notification) = self.webhook.next(left).await else { break };
            let mut found = false;
            for alert in notification.alerts {
                let alert_name = alert.labels.get("alertname").context("an alert has a name")?;
                self.called.insert(alert_name.clone());
                found |= alert_name == name && alert.status == status;
            }
            if found {
                return Ok(began.elapsed());
            }
        }
        bail!("no {status} {name} within {deadline:?}; told so far: {:?}", self.called)
    }

    /// The alerts of all the time that somebody has to look at.
    ///
    /// # Errors
    /// When a notification cannot be read.
    pub async fn called(&mut self) -> Result<BTreeSet<String>> {
        while let Ok(notification) = self.webhook.next(Duration::ZERO).await {
            let names = notification.alerts.iter().filter_map(|one| one.labels.get("alertname"));
            self.called.extend(names.cloned());
        }
        let all = self.called.iter().filter(|name| !EVERYDAY.contains(&name.as_str()));
        Ok(all.cloned().collect())
    }
}
