//! Listeners for agents: TCP, then TLS 1.3, then a connection that knows its peer.
//!
//! Everything that costs is bounded before it is spent: connections per listener, handshakes at
//! a time, handshakes per source, time per handshake. What is turned away is counted by its
//! reason. One task accepts and drives all handshakes of one listener; the finished connections
//! go to the gRPC server through a bounded queue.

mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::spiffe::TrustDomain;
use rustls::CertificateError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::config::Limits;
use crate::identity::PeerCertificate;
use crate::metrics::{CollectorMetrics, Endpoint};

pub use tls::{ServerCertificate, TlsError, for_agents, for_newcomers};

/// Connections that wait for the gRPC server; it takes them at once.
const READY_MAX: usize = 64;
/// Connections that the kernel holds while handshakes are under way.
const BACKLOG: i32 = 4_096;
/// Share of the handshakes that one source may have under way, so that one machine that opens
/// connections and says nothing cannot shut the others out.
const SOURCE_SHARE: usize = 4;
/// Wait after a failed accept (out of file descriptors), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Who is at the other end. In the extensions of every request.
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
    _place: Place,
}

/// A place among the connections of a listener.
struct Place {
    endpoint: Endpoint,
    metrics: CollectorMetrics,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connection_closed(self.endpoint);
    }
}

impl Listener {
    /// Accepts until the stop signal. The connections come out of the receiver of [`queue`].
    pub async fn run(self, ready: mpsc::Sender<Connection>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits.connections_max));
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        let mut handshakes = FuturesUnordered::new();
        let mut by_source: HashMap<IpAddr, usize> = HashMap::new();
        let source_max = (self.limits.handshakes_concurrent_max / SOURCE_SHARE).max(1);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some((source, done)) = handshakes.next(), if !handshakes.is_empty() => {
                    forget(&mut by_source, source);
                    match done {
                        Ok(connection) => if ready.send(connection).await.is_err() { return },
                        Err(refusal) => self.metrics.rejected(refusal),
                    }
                }
                accepted = self.socket.accept(),
                    if handshakes.len() < self.limits.handshakes_concurrent_max =>
                {
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
                    let under_way = by_source.entry(source.ip()).or_insert(0);
                    let permit = Arc::clone(&places).try_acquire_owned().ok();
                    let Some(permit) = permit.filter(|_| *under_way < source_max) else {
                        if *under_way == 0 {
                            by_source.remove(&source.ip());
                        }
                        self.metrics.rejected(Refusal::Overloaded);
                        continue;
                    };
                    *under_way += 1;
                    let place = self.place(permit);
                    let acceptor = acceptor.clone();
                    let this = &self;
                    handshakes.push(async move {
                        (source.ip(), this.handshake(acceptor, stream, source, place).await)
                    });
                }
            }
        }
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        self.metrics.connection_opened(self.endpoint);
        Place { endpoint: self.endpoint, metrics: self.metrics.clone(), _permit: permit }
    }

    async fn handshake(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        source: SocketAddr,
        place: Place,
    ) -> Result<Connection, Refusal> {
        // Reports are one small packet each way: waiting for more would only delay them.
        stream.set_nodelay(true).map_err(|_| Refusal::Handshake)?;
        let accept = acceptor.accept(stream);
        let stream = tokio::time::timeout(self.limits.handshake_timeout, accept)
            .await
            .map_err(|_| Refusal::HandshakeTimeout)?
            .map_err(|error| {
                tracing::debug!(%source, %error, "a TLS handshake failed");
                refusal_of(&error)
            })?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.map(|der| {
            PeerCertificate::parse(der, &self.trust_domain).map_err(|error| {
                tracing::info!(%source, %error, "a certificate of this CA names no agent");
                Refusal::IdentityMalformed
            })
        });
        let peer = Peer(Arc::new(PeerInfo { source, endpoint: self.endpoint, certificate }));
        Ok(Connection { stream, peer, _place: place })
    }
}

/// The queue between a listener and its gRPC server.
pub fn queue() -> (mpsc::Sender<Connection>, mpsc::Receiver<Connection>) {
    mpsc::channel(READY_MAX)
}

fn forget(by_source: &mut HashMap<IpAddr, usize>, source: IpAddr) {
    if let Some(count) = by_source.get_mut(&source) {
        *count -= 1;
        if *count == 0 {
            by_source.remove(&source);
        }
    }
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
        _ => Refusal::Handshake,
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
