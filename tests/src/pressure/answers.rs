//! How deliveries fared, counted by many tasks together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use haidang_proto::model::record::Delivery;
use haidang_proto::model::refusal::REASON_KEY;

use crate::load::Client;

/// Longer than the collector gives a request, 35 s: what is not answered by then never is.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// Deliveries and what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answered {
    /// Deliveries that were acknowledged.
    pub(super) acknowledged: u64,
    /// Deliveries that were refused, by reason.
    pub(super) refused: BTreeMap<String, u64>,
    /// Deliveries that were not answered, or without a reason.
    pub(super) failed: u64,
    /// The longest wait for an acknowledgement.
    pub(super) slowest: Duration,
}

/// Counts them. Clones share it; locked for an assignment, never across a wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Answered>>);

impl Answers {
    /// Delivers, and counts. Whether it was acknowledged, and to its last record; `None` when it
    /// was not answered and the connection may be of no use.
    ///
    /// # Errors
    /// When something is acknowledged that was not sent.
    pub(super) async fn deliver(
        &self,
        client: &Client,
        delivery: Delivery,
        last: u64,
    ) -> Result<Option<bool>> {
        let sent = Instant::now();
        let answer = tokio::time::timeout(ANSWER_WITHIN, client.deliver(delivery)).await;
        let took = sent.elapsed();
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(Ok(seq)) => {
                ensure!(seq == last, "{last} was delivered, and {seq} acknowledged");
                answered.acknowledged += 1;
                answered.slowest = answered.slowest.max(took);
                Ok(Some(true))
            }
            Ok(Err(status)) => match status.metadata().get(REASON_KEY) {
                Some(reason) => {
                    let reason = reason.to_str().unwrap_or("unreadable").to_owned();
                    *answered.refused.entry(reason).or_default() += 1;
                    Ok(Some(false))
                }
                None => {
                    answered.failed += 1;
                    Ok(None)
                }
            },
            Err(_) => {
                answered.failed += 1;
                Ok(None)
            }
        }
    }

    /// What was counted so far.
    pub(super) fn so_far(&self) -> Answered {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
