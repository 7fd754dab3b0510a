//! The journal's own thread: whoever asks does not wait for the disk.
//!
//! `run` starts [`keep`] on a thread; the observer sends events, the uplink asks for batches and
//! hands acknowledgements on. It ends when every [`Keeper`] is gone, or at [`Keeper::stop`].

use std::time::SystemTime;

use haidang_proto::model::record::{Delivery, Event, Moment, Receipt};
use haidang_proto::model::report::JournalStatus;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::uplink::chain;

use super::Journal;

/// Requests that may wait: an hour of a path that changes every fifteen seconds, should the disk
/// hang for so long.
const REQUESTS_MAX: usize = 256;

/// Speaks to the journal's thread.
#[derive(Debug, Clone)]
pub struct Keeper {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<JournalStatus>,
}

/// The thread's end of a [`Keeper`].
#[derive(Debug)]
pub struct Requests {
    requests: mpsc::Receiver<Request>,
    status: watch::Sender<JournalStatus>,
}

#[derive(Debug)]
enum Request {
    Append(Moment, Event),
    Batch(SystemTime, oneshot::Sender<Option<Delivery>>),
    Receipt(Uuid, Receipt),
    Stop(oneshot::Sender<()>),
}

/// A connected pair.
pub fn channel(journal: &Journal) -> (Keeper, Requests) {
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    let (status_sender, status) = watch::channel(journal.status());
    (Keeper { requests, status }, Requests { requests: receiver, status: status_sender })
}

impl Keeper {
    /// Hands an event over. Never waits: an event that finds the queue full is lost, which is
    /// said, and only a disk that hangs fills it.
    pub fn append(&self, at: Moment, event: Event) {
        if self.requests.try_send(Request::Append(at, event)).is_err() {
            tracing::error!("the journal does not keep up with the disk; a record is lost");
        }
    }

    /// The oldest records that wait for delivery.
    pub async fn batch(&self, now: SystemTime) -> Option<Delivery> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Batch(now, reply)).await.ok()?;
        answer.await.ok()?
    }

    /// The collector has answered a delivery.
    pub async fn receipt(&self, journal_id: Uuid, receipt: Receipt) {
        // A journal that has stopped has nothing to forget.
        let _ = self.requests.send(Request::Receipt(journal_id, receipt)).await;
    }

    /// How the journal fares.
    pub fn status(&self) -> JournalStatus {
        *self.status.borrow()
    }

    /// Whether records wait, as a level to be waited on.
    pub fn status_changes(&self) -> watch::Receiver<JournalStatus> {
        self.status.clone()
    }

    /// Waits until the journal's thread has ended.
    pub async fn closed(&self) {
        self.requests.closed().await;
    }

    /// Writes down what was handed over, then the mark of a clean stop.
    pub async fn stop(self) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Stop(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }
}

/// Serves requests until there can be no more. Errors are logged here, once: each is counted in
/// the journal's status, and nobody who asks could do better.
pub fn keep(mut journal: Journal, requests: Requests) {
    let Requests { mut requests, status } = requests;
    while let Some(request) = requests.blocking_recv() {
        match request {
            Request::Append(at, event) => {
                if let Err(error) = journal.append(at, event) {
                    tracing::error!(error = chain(&error), "a record was not written");
                }
            }
            Request::Batch(now, reply) => {
                let batch = journal.batch(now).unwrap_or_else(|error| {
                    tracing::error!(error = chain(&error), "the journal was not read");
                    None
                });
                // Whoever asked may have been stopped meanwhile.
                let _ = reply.send(batch);
            }
            Request::Receipt(id, Receipt { acknowledged_seq, conflicting_seq }) => {
                let kept = match conflicting_seq {
                    Some(seq) => journal.fork(id, seq),
                    None => journal.acknowledge(id, acknowledged_seq),
                };
                if let Err(error) = kept {
                    tracing::warn!(error = chain(&error), "the answer to a delivery was not kept");
                }
            }
            Request::Stop(reply) => {
                if let Err(error) = journal.stop() {
                    tracing::warn!(error = chain(&error), "the clean stop was not marked");
                }
                let _ = reply.send(());
                return;
            }
        }
        status.send_if_modified(|held| {
            let is_new = *held != journal.status();
            *held = journal.status();
            is_new
        });
    }
}
