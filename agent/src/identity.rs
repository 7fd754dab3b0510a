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
pub(crate) mod verifier;

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
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
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use crate::durable;

pub use self::certificate::CertificateError;
use self::certificate::Leaf;
pub(crate) use self::pem::any_bytes as any_pem;
pub use self::verifier::NotTheCollector;

/// Bytes of any one file that are read: eight roots of 16 KiB in PEM fit.
const FILE_BYTES_MAX: u64 = 256 << 10;

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

/// The state directory, as far as it holds the identity.
#[derive(Debug, Clone)]
pub struct Store {
    state_dir: PathBuf,
}

impl Store {
    /// The identity of this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.into() }
    }

    /// Reads the identity; `None` when the machine is not enrolled.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn load(&self) -> Result<Option<Identity>, IdentityError> {
        let directory = self.directory();
        match fs::metadata(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &directory)(error)),
            Ok(_) => {}
        }
        let key = self.key()?;
        let chain = self.certificates("chain.pem")?;
        let roots = self.certificates("roots.pem")?;
        let path = directory.join("identity.json");
        let bytes = durable::read(&path, FILE_BYTES_MAX).map_err(failed("read", &path))?;
        let contacts: Contacts = serde_json::from_slice(&bytes)
            .map_err(|error| IdentityError::Content { path, problem: error.to_string() })?;
        Identity::new(NewIdentity { key, chain, roots, contacts }).map(Some)
    }

    /// Whether there is an identity.
    pub fn exists(&self) -> bool {
        self.directory().exists()
    }

    /// Tells one content of the store from another, so that a running agent notices an enrolment
    /// by the command line. Cheap.
    pub(crate) fn stamp(&self) -> Option<(u64, SystemTime)> {
        let metadata = fs::metadata(self.directory()).ok()?;
        Some((metadata.ino(), metadata.modified().ok()?))
    }

    /// Keeps a new identity; an existing one is replaced in one step if `replace` says so.
    ///
    /// # Errors
    /// When it is not sound, exists already, or the disk refuses. Nothing has changed then.
    pub(crate) fn install(
        &self,
        identity: NewIdentity,
        replace: Replace,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let directory = self.directory();
        if self.exists() && replace == Replace::No {
            return Err(IdentityError::Exists);
        }
        let identity = Identity::new(identity)?;
        identity.verify_chain(now)?;
        let fresh = self.state_dir.join("identity.new");
        remove_directory(&fresh)?;
        self.make_state_dir()?;
        DirBuilder::new().mode(0o700).create(&fresh).map_err(failed("make", &fresh))?;
        let json = serde_json::to_vec_pretty(&identity.contacts).map_err(io::Error::other);
        let json = json.map_err(failed("write", &fresh))?;
        for (name, bytes, mode) in [
            ("key.pem", pem::encode("PRIVATE KEY", &identity.key.0), 0o600),
            ("chain.pem", Zeroizing::new(certificates_pem(&identity.chain)), 0o644),
            ("roots.pem", Zeroizing::new(certificates_pem(&identity.roots)), 0o644),
            ("identity.json", Zeroizing::new(json), 0o644),
        ] {
            let path = fresh.join(name);
            durable::create(&path, &bytes, mode).map_err(failed("write", &path))?;
            self.hand_over(&path)?;
        }
        self.hand_over(&fresh)?;
        durable::sync_directory_of(&fresh.join("key.pem")).map_err(failed("sync", &fresh))?;
        exchange(&fresh, &directory).map_err(failed("put in place", &directory))?;
        durable::sync_directory_of(&directory).map_err(failed("sync", &self.state_dir))?;
        remove_directory(&fresh)?;
        Ok(identity)
    }

    /// Keeps a renewed certificate for the key of `identity`, and answers the identity with it.
    ///
    /// # Errors
    /// When it is for another key, identity or CA, or the disk refuses: the old one stays.
    pub(crate) fn renew(
        &self,
        identity: &Identity,
        chain: Vec<CertificateDer<'static>>,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let renewed = identity.with(chain, identity.roots.clone(), identity.contacts.clone())?;
        // A clock that is behind must not keep a certificate from being renewed.
        renewed.verify_chain(now.max(renewed.not_before))?;
        if (&renewed.agency, renewed.agent) != (&identity.agency, identity.agent)
            || renewed.trust_domain != identity.trust_domain
        {
            return Err(IdentityError::NotAnAgent);
        }
        self.replace("chain.pem", &certificates_pem(&renewed.chain))?;
        Ok(renewed)
    }

    /// Keeps new roots, and answers the identity with them.
    ///
    /// # Errors
    /// When one is no certificate, or the disk refuses: the old ones stay.
    pub(crate) fn trust(
        &self,
        identity: &Identity,
        version: u64,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Identity, IdentityError> {
        let contacts = Contacts { trust_bundle_version: version, ..identity.contacts.clone() };
        let json = serde_json::to_vec_pretty(&contacts).map_err(io::Error::other);
        let json = json.map_err(failed("write", &self.directory()))?;
        // Our own certificate may be of a root that is on its way out: the collectors judge it.
        let trusting = identity.with(identity.chain.clone(), roots, contacts)?;
        // A crash between the two leaves the old version number, and the roots are sent again.
        self.replace("roots.pem", &certificates_pem(&trusting.roots))?;
        self.replace("identity.json", &json)?;
        Ok(trusting)
    }

    /// The instance id of this state directory. One that is not there is drawn, and has to be kept.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn instance(&self) -> Result<Instance, IdentityError> {
        let path = self.instance_path();
        match durable::read(&path, 64) {
            Ok(bytes) => {
                let id = String::from_utf8_lossy(&bytes).trim().parse();
                let problem = "it is not a UUID".into();
                Ok(Instance(id.map_err(|_| IdentityError::Content { path, problem })?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Instance(Uuid::new_v4())),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Keeps the instance id, unless there is one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_instance(&self, instance: &Instance) -> Result<(), IdentityError> {
        let path = self.instance_path();
        if path.exists() {
            return Ok(());
        }
        self.make_state_dir()?;
        let bytes = format!("{}\n", instance.0).into_bytes();
        durable::replace(&path, &bytes, 0o644).map_err(failed("write", &path))?;
        self.hand_over(&path)
    }

    fn instance_path(&self) -> PathBuf {
        self.state_dir.join("instance-id")
    }

    fn key(&self) -> Result<Key, IdentityError> {
        let path = self.directory().join("key.pem");
        let metadata = fs::metadata(&path).map_err(failed("read", &path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & !0o600 != 0 {
            return Err(IdentityError::KeyMode { path, mode });
        }
        let bytes = durable::read(&path, FILE_BYTES_MAX).map_err(failed("read", &path))?;
        let bytes = Zeroizing::new(bytes);
        let key = pem::decode_key(&bytes)
            .ok_or(IdentityError::Content { path, problem: "it holds no private key".into() })?;
        Ok(Key(key))
    }

    fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let path = self.directory().join(name);
        let bytes = durable::read(&path, FILE_BYTES_MAX).map_err(failed("read", &path))?;
        pem::decode_certificates(&bytes)
            .filter(|list| !list.is_empty())
            .ok_or(IdentityError::Content { path, problem: "it holds no certificate".into() })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
        let path = self.directory().join(name);
        durable::replace(&path, bytes, 0o644).map_err(failed("write", &path))
    }

    /// What root writes belongs to the owner of the state directory: an administrator enrols, the
    /// service's own user reads the key.
    fn hand_over(&self, path: &Path) -> Result<(), IdentityError> {
        let owner = fs::metadata(&self.state_dir).map_err(failed("read", &self.state_dir))?;
        if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
            return Ok(());
        }
        let (user, group) = (Some(owner.uid()), Some(owner.gid()));
        std::os::unix::fs::chown(path, user, group).map_err(failed("hand over", path))
    }

    fn make_state_dir(&self) -> Result<(), IdentityError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.state_dir)
            .map_err(failed("make", &self.state_dir))
    }

    fn directory(&self) -> PathBuf {
        self.state_dir.join("identity")
    }
}

/// Tells state directories apart that share a machine id: ghost images, and several agents on one
/// machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance(Uuid);

impl Instance {
    /// What the collector recognises the machine by: SHA-256 over machine id and instance id.
    pub fn fingerprint(&self, machine_id: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(machine_id);
        digest.update(self.0.as_bytes());
        digest.finalize().into()
    }
}

/// Whether an existing identity may be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It stays.
    No,
    /// A new one takes its place.
    Yes,
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

/// Puts `fresh` in the place of `old`: one rename, or one exchange where there is an old one.
fn exchange(fresh: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let flags = if old.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    Ok(renameat_with(CWD, fresh, CWD, old, flags)?)
}

fn remove_directory(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn certificates_pem(list: &[CertificateDer<'_>]) -> Vec<u8> {
    list.iter().flat_map(|der| pem::encode("CERTIFICATE", der).to_vec()).collect()
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> IdentityError {
    move |source| IdentityError::File { action, path: path.into(), source }
}

#[cfg(test)]
pub(crate) mod tests;
