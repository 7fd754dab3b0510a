//! The identity of this machine: who it speaks for, its key, and whom it trusts.
//!
//! # Shape on disk, in the state directory
//! ```text
//! instance-id              drawn once: tells machines apart that share a machine id
//! identity/key.pem         private key, made here, never sent anywhere; mode 0600
//! identity/chain.pem       certificate and intermediates, leaf first
//! identity/roots.pem       certificate authorities that may sign a collector
//! identity/identity.json   what else enrolment told: names, endpoints, version of the roots
//! ```
//! An identity appears and is replaced whole: it is written beside and exchanged by one rename.
//! Renewal replaces `chain.pem` alone, for the same key. Agency and agent are read from the
//! certificate, never from a file beside it. Nothing from afar removes an identity.

pub(crate) mod certificate;
mod pem;
mod store;
pub(crate) mod verifier;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::spiffe::{TrustDomain, Workload};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

pub use self::certificate::CertificateError;
use self::certificate::Leaf;
pub(crate) use self::pem::any_bytes as any_pem;
pub use self::store::{Instance, Replace, Store};
pub use self::verifier::NotTheCollector;

/// An identity in force.
pub struct Identity {
    /// Whom it speaks for.
    pub agency: AgencyId,
    /// The agency's name, for people.
    pub agency_name: String,
    /// Which agent.
    pub agent: AgentId,
    /// The installation.
    pub trust_domain: TrustDomain,
    /// When the certificate began.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// What else enrolment told.
    pub contacts: Contacts,
    /// DER of the certificate authorities that may sign a collector.
    pub roots: Vec<CertificateDer<'static>>,
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Key,
}

/// Where the collectors are, as enrolment told. The configuration has the last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contacts {
    /// Name of the agency.
    pub agency_name: String,
    /// Dedicated listeners, in order of preference.
    pub report_endpoints: Vec<SocketAddr>,
    /// Permitted fallback listeners.
    pub fallback_endpoints: Vec<SocketAddr>,
    /// Listeners for machines whose certificate has expired.
    pub recovery_endpoints: Vec<SocketAddr>,
    /// Version of the roots.
    pub trust_bundle_version: u64,
}

/// A private key (ECDSA P-256, PKCS #8), wiped from memory when dropped.
pub struct Key(Zeroizing<Vec<u8>>);

/// What enrolment produced, checked but not yet kept.
pub(crate) struct NewIdentity {
    pub(crate) key: Key,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) contacts: Contacts,
}

/// An identity that cannot be used or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the key.
    #[error(
        "{} has mode {mode:04o}, so that others may read the private key; run: chmod 600 {}",
        path.display(), path.display()
    )]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file's content.
    #[error("{} is damaged: {problem}; enrol again with: haidang-agent enroll --replace", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate is not usable.
    #[error("the certificate cannot be used")]
    Certificate(#[source] CertificateError),
    /// The certificate is a collector's.
    #[error("the certificate is not that of an agent")]
    NotAnAgent,
    /// The certificate is for another key.
    #[error("the certificate does not belong to this machine's key")]
    Key(#[source] rustls::Error),
    /// The certificate is not signed by a root.
    #[error("the certificate is not signed by a trusted certificate authority")]
    Chain(#[source] rustls::Error),
    /// No key could be made.
    #[error("cannot make a key or a certificate request")]
    Request(#[source] rcgen::Error),
    /// There is an identity already.
    #[error("this machine is enrolled already; to enrol it anew, add --replace")]
    Exists,
    /// A root is no certificate.
    #[error("the trusted certificate authorities cannot be used: one is no certificate")]
    Roots,
}

impl NewIdentity {
    /// Whether the parts fit together and lead to a root, before anything is written.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), IdentityError> {
        let key = Key(self.key.0.clone());
        let (chain, roots) = (self.chain.clone(), self.roots.clone());
        let contacts = self.contacts.clone();
        Identity::new(Self { key, chain, roots, contacts })?.verify_chain(now)
    }
}

impl Identity {
    /// An identity whose parts fit together: the leaf is an agent's, and the key is the leaf's.
    fn new(parts: NewIdentity) -> Result<Self, IdentityError> {
        let NewIdentity { key, chain, roots, contacts } = parts;
        let leaf = chain.first().ok_or(IdentityError::NotAnAgent)?;
        let leaf = Leaf::read(leaf).map_err(IdentityError::Certificate)?;
        let Workload::Agent { agency, agent } = leaf.id.workload else {
            return Err(IdentityError::NotAnAgent);
        };
        let identity = Self {
            agency,
            agency_name: contacts.agency_name.clone(),
            agent,
            trust_domain: leaf.id.trust_domain,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            contacts,
            roots,
            chain,
            key,
        };
        identity.certified_key()?;
        identity.root_store()?;
        Ok(identity)
    }

    fn with(
        &self,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
        contacts: Contacts,
    ) -> Result<Self, IdentityError> {
        Self::new(NewIdentity { key: Key(self.key.0.clone()), chain, roots, contacts })
    }

    /// Key and chain for the handshake.
    ///
    /// # Errors
    /// When they do not belong together.
    pub(crate) fn certified_key(&self) -> Result<Arc<CertifiedKey>, IdentityError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.0.to_vec()));
        let certified = CertifiedKey::from_der(self.chain.clone(), key, &provider());
        certified.map(Arc::new).map_err(IdentityError::Key)
    }

    /// The pinned roots.
    ///
    /// # Errors
    /// When one is no certificate.
    pub(crate) fn root_store(&self) -> Result<RootCertStore, IdentityError> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone()).map_err(|_| IdentityError::Roots)?;
        }
        Ok(store)
    }

    /// Whether the chain leads from our certificate to a pinned root, for a client.
    ///
    /// # Errors
    /// When it does not, or not at this time.
    pub(crate) fn verify_chain(&self, now: SystemTime) -> Result<(), IdentityError> {
        let roots = Arc::new(self.root_store()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(provider()))
            .build()
            .map_err(|_| IdentityError::Roots)?;
        let (leaf, intermediates) = self.chain.split_first().ok_or(IdentityError::NotAnAgent)?;
        verifier
            .verify_client_cert(leaf, intermediates, verifier::unix_time(now))
            .map(|_| ())
            .map_err(IdentityError::Chain)
    }

    /// A certificate request by the same key, for renewal.
    ///
    /// # Errors
    /// When the key does not sign.
    pub(crate) fn request(&self) -> Result<Vec<u8>, IdentityError> {
        self.key.request()
    }

    /// The key's signature over a nonce, which proves possession to the recovery listener.
    ///
    /// # Errors
    /// When the key does not sign.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.key.with_pair(|pair| rcgen::SigningKey::sign(pair, message))
    }
}

impl Key {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the random source fails.
    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let mut pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(IdentityError::Request)?;
        let key = Self(Zeroizing::new(pair.serialize_der()));
        pair.zeroize();
        Ok(key)
    }

    /// A certificate request: only the key in it counts, names are the collector's to give.
    ///
    /// # Errors
    /// When the key does not sign.
    pub(crate) fn request(&self) -> Result<Vec<u8>, IdentityError> {
        self.with_pair(|pair| {
            let mut parameters = rcgen::CertificateParams::default();
            parameters.distinguished_name = rcgen::DistinguishedName::new();
            Ok(parameters.serialize_request(pair)?.der().to_vec())
        })
    }

    fn with_pair<T>(
        &self,
        work: impl FnOnce(&rcgen::KeyPair) -> Result<T, rcgen::Error>,
    ) -> Result<T, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(self.0.as_slice());
        let mut pair = rcgen::KeyPair::try_from(&der).map_err(IdentityError::Request)?;
        let outcome = work(&pair).map_err(IdentityError::Request);
        pair.zeroize();
        outcome
    }

    /// SubjectPublicKeyInfo of the public half.
    #[cfg(test)]
    fn public(&self) -> Vec<u8> {
        self.with_pair(|pair| Ok(rcgen::PublicKeyData::subject_public_key_info(pair)))
            .expect("a key of our own")
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("agency", &self.agency)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The cryptography in use everywhere: aws-lc-rs, hybrid post-quantum key exchange first.
pub(crate) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(test)]
pub(crate) mod tests;
