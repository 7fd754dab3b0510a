//! A peer's certificate, read once a connection: who it speaks for, its serial and its term.
//! rustls has verified the chain before; the term is kept because a connection, or a session
//! ticket, outlives it.

use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::spiffe::{SpiffeId, TrustDomain, Workload};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Serial;

/// What the certificate of an agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The agency that it speaks for.
    pub agency: AgencyId,
    /// The agent.
    pub agent: AgentId,
    /// Its serial.
    pub serial: Serial,
    /// First moment of its term.
    pub not_before: SystemTime,
    /// Last moment of its term.
    pub not_after: SystemTime,
}

/// A certificate that carries no agent of this installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerCertificateError {
    /// Not a certificate.
    #[error("the certificate cannot be read")]
    Encoding,
    /// No URI, several, or one that is no agent's.
    #[error("the certificate has no single URI of an agent of this installation")]
    Identity,
    /// A serial that this CA does not give.
    #[error("the certificate's serial number is none of this CA's")]
    Serial,
    /// A term before 1970.
    #[error("the certificate's term cannot be read")]
    Term,
}

impl PeerCertificate {
    /// Reads a certificate that rustls has verified.
    ///
    /// # Errors
    /// When it does not name exactly one agent of `trust_domain`.
    pub fn parse(der: &[u8], trust_domain: &TrustDomain) -> Result<Self, PeerCertificateError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| PeerCertificateError::Encoding)?;
        let id = spiffe_id(&certificate).ok_or(PeerCertificateError::Identity)?;
        let Workload::Agent { agency, agent } = id.workload else {
            return Err(PeerCertificateError::Identity);
        };
        if id.trust_domain != *trust_domain {
            return Err(PeerCertificateError::Identity);
        }
        let serial =
            Serial::from_bytes(certificate.raw_serial()).ok_or(PeerCertificateError::Serial)?;
        let validity = certificate.validity();
        let moment = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).ok()?;
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        Ok(Self {
            agency,
            agent,
            serial,
            not_before: moment(validity.not_before).ok_or(PeerCertificateError::Term)?,
            not_after: moment(validity.not_after).ok_or(PeerCertificateError::Term)?,
        })
    }
}

fn spiffe_id(certificate: &X509Certificate<'_>) -> Option<SpiffeId> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    // An SVID has exactly one URI (SPIFFE X.509-SVID §2).
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().ok(),
        _ => None,
    }
}
