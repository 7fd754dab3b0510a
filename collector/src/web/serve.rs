//! Connections of the HTTP side: few, and each of limited life.
//!
//! All of them are polled by the one task that calls [`serve`]; nothing is spawned, so when it
//! returns they are gone. Each is accepted as soon as it is there: who gets a place, and who gives
//! one up for it, is decided by `places` and never by the order in the listener's backlog.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
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
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::places::{Admission, Standing, admit};
use super::reader::{Reader, Watched};
use crate::metrics::{CollectorMetrics, Endpoint};

/// A request's head arrives within this, and a connection without a request is closed after it:
/// longer than the usual 15 s between scrapes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head that are kept.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// After this a connection takes no further request, so that a token that was changed is asked
/// for again and a slow reader cannot stay.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(300);
/// How long an answer may wait for its reader to take any of it (`TCP_USER_TIMEOUT`, tcp(7)): who
/// asks and never reads gives the place back after this, even if nobody wants it.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that wait in the kernel for their reader; it counts twice as much
/// (`SO_SNDBUF`, socket(7)). Left to itself it takes 4 MiB a connection; this fills 80 Mbit/s
/// over 50 ms.
const SEND_BUFFER_BYTES: usize = 256 << 10;
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
    let mut places = Places::default();
    loop {
        tokio::select! {
            // In this order, whoever has given way is gone before another one is let in.
            biased;
            () = stop.cancelled() => break,
            Some(number) = connections.next(), if !connections.is_empty() => places.leave(number),
            accepted = listener.accept() => match accepted {
                Ok((stream, source)) => {
                    let Some((number, place)) = places.enter(source.ip(), &metrics) else {
                        continue;
                    };
                    limit(&stream);
                    let stream = Watched::new(stream, place.reader);
                    let gives_way = place.gives_way;
                    let served =
                        connection(stream, router.clone(), metrics.clone(), stop.clone());
                    connections.push(async move {
                        tokio::select! {
                            () = served => {}
                            () = gives_way.cancelled() => {}
                        }
                        number
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

fn limit(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let limited = socket
        .set_tcp_user_timeout(Some(STALL_MAX))
        .and_then(|()| socket.set_send_buffer_size(SEND_BUFFER_BYTES));
    if let Err(error) = limited {
        tracing::debug!(%error, "a reader that stalls may stay for minutes, and hold more");
    }
}

/// Connections that have a place, by a number of their own.
#[derive(Debug, Default)]
struct Places {
    taken: BTreeMap<u64, Place>,
    next: u64,
}

#[derive(Debug, Clone)]
struct Place {
    source: IpAddr,
    reader: Arc<Reader>,
    gives_way: CancellationToken,
}

impl Places {
    /// A place for a newcomer, and its number; who is sent away for it or instead of it is counted.
    fn enter(&mut self, source: IpAddr, metrics: &CollectorMetrics) -> Option<(u64, Place)> {
        let now = Instant::now();
        let standing = |place: &Place| Standing {
            source: place.source,
            is_awaited: place.reader.is_awaited(),
            rest: place.reader.rest(now),
        };
        let taken: Vec<_> = self.taken.values().map(standing).collect();
        match admit(source, &taken) {
            Admission::Free => {}
            Admission::InPlaceOf(position) => {
                metrics.rejected(Refusal::Overloaded);
                let number = self.taken.keys().nth(position).copied()?;
                self.taken.remove(&number)?.gives_way.cancel();
            }
            Admission::Refused => {
                metrics.rejected(Refusal::Overloaded);
                return None;
            }
        }
        let reader = Arc::new(Reader::new(now));
        let place = Place { source, reader, gives_way: CancellationToken::new() };
        let number = self.next;
        self.next += 1;
        self.taken.insert(number, place.clone());
        Some((number, place))
    }

    fn leave(&mut self, number: u64) {
        // Gone already where it gave way.
        self.taken.remove(&number);
    }
}

async fn connection(
    stream: Watched,
    router: Router,
    metrics: CollectorMetrics,
    stop: CancellationToken,
) {
    let _open = Open::new(metrics);
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
}

/// Counts a connection as open until it is dropped, at its end or when it gives way.
struct Open(CollectorMetrics);

impl Open {
    fn new(metrics: CollectorMetrics) -> Self {
        metrics.connection_opened(Endpoint::Http);
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connection_closed(Endpoint::Http);
    }
}
