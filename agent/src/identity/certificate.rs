//! What a certificate says: whose it is, from when to when, and the pin of its key. Pure.

use std::time::{Duration, SystemTime};

use haidang_proto::model::spiffe::SpiffeId;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate of this installation, read but not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// A certificate that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509.
    #[error("it is not a certificate")]
    Encoding,
    /// None or several URI names where there must be one.
    #[error("it does not carry exactly one URI name")]
    Uri,
    /// The name is not of our form.
    #[error("its name {name:?} is not of this installation: {source}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: haidang_proto::model::spiffe::SpiffeIdError,
    },
    /// It ends before it begins, or before 1970.
    #[error("its dates make no sense")]
    Dates,
}

impl Leaf {
    /// Reads identity and dates.
    ///
    /// # Errors
    /// When they are not those of a certificate of ours.
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map_or([].as_slice(), |names| names.value.general_names.as_slice());
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(CertificateError::Uri);
        };
        let shown = || uri.chars().take(128).collect();
        let id = uri.parse().map_err(|source| CertificateError::Name { name: shown(), source })?;
        let at = |seconds: i64| {
            let seconds = u64::try_from(seconds).map_err(|_| CertificateError::Dates)?;
            SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(seconds))
                .ok_or(CertificateError::Dates)
        };
        let not_before = at(certificate.validity().not_before.timestamp())?;
        let not_after = at(certificate.validity().not_after.timestamp())?;
        if not_after <= not_before {
            return Err(CertificateError::Dates);
        }
        Ok(Self { id, not_before, not_after })
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo (the pin of RFC 7469); `None` for what is no
/// certificate of a CA.
pub(crate) fn ca_pin(der: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let certificate = parse(der).ok()?;
    certificate.is_ca().then(|| Sha256::digest(certificate.public_key().raw).into())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Encoding),
    }
}
