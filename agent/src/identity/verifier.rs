//! Is it the collector? A certificate for servers, signed by a pinned root, whose name is
//! `spiffe://<trust domain>/collector`. System roots and DNS names play no part: the address is
//! pinned by configuration, the name by the installation.

use std::sync::Arc;

use haidang_proto::model::spiffe::{SpiffeId, TrustDomain, Workload};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use super::certificate::{Leaf, ca_pin};

/// Accepts only a collector.
#[derive(Debug)]
pub(crate) struct CollectorVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Trust {
    /// An enrolled agent's: these roots, this trust domain.
    Roots { roots: RootCertStore, trust_domain: TrustDomain },
    /// Before enrolment: whichever CA of the presented chain has this pin, any trust domain.
    Pin([u8; 32]),
}

/// What is wrong with a presented chain beyond what TLS itself checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTheCollector {
    /// No CA with the pin.
    #[error("no certificate authority that it presents has the pin of the enrolment code")]
    Pin,
    /// Another name.
    #[error("its certificate is not that of a collector of this installation")]
    Name,
}

impl CollectorVerifier {
    /// For an enrolled agent.
    pub(crate) fn of_roots(
        roots: RootCertStore,
        trust_domain: TrustDomain,
        provider: &CryptoProvider,
    ) -> Arc<Self> {
        let trust = Trust::Roots { roots, trust_domain };
        Arc::new(Self { trust, algorithms: provider.signature_verification_algorithms })
    }

    /// For an enrolment with a code.
    pub(crate) fn of_pin(pin: [u8; 32], provider: &CryptoProvider) -> Arc<Self> {
        let algorithms = provider.signature_verification_algorithms;
        Arc::new(Self { trust: Trust::Pin(pin), algorithms })
    }
}

impl ServerCertVerifier for CollectorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned;
        let roots = match &self.trust {
            Trust::Roots { roots, .. } => roots,
            Trust::Pin(pin) => {
                let root = intermediates.iter().find(|one| ca_pin(one).as_ref() == Some(pin));
                let mut store = RootCertStore::empty();
                store.add(root.ok_or_else(|| not_the_collector(NotTheCollector::Pin))?.clone())?;
                pinned = store;
                &pinned
            }
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let name_fits = |id: &SpiffeId| {
            id.workload == Workload::Collector
                && match &self.trust {
                    Trust::Roots { trust_domain, .. } => id.trust_domain == *trust_domain,
                    Trust::Pin(_) => true,
                }
        };
        match Leaf::read(end_entity) {
            Ok(leaf) if name_fits(&leaf.id) => Ok(ServerCertVerified::assertion()),
            _ => Err(not_the_collector(NotTheCollector::Name)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn not_the_collector(problem: NotTheCollector) -> Error {
    CertificateError::Other(OtherError(Arc::new(problem))).into()
}
