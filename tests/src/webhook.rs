//! The receiver of notifications: what Alertmanager posts is read and kept in order.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::netns::Netns;

/// Notifications that wait to be read; Alertmanager repeats what is refused.
const WAITING_MAX: usize = 256;

/// One notification (webhook format, version 4); fields that are not used here are left out.
#[derive(Debug, Clone, Deserialize)]
pub struct Notification {
    /// `firing` or `resolved`.
    pub status: String,
    /// Its alerts.
    pub alerts: Vec<Alert>,
}

/// One alert of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Texts.
    pub annotations: BTreeMap<String, String>,
}

/// A running receiver.
#[derive(Debug)]
pub struct Webhook {
    /// Its address.
    pub address: SocketAddr,
    waiting: mpsc::Receiver<Notification>,
    task: JoinHandle<()>,
}

impl Webhook {
    /// Starts to listen, inside a namespace or here.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(netns: Option<&Netns>, address: SocketAddr) -> Result<Self> {
        let bind = || TcpListener::bind(address);
        let listener = match netns {
            Some(netns) => netns.inside(bind)?,
            None => bind(),
        };
        let listener = listener.with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr().context("ask for the port")?;
        listener.set_nonblocking(true).context("set a socket to non-blocking")?;
        let listener = tokio::net::TcpListener::from_std(listener).context("register a socket")?;
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let app = Router::new().fallback(post(receive)).with_state(sender);
        let task = tokio::spawn(async move {
            // Ends only with its task.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, waiting, task })
    }

    /// The next notification.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn next(&mut self, deadline: Duration) -> Result<Notification> {
        tokio::time::timeout(deadline, self.waiting.recv())
            .await
            .with_context(|| format!("no notification within {deadline:?}"))?
            .context("the receiver has ended")
    }

    /// The next alert of that name and status about an agency.
    ///
    /// # Errors
    /// When none comes in time, with what came instead.
    pub async fn alert(
        &mut self,
        name: &str,
        agency: &str,
        status: &str,
        deadline: Duration,
    ) -> Result<Alert> {
        let mut others = Vec::new();
        let found = tokio::time::timeout(deadline, async {
            while let Some(notification) = self.waiting.recv().await {
                for alert in notification.alerts {
                    let label = |label: &str| alert.labels.get(label).map(String::as_str);
                    if label("alertname") == Some(name)
                        && label("agency") == Some(agency)
                        && alert.status == status
                    {
                        return Some(alert);
                    }
                    others.push(format!("{} {:?}", alert.status, alert.labels));
                }
            }
            None
        });
        found.await.ok().flatten().with_context(|| {
            format!("no {status} {name} of {agency} within {deadline:?}; came instead: {others:?}")
        })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(
    State(waiting): State<mpsc::Sender<Notification>>,
    Json(notification): Json<Notification>,
) -> StatusCode {
    match waiting.try_send(notification) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
