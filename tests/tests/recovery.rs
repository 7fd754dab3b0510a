//! Machines that come back from the past, with real programs on loopback. Needs no root.
//!
//! One was off past the end of its certificate: that ends with a CA whose term is over in seconds;
//! then the CA's operator installs a longer certificate of the same key. One has its disk put back
//! to an older state, so that its journal numbers new records as it numbered others before.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use haidang_tests::agent::{Agent, AgentPlan};
use haidang_tests::collector::{Collector, Tempo, free_port};
use haidang_tests::loopback::Loopback;
use haidang_tests::tcp_tap::TcpTap;
use haidang_tests::tls_wire::Greetings;
use haidang_tests::wait;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rusqlite::Connection;

const AGENCY: &str = "01-018";
/// On the way to the collector, inside the dedicated network.
const ON_THE_PATH: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 0, 11));
/// Time for the collector's start and one enrolment, builds without optimisation included.
const FIRST_TERM: Duration = Duration::from_secs(12);
/// Records are delivered within seconds, and after a failure within a minute.
const PATIENCE: Duration = Duration::from_secs(120);

fn write_ca(directory: &Path, key: &KeyPair, serial: u64, until: SystemTime) {
    let mut params = CertificateParams::default();
    params.not_before = (SystemTime::now() - Duration::from_secs(2 * 86_400)).into();
    params.not_after = until.into();
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name.push(DnType::CommonName, "a given CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(key).expect("signed");
    fs::write(directory.join("ca.pem"), certificate.pem()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_off_past_its_certificates_end_recovers_by_itself() {
    let place = tempfile::tempdir().expect("a directory");
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut private = fs::OpenOptions::new();
    let file = private.write(true).create_new(true).mode(0o600).open(place.path().join("ca.key"));
    std::io::Write::write_all(&mut file.expect("made"), key.serialize_pem().as_bytes())
        .expect("written");
    let ends = SystemTime::now() + FIRST_TERM;
    write_ca(place.path(), &key, 1, ends);

    let on_the_path = free_port(ON_THE_PATH).expect("a port");
    let config = format!(
        "\n[identity]\nca_certificate_file = {:?}\nca_key_file = {:?}\n\n\
         [advertise]\nrecovery = [\"{on_the_path}\"]\n",
        place.path().join("ca.pem"),
        place.path().join("ca.key"),
    );
    let mut world = Loopback::start_with(&[AGENCY, "01-001"], &config)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    let code = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let plan = AgentPlan { tempo: Tempo::Default, ..world.agent(AGENCY, 0, "long-off") };
    plan.write_config().expect("written");
    let output = plan.enrol(&code).expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let until_it_has_ended = || async {
        (SystemTime::now() > ends + Duration::from_secs(1)).then_some(()).ok_or(String::new())
    };
    wait::until("the certificate's end", FIRST_TERM * 2, until_it_has_ended)
        .await
        .expect("it ends");
    let stopped = world.collector.stop().await.expect("it stops");
    write_ca(place.path(), &key, 2, SystemTime::now() + Duration::from_secs(365 * 86_400));
    world.collector = Collector::start_again(stopped).await.expect("it starts again");

    let recovery = world.collector.plan.recovery;
    let tap = TcpTap::start(on_the_path, recovery, None).await.expect("it listens");
    let _agent = Agent::start(plan).expect("started");
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let metrics = world.collector.metrics().await.expect("metrics");
    let refused =
        metrics.find("haidang_collector_rejected_total", &[("reason", "recovery_refused")]);
    assert_eq!(refused.map(|series| series.value).sum::<f64>(), 0.0);
    let listed = world.collector.run(&["agent", "list"]).expect("started");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.lines().count(), 2, "the same identity goes on: {listed}");
    // The expired certificate and the proof of its key are nobody else's to read.
    let said = tap.conversations();
    assert!(!said.is_empty(), "it recovered by the way that it was told");
    for one in said {
        let greetings = Greetings::read(&one).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(greetings.are_post_quantum(), "{greetings:?}");
        assert!(!one.shows(b"spiffe://") && !one.shows(b"Hai Dang agent"));
    }
}

/// Waits until everything that the agent's journal holds is with the collector.
async fn delivered(agent: &Agent, set_aside: u64) {
    let waited = wait::until("an empty journal", PATIENCE, || async {
        let status = agent.status().await.map_err(|error| format!("{error:#}"))?;
        let journal = &status["journal"];
        let is_reporting = status["uplink"]["standing"] == "reporting";
        if is_reporting && journal["waiting_records"] == 0 && journal["set_aside"] == set_aside {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    waited.await.unwrap_or_else(|error| panic!("{error:#}"));
}

/// How often records of each kind were taken, and in how many journals; none may be there twice.
fn taken(store: &Path) -> (usize, i64) {
    let store = Connection::open(store).expect("the store of a collector that has ended");
    let count = |sql| store.query_row(sql, [], |row| row.get(0)).expect("a count");
    let all: i64 = count("SELECT count(*) FROM records");
    let different: i64 = count(
        "SELECT count(*) FROM (SELECT DISTINCT kind, at_ms, body ->> '$.boottime_ms' FROM records)",
    );
    assert_eq!(all, different, "a record was taken twice");
    assert_eq!(count("SELECT count(*) FROM gaps"), 0_i64);
    let starts: i64 = count("SELECT count(*) FROM records WHERE kind = 'started'");
    (usize::try_from(starts).expect("few"), count("SELECT count(*) FROM journals"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_image_put_back_costs_no_record_and_brings_none_twice() {
    let world = Loopback::start(&[AGENCY]).await.unwrap_or_else(|error| panic!("{error:#}"));
    let agent = world.start_agent(AGENCY, 0, "restored").expect("started");
    delivered(&agent, 0).await;
    let plan = agent.stop().await.expect("it stops");
    let journal = plan.state_dir().join("journal");
    let image = world.directory.path().join("image");
    copy_files(&journal, &image);

    // What happens after the image was made, and is with the collector.
    let agent = Agent::start(plan).expect("started");
    delivered(&agent, 0).await;
    let agent = agent.restart().await.expect("restarted");
    delivered(&agent, 0).await;
    let plan = agent.stop().await.expect("it stops");

    fs::remove_dir_all(&journal).expect("removed");
    copy_files(&image, &journal);
    let agent = Agent::start(plan).expect("started");
    delivered(&agent, 1).await;
    agent.stop().await.expect("it stops");
    let collector = world.collector.stop().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(taken(&collector.directory.join("state/collector.db")), (4, 2));
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("listed").path();
        fs::copy(&path, to.join(path.file_name().expect("a file"))).expect("copied");
    }
}
