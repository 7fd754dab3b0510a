//! Listeners for agents: TCP, then TLS 1.3, then a connection that knows its peer.
//!
//! Everything that costs is bounded before it is spent: connections per listener, those that have
//! not greeted yet, handshakes at a time, each per source, time per step. What is turned away is
//! counted by its reason. One task accepts and drives all handshakes of one listener; the finished
//! connections go to the gRPC service through a bounded queue. A connection watches itself from
//! then on: the peer has to begin HTTP/2 in time and by its rules, and a newcomer's visit has an
//! end.

mod http2;
mod per_source;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::spiffe::TrustDomain;
use rustls::server::Acceptor;
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::identity::PeerCertificate;
use crate::metrics::{CollectorMetrics, Endpoint};

use per_source::PerSource;

pub use tls::{ServerCertificate, TlsError, for_agents, for_newcomers};

/// Connections that wait for the gRPC server; it takes them at once.
const READY_MAX: usize = 64;
/// Connections that the kernel holds while handshakes are under way.
const BACKLOG: i32 = 4_096;
/// Connections of one listener that have not greeted yet. They cost an open file and some 1 KiB
/// each, so that many who say nothing keep nobody waiting who does; further ones wait in the kernel.
const KNOCKING_MAX: usize = 8_192;
/// Share of those, and of the handshakes, that one source may have under way, so that one machine
/// cannot shut the others out.
const SOURCE_SHARE: usize = 4;
/// How long a peer without a certificate may stay: an enrolment or a recovery takes seconds, and a
/// request at most 35. Without an end anybody could take all places by answering pings.
const VISIT_MAX: Duration = Duration::from_secs(60);
/// Wait after a failed accept (out of file descriptors), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A peer whose clock is wrong is named in the log so often at most: anybody can send that alert.
const PEER_CLOCK_PERIOD: Duration = Duration::from_secs(60);

/// A listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({endpoint}); see whether another program has the port")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What for.
    pub endpoint: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Opens a listening socket. `[::]` takes both families where there is room for one address only;
/// elsewhere each family is listed.
///
/// # Errors
/// When the address is not this machine's or the port is taken.
pub fn bind(address: SocketAddr, endpoint: Endpoint) -> Result<TcpListener, BindError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the former process's connections to be forgotten.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            let has_one_address = matches!(endpoint, Endpoint::Enrolment | Endpoint::Recovery);
            socket.set_only_v6(!(has_one_address && address.ip().is_unspecified()))?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| BindError { address, endpoint: endpoint.as_str(), source })
}

/// One listener with what it needs to make connections.
pub struct Listener {
    /// What it is for.
    pub endpoint: Endpoint,
    /// Its socket.
    pub socket: TcpListener,
    /// Its TLS.
    pub tls: Arc<rustls::ServerConfig>,
    /// Whose certificates are read.
    pub trust_domain: TrustDomain,
    /// Its bounds.
    pub limits: Limits,
    /// Where refusals are counted.
    pub metrics: CollectorMetrics,
}

/// Who is at the other end; of every request of a connection.
#[derive(Debug, Clone)]
pub struct Peer(Arc<PeerInfo>);

/// What is known of a peer once its handshake is over.
#[derive(Debug)]
pub struct PeerInfo {
    /// Its address as the kernel has it.
    pub source: SocketAddr,
    /// The listener it came to.
    pub endpoint: Endpoint,
    /// What its certificate says, or why nobody can be read from it; `None` where none is asked
    /// for.
    pub certificate: Option<Result<PeerCertificate, Refusal>>,
}

impl PeerInfo {
    /// Where it is, for limits and audit.
    pub fn address(&self) -> IpAddr {
        self.source.ip().to_canonical()
    }
}

impl std::ops::Deref for Peer {
    type Target = PeerInfo;

    fn deref(&self) -> &PeerInfo {
        &self.0
    }
}

/// A connection after its handshake. It gives its place back when it is dropped.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// What is left of the client's preface; empty once HTTP/2 has begun.
    preface: &'static [u8],
    /// When it has to have begun or, for a newcomer, to be over.
    deadline: Option<Pin<Box<Sleep>>>,
    sent: http2::Sent,
    place: Place,
}

/// A greeting that is there in full, and whose handshake has not begun.
struct Hello {
    start: StartHandshake<TcpStream>,
    place: Place,
}

/// A place among the connections of a listener.
struct Place {
    endpoint: Endpoint,
    metrics: CollectorMetrics,
    /// What is left to a peer without a certificate; nothing bounds an agent's connection.
    visit: Option<Duration>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connection_closed(self.endpoint);
    }
}

impl Listener {
    /// Accepts until the stop signal. The connections come out of the receiver of [`queue`].
    pub async fn run(self, ready: mpsc::Sender<Box<Connection>>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits.connections_max));
        let handshakes_max = self.limits.handshakes_concurrent_max;
        let (mut knocking, mut handshakes) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut knocks_of = PerSource::new(KNOCKING_MAX / SOURCE_SHARE);
        let mut handshakes_of = PerSource::new(handshakes_max / SOURCE_SHARE);
        let mut peer_clock_told: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some((source, done)) = handshakes.next(), if !handshakes.is_empty() => {
                    handshakes_of.leave(source);
                    match done {
                        Ok(connection) => if ready.send(connection).await.is_err() { return },
                        Err(refusal) => {
                            self.metrics.rejected(refusal);
                            if refusal == Refusal::PeerClock {
                                tell_of_clock(source, &mut peer_clock_told);
                            }
                        }
                    }
                }
                Some((source, knocked)) = knocking.next(),
                    if !knocking.is_empty() && handshakes.len() < handshakes_max =>
                {
                    let source: SocketAddr = source;
                    knocks_of.leave(source.ip());
                    match knocked {
                        Ok(hello) if handshakes_of.enter(source.ip()) => {
                            let done = self.handshake(hello, source);
                            handshakes.push(async move { (source.ip(), done.await) });
                        }
                        Ok(_) => self.metrics.rejected(Refusal::Overloaded),
                        Err(refusal) => self.metrics.rejected(refusal),
                    }
                }
                accepted = self.socket.accept(), if knocking.len() < KNOCKING_MAX => {
                    let (stream, source) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            let endpoint = self.endpoint.as_str();
                            tracing::warn!(endpoint, %error, "cannot accept a connection");
                            self.metrics.rejected(Refusal::Overloaded);
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                            continue;
                        }
                    };
                    let permit = Arc::clone(&places).try_acquire_owned().ok();
                    let Some(permit) = permit.filter(|_| knocks_of.enter(source.ip())) else {
                        self.metrics.rejected(Refusal::Overloaded);
                        continue;
                    };
                    let knock = self.knock(stream, self.place(permit));
                    knocking.push(async move { (source, knock.await) });
                }
            }
        }
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        self.metrics.connection_opened(self.endpoint);
        let visit = match self.endpoint {
            Endpoint::Enrolment | Endpoint::Recovery => Some(VISIT_MAX),
            Endpoint::Dedicated | Endpoint::Fallback | Endpoint::Http => None,
        };
        Place { endpoint: self.endpoint, metrics: self.metrics.clone(), visit, _permit: permit }
    }

    /// Waits for the whole of a client's greeting. Nothing has been computed until then.
    async fn knock(&self, stream: TcpStream, place: Place) -> Result<Hello, Refusal> {
        // Reports are one small packet each way: waiting for more would only delay them.
        stream.set_nodelay(true).map_err(|_| Refusal::Handshake)?;
        let greeted = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let start = self.in_time(greeted).await?;
        Ok(Hello { start, place })
    }

    async fn in_time<T>(&self, step: impl Future<Output = io::Result<T>>) -> Result<T, Refusal> {
        let done = tokio::time::timeout(self.limits.handshake_timeout, step).await;
        done.map_err(|_| Refusal::HandshakeTimeout)?.map_err(|error| {
            tracing::debug!(%error, "a TLS handshake failed");
            refusal_of(&error)
        })
    }

    async fn handshake(
        &self,
        hello: Hello,
        source: SocketAddr,
    ) -> Result<Box<Connection>, Refusal> {
        let Hello { start, place } = hello;
        let stream = self.in_time(start.into_stream(Arc::clone(&self.tls))).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.map(|der| {
            PeerCertificate::parse(der, &self.trust_domain).map_err(|error| {
                tracing::info!(%source, %error, "a certificate of this CA names no agent");
                Refusal::IdentityMalformed
            })
        });
        let peer = Peer(Arc::new(PeerInfo { source, endpoint: self.endpoint, certificate }));
        Ok(Box::new(Connection {
            stream,
            peer,
            preface: http2::PREFACE,
            deadline: Some(Box::pin(tokio::time::sleep(self.limits.handshake_timeout))),
            sent: http2::Sent::default(),
            place,
        }))
    }
}

/// Names a source whose machine takes our certificate for over, now and then.
fn tell_of_clock(source: IpAddr, told: &mut Option<Instant>) {
    if told.is_none_or(|at| at.elapsed() >= PEER_CLOCK_PERIOD) {
        tracing::warn!(
            %source,
            "a machine takes this collector's certificate for over: its clock is wrong, or ours"
        );
        *told = Some(Instant::now());
    }
}

/// The queue between a listener and its gRPC server. A connection is boxed, because each future that
/// it is moved through would keep room for another one, 2 KiB each, as long as it is open.
pub fn queue() -> (mpsc::Sender<Box<Connection>>, mpsc::Receiver<Box<Connection>>) {
    mpsc::channel(READY_MAX)
}

fn refusal_of(error: &io::Error) -> Refusal {
    let tls = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => Refusal::CertificateExpired,
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => Refusal::CertificateNotYetValid,
        Some(rustls::Error::NoCertificatesPresented) => Refusal::NoCertificate,
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            Refusal::PeerClock
        }
        _ => Refusal::Handshake,
    }
}

impl Connection {
    /// Who is at its other end.
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    fn refuse(&mut self, refusal: Refusal, kind: io::ErrorKind) -> io::Error {
        self.deadline = None;
        self.place.metrics.rejected(refusal);
        kind.into()
    }

    /// Holds what arrived against the preface of HTTP/2.
    fn check_preface(&mut self, arrived: &[u8]) -> io::Result<()> {
        let compared = arrived.len().min(self.preface.len());
        let (expected, left) = self.preface.split_at(compared);
        if *expected != arrived[..compared] {
            return Err(self.refuse(Refusal::Http2, io::ErrorKind::InvalidData));
        }
        if left.is_empty() && !expected.is_empty() {
            let visit = self.place.visit.map(tokio::time::sleep);
            self.deadline = visit.map(Box::pin);
        }
        self.preface = left;
        Ok(())
    }

    fn observe(&mut self, sent: &[u8]) {
        if self.sent.takes_leave(sent) {
            self.place.metrics.rejected(Refusal::Http2);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_late = self.deadline.as_mut().is_some_and(|at| at.as_mut().poll(cx).is_ready());
        if is_late {
            let late = self.refuse(Refusal::HandshakeTimeout, io::ErrorKind::TimedOut);
            return Poll::Ready(Err(late));
        }
        let held = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.check_preface(&buf.filled()[held..]))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.observe(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let taken = left.min(buf.len());
            self.observe(&buf[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
