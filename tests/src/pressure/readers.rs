//! Readers that ask and never read. Over HTTP they ask for the metrics, the API and the page, again
//! and again as long as anything fits between, and when they are sent away they come back at once.
//! Some have the very address of Prometheus, as programs that are stuck on its machine: they ask
//! once, and are started again after a while. Over gRPC they are agents whose streams have no
//! window: their deliveries are taken, and the answers can never be sent.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::journals::{Content, Journal};
use crate::load::{Client, LoadAgent};
use crate::peer::tcp;

/// What is asked for, in turn.
const PATHS: [&str; 5] =
    ["/metrics", "/api/v1/agencies", "/", "/api/v1/agents", "/api/v1/openapi.json"];
/// Addresses that they come from, beside Prometheus' own: more than the collector has places for
/// one source.
const SOURCES: u16 = 20;
/// Of so many readers one comes from Prometheus' address.
const ONE_OF_PROMETHEUS_IN: usize = 16;
/// Between two times at which a reader asks again, or notices that it was sent away.
const ASK_PERIOD: Duration = Duration::from_millis(200);
/// Before a reader that was sent away comes back.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long a stuck program stays: longer than the collector bears it.
const STUCK: Duration = Duration::from_secs(30);
/// Requests that one agent has under way, the most that the collector takes of a connection.
const STREAMS: usize = 8;

/// Readers of the HTTP side, until this is dropped.
pub struct HttpReaders {
    _tasks: JoinSet<()>,
    connections: Arc<AtomicU64>,
    sent_away: Arc<AtomicU64>,
}

impl HttpReaders {
    /// Begins so many readers of a collector.
    ///
    /// # Errors
    /// With more than 65,535.
    pub fn begin(count: usize, collector: SocketAddr) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let (connections, sent_away) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        for number in 0..count {
            let path = PATHS[number % PATHS.len()];
            let request = format!("GET {path} HTTP/1.1\r\nHost: {collector}\r\n\r\n");
            let connections = Arc::clone(&connections);
            if number % ONE_OF_PROMETHEUS_IN == 0 {
                tasks.spawn(stuck(collector, request, connections));
            } else {
                let [_, machine] = (u16::try_from(number)? % SOURCES + 1).to_be_bytes();
                let source = Ipv4Addr::new(127, 66, 7, machine).into();
                let sent_away = Arc::clone(&sent_away);
                tasks.spawn(insisting(source, collector, request, connections, sent_away));
            }
        }
        Ok(Self { _tasks: tasks, connections, sent_away })
    }

    /// Connections that were made, and those of readers from elsewhere that the collector ended.
    pub fn counts(&self) -> [u64; 2] {
        [&self.connections, &self.sent_away].map(|count| count.load(Ordering::Relaxed))
    }
}

async fn stuck(to: SocketAddr, request: String, connections: Arc<AtomicU64>) {
    loop {
        if let Ok(stream) = tcp(Ipv4Addr::LOCALHOST.into(), to).await {
            connections.fetch_add(1, Ordering::Relaxed);
            // Whether or not it was let in.
            let _ = stream.try_write(request.as_bytes());
            tokio::time::sleep(STUCK).await;
        } else {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }
}

async fn insisting(
    from: IpAddr,
    to: SocketAddr,
    request: String,
    connections: Arc<AtomicU64>,
    sent_away: Arc<AtomicU64>,
) {
    loop {
        if let Ok(stream) = tcp(from, to).await {
            connections.fetch_add(1, Ordering::Relaxed);
            let is_open = || match stream.try_write(request.as_bytes()) {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            while is_open() {
                tokio::time::sleep(ASK_PERIOD).await;
            }
            sent_away.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Agents that never read what they are answered, until this is dropped.
pub(super) struct Unreading {
    tasks: JoinSet<Result<()>>,
    /// Requests under way, none of which may ever be answered.
    pub(super) requests: usize,
}

impl Unreading {
    /// Connects these agents, and has each deliver as often as it may at a time.
    pub(super) async fn begin(agents: &[Arc<LoadAgent>], collector: SocketAddr) -> Result<Self> {
        let mut tasks = JoinSet::new();
        for agent in agents {
            let client = Arc::new(Client::open_unreading(agent, collector).await?);
            for _ in 0..STREAMS {
                let client = Arc::clone(&client);
                let mut journal = Journal::begin(Content::Snapshots);
                let (delivery, _) = journal.batch().context("it has no end")?;
                tasks.spawn(async move {
                    client.deliver(delivery).await?;
                    Ok(())
                });
            }
        }
        Ok(Self { requests: tasks.len(), tasks })
    }

    /// Requests whose answers are still waited for.
    pub(super) fn unanswered(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.len()
    }
}
