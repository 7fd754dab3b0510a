//! A simulated agent's life: it connects, reports when it is told to, and when that fails tries
//! again. Where and when is decided by the agent's own rules, compiled here from its own files,
//! which are private there; and as the agent it learns of a lost connection with its next report.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use haidang_proto::model::refusal::REASON_KEY;
use haidang_proto::model::settings::Settings;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Process};
use super::crowd::{Log, What};
use super::fleet::LoadAgent;
use crate::dice::Dice;
use choice::Choice;

#[cfg_attr(not(test), expect(dead_code, reason = "the agent needs more of it"))]
#[path = "../../../agent/src/uplink/backoff.rs"]
mod backoff;
#[expect(dead_code, unreachable_pub, reason = "the agent needs more of it, elsewhere")]
#[path = "../../../agent/src/uplink/choice.rs"]
mod choice;

/// TCP and TLS: the agent's two limits together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The agent's.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The agent's longest retry window.
const RETRY_CAP: Duration = Duration::from_secs(60);

/// Within how long an agent tries again after so many failures in a row.
pub(crate) fn retry_window(failures: u32, interval: Duration) -> Duration {
    backoff::delay(failures, interval, RETRY_CAP, u32::MAX)
}

/// One agent, and where it reports.
pub(super) struct Life {
    pub(super) number: usize,
    pub(super) agent: Arc<LoadAgent>,
    pub(super) collector: SocketAddr,
    /// The window of the first retry, which is the report interval that the server sets.
    pub(super) interval: Duration,
    /// How long after the start of all it starts.
    pub(super) begins_after: Duration,
    pub(super) log: Log,
    pub(super) dice: Dice,
}

impl Life {
    /// Lives until it is stopped.
    pub(super) async fn live(self, stop: CancellationToken) -> Result<()> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            lived = self.live_on() => lived,
        }
    }

    async fn live_on(mut self) -> Result<()> {
        tokio::time::sleep(self.begins_after).await;
        let born = Instant::now();
        let process = Arc::new(Process::begin());
        let mut choice = Choice::new(&[self.collector], &[], self.interval);
        loop {
            let (index, at) = choice.next(born.elapsed()).context("there is one collector")?;
            tokio::time::sleep(at.saturating_sub(born.elapsed())).await;
            self.note(What::Connects);
            let opening = Client::open(&self.agent, self.collector, Arc::clone(&process));
            match timeout(CONNECT_TIMEOUT, opening).await {
                Ok(Ok(client)) => {
                    choice.reached(index);
                    self.report(&client, |random| choice.proved(index, born.elapsed(), random))
                        .await;
                    self.note(What::NotHeard);
                }
                Ok(Err(_)) | Err(_) => self.note(What::NotConnected),
            }
            choice.failed(index, born.elapsed(), self.random());
        }
    }

    /// Reports until that fails.
    async fn report(&mut self, client: &Client, mut proved: impl FnMut(u32)) {
        let mut full = true;
        loop {
            let sent = Instant::now();
            let pause = match timeout(REPORT_TIMEOUT, client.tell(full)).await {
                Ok(Ok(told)) => {
                    self.note(What::Heard { after: sent.elapsed() });
                    proved(self.random());
                    full = told.full_report_wanted;
                    let next = Duration::from_millis(told.next_report_in_ms.into());
                    next.clamp(Settings::REPORT_INTERVAL_MIN, Settings::REPORT_INTERVAL_MAX)
                }
                // The collector says that it does not want it now: one beat later, as the agent.
                Ok(Err(status)) if status.metadata().contains_key(REASON_KEY) => {
                    self.note(What::Refused);
                    self.interval + backoff::share(self.interval, self.random())
                }
                Ok(Err(_)) | Err(_) => return,
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self, what: What) {
        self.log.note(self.number, what);
    }

    fn random(&mut self) -> u32 {
        self.dice.next() as u32
    }
}
