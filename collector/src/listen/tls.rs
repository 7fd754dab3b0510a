//! TLS of the listeners: 1.3 only, aws-lc-rs, X25519MLKEM768 preferred, HTTP/2 only.
//!
//! Tickets are stateless and one is sent a connection, so that a herd of reconnecting agents
//! costs half and no memory. A ticket skips the checks of a handshake, which is why term, serial
//! and revocation are checked with every request.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

/// HTTP/2 over TLS, as gRPC needs it.
const ALPN: &[u8] = b"h2";

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused the parameters or the key.
    #[error("cannot set up TLS")]
    Config(#[from] rustls::Error),
    /// There are no roots to verify agents with.
    #[error("cannot verify agents' certificates with the CA")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The certificate that a listener presents; replaced when a new one is issued, while
/// connections go on. The lock is held for one pointer.
#[derive(Debug)]
pub struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// Presents `key` from now on.
    pub fn new(key: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(key)))
    }

    /// Presents another one.
    pub fn replace(&self, key: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// TLS that demands a client certificate under one of the roots.
///
/// # Errors
/// When rustls refuses.
pub fn for_agents(
    certificate: Arc<ServerCertificate>,
    roots: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .build()?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    finished(config)
}

/// TLS for peers that have no certificate yet, or none that is valid.
///
/// # Errors
/// When rustls refuses.
pub fn for_newcomers(certificate: Arc<ServerCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    finished(config)
}

fn finished(mut config: ServerConfig) -> Result<Arc<ServerConfig>, TlsError> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
