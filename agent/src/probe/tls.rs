//! What a TLS server proves, and to whom it belongs when it proves nothing.
//!
//! A probe proves a path, it does not open a session: the collector's certificate is verified
//! against the pinned CA and must carry a collector's SPIFFE id, but its dates are not held
//! against it, because a machine whose clock is wrong still has a working path.

use std::sync::{Arc, Mutex};

use haidang_proto::model::spiffe::{SpiffeId, Workload};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Bytes of an issuer's name in evidence.
const ISSUER_BYTES_MAX: usize = 128;

/// Who may answer.
#[derive(Debug, Clone)]
pub(super) enum Expectation {
    /// A collector of our own CA.
    Collector(Arc<RootCertStore>),
    /// A service with a certificate for its name.
    Service(Arc<WebPkiServerVerifier>),
}

/// What came of a handshake.
#[derive(Debug)]
pub(super) enum Handshake {
    /// The server proved who it is.
    Proved(Box<TlsStream<TcpStream>>),
    /// The server proved who it is, and then closed: it demands a client certificate.
    ProvedThenClosed,
    /// The certificate is not signed by the expected roots.
    Foreign {
        /// Its issuer.
        issuer: String,
    },
    /// The certificate is signed by the expected roots, but is not the right one.
    Unfit {
        /// What is wrong with it.
        problem: String,
    },
    /// The connection broke before anything was proved.
    Broken(std::io::Error),
}

/// Shakes hands. The caller sets the deadline.
pub(super) async fn handshake(
    expectation: &Expectation,
    name: ServerName<'static>,
    stream: TcpStream,
) -> Handshake {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let witness = Arc::new(Witness {
        expectation: expectation.clone(),
        provider: Arc::clone(&provider),
        seen: Mutex::new(Seen::Nothing),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13]);
    let config = match config {
        Ok(config) => config
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Witness>::clone(&witness))
            .with_no_client_auth(),
        Err(error) => return Handshake::Broken(std::io::Error::other(error)),
    };
    let outcome = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let seen = witness.seen.lock().map_or(Seen::Nothing, |mut seen| std::mem::take(&mut *seen));
    match (outcome, seen) {
        (Ok(stream), Seen::Proved) => Handshake::Proved(Box::new(stream)),
        (Err(_), Seen::Proved) => Handshake::ProvedThenClosed,
        (_, Seen::Foreign { issuer }) => Handshake::Foreign { issuer },
        (_, Seen::Unfit { problem }) => Handshake::Unfit { problem },
        (Err(error), Seen::Nothing | Seen::Signed) => Handshake::Broken(error),
        (Ok(_), Seen::Nothing | Seen::Signed) => {
            Handshake::Broken(std::io::Error::other("the server presented no certificate"))
        }
    }
}

/// Makes the first handshake no dearer than the others: the library's one-time start (random
/// seed, self-tests) takes tens of milliseconds, which a cycle would report as its own lag.
pub(super) fn prepare() {
    for group in rustls::crypto::aws_lc_rs::default_provider().kx_groups {
        // Nothing is lost if it fails here: a handshake will say so.
        drop(group.start());
    }
}

/// A verifier that remembers what it saw, because the connection's error does not tell.
#[derive(Debug)]
struct Witness {
    expectation: Expectation,
    provider: Arc<CryptoProvider>,
    /// rustls verifies through `&self`; the lock is held for a move only.
    seen: Mutex<Seen>,
}

/// How far the proof came.
#[derive(Debug, Default)]
enum Seen {
    #[default]
    Nothing,
    /// The right certificate; its key is still to be proved.
    Signed,
    /// The right certificate, and the server has its key.
    Proved,
    Foreign {
        issuer: String,
    },
    Unfit {
        problem: String,
    },
}

impl Witness {
    fn note(&self, seen: Seen) {
        if let Ok(mut slot) = self.seen.lock() {
            *slot = seen;
        }
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        match &self.expectation {
            Expectation::Service(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now).map(|_| ())
            }
            Expectation::Collector(roots) => {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                let algorithms = self.provider.signature_verification_algorithms.all;
                let within = within_validity(end_entity, now)?;
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    roots,
                    intermediates,
                    within,
                    algorithms,
                )?;
                if is_collector(end_entity) {
                    Ok(())
                } else {
                    Err(CertificateError::ApplicationVerificationFailure.into())
                }
            }
        }
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.judge(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(()) => {
                self.note(Seen::Signed);
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => {
                self.note(match &error {
                    Error::InvalidCertificate(
                        CertificateError::UnknownIssuer | CertificateError::BadSignature,
                    ) => Seen::Foreign { issuer: issuer(end_entity) },
                    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                        Seen::Unfit { problem: "it is not a collector's certificate".into() }
                    }
                    other => Seen::Unfit { problem: other.to_string() },
                });
                Err(error)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls12_signature(message, cert, dss, algorithms)?;
        self.note(Seen::Proved);
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature(message, cert, dss, algorithms)?;
        self.note(Seen::Proved);
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `now`, moved into the certificate's dates.
fn within_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<UnixTime, Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad())?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = parsed.validity();
    let (from, until) = (seconds(validity.not_before), seconds(validity.not_after));
    let within = now.as_secs().max(from).min(until);
    Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(within)))
}

/// Whether the certificate names a collector, and nothing else.
fn is_collector(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let mut ids = parsed
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(uri.parse::<SpiffeId>().ok()),
            _ => None,
        });
    let first = ids.next().flatten();
    first.is_some_and(|id| id.workload == Workload::Collector) && ids.next().is_none()
}

/// The issuer's name, cut to what evidence may hold.
fn issuer(certificate: &CertificateDer<'_>) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => printable(&parsed.issuer().to_string(), ISSUER_BYTES_MAX),
        Err(_) => "an unreadable certificate".into(),
    }
}

/// Text of a stranger, without control characters and cut to `bytes_max`.
pub(super) fn printable(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    for character in text.chars() {
        let character = if character.is_control() { '·' } else { character };
        if out.len() + character.len_utf8() > bytes_max {
            break;
        }
        out.push(character);
    }
    out
}
