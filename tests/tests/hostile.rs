//! Hostile peers against a real collector: each is turned away, counted by its reason, and changes
//! nothing. Needs no root.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use haidang_proto::model::enrolment_code::EnrolmentCode;
use haidang_tests::agent::Agent;
use haidang_tests::collector::AgencySeen;
use haidang_tests::loopback::Loopback;
use haidang_tests::peer::{
    Authority, ENROL, Enrolled, H2, Identity, REPORT, Session, Terms, Told, connect, enrol_request,
    framed, report,
};
use haidang_tests::wait;
use hyper::body::Bytes;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::ServerName;
use uuid::Uuid;

const AGENCY: &str = "01-018";
const OTHER: &str = "01-001";
/// Inside the prefix of [`AGENCY`].
const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 11, 66));
const DEADLINE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Names and values.
type Headers = &'static [(&'static str, &'static str)];

/// A collector, and an honest agent of [`OTHER`].
struct World {
    loopback: Loopback,
    _honest: Agent,
}

impl World {
    async fn start() -> Self {
        // Some of the peers here are heard out until then.
        let limits = "\n[limits]\nhandshake_timeout = \"4s\"\n";
        let loopback = Loopback::start_with(&[AGENCY, OTHER], limits).await;
        let loopback = loopback.unwrap_or_else(|error| panic!("{error:#}"));
        let honest = loopback.start_agent(OTHER, 1, "honest").unwrap_or_else(|e| panic!("{e:#}"));
        let world = Self { loopback, _honest: honest };
        world.honest_agent_is_heard().await;
        world
    }

    fn dedicated(&self) -> SocketAddr {
        self.loopback.collector.plan.dedicated[0]
    }

    fn tls_ports(&self) -> [SocketAddr; 3] {
        let plan = &self.loopback.collector.plan;
        [plan.dedicated[0], plan.enrolment, plan.recovery]
    }

    /// How often it was refused for a reason, or for one of several between bars.
    async fn refused(&self, reasons: &str) -> f64 {
        let metrics = self.loopback.collector.metrics().await.expect("metrics");
        let count = |reason| {
            let labels = [("reason", reason)];
            let found = metrics.find("haidang_collector_rejected_total", &labels);
            found.map(|sample| sample.value).sum::<f64>()
        };
        reasons.split('|').map(count).sum()
    }

    /// Makes the attempt, and waits until it is counted under this reason.
    async fn counts(&self, reason: &str, what: &str, attempt: impl Future<Output = ()>) {
        let before = self.refused(reason).await;
        attempt.await;
        wait::until(&format!("{what} counted as {reason}"), DEADLINE, || async {
            if self.refused(reason).await > before { Ok(()) } else { Err("not counted".to_owned()) }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    async fn state(&self, agency: &str) -> String {
        let metrics = self.loopback.collector.metrics().await.expect("metrics");
        AgencySeen::read(&metrics, agency).expect("one state").state
    }

    async fn nothing_changed(&self, agency_was: &str) {
        assert_eq!(self.state(AGENCY).await, agency_was);
        self.honest_agent_is_heard().await;
    }

    /// On a machine that other tests keep busy its own path may be degraded, never lost.
    async fn honest_agent_is_heard(&self) {
        wait::until("the honest agent", DEADLINE, || async {
            let state = self.state(OTHER).await;
            if ["connected", "degraded"].contains(&&*state) { Ok(()) } else { Err(state) }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Reports all is well, again and again, until the collector shows the agency so.
    async fn shows(&self, session: &mut Session, sequence: &mut u64, state: &str) {
        let started = std::time::Instant::now();
        while self.state(AGENCY).await != state {
            assert!(started.elapsed() < DEADLINE, "{AGENCY} is not {state}");
            *sequence += 1;
            assert_eq!(says(session, 1, *sequence).await.status, "0");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn enrolled(&self) -> Enrolled {
        let code = self.loopback.collector.create_token(AGENCY, 1, "1h").expect("created");
        Enrolled::with(&code, INSIDE).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    async fn session(&self, identity: &Identity) -> Session {
        let session = Session::open(INSIDE, self.dedicated(), Some(identity)).await;
        session.unwrap_or_else(|error| panic!("{error:#}"))
    }
}

async fn says(session: &mut Session, nonce: u8, sequence: u64) -> Told {
    let told = session.call(REPORT, &report([nonce; 16], sequence), &[]).await;
    told.unwrap_or_else(|error| panic!("{error:#}"))
}

#[track_caller]
fn is_refused(told: &Told, reason: &str) {
    assert_eq!(told.reason.as_deref(), Some(reason), "{told:?}");
    assert_ne!(told.status, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_a_right_certificate_is_counted_by_its_reason_and_changes_nothing() {
    let world = World::start().await;
    let own = Authority::of(&world.loopback.collector.plan).expect("its files");
    let foreign = Authority::foreign().expect("a key");
    let now = SystemTime::now();
    let usual = Terms::of(AGENCY, Uuid::new_v4());
    let expired = Terms { from: now - 2 * HOUR, until: now - HOUR, ..usual.clone() };
    let early = Terms { from: now + HOUR, until: now + 2 * HOUR, ..usual.clone() };
    let server = Terms { usage: ExtendedKeyUsagePurpose::ServerAuth, ..usual.clone() };
    let uri = usual.uri.replace("lab.test", "evil.test");
    let elsewhere = Terms { uri, ..usual.clone() };
    let collector = Terms { uri: "spiffe://lab.test/collector".into(), ..usual.clone() };
    let peers = [
        ("of another CA", "handshake", foreign.issue(&usual)),
        ("expired", "certificate_expired", own.issue(&expired)),
        ("not yet valid", "certificate_not_yet_valid", own.issue(&early)),
        ("for servers", "handshake", own.issue(&server)),
        ("of another installation", "identity_malformed", own.issue(&elsewhere)),
        ("that names the collector", "identity_malformed", own.issue(&collector)),
        ("that was never enrolled", "identity_unknown", own.issue(&usual)),
    ];
    for (what, reason, identity) in peers {
        let identity = identity.expect("signed");
        let attempt = async {
            // The refusal comes with the handshake, or with the first call.
            if let Ok(mut session) = Session::open(INSIDE, world.dedicated(), Some(&identity)).await
                && let Ok(told) = session.call(REPORT, &report([9; 16], 1), &[]).await
            {
                is_refused(&told, reason);
            }
        };
        world.counts(reason, what, attempt).await;
    }
    let nobody = async {
        if let Ok(mut session) = Session::open(INSIDE, world.dedicated(), None).await {
            assert!(session.call(REPORT, &report([9; 16], 1), &[]).await.is_err());
        }
    };
    world.counts("no_certificate", "nobody", nobody).await;
    world.nothing_changed("not_enrolled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_tls_1_3_with_http_2_is_refused_on_every_port() {
    let world = World::start().await;
    for port in world.tls_ports() {
        let hello = tls13_hello(port);
        let twice = [hello.clone(), hello].concat();
        let words: [(&str, &[u8]); 4] = [
            ("plain HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
            ("TLS 1.2", TLS12_HELLO),
            // TLS 1.3 knows no renegotiation: a second greeting breaks the handshake.
            ("a second greeting", &twice),
        ];
        for (what, words) in words {
            let attempt = async { spoken(port, words) };
            world.counts("handshake|handshake_timeout", what, attempt).await;
        }
        let http1 = async {
            assert!(connect(INSIDE, port, None, &[b"http/1.1"]).await.is_err());
        };
        world.counts("handshake", "HTTP/1.1 over TLS", http1).await;
    }
    // Inside TLS it is held against HTTP/2; on this port nobody needs a certificate.
    let enrolment = world.loopback.collector.plan.enrolment;
    let text = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = connect(INSIDE, enrolment, None, &[H2]).await.expect("connected");
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: collector\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    world.counts("http2", "HTTP/1.1 in place of HTTP/2", text).await;
    world.nothing_changed("not_enrolled").await;
}

/// Sends bytes and waits until the other end closes.
fn spoken(to: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    // It may close before it has heard everything.
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut Vec::new());
}

fn tls13_hello(to: SocketAddr) -> Vec<u8> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("supported")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::IpAddress(to.ip().into());
    let mut connection = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("a greeting");
    hello
}

/// A greeting of TLS 1.2 (RFC 5246): ECDHE with ECDSA and AES-GCM on P-256, nothing else.
#[rustfmt::skip]
const TLS12_HELLO: &[u8] = &[
    22, 3, 1, 0, 75, 1, 0, 0, 71, 3, 3,
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2c, 1, 0,
    0, 26,
    0, 10, 0, 4, 0, 2, 0, 23, // supported_groups
    0, 11, 0, 2, 1, 0, // ec_point_formats
    0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms
    0, 23, 0, 0, // extended_master_secret
];

#[tokio::test(flavor = "multi_thread")]
async fn who_was_accepted_is_refused_once_superseded_moved_or_revoked() {
    let world = World::start().await;
    let machine = world.enrolled().await;
    let mut session = world.session(&machine.identity).await;
    let mut sequence = 0;
    world.shows(&mut session, &mut sequence, "connected").await;

    // Renewed, the former certificate holds until the new one is used, and not beyond.
    let renewed = machine.renewed(&mut session).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(says(&mut session, 1, sequence + 1).await.status, "0");
    let mut second = world.session(&renewed).await;
    assert_eq!(says(&mut second, 1, sequence + 2).await.status, "0");
    let old = async { is_refused(&says(&mut session, 1, 1_000).await, "serial_superseded") };
    world.counts("serial_superseded", "the former certificate", old).await;

    // The certificate of one agency, from the network of another, proves no path.
    let outside = IpAddr::V4(Ipv4Addr::new(127, 18, 12, 66));
    let moved = Session::open(outside, world.dedicated(), Some(&renewed)).await;
    sequence += 2;
    world.shows(&mut moved.expect("open"), &mut sequence, "off_network").await;

    // An open connection is no shelter.
    let revoked = world.loopback.collector.run(&["agent", "revoke", &machine.agent]);
    assert!(revoked.expect("started").status.success());
    let again = async { is_refused(&says(&mut second, 1, sequence + 1).await, "revoked") };
    world.counts("revoked", "a revoked machine", again).await;
    world.honest_agent_is_heard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_on_two_machines_verifies_for_neither() {
    let world = World::start().await;
    let machine = world.enrolled().await;
    let (mut one, mut other) =
        (world.session(&machine.identity).await, world.session(&machine.identity).await);
    // The same disk image twice: same key, same fingerprint, two processes that alternate.
    let mut sequence = 0;
    let mut last = None;
    for _ in 0..200 {
        sequence += 1;
        for (session, nonce) in [(&mut one, 1), (&mut other, 2)] {
            last = Some(says(session, nonce, sequence).await);
        }
        if last.as_ref().is_some_and(|told| told.reason.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    is_refused(&last.expect("both spoke"), "cloned");
    for (session, nonce) in [(&mut one, 1), (&mut other, 2)] {
        is_refused(&says(session, nonce, sequence + 1).await, "cloned");
    }
    assert!(world.refused("cloned").await >= 3.0);
    // Neither holds the agency up any longer, and both sources are shown to the operator.
    world.loopback.state(AGENCY, "silent").await.unwrap_or_else(|error| panic!("{error:#}"));
    let path = format!("/api/v1/agencies/{AGENCY}/agents");
    let agents = world.loopback.collector.web.text(&path).await.expect("answered");
    assert!(agents.contains("conflict") && agents.contains("127.18.11.66"), "{agents}");
    world.honest_agent_is_heard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_gets_past_its_limits() {
    let world = World::start().await;
    let machine = world.enrolled().await;
    let gibibyte = [&[0], &(1_u32 << 30).to_be_bytes()[..], &[0; 1000]].concat();
    let whole = prost::Message::encode_to_vec(&report([1; 16], 1));
    let bomb = framed(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff, 0xed, 0xc1]);
    let compressed = Bytes::from([&[1], &bomb[1..]].concat());
    // Groups of an unknown field, one inside the other, up to the size of a message.
    let nested = framed(&[0xa3, 0x06].repeat(500_000));
    let gzip: Headers = &[("grpc-encoding", "gzip")];
    let cases: [(&str, &str, Bytes, Headers); 6] = [
        ("a message of 1 GiB", "too_large", gibibyte.into(), &[]),
        ("a truncated message", "malformed", framed(&whole[..whole.len() - 3]), &[]),
        ("a nested message", "malformed", nested, &[]),
        ("an empty message", "malformed", framed(&[]), &[]),
        ("a compressed message", "malformed", compressed.clone(), gzip),
        ("one that denies to be compressed", "malformed", compressed, &[]),
    ];
    for (what, reason, body, headers) in cases {
        let attempt = async {
            let mut session = world.session(&machine.identity).await;
            match session.call_raw(REPORT, body, headers).await {
                Ok(told) => assert_ne!(told.status, "0", "{what} was accepted"),
                Err(error) => assert!(format!("{error:#}").contains("answer"), "{error:#}"),
            }
        };
        world.counts(reason, what, attempt).await;
    }
    world.nothing_changed("not_enrolled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_a_code_are_limited_by_source_and_keep_nobody_else_out() {
    let world = World::start().await;
    let code = world.loopback.collector.create_token(AGENCY, 1, "1h").expect("created");
    let code: EnrolmentCode = code.parse().expect("its own code");
    let enrolment = world.loopback.collector.plan.enrolment;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let guesser = IpAddr::V4(Ipv4Addr::new(127, 66, 6, 6));
    let mut session = Session::open(guesser, enrolment, None).await.expect("open");
    let mut told = Vec::new();
    for guess in 0..40_u8 {
        // Each at another token, so that the token's own limit is not what stops them.
        let token = format!("{}{guess}", &code.token_id[..4]);
        let request = enrol_request(&token, &[guess; 32], &key).expect("signed");
        let answer = session.call(ENROL, &request, &[]).await.expect("answered");
        told.push(answer.reason.expect("no guess is right"));
    }
    let count = |reason: &str| told.iter().filter(|told| *told == reason).count();
    assert!((30..=32).contains(&count("token_wrong")), "{told:?}");
    assert_eq!(count("rate_limited") + count("token_wrong"), 40, "{told:?}");
    let enrolled = Enrolled::with(&code.reveal(), INSIDE).await;
    enrolled.unwrap_or_else(|error| panic!("{error:#}"));
    world.nothing_changed("not_enrolled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_leaves_the_api_or_makes_it_fail() {
    let world = World::start().await;
    let web = world.loopback.collector.plan.http;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let long = "a".repeat(4_000);
    let ok_or_refused = [
        get("/../../../../etc/passwd"),
        get("/api/v1/agencies/..%2f..%2f..%2fetc%2fpasswd"),
        get("/%2e%2e/%2e%2e/etc/shadow"),
        get("/style.css/../../../../etc/passwd"),
        get("//etc/passwd"),
        get("/api/v1/agencies/%00"),
        get("/api/v1/agencies/%ff%fe"),
        get("/api/v1/agencies?limit=-1"),
        get("/api/v1/agencies?limit=99999999999999999999"),
        get("/api/v1/agencies?limit=1&limit=2"),
        get("/api/v1/agencies?cursor='%20or%201=1--"),
        get("/api/v1/agencies?state=connected&state=silent"),
        get(&format!("/api/v1/agencies?q={long}")),
        get("/api/v1/transitions?since=0000-00-00T00:00:00Z"),
        get("/api/v1/transitions?cursor=-9223372036854775809"),
        get("/api/v1/agents/not-a-uuid/posture"),
        get("http://169.254.169.254/latest/meta-data"),
        get(&format!("/{}", "a/".repeat(20_000))),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(500)),
        "GET / HTTP/1.1\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(),
        "DELETE /api/v1/agencies/01-001 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
            .into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
            .into(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"
            .into(),
        "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n".into(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        "\0\0\0\0\r\n\r\n".into(),
    ];
    for request in ok_or_refused {
        let shown = request.chars().take(80).collect::<String>();
        let answer = answered(web, request.as_bytes());
        let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        // Refused in words, or hung up on.
        let is_refused = status.is_none_or(|status| (400..500).contains(&status));
        assert!(is_refused, "{shown:?}: {answer}");
        assert!(!answer.contains("root:"), "{shown:?}: {answer}");
    }
    world.nothing_changed("not_enrolled").await;
}

/// What a server answers until it closes or has nothing more to say.
fn answered(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("set");
    let _ = stream.write_all(request);
    let mut answer = vec![0; 64 << 10];
    let length = stream.read(&mut answer).unwrap_or_default();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}
