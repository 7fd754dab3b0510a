//! The requests of one connection, polled by the connection's own task.
//!
//! hyper hands each request to an executor. The usual one spawns it: a task is made, queued, run on
//! whatever thread is free, and has to wake the connection's task when its answer is there. A
//! connection of ours has a few requests at a time at most, most of which are answered at once, so
//! they wait beside the connection and are polled with it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::rt::Executor;

/// What answers one request.
type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the requests that a connection begins. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Requests {
    // hyper wants an executor that can be shared; only the connection's task ever locks it.
    begun: Arc<Mutex<Vec<Request>>>,
}

impl<F> Executor<F> for Requests
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(request));
    }
}

/// A connection with its requests. What is under way when the connection ends, ends with it.
pub(super) struct Conversation<'a, C> {
    connection: Pin<&'a mut C>,
    requests: Requests,
    under_way: Vec<Request>,
}

impl<'a, C: Future> Conversation<'a, C> {
    /// Of a connection that hands its requests to `requests`.
    pub(super) fn new(connection: Pin<&'a mut C>, requests: Requests) -> Self {
        Self { connection, requests, under_way: Vec::new() }
    }

    /// The connection, to tell it something.
    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }

    /// Goes on with the connection and all requests; ready when the connection has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<C::Output> {
        let ended = self.connection.as_mut().poll(cx);
        // An answer wakes this task, so that the connection sends it.
        self.under_way
            .append(&mut self.requests.begun.lock().unwrap_or_else(PoisonError::into_inner));
        self.under_way.retain_mut(|request| request.as_mut().poll(cx).is_pending());
        ended
    }
}
