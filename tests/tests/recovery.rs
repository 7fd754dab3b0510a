//! A machine that was off past the end of its certificate, with real programs on loopback. The
//! agent's certificate ends with a CA whose term is over in seconds; then the CA's operator
//! installs a longer certificate of the same key. Needs no root.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use haidang_tests::agent::{Agent, AgentPlan};
use haidang_tests::collector::{Collector, Tempo};
use haidang_tests::loopback::Loopback;
use haidang_tests::wait;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SerialNumber,
};

const AGENCY: &str = "01-018";
/// Time for the collector's start and one enrolment, builds without optimisation included.
const FIRST_TERM: Duration = Duration::from_secs(12);

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

    let identity = format!(
        "\n[identity]\nca_certificate_file = {:?}\nca_key_file = {:?}\n",
        place.path().join("ca.pem"),
        place.path().join("ca.key"),
    );
    let mut world = Loopback::start_with(&[AGENCY, "01-001"], &identity)
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

    let _agent = Agent::start(plan).expect("started");
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let metrics = world.collector.metrics().await.expect("metrics");
    let refused =
        metrics.find("haidang_collector_rejected_total", &[("reason", "recovery_refused")]);
    assert_eq!(refused.map(|series| series.value).sum::<f64>(), 0.0);
    let listed = world.collector.run(&["agent", "list"]).expect("started");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.lines().count(), 2, "the same identity goes on: {listed}");
}
