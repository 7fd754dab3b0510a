//! The identity on disk. Its shape is told in the module above.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Contacts, Identity, IdentityError, Key, NewIdentity, pem};
use crate::durable;

/// Bytes of any one file that are read: eight roots of 16 KiB in PEM fit.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// The state directory, as far as it holds the identity.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) state_dir: PathBuf,
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
        let made = durable::make_directory(&self.state_dir, 0o750);
        made.map_err(failed("make", &self.state_dir))
    }

    pub(super) fn directory(&self) -> PathBuf {
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
