//! The gRPC servers over the listeners' connections, and their bounds.
//!
//! Each connection is one task that serves HTTP/2 and hands its requests to the one service of its
//! listener. There is nothing to route, so no router stands in between: it cost a tenth of a
//! report. Nor has a request a task of its own: it is one of a few that the connection's task polls,
//! because to spawn it and to be woken by it costs more than a report's work.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use haidang_proto::model::report::REQUEST_BYTES_MAX;
use haidang_proto::wire::enrolment_service_server::EnrolmentServiceServer;
use haidang_proto::wire::recovery_service_server::RecoveryServiceServer;
use haidang_proto::wire::reporting_service_server::ReportingServiceServer;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::enrol::Enrol;
use crate::ingest::Ingest;
use crate::listen::Connection;
use crate::metrics::CollectorMetrics;
use crate::recover::Recover;
use crate::refuse::Counted;

use super::requests::{Conversation, Requests};

/// One request's work, waits for the store included.
const REQUEST_WAIT: Duration = Duration::from_secs(35);
/// Requests of one connection at a time: an agent reports, delivers and renews.
const STREAMS_MAX: u32 = 8;
/// Bytes of a request's headers; ours take 300.
const HEADER_BYTES_MAX: u32 = 8 << 10;
/// Bytes of an enrolment or a recovery: each takes 2 KiB, and nobody there has proved anything yet.
const ENROLMENT_BYTES_MAX: usize = 16 << 10;
/// A silent connection is asked for a sign of life after this, and dropped after that.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// Serves enrolled agents until the stop signal, then lets requests under way end.
pub(super) async fn reporting(
    service: ReportingServiceServer<Ingest>,
    metrics: CollectorMetrics,
    connections: mpsc::Receiver<Box<Connection>>,
    stop: CancellationToken,
) {
    let inner = service.max_decoding_message_size(REQUEST_BYTES_MAX);
    serve(Counted { inner, metrics }, connections, stop).await;
}

/// Serves machines that enrol, likewise.
pub(super) async fn enrolment(
    service: EnrolmentServiceServer<Enrol>,
    metrics: CollectorMetrics,
    connections: mpsc::Receiver<Box<Connection>>,
    stop: CancellationToken,
) {
    let inner = service.max_decoding_message_size(ENROLMENT_BYTES_MAX);
    serve(Counted { inner, metrics }, connections, stop).await;
}

/// Serves machines whose certificate has expired, likewise.
pub(super) async fn recovery(
    service: RecoveryServiceServer<Recover>,
    metrics: CollectorMetrics,
    connections: mpsc::Receiver<Box<Connection>>,
    stop: CancellationToken,
) {
    let inner = service.max_decoding_message_size(ENROLMENT_BYTES_MAX);
    serve(Counted { inner, metrics }, connections, stop).await;
}

async fn serve<S>(
    service: S,
    mut connections: mpsc::Receiver<Box<Connection>>,
    stop: CancellationToken,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next(), if !open.is_empty() => {}
            connection = connections.recv() => {
                let Some(connection) = connection else { break };
                // A token of its own: all would ask one lock with every packet.
                open.spawn(converse(service.clone(), connection, stop.child_token()));
            }
        }
    }
    while open.join_next().await.is_some() {}
}

/// One connection, to its end or until the requests under way at the stop signal are answered.
async fn converse<S>(service: S, connection: Box<Connection>, stop: CancellationToken)
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let peer = connection.peer();
    let answer = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let answered = tokio::time::timeout(REQUEST_WAIT, service.clone().call(request));
        async move { answered.await.unwrap_or_else(|_| Ok(took_too_long())) }
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

fn took_too_long() -> http::Response<Body> {
    Status::deadline_exceeded("the request took too long").into_http()
}
