//! The gRPC services over the listeners' connections, and their bounds.
//!
//! Each connection is one task that serves HTTP/2 and hands its requests to the one service of its
//! listener. There is nothing to route, so no router stands in between: it cost a tenth of a
//! report. Nor has a request a task of its own: it is one of a few that the connection's task polls,
//! because to spawn it and to be woken by it costs more than a report's work.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::listen::Connection;
use crate::metrics::CollectorMetrics;
use crate::unary::{self, respond};

use super::requests::{Conversation, Requests};

/// Requests of one connection at a time: an agent reports, delivers and renews.
const STREAMS_MAX: u32 = 8;
/// Bytes of a request's headers; ours take 300.
const HEADER_BYTES_MAX: u32 = 8 << 10;
/// A silent connection is asked for a sign of life after this, and dropped after that.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// Serves a listener's connections until the stop signal, then lets requests under way end.
pub(super) async fn serve<S: unary::Service>(
    service: Arc<S>,
    metrics: CollectorMetrics,
    mut connections: mpsc::Receiver<Box<Connection>>,
    stop: CancellationToken,
) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next(), if !open.is_empty() => {}
            connection = connections.recv() => {
                let Some(connection) = connection else { break };
                let (service, metrics) = (Arc::clone(&service), metrics.clone());
                // A token of its own: all would ask one lock with every packet.
                open.spawn(converse(service, metrics, connection, stop.child_token()));
            }
        }
    }
    while open.join_next().await.is_some() {}
}

/// One connection, to its end or until the requests under way at the stop signal are answered.
async fn converse<S: unary::Service>(
    service: Arc<S>,
    metrics: CollectorMetrics,
    connection: Box<Connection>,
    stop: CancellationToken,
) {
    let peer = connection.peer();
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let answering = respond(Arc::clone(&service), metrics.clone(), peer.clone(), request);
        async { Ok::<_, Infallible>(answering.await) }
    });
    let requests = Requests::default();
    let serving = pin!(
        http2::Builder::new(requests.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            // Nobody reads it: a report's answer says the time to the millisecond.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(connection), answer)
    );
    let mut serving = Conversation::new(serving, requests);
    let ended = tokio::select! {
        ended = poll_fn(|cx| serving.poll(cx)) => ended,
        () = stop.cancelled() => {
            serving.connection().graceful_shutdown();
            poll_fn(|cx| serving.poll(cx)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
