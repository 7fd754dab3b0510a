use std::fs;
use std::os::unix::fs::MetadataExt;

use haidang_proto::model::agency::AgentId;
use uuid::Uuid;
use x509_parser::extensions::GeneralName;

use super::super::PeerCertificate;
use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)
}

fn config(dir: &Path, demo: bool) -> Config {
    Config { state_dir: dir.to_owned(), demo, ..Config::default() }
}

fn agent_certificate(authority: &Authority) -> (CertificateDer<'static>, PeerCertificate) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let names = ["collector.example".to_owned()];
    let request = CertificateParams::new(names)
        .and_then(|params| params.serialize_request(&key))
        .expect("a request");
    let request = CertificateRequest::parse(request.der()).expect("it is accepted");
    let expected = PeerCertificate {
        agency: "01-018".parse().expect("an id"),
        agent: AgentId(Uuid::from_u128(5)),
        serial: Serial::draw().expect("random bytes"),
        not_before: now() - BACKDATE,
        not_after: now() + Duration::from_secs(3_600),
    };
    let workload = Workload::Agent { agency: expected.agency.clone(), agent: expected.agent };
    let term = authority.term(Duration::from_secs(3_600), now());
    let issued = authority.issue_agent(&request, workload, expected.serial, term);
    (issued.expect("it is signed"), expected)
}

#[test]
fn a_ca_is_made_once_and_kept_private() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Authority::open(&config(dir.path(), false), now()).expect("it is made");
    let again = Authority::open(&config(dir.path(), false), now()).expect("it is read");
    assert_eq!(first.pin(), again.pin());
    let mode = |path: &str| fs::metadata(dir.path().join(path)).expect(path).mode() & 0o777;
    assert_eq!((mode("ca"), mode("ca/ca.key")), (0o700, 0o600));

    let (_, certificate) = X509Certificate::from_der(first.certificate()).expect("DER");
    assert!(certificate.is_ca());
    assert_eq!(spki_pin(certificate.public_key().raw), first.pin());

    let later = now() + CA_LIFETIME + Duration::from_secs(1);
    let expired = Authority::open(&config(dir.path(), false), later);
    assert!(matches!(expired, Err(AuthorityError::Expired { .. })));
}

#[test]
fn a_demonstrations_ca_never_serves_an_installation() {
    let dir = tempfile::tempdir().expect("a directory");
    Authority::open(&config(dir.path(), true), now()).expect("it is made");
    Authority::open(&config(dir.path(), true), now()).expect("a demonstration may go on");
    let refused = Authority::open(&config(dir.path(), false), now()).expect_err("it is marked");
    assert!(matches!(refused, AuthorityError::DemoCa { .. }), "{refused}");

    let dir = tempfile::tempdir().expect("a directory");
    Authority::open(&config(dir.path(), false), now()).expect("it is made");
    let refused = Authority::open(&config(dir.path(), true), now()).expect_err("it is real");
    assert!(matches!(refused, AuthorityError::RealCa { .. }), "{refused}");
}

#[test]
fn a_given_ca_must_be_whole_private_and_a_ca() {
    let (ours, other) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let made = Authority::open(&config(ours.path(), false), now()).expect("it is made");
    Authority::open(&config(other.path(), false), now()).expect("it is made");
    let state = tempfile::tempdir().expect("dir");
    let given = |certificate: PathBuf, key: PathBuf| {
        let mut config = config(state.path(), false);
        config.identity.ca_certificate_file = Some(certificate);
        config.identity.ca_key_file = Some(key);
        Authority::open(&config, now())
    };
    let (certificate, key) = (ours.path().join("ca/ca.pem"), ours.path().join("ca/ca.key"));
    assert_eq!(given(certificate.clone(), key.clone()).expect("a pair").pin(), made.pin());

    let foreign = given(certificate.clone(), other.path().join("ca/ca.key"));
    assert!(matches!(foreign, Err(AuthorityError::Mismatch { .. })));
    let swapped = given(key.clone(), certificate.clone());
    assert!(matches!(swapped, Err(AuthorityError::Certificate { .. })));

    let (leaf, _) = agent_certificate(&made);
    let leaf_path = state.path().join("leaf.pem");
    let pem = KeyPair::generate().map(|key| key.serialize_pem()).expect("a key");
    write_private(&leaf_path, pem.as_bytes()).expect("written");
    assert!(given(leaf_path, key.clone()).is_err());
    assert!(!leaf.is_empty());

    let mut open = fs::metadata(&key).expect("exists").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o644);
    fs::set_permissions(&key, open).expect("chmod");
    let exposed = given(certificate, key).expect_err("others can read the key");
    let AuthorityError::File(reason) = exposed else { panic!("{exposed}") };
    assert!(reason.to_string().contains("chmod 0600"), "{reason}");
}

#[test]
fn an_agents_certificate_says_who_it_is_and_nothing_of_the_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), false);
    let authority = Authority::open(&config, now()).expect("it is made");
    let (der, expected) = agent_certificate(&authority);
    assert_eq!(PeerCertificate::parse(&der, &config.trust_domain), Ok(expected));
    let foreign = "other.example".parse().expect("a domain");
    assert!(PeerCertificate::parse(&der, &foreign).is_err());

    let (_, certificate) = X509Certificate::from_der(&der).expect("DER");
    let usage = certificate.extended_key_usage().expect("readable").expect("present").value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(!certificate.is_ca());
    let names = &certificate.subject_alternative_name().expect("readable").expect("present");
    assert_eq!(names.value.general_names.len(), 1, "no name of the request is taken");
    certificate
        .verify_signature(Some(
            X509Certificate::from_der(authority.certificate()).expect("DER").1.public_key(),
        ))
        .expect("the CA signed it");
}

#[test]
fn the_collectors_certificate_is_for_servers_and_names_its_hosts() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), false);
    let authority = Authority::open(&config, now()).expect("it is made");
    let term = authority.term(config.identity.certificate_lifetime, now());
    let hosts = ["198.18.0.10", "::1", "tslcd.example"];
    let server = authority.issue_server(&hosts, term).expect("it is signed");
    assert_eq!((server.with_root.cert.len(), server.leaf_only.cert.len()), (2, 1));
    assert_eq!(&server.with_root.cert[1], authority.certificate());

    let leaf = &server.leaf_only.cert[0];
    let (_, certificate) = X509Certificate::from_der(leaf).expect("DER");
    let usage = certificate.extended_key_usage().expect("readable").expect("present").value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    let names = certificate.subject_alternative_name().expect("readable").expect("present").value;
    let shown: Vec<String> = names
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => format!("{bytes:?}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shown[0], "spiffe://haidang.internal/collector");
    assert_eq!(shown[1], "[198, 18, 0, 10]");
    assert_eq!(shown[3], "tslcd.example");
    let refused = PeerCertificate::parse(leaf, &config.trust_domain);
    assert!(refused.is_err(), "a collector's certificate is no agent's");
}
