//! What a machine with an expired certificate has to show: that this CA issued the certificate,
//! for a client and for an agent of this installation, and that the machine holds its key. The
//! end of the certificate is the one thing that is not held against it here.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::spiffe::TrustDomain;
use haidang_proto::wire;
use prost::Message as _;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{CertificateRequest, PeerCertificate};
use crate::listen::TlsError;

/// Certificates of a chain: the leaf, and what an intermediate CA would add.
const CHAIN_MAX: usize = 4;
/// Bytes of a signature: ECDSA P-256 in ASN.1 takes 72.
const SIGNATURE_BYTES_MAX: usize = 128;

/// An attempt whose certificate is of this CA and whose sender signed the request with its key.
#[derive(Debug)]
pub(super) struct Proof {
    /// What the certificate says.
    pub(super) certificate: PeerCertificate,
    /// The request for the new one, of the same key.
    pub(super) request: CertificateRequest,
    /// The second call's nonce and its signature; absent in the first.
    pub(super) answer: Option<Answer>,
}

/// What the second call brings.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) nonce: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// A refused attempt: the reason and what the person at the machine reads.
pub(super) type Refused = (Refusal, &'static str);

/// Verifies chains of this installation.
#[derive(Debug)]
pub(super) struct Prover {
    verifier: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
}

impl Prover {
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        trust_domain: TrustDomain,
    ) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone())?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build()?;
        Ok(Self { verifier, trust_domain })
    }

    /// Reads and verifies one call.
    pub(super) fn verify(&self, request: wire::RenewExpiredRequest) -> Result<Proof, Refused> {
        let wire::RenewExpiredRequest { expired_chain_der, csr_der, server_nonce, nonce_signature } =
            request;
        if expired_chain_der.len() > CHAIN_MAX || nonce_signature.len() > SIGNATURE_BYTES_MAX {
            return Err((Refusal::Malformed, "the chain or the signature is too long"));
        }
        let chain: Vec<_> = expired_chain_der.into_iter().map(CertificateDer::from).collect();
        let (leaf, intermediates) =
            chain.split_first().ok_or((Refusal::Malformed, "expired_chain_der: is empty"))?;
        let certificate = PeerCertificate::parse(leaf, &self.trust_domain)
            .map_err(|_| (Refusal::IdentityMalformed, "the certificate names no agent here"))?;
        // Verified as of its last moment: all but the end has to be right.
        let at = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH);
        let at = UnixTime::since_unix_epoch(at.unwrap_or(Duration::ZERO));
        self.verifier
            .verify_client_cert(leaf, intermediates, at)
            .map_err(|_| (Refusal::Handshake, "the certificate is not of this collector's CA"))?;
        let request = CertificateRequest::parse(&csr_der)
            .map_err(|_| (Refusal::CsrInvalid, "the certificate request is not valid"))?;
        let has_same_key = X509Certificate::from_der(leaf)
            .is_ok_and(|(_, read)| read.public_key().raw == request.spki_der());
        if !has_same_key {
            return Err((Refusal::CsrInvalid, "the request is not for the certificate's own key"));
        }
        let answer = (!server_nonce.is_empty())
            .then_some(Answer { nonce: server_nonce, signature: nonce_signature });
        Ok(Proof { certificate, request, answer })
    }
}

/// Reads bytes as a call, for [`crate::parsers`]. No bytes prove anything to a CA made just now.
pub(crate) fn any_bytes(bytes: &[u8]) {
    static PROVER: LazyLock<Prover> = LazyLock::new(|| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").der().clone();
        Prover::new(&[root], "lab.test".parse().expect("a trust domain")).expect("a verifier")
    });
    let Ok(request) = wire::RenewExpiredRequest::decode(bytes) else { return };
    assert!(PROVER.verify(request).is_err());
}
