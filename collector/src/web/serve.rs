//! Connections of the HTTP side: few, and each of limited life.
//!
//! All of them are polled by the one task that calls [`serve`]; nothing is spawned, so when it
//! returns they are gone.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use haidang_proto::model::refusal::Refusal;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::listen::PerSource;
use crate::metrics::{CollectorMetrics, Endpoint};

/// Connections open at a time; further ones wait in the listener's backlog. A page, a Prometheus
/// pair and a few API clients need a tenth.
const CONNECTIONS_MAX: usize = 64;
/// Share of them that one source may have, so that one machine that opens connections and asks
/// for nothing cannot hide the metrics from Prometheus.
const SOURCE_SHARE: usize = 4;
/// A request's head arrives within this, and a connection without a request is closed after it:
/// longer than the usual 15 s between scrapes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head that are kept.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// After this a connection takes no further request, so that a token that was changed is asked
/// for again and a slow reader cannot stay.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(300);
/// How long an answer may wait for its reader to take any of it (`TCP_USER_TIMEOUT`, tcp(7)): who
/// asks and never reads gives the place back after this.
const STALL_MAX: Duration = Duration::from_secs(10);
/// What an answer under way gets when its connection has to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Wait after a failed accept (out of file descriptors), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the stop signal, then lets answers under way end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    metrics: CollectorMetrics,
    stop: CancellationToken,
) {
    let mut connections = FuturesUnordered::new();
    let mut of_source = PerSource::new(CONNECTIONS_MAX / SOURCE_SHARE);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(source) = connections.next(), if !connections.is_empty() => of_source.leave(source),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((_, source)) if !of_source.enter(source.ip()) => {
                    metrics.rejected(Refusal::Overloaded);
                }
                Ok((stream, source)) => {
                    if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_MAX)) {
                        tracing::debug!(%error, "a reader that stalls will stay for minutes");
                    }
                    let served =
                        connection(stream, router.clone(), metrics.clone(), stop.clone());
                    connections.push(async move {
                        served.await;
                        source.ip()
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    while connections.next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    router: Router,
    metrics: CollectorMetrics,
    stop: CancellationToken,
) {
    metrics.connection_opened(Endpoint::Http);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = sleep(CONNECTION_LIFE_MAX) => None,
    };
    let ended = match ended {
        Some(ended) => Ok(ended),
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN_MAX, connection).await
        }
    };
    if let Ok(Err(error)) = ended {
        // Clients that hang up and scanners that speak no HTTP are everyday.
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    metrics.connection_closed(Endpoint::Http);
}
