//! Deliveries: what the journal keeps, in capped batches beside the reports.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use haidang_proto::model::refusal::Refusal;

use super::{Conversation, Ended};
use crate::clock::random;
use crate::uplink::Standing;
use crate::uplink::session::CallError;

/// Longest wait until a batch is durable.
pub(in crate::uplink) const DELIVERY_DEADLINE: Duration = Duration::from_secs(5);
/// Batches are this far apart: 16 KiB each make 32 kbit/s, half of the slowest line in use.
const DELIVERY_PAUSE: Duration = Duration::from_secs(4);
/// First and longest wait after a delivery that failed.
const DELIVERY_RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
pub(super) type Delivering = Pin<Box<dyn Future<Output = Delivered> + Send>>;

/// What became of a delivery.
pub(super) enum Delivered {
    /// The collector holds more than before.
    Onwards,
    /// There was nothing to deliver, it could not be read, or the collector holds no more than
    /// before.
    Stalled,
    Failed(CallError),
}

impl Conversation<'_> {
    /// Whether records wait, none are under way, and this connection has carried a report of the
    /// present state: that comes first.
    pub(super) fn may_deliver(&self) -> bool {
        let is_proved = matches!(self.uplink.status.borrow().standing, Standing::Reporting(_));
        let is_told = self.uplink.live.watch().borrow().changes == self.changes_told;
        let waits = self.uplink.keeper.status().waiting_records > 0;
        self.session.is_some() && self.delivering.is_none() && is_proved && is_told && waits
    }

    /// Begins to deliver what waits, on the connection that carries the reports.
    pub(super) fn start_delivery(&mut self) {
        let Some(session) = &self.session else { return };
        let (mut session, keeper) = (session.clone(), self.uplink.keeper.clone());
        self.delivering = Some(Box::pin(async move {
            let Some(batch) = keeper.batch(SystemTime::now()).await else {
                return Delivered::Stalled;
            };
            let (journal_id, first_seq) = (batch.journal_id, batch.first_seq);
            match session.deliver(batch, DELIVERY_DEADLINE).await {
                Ok(receipt) => {
                    let is_onwards =
                        receipt.conflicting_seq.is_none() && receipt.acknowledged_seq >= first_seq;
                    keeper.receipt(journal_id, receipt).await;
                    if is_onwards { Delivered::Onwards } else { Delivered::Stalled }
                }
                Err(error) => Delivered::Failed(error),
            }
        }));
    }

    pub(super) fn delivered(&mut self, outcome: Delivered) -> Option<Ended> {
        let now = self.now();
        match outcome {
            Delivered::Onwards => self.delivery.succeeded(now + DELIVERY_PAUSE),
            Delivered::Stalled => self.delivery.failed(now, DELIVERY_RETRY, random()),
            Delivered::Failed(CallError::Refused(Refusal::Revoked)) => {
                return Some(Ended::Revoked);
            }
            Delivered::Failed(error) => {
                tracing::info!(%error, "records not delivered; they stay in the journal");
                self.delivery.failed(now, DELIVERY_RETRY, random());
            }
        }
        None
    }
}
