//! A box in the path that intercepts TLS: it ends each connection with a certificate that it
//! signs itself, opens another to where the client wanted to go, and passes on what it reads.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::AbortOnDropHandle;

use crate::anybody::Anybody;
use crate::netns::Netns;

/// The name of the box's own CA, which agents have to tell.
const ISSUER: &str = "Lab Interception CA";

/// A running box; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Middlebox {
    /// Where it listens.
    pub(crate) port: u16,
    _serving: AbortOnDropHandle<()>,
}

impl Middlebox {
    /// Listens inside a namespace, and stands for `target` there.
    ///
    /// # Errors
    /// When it cannot listen or make its certificates.
    pub(crate) fn start(netns: &Arc<Netns>, target: SocketAddr) -> Result<Self> {
        let any = match target.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        let listener = netns.inside(|| std::net::TcpListener::bind((any, 0)))?;
        let listener = listener.context("listen for intercepted connections")?;
        listener.set_nonblocking(true).context("set a socket to non-blocking")?;
        let port = listener.local_addr().context("ask for the port")?.port();
        let listener = TcpListener::from_std(listener).context("register a socket")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let acceptor = TlsAcceptor::from(Arc::new(own_side(target.ip(), &provider)?));
        let connector = TlsConnector::from(Arc::new(far_side(&provider)?));
        let netns = Arc::clone(netns);
        let serving = tokio::spawn(async move {
            // An error here is a client that went away.
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let netns = Arc::clone(&netns);
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                tokio::spawn(async move {
                    // A refused interception is what the laboratory wants to see.
                    let _ = intercept(client, target, &netns, &acceptor, &connector).await;
                });
            }
        });
        Ok(Self { port, _serving: AbortOnDropHandle::new(serving) })
    }
}

async fn intercept(
    client: TcpStream,
    target: SocketAddr,
    netns: &Netns,
    acceptor: &TlsAcceptor,
    connector: &TlsConnector,
) -> Result<()> {
    let mut client = acceptor.accept(client).await.context("the client refuses the certificate")?;
    let socket = netns.inside(|| match target {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    })??;
    let server = socket.connect(target).await.context("connect to the target")?;
    let name = ServerName::IpAddress(target.ip().into());
    let mut server = connector.connect(name, server).await.context("the target's TLS")?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.context("pass on")?;
    Ok(())
}

/// A certificate for the target, by the box's own CA.
fn own_side(target: IpAddr, provider: &Arc<CryptoProvider>) -> Result<ServerConfig> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name = named(ISSUER);
    let issuer = Issuer::new(authority, KeyPair::generate().context("draw the CA's key")?);
    let mut leaf = CertificateParams::new([target.to_string()]).context("name the target")?;
    leaf.distinguished_name = named("lab interception");
    let key = KeyPair::generate().context("draw a key")?;
    let certificate = leaf.signed_by(&key, &issuer).context("sign the certificate")?;
    ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("choose TLS 1.3")?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .context("take the certificate")
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Such boxes seldom look at whom they connect to.
fn far_side(provider: &Arc<CryptoProvider>) -> Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("choose TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(provider))))
        .with_no_client_auth();
    Ok(config)
}
