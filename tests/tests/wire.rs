//! What somebody on the path records between agents and a collector: a relay keeps every byte, and
//! the greetings are read as RFC 8446 has them. Needs root, for a host name of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use haidang_proto::model::enrolment_code::EnrolmentCode;
use haidang_tests::agent::{Agent, AgentPlan};
use haidang_tests::collector::free_port;
use haidang_tests::loopback::Loopback;
use haidang_tests::peer::{Enrolled, H2, REPORT, Session, connect_by, report};
use haidang_tests::tcp_tap::{Conversation, TcpTap};
use haidang_tests::tls_wire::{Greetings, TLS13, X25519, X25519MLKEM768};
use haidang_tests::wait;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const AGENCY: &str = "01-018";
/// Inside its prefix.
const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 11, 66));
/// On the way to the collector, inside the dedicated network.
const ON_THE_PATH: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 0, 11));
/// The machine's host name, which enrolment and reports tell.
const PLANTED: &str = "may-duoc-danh-dau";
/// The protocol that a greeting offers (RFC 7301): a list of one name.
const ALPN_H2: &[u8] = b"\x00\x03\x02h2";
/// Reports come every second, connections that fail are tried again within a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// The conversations in which anything was said. A probe of a port says nothing.
fn spoken(tap: &TcpTap) -> Vec<Conversation> {
    let all = tap.conversations().into_iter();
    all.filter(|one| !one.client.is_empty() && !one.server.is_empty()).collect()
}

/// Waits until every handshake on this way is over, and there is one at least.
async fn greetings(way: &str, tap: &TcpTap) -> Vec<Greetings> {
    let read = || async {
        let read = spoken(tap).iter().map(Greetings::read).collect::<anyhow::Result<Vec<_>>>();
        let read = read.map_err(|error| format!("{error:#}"))?;
        if read.is_empty() { Err("nothing was said".to_owned()) } else { Ok(read) }
    };
    let awaited = format!("handshakes on the way {way}");
    wait::until(&awaited, PATIENCE, read).await.unwrap_or_else(|error| panic!("{error:#}")).0
}

/// A program that starts the agent under the planted host name.
fn under_the_planted_name(plan: AgentPlan) -> AgentPlan {
    fs::create_dir_all(&plan.directory).expect("made");
    let program = plan.directory.join("under-a-name");
    let script = format!(
        "#!/bin/sh\nexec unshare --uts sh -c 'hostname {PLANTED} && exec \"$@\"' sh {:?} \"$@\"\n",
        plan.program
    );
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    AgentPlan { program, ..plan }
}

fn certificate(state_dir: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(state_dir.join("identity/chain.pem")).expect("a certificate")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_an_agents_ways_is_post_quantum_and_shows_none_of_its_words() {
    let at: BTreeMap<&str, SocketAddr> = ["enrolment", "dedicated", "fallback"]
        .map(|way| (way, free_port(ON_THE_PATH).expect("a port")))
        .into();
    let told = format!(
        "\n[advertise]\nenrolment = \"{}\"\ndedicated = [\"{}\"]\n",
        at["enrolment"], at["dedicated"]
    );
    let world = Loopback::start_with_fallback(&[AGENCY], &told).await;
    let world = world.unwrap_or_else(|error| panic!("{error:#}"));
    let plan = &world.collector.plan;
    let mut taps = BTreeMap::new();
    for (way, to) in [
        ("enrolment", plan.enrolment),
        ("dedicated", plan.dedicated[0]),
        ("fallback", plan.fallback.expect("planned")),
    ] {
        taps.insert(way, TcpTap::start(at[way], to, None).await.expect("it listens"));
    }

    let revealed = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let code: EnrolmentCode = revealed.parse().expect("its own code");
    let plan = under_the_planted_name(AgentPlan {
        // Its probes shake hands too.
        anchors: vec![(ON_THE_PATH, Some(at["dedicated"].port()))],
        fallback: vec![at["fallback"]],
        ..world.agent(AGENCY, 0, "watched")
    });
    let agent = Agent::enrol_and_start(plan, &revealed).unwrap_or_else(|error| panic!("{error:#}"));
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let path = format!("/api/v1/agencies/{AGENCY}/agents");
    let shown = world.collector.web.text(&path).await.expect("answered");
    assert!(shown.contains(PLANTED), "the word was sent: {shown}");
    let agents: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let id = agents["items"][0]["id"].as_str().expect("an id");
    let spiffe = format!("spiffe://lab.test/agency/{AGENCY}/agent/{id}");
    let certificate = certificate(&agent.plan.state_dir());

    let words: [(&str, &[u8]); 8] = [
        ("the host name", PLANTED.as_bytes()),
        ("the SPIFFE id", spiffe.as_bytes()),
        ("the agent's id", id.as_bytes()),
        ("the agency", AGENCY.as_bytes()),
        ("the certificate", &certificate),
        ("the subject", b"Hai Dang agent"),
        ("the code's secret", &*code.secret),
        ("the code's number", code.token_id.as_bytes()),
    ];
    for way in ["enrolment", "dedicated", "fallback"] {
        for greeting in greetings(way, &taps[way]).await {
            assert!(greeting.are_post_quantum(), "{way}: {greeting:?}");
            assert_eq!((greeting.version, &*greeting.versions), (TLS13, &[TLS13][..]), "{way}");
            assert_eq!(greeting.groups.first(), Some(&X25519MLKEM768), "{way}");
        }
        let said = spoken(&taps[way]);
        let is_grpc = |one: &&Conversation| one.shows(ALPN_H2);
        let calls = said.iter().filter(is_grpc).count();
        assert!(calls > 0, "what is in plain, such as the protocol, is found: {way}");
        assert!(way != "dedicated" || said.len() > calls, "probes shake hands here too");
        for (what, words) in words {
            assert!(!said.iter().any(|one| one.shows(words)), "{what} can be read: {way}");
        }
        // Once the dedicated way has ended, the agent takes the other.
        taps.remove(way);
    }
    agent.stop().await.expect("it stops");
}

fn classical() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classical_client_is_served_on_every_listener_and_told_from_a_post_quantum_one() {
    let world = Loopback::start_with_fallback(&[AGENCY], "").await;
    let world = world.unwrap_or_else(|error| panic!("{error:#}"));
    let code = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let machine = Enrolled::with(&code, INSIDE).await.unwrap_or_else(|error| panic!("{error:#}"));
    let plan = &world.collector.plan;
    let listeners = [
        ("dedicated", plan.dedicated[0]),
        ("fallback", plan.fallback.expect("planned")),
        ("enrolment", plan.enrolment),
        ("recovery", plan.recovery),
    ];
    let mut sequence = 0;
    for (listener, to) in listeners {
        for (provider, group) in
            [(aws_lc_rs::default_provider(), X25519MLKEM768), (classical(), X25519)]
        {
            let at = free_port(ON_THE_PATH).expect("a port");
            let tap = TcpTap::start(at, to, None).await.expect("it listens");
            let identity = Some(&machine.identity);
            let stream = connect_by(provider, INSIDE, at, identity, &[H2]).await.expect("served");
            let mut session = Session::over(stream).await.expect("HTTP/2");
            if ["dedicated", "fallback"].contains(&listener) {
                sequence += 1;
                let told = session.call(REPORT, &report([1; 16], sequence), &[]).await;
                assert_eq!(told.expect("answered").status, "0", "{listener}");
            }
            for read in greetings(listener, &tap).await {
                assert_eq!((read.version, read.share.group), (TLS13, group), "{listener}");
                assert_eq!(read.are_post_quantum(), group == X25519MLKEM768, "{listener}");
            }
        }
    }
}
