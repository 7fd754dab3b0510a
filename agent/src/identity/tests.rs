//! An authority of its own for tests of identity, enrolment and uplink.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use haidang_proto::model::spiffe::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::*;

/// A CA that signs as a collector does.
pub(crate) struct Authority {
    pub(crate) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = parameters.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(parameters, key) }
    }

    pub(crate) fn pin(&self) -> [u8; 32] {
        certificate::ca_pin(&self.root).unwrap()
    }

    /// A server certificate with its key, under `id`.
    pub(crate) fn server(&self, id: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let parameters = parameters(id, ExtendedKeyUsagePurpose::ServerAuth);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key)))
    }

    /// Signs a request as enrolment and renewal do: only its key counts.
    pub(crate) fn sign(&self, csr: &[u8], id: &str) -> CertificateDer<'static> {
        let csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let parameters = parameters(id, ExtendedKeyUsagePurpose::ClientAuth);
        parameters.signed_by(&csr.public_key, &self.issuer).unwrap().der().clone()
    }

    /// The same, valid from `before` ago until `after` from now.
    pub(crate) fn sign_for(
        &self,
        csr: &[u8],
        id: &str,
        before: Duration,
        after: Duration,
    ) -> CertificateDer<'static> {
        let csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let mut parameters = parameters(id, ExtendedKeyUsagePurpose::ClientAuth);
        parameters.not_before = (SystemTime::now() - before).into();
        parameters.not_after = (SystemTime::now() + after).into();
        parameters.signed_by(&csr.public_key, &self.issuer).unwrap().der().clone()
    }

    pub(crate) fn identity(&self) -> NewIdentity {
        let key = Key::generate().unwrap();
        let chain = vec![self.sign(&key.request().unwrap(), AGENT)];
        NewIdentity { key, chain, roots: vec![self.root.clone()], contacts: contacts() }
    }
}

pub(crate) const AGENT: &str =
    "spiffe://hanoi.example/agency/01-018/agent/5f0c1de2-8a35-4a3c-9d4e-0a1b2c3d4e5f";

fn parameters(id: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    parameters.extended_key_usages = vec![usage];
    let now = SystemTime::now();
    parameters.not_before = (now - Duration::from_secs(86_400)).into();
    parameters.not_after = (now + Duration::from_secs(86_400)).into();
    parameters
}

pub(crate) fn contacts() -> Contacts {
    Contacts {
        agency_name: "Sở Nội vụ".into(),
        report_endpoints: vec!["127.0.0.1:7443".parse().unwrap()],
        fallback_endpoints: Vec::new(),
        recovery_endpoints: Vec::new(),
        trust_bundle_version: 1,
    }
}

fn place() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::new(&place.path().join("state"));
    (place, store)
}

#[test]
fn an_identity_survives_on_disk_and_is_never_overwritten_unasked() {
    let (_place, store) = place();
    assert!(store.load().unwrap().is_none());
    let authority = Authority::new();
    let kept = store.install(authority.identity(), Replace::No, SystemTime::now()).unwrap();
    let loaded = store.load().unwrap().unwrap();
    assert_eq!(loaded.agency.as_str(), "01-018");
    assert_eq!(loaded.contacts, contacts());
    assert_eq!(loaded.key.public(), kept.key.public());
    let stamp = store.stamp();
    let again = store.install(authority.identity(), Replace::No, SystemTime::now());
    assert!(matches!(again, Err(IdentityError::Exists)), "{again:?}");
    assert_eq!(store.load().unwrap().unwrap().key.public(), kept.key.public());
    let replaced = store.install(authority.identity(), Replace::Yes, SystemTime::now()).unwrap();
    assert_eq!(store.load().unwrap().unwrap().key.public(), replaced.key.public());
    assert_ne!(store.stamp(), stamp);
    assert!(!store.state_dir.join("identity.new").exists());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let (_place, store) = place();
    store.install(Authority::new().identity(), Replace::No, SystemTime::now()).unwrap();
    let path = store.directory().join("key.pem");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(store.load().unwrap().is_some());
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (_place, store) = place();
    let authority = Authority::new();
    let mut foreign_key = authority.identity();
    foreign_key.key = Key::generate().unwrap();
    let error = store.install(foreign_key, Replace::No, SystemTime::now()).unwrap_err();
    assert!(matches!(error, IdentityError::Key(_)), "{error}");
    let mut collector = authority.identity();
    let csr = collector.key.request().unwrap();
    collector.chain = vec![authority.sign(&csr, "spiffe://hanoi.example/collector")];
    let error = store.install(collector, Replace::No, SystemTime::now()).unwrap_err();
    assert!(matches!(error, IdentityError::NotAnAgent), "{error}");
    assert!(!store.state_dir.exists(), "nothing is written on failure");
}

#[test]
fn renewal_takes_only_a_certificate_of_the_same_key_and_identity() {
    let (_place, store) = place();
    let authority = Authority::new();
    let identity = store.install(authority.identity(), Replace::No, SystemTime::now()).unwrap();
    let other = AGENT.replace("01-018", "01-019");
    let foreign = Authority::new().sign(&identity.request().unwrap(), AGENT);
    let refused = store.renew(&identity, vec![foreign], SystemTime::now());
    assert!(matches!(refused, Err(IdentityError::Chain(_))), "{refused:?}");
    for (csr, id) in [
        (Key::generate().unwrap().request().unwrap(), AGENT),
        (identity.request().unwrap(), other.as_str()),
    ] {
        assert!(store.renew(&identity, vec![authority.sign(&csr, id)], SystemTime::now()).is_err());
        assert_eq!(store.load().unwrap().unwrap().chain, identity.chain);
    }
    let fresh = authority.sign(&identity.request().unwrap(), AGENT);
    store.renew(&identity, vec![fresh.clone()], SystemTime::now()).unwrap();
    assert_eq!(store.load().unwrap().unwrap().chain, [fresh]);
}

#[test]
fn new_roots_are_kept_with_their_version() {
    let (_place, store) = place();
    let authority = Authority::new();
    let identity = store.install(authority.identity(), Replace::No, SystemTime::now()).unwrap();
    let both = vec![authority.root.clone(), Authority::new().root];
    store.trust(&identity, 2, both.clone()).unwrap();
    let loaded = store.load().unwrap().unwrap();
    assert_eq!((loaded.roots, loaded.contacts.trust_bundle_version), (both, 2));
    assert!(store.trust(&identity, 3, vec![CertificateDer::from(vec![1, 2, 3])]).is_err());
    assert_eq!(store.load().unwrap().unwrap().contacts.trust_bundle_version, 2);
}

#[test]
fn the_fingerprint_is_stable_and_differs_between_instances_of_one_machine() {
    let ((_one, one), (_other, other)) = (place(), place());
    let instance = one.instance().unwrap();
    assert!(!one.state_dir.exists(), "drawing writes nothing");
    one.keep_instance(&instance).unwrap();
    one.keep_instance(&one.instance().unwrap()).unwrap();
    assert_eq!(one.instance().unwrap(), instance);
    let first = instance.fingerprint(b"machine");
    assert_ne!(other.instance().unwrap().fingerprint(b"machine"), first);
    assert_ne!(instance.fingerprint(b"another"), first);
}

#[test]
fn certificates_without_a_name_of_ours_are_not_read() {
    let authority = Authority::new();
    let id: SpiffeId = AGENT.parse().unwrap();
    let csr = Key::generate().unwrap().request().unwrap();
    assert_eq!(Leaf::read(&authority.sign(&csr, AGENT)).map(|leaf| leaf.id), Ok(id));
    let foreign = authority.sign(&csr, "spiffe://hanoi.example/other");
    assert!(matches!(Leaf::read(&foreign), Err(CertificateError::Name { .. })));
    assert_eq!(Leaf::read(&authority.root), Err(CertificateError::Uri));
    assert_eq!(Leaf::read(b"x"), Err(CertificateError::Encoding));
}

#[test]
fn what_root_writes_belongs_to_the_owner_of_the_state_directory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_place, store) = place();
    fs::create_dir(&store.state_dir).unwrap();
    std::os::unix::fs::chown(&store.state_dir, Some(54_321), Some(54_322)).unwrap();
    store.keep_instance(&store.instance().unwrap()).unwrap();
    store.install(Authority::new().identity(), Replace::No, SystemTime::now()).unwrap();
    for name in ["instance-id", "identity", "identity/key.pem", "identity/chain.pem"] {
        let metadata = fs::metadata(store.state_dir.join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (54_321, 54_322), "{name}");
    }
}
