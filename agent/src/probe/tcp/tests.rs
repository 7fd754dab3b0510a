use std::net::Ipv4Addr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

fn loopback() -> Binding {
    Binding { device: Some("lo".into()), source: Some(Ipv4Addr::new(127, 0, 0, 9).into()) }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let root = params.self_signed(&key).unwrap().der().clone();
    Authority { issuer: Issuer::new(params, key), root }
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add(authority.root.clone()).unwrap();
    Arc::new(store)
}

/// A server that demands a client certificate, as ours do.
fn acceptor(authority: &Authority, uri: &str, valid_until_year: i32) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(valid_until_year, 1, 1);
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(roots(authority), Arc::clone(&provider))
            .build()
            .unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 1), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Probes a TLS server of `serving`'s CA, expecting a collector of `expected`'s.
async fn against_tls(serving: &Authority, expected: &Authority, uri: &str, until: i32) -> Tcp {
    let acceptor = acceptor(serving, uri, until);
    let (listener, address) = listen().await;
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        // It refuses us, having proved who it is.
        let _refused = acceptor.accept(stream).await;
    };
    let binding = loopback();
    let proof = Proof::Collector(roots(expected));
    let (outcome, ()) = tokio::join!(probe(&binding, address, &proof, DEADLINE), server);
    assert_eq!(outcome.1.map(|source| source.ip()), binding.source);
    outcome.0
}

#[tokio::test]
async fn a_collector_that_demands_a_client_certificate_is_proved() {
    let ours = authority("ours");
    let outcome = against_tls(&ours, &ours, "spiffe://haidang.test/collector", 2100).await;
    assert!(matches!(outcome, Tcp::Proved { .. }), "{outcome:?}");
}

#[tokio::test]
async fn an_expired_collector_still_proves_the_path() {
    let ours = authority("ours");
    let outcome = against_tls(&ours, &ours, "spiffe://haidang.test/collector", 2021).await;
    assert!(matches!(outcome, Tcp::Proved { .. }), "{outcome:?}");
}

#[tokio::test]
async fn another_ca_is_an_impostor_with_its_issuer() {
    let (ours, theirs) = (authority("ours"), authority("Middlebox CA"));
    let outcome = against_tls(&theirs, &ours, "spiffe://haidang.test/collector", 2100).await;
    let Tcp::Impostor { presented } = outcome else { panic!("{outcome:?}") };
    assert!(presented.contains("Middlebox CA"), "{presented}");
}

#[tokio::test]
async fn an_agent_of_our_ca_is_no_collector() {
    let ours = authority("ours");
    let uri = "spiffe://haidang.test/agency/01-018/agent/6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    let outcome = against_tls(&ours, &ours, uri, 2100).await;
    assert!(matches!(outcome, Tcp::Impostor { .. }), "{outcome:?}");
}

/// Probes a server that sends `bytes` and then holds or closes the connection.
async fn against_bytes(bytes: &[u8], hold: bool, proof: &Proof, deadline: Duration) -> Tcp {
    let (listener, address) = listen().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        if hold {
            std::future::pending::<()>().await;
        }
        stream.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    };
    let binding = loopback();
    tokio::select! {
        (outcome, _) = probe(&binding, address, proof, deadline) => outcome,
        () = server => unreachable!("the server never ends"),
    }
}

#[tokio::test]
async fn a_banner_proves_and_another_does_not() {
    let proof = Proof::Banner("SSH-2.0-".into());
    let outcome = against_bytes(b"SSH-2.0-OpenSSH_9\r\n", true, &proof, DEADLINE).await;
    assert!(matches!(outcome, Tcp::Proved { .. }), "{outcome:?}");
    let outcome = against_bytes(b"HTTP/1.1 302\r\n", true, &proof, DEADLINE).await;
    assert_eq!(outcome, Tcp::Impostor { presented: "HTTP/1.1".into() });
    let outcome = against_bytes(b"", false, &proof, DEADLINE).await;
    assert!(matches!(outcome, Tcp::Impostor { .. }), "{outcome:?}");
    let outcome = against_bytes(b"SSH", true, &proof, Duration::from_millis(100)).await;
    assert_eq!(outcome, Tcp::Silent);
}

#[tokio::test]
async fn bytes_that_are_no_tls_are_an_impostors() {
    let proof = Proof::Collector(roots(&authority("ours")));
    let outcome = against_bytes(b"220 mail.example ESMTP\r\n", true, &proof, DEADLINE).await;
    assert!(matches!(outcome, Tcp::Impostor { .. }), "{outcome:?}");
    let outcome = against_bytes(b"", true, &proof, Duration::from_millis(100)).await;
    assert_eq!(outcome, Tcp::Silent);
}

#[tokio::test]
async fn a_bare_handshake_is_connected_and_a_closed_port_is_refused() {
    let outcome = against_bytes(b"", true, &Proof::Handshake, DEADLINE).await;
    assert!(matches!(outcome, Tcp::Connected { .. }), "{outcome:?}");
    let (listener, address) = listen().await;
    drop(listener);
    let outcome = probe(&loopback(), address, &Proof::Handshake, DEADLINE).await.0;
    assert_eq!(outcome, Tcp::Refused);
}

#[tokio::test]
async fn an_address_that_is_not_ours_cannot_send() {
    let binding = Binding { source: Some(Ipv4Addr::new(198, 51, 100, 1).into()), ..loopback() };
    let target = (Ipv4Addr::LOCALHOST, 1).into();
    let outcome = probe(&binding, target, &Proof::Handshake, DEADLINE).await.0;
    assert!(matches!(outcome, Tcp::Unsendable(_)), "{outcome:?}");
}
