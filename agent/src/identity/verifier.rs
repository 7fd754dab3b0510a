//! Is it the collector? A certificate for servers, signed by a pinned root, whose name is
//! `spiffe://<trust domain>/collector`. System roots and DNS names play no part: the address is
//! pinned by configuration, the name by the installation.
//!
//! Of the dates, an enrolled machine holds only the end against a collector: a PC whose battery is
//! flat starts years ago, and has to report to be helped. The beginning protects from nobody, since
//! whoever presents what the pinned CA signed for later has its signature now. The end is judged by
//! this machine's clock, because a collector's key that was stolen is harmless from then on; whose
//! clock is too far ahead therefore trusts no collector, and says so.

use std::sync::Arc;
use std::time::SystemTime;

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
        let leaf = Leaf::read(end_entity);
        let now = match (&self.trust, &leaf) {
            (Trust::Roots { .. }, Ok(leaf)) => now.max(unix_time(leaf.not_before)),
            // Whoever enrols a machine can set its clock.
            (Trust::Pin(_), _) | (_, Err(_)) => now,
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
        match leaf {
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

/// The moment as rustls counts it; the time before 1970 is its beginning.
pub(super) fn unix_time(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn not_the_collector(problem: NotTheCollector) -> Error {
    CertificateError::Other(OtherError(Arc::new(problem))).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::provider;
    use crate::identity::tests::Authority;

    const COLLECTOR: &str = "spiffe://hanoi.example/collector";
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    #[track_caller]
    fn judged(trust: impl Fn(&Authority) -> Arc<CollectorVerifier>, now: SystemTime, fits: bool) {
        let authority = Authority::new();
        let (certificate, _) = authority.server(COLLECTOR);
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let root = authority.root.clone();
        let judged =
            trust(&authority).verify_server_cert(&certificate, &[root], &name, &[], unix_time(now));
        assert_eq!(judged.is_ok(), fits, "{judged:?}");
    }

    fn enrolled(authority: &Authority) -> Arc<CollectorVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        CollectorVerifier::of_roots(roots, "hanoi.example".parse().unwrap(), &provider())
    }

    fn newcomer(authority: &Authority) -> Arc<CollectorVerifier> {
        CollectorVerifier::of_pin(authority.pin(), &provider())
    }

    #[test]
    fn an_enrolled_machine_whose_clock_is_behind_finds_its_collector() {
        let now = SystemTime::now();
        judged(enrolled, now, true);
        judged(enrolled, now - YEAR, true);
        judged(enrolled, SystemTime::UNIX_EPOCH, true);
    }

    #[test]
    fn the_end_of_a_certificate_holds_and_a_newcomer_needs_the_right_clock() {
        let now = SystemTime::now();
        judged(enrolled, now + YEAR, false);
        judged(newcomer, now, true);
        judged(newcomer, now + YEAR, false);
        judged(newcomer, now - YEAR, false);
    }
}
