//! Makes one connection to a collector: a socket, bound or not, TLS 1.3, HTTP/2.
//!
//! A dedicated listener is reached only through a socket bound to the dedicated device *and* to
//! an address of the agency: a report that arrives there is itself the proof of the path.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use haidang_probe::{BindError, Binding};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::config::Dedicated;
use crate::evidence::{Interface, LocalFault};
use crate::identity::verifier::CollectorVerifier;
use crate::identity::{Identity, IdentityError, NotTheCollector, provider};
use crate::link::Kernel;

/// A SYN and two repetitions fit, on any line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The handshake is some 6 KB with its post-quantum keys: a second on 64 kbit/s, and a busy
/// collector admits handshakes at a bounded rate.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Data that stay unacknowledged so long end the connection (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// A ping on an idle connection: between reports there is hardly one.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Window of HTTP/2: an answer is a few hundred bytes, a trust bundle 128 KiB.
const WINDOW_BYTES: u32 = 64 << 10;
/// Sessions kept for resumption: one for each of a few listeners.
const SESSIONS_MAX: usize = 4;

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The dedicated interface or its address is not there.
    #[error("the dedicated interface has no address of the agency now ({0})")]
    NotAttached(String),
    /// The kernel refused the binding.
    #[error("cannot bind to the dedicated interface")]
    Bind(#[source] BindError),
    /// No TCP connection.
    #[error("cannot connect to {address}")]
    Tcp {
        /// The listener.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// By this machine's clock, the collector's certificate is over (or, where a code is redeemed,
    /// has not begun).
    #[error(
        "the certificate of {address} is not valid by this machine's clock; see whether the clock \
         is right (timedatectl)"
    )]
    Clock {
        /// The listener.
        address: SocketAddr,
        /// What failed.
        source: io::Error,
    },
    /// No TLS connection.
    #[error("no secure connection to {address}")]
    Tls {
        /// The listener.
        address: SocketAddr,
        /// What failed.
        source: io::Error,
    },
    /// No HTTP/2 connection.
    #[error("{address} does not speak gRPC")]
    Http {
        /// The listener.
        address: SocketAddr,
        /// What failed.
        source: tonic::transport::Error,
    },
}

/// The binding for a target on the dedicated network, from a fresh look at the kernel's state.
///
/// # Errors
/// When the interface is down, or has no address inside the agency's prefixes.
pub(crate) async fn dedicated_binding(
    dedicated: &Dedicated,
    target: IpAddr,
) -> Result<Binding, ConnectError> {
    let snapshot = Kernel::new().snapshot(dedicated, &[target]).await;
    let not_attached = |problem: &str| Err(ConnectError::NotAttached(problem.into()));
    let device = match snapshot.link.interface {
        Interface::Up { name, .. } => name,
        Interface::Missing => return not_attached("no such interface"),
        Interface::AdminDown { name } => return not_attached(&format!("{name} is switched off")),
        Interface::NoCarrier { name } => return not_attached(&format!("{name} has no carrier")),
        Interface::Unreadable(LocalFault(fault)) => return not_attached(&fault),
    };
    match snapshot.sources.toward(target) {
        Some(source) => Ok(Binding { device: Some(device), source: Some(source) }),
        None => not_attached(&format!("{device} has no address inside local_prefixes")),
    }
}

/// What an enrolled agent presents and demands.
///
/// # Errors
/// When key, certificate and roots do not fit together.
pub(crate) fn tls_of(identity: &Identity) -> Result<Arc<ClientConfig>, IdentityError> {
    let roots = identity.root_store()?;
    let verifier = CollectorVerifier::of_roots(roots, identity.trust_domain.clone(), &provider());
    let certified = identity.certified_key()?;
    let mut config = versions()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            Arc::unwrap_or_clone(certified),
        )));
    finish(&mut config);
    Ok(Arc::new(config))
}

/// What a machine without a valid certificate demands: of a collector, by `verifier`.
pub(crate) fn tls_without_certificate(verifier: Arc<CollectorVerifier>) -> Arc<ClientConfig> {
    let mut config =
        versions().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    finish(&mut config);
    Arc::new(config)
}

fn versions() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
}

fn finish(config: &mut ClientConfig) {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
}

/// Connects, bound where there is a binding, and shakes hands.
///
/// # Errors
/// Which step failed, and why.
pub(crate) async fn connect(
    address: SocketAddr,
    binding: Option<&Binding>,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tcp_failed = |source| ConnectError::Tcp { address, source };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(tcp_failed)?;
    socket.set_nonblocking(true).map_err(tcp_failed)?;
    if let Some(binding) = binding {
        binding.apply(&socket).map_err(ConnectError::Bind)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT)).map_err(tcp_failed)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address);
    let stream = within(CONNECT_TIMEOUT, stream).await.map_err(tcp_failed)?;
    stream.set_nodelay(true).map_err(tcp_failed)?;
    let name = ServerName::IpAddress(address.ip().into());
    let handshake = TlsConnector::from(tls).connect(name, stream);
    within(HANDSHAKE_TIMEOUT, handshake).await.map_err(|source| tls_failed(address, source))
}

/// Tells a wrong clock from the rest, and what our own verifier said in its own words.
fn tls_failed(address: SocketAddr, source: io::Error) -> ConnectError {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext, Other};
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let said = match inner {
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        )) => return ConnectError::Clock { address, source },
        Some(rustls::Error::InvalidCertificate(Other(other))) => {
            other.0.downcast_ref::<NotTheCollector>().copied()
        }
        _ => None,
    };
    let readable = |said| io::Error::new(io::ErrorKind::InvalidData, said);
    ConnectError::Tls { address, source: said.map_or(source, readable) }
}

/// A gRPC channel over one connection. When the connection ends, so does the channel: whoever
/// uses it decides where to connect next.
///
/// # Errors
/// When the peer does not speak HTTP/2.
pub(crate) async fn channel(
    address: SocketAddr,
    stream: TlsStream<TcpStream>,
) -> Result<Channel, ConnectError> {
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::other("the connection has ended")) }
    });
    // The authority is never looked up, and the collector never looks at it.
    Endpoint::from_static("http://collector.invalid")
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_with_connector(once)
        .await
        .map_err(|source| ConnectError::Http { address, source })
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(time, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", time.as_secs()),
        )),
    }
}
