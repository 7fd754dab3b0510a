//! Certificates for the peers: a CA, a server on loopback and one client, in files as they want
//! them. Keys and algorithms are those of the product.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where the peers listen.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Connections that are made at a time.
const CONNECTING_MAX: usize = 48;

/// The directory that holds `ca.pem`, and certificate and key of `server` and `client`.
#[derive(Debug, Clone)]
pub(super) struct TlsFiles(PathBuf);

impl TlsFiles {
    /// Makes and writes all of them.
    pub(super) fn make(directory: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("ca.pem", &ca.pem())?;
        for name in ["server", "client"] {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::IpAddress(PEER)];
            let certificate = params.signed_by(&key, &ca)?;
            write(&format!("{name}.pem"), &certificate.pem())?;
            write(&format!("{name}.key"), &key.serialize_pem())?;
        }
        Ok(Self(directory.into()))
    }

    /// Those that another process made.
    pub(super) fn at(directory: &Path) -> Self {
        Self(directory.into())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A client that speaks TLS 1.3 with the client's certificate, and this protocol within.
    pub(super) fn client(&self) -> Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (chain, key) = self.identity("client")?;
        Ok(ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)?)
    }

    /// A server that demands that certificate, with the tickets of the product.
    pub(super) fn server(&self) -> Result<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.roots()?),
            Arc::clone(&provider),
        );
        let (chain, key) = self.identity("server")?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(chain, key)?;
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem"))?)?;
        Ok(roots)
    }

    fn identity(
        &self,
        name: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.pem")))?;
        Ok((vec![certificate], PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")))?))
    }
}

/// So many addresses of 127/8 to connect from, so that ports never run out.
pub(super) fn source(number: usize) -> Result<Ipv4Addr> {
    let first = Ipv4Addr::new(127, 64, 0, 1).to_bits();
    Ok(Ipv4Addr::from_bits(first + u32::try_from(number)?))
}

/// Opens connections, makes one exchange on each and holds them.
pub(super) async fn hold(
    address: SocketAddr,
    tls: ClientConfig,
    count: usize,
    request: &'static [u8],
) -> Result<Vec<TlsStream<TcpStream>>> {
    let tls = TlsConnector::from(Arc::new(tls));
    let mut connecting = JoinSet::new();
    let mut held = Vec::with_capacity(count);
    for number in 0..count {
        let (tls, source) = (tls.clone(), source(number)?);
        connecting.spawn(async move {
            let socket = TcpSocket::new_v4().context("open a socket; see `ulimit -n`")?;
            socket.bind((source, 0).into())?;
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            let mut stream = tls.connect(address.ip().into(), stream).await?;
            stream.write_all(request).await?;
            let mut answer = [0; 1_024];
            let length = stream.read(&mut answer).await?;
            ensure!(length > 0, "the server closed instead of answering");
            anyhow::Ok(stream)
        });
        if connecting.len() == CONNECTING_MAX
            && let Some(connected) = connecting.join_next().await
        {
            held.push(connected.context("a connecting task panicked")??);
        }
    }
    while let Some(connected) = connecting.join_next().await {
        held.push(connected.context("a connecting task panicked")??);
    }
    Ok(held)
}
