//! The gRPC servers over the listeners' connections, and their bounds.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context as _;
use haidang_proto::model::report::REQUEST_BYTES_MAX;
use haidang_proto::wire::enrolment_service_server::EnrolmentServiceServer;
use haidang_proto::wire::recovery_service_server::RecoveryServiceServer;
use haidang_proto::wire::reporting_service_server::ReportingServiceServer;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::enrol::Enrol;
use crate::ingest::Ingest;
use crate::listen::Connection;
use crate::metrics::CollectorMetrics;
use crate::recover::Recover;
use crate::refuse::Counted;

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
    connections: mpsc::Receiver<Connection>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let inner = service.max_decoding_message_size(REQUEST_BYTES_MAX);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, Infallible>);
    let served = grpc()
        .add_service(Counted { inner, metrics })
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    served.await.context("the reporting service failed")
}

/// Serves machines that enrol, likewise.
pub(super) async fn enrolment(
    service: EnrolmentServiceServer<Enrol>,
    metrics: CollectorMetrics,
    connections: mpsc::Receiver<Connection>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let inner = service.max_decoding_message_size(ENROLMENT_BYTES_MAX);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, Infallible>);
    let served = grpc()
        .add_service(Counted { inner, metrics })
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    served.await.context("the enrolment service failed")
}

/// Serves machines whose certificate has expired, likewise.
pub(super) async fn recovery(
    service: RecoveryServiceServer<Recover>,
    metrics: CollectorMetrics,
    connections: mpsc::Receiver<Connection>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let inner = service.max_decoding_message_size(ENROLMENT_BYTES_MAX);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, Infallible>);
    let served = grpc()
        .add_service(Counted { inner, metrics })
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    served.await.context("the recovery service failed")
}

fn grpc() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .timeout(REQUEST_WAIT)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
}
