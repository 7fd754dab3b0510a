//! Who is who: the CA, the certificates that it issues, and the identities that are accepted.
//!
//! `authority` owns the CA's key and issues · `secret_file` keeps keys on disk · `request` reads
//! a certificate request · `peer` reads a peer's certificate · `register` says, for every single
//! request, whether an identity is still accepted.
//!
//! An agency is known from the URI SAN of a certificate of this CA and from nothing else.

mod authority;
mod peer;
mod register;
mod request;
mod secret_file;

use std::fmt;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

pub use authority::{Authority, AuthorityError, CertificateTerm, CertifiedServer};
pub use peer::{PeerCertificate, PeerCertificateError};
pub use register::{
    Accepted, Identity, IdentityState, Machine, RECOVERY_AGE_MAX, Recovery, Register,
    RegisterCounts,
};
pub use request::{CertificateRequest, CertificateRequestError};
pub use secret_file::SecretFileError;
pub(crate) use secret_file::{make_private_dir, read_private};

/// Serial number of a certificate: 16 random bytes, the first bit clear (RFC 5280 §4.1.2.2 wants
/// a positive integer of at most 20 octets, and unpredictable ones).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial(pub [u8; 16]);

impl Serial {
    /// Draws one.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        // The second highest bit is set, so that the DER form always has 16 octets.
        bytes[0] = (bytes[0] & 0x7F) | 0x40;
        Ok(Self(bytes))
    }

    /// The serial of a certificate, if it is one of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// The roots that agents are to trust, and the version that tells two sets apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// Grows with every change of the roots.
    pub version: u64,
    /// DER certificates.
    pub roots: Vec<CertificateDer<'static>>,
}

/// SHA-256 of a SubjectPublicKeyInfo (the form of a pin in RFC 7469 §2.4).
pub fn spki_pin(spki_der: &[u8]) -> [u8; 32] {
    Sha256::digest(spki_der).into()
}
