//! A real collector and real agents on loopback: what is reported is shown, what stops is seen,
//! and bad input changes nothing. Needs no root.

use std::fs;
use std::time::Duration;

use haidang_tests::agent::Agent;
use haidang_tests::collector::{AgencySeen, Collector};
use haidang_tests::exposition::Exposition;
use haidang_tests::loopback::Loopback;
use haidang_tests::wait;

const AGENCY: &str = "01-018";
const OTHER: &str = "01-001";
const AGENCIES: usize = 631;
const DEADLINE: Duration = Duration::from_secs(60);

async fn world() -> Loopback {
    Loopback::start(&[AGENCY, OTHER]).await.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Waits for a counter or gauge to reach a value.
async fn reaches(collector: &Collector, name: &str, labels: &[(&str, &str)], at_least: f64) {
    wait::until(name, DEADLINE, || async {
        let metrics = collector.metrics().await.map_err(|error| format!("{error:#}"))?;
        let value: f64 = metrics.find(name, labels).map(|sample| sample.value).sum();
        if value >= at_least { Ok(()) } else { Err(value.to_string()) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

fn states_sum_to_the_roster(metrics: &Exposition) {
    let states: Vec<_> = metrics.find("haidang_agency_state", &[]).collect();
    assert_eq!(states.len(), AGENCIES * 7);
    assert_eq!(states.iter().map(|state| state.value).sum::<f64>(), AGENCIES as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reporting_agent_connects_its_agency_and_no_other() {
    let world = world().await;
    states_sum_to_the_roster(&world.collector.metrics().await.expect("metrics"));
    let _agent = world.start_agent(AGENCY, 0, "agent").unwrap_or_else(|e| panic!("{e:#}"));
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let metrics = world.collector.metrics().await.expect("metrics");
    states_sum_to_the_roster(&metrics);
    let connected = [("state", "connected")];
    let connected: f64 =
        metrics.find("haidang_agency_state", &connected).map(|sample| sample.value).sum();
    assert_eq!(connected, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_probes_the_collector_as_an_anchor_is_no_refused_peer() {
    let world = world().await;
    let _agent = world.start_agent(AGENCY, 0, "agent").unwrap_or_else(|e| panic!("{e:#}"));
    let rejected = "haidang_collector_rejected_total";
    reaches(&world.collector, rejected, &[("reason", "no_certificate")], 2.0).await;
    let metrics = world.collector.metrics().await.expect("metrics");
    let handshake: f64 = metrics.find(rejected, &[("reason", "handshake")]).map(|s| s.value).sum();
    assert_eq!(handshake, 0.0, "the alert about refused peers counts these");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_clean_by_promtool() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let world = world().await;
    let _agent = world.start_agent(AGENCY, 0, "agent").unwrap_or_else(|e| panic!("{e:#}"));
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let text = world.collector.web.text("/metrics").await.expect("it answers");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by tests/run");
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_and_a_crash_are_told_apart() {
    let world = world().await;
    let stopped = world.start_agent(AGENCY, 0, "stopped").unwrap_or_else(|e| panic!("{e:#}"));
    let crashed = world.start_agent(OTHER, 1, "crashed").unwrap_or_else(|e| panic!("{e:#}"));
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    world.connected(OTHER).await.unwrap_or_else(|error| panic!("{error:#}"));
    stopped.stop().await.expect("stops");
    crashed.kill();
    world.state(AGENCY, "silent").await.unwrap_or_else(|error| panic!("{error:#}"));
    world.state(OTHER, "silent").await.unwrap_or_else(|error| panic!("{error:#}"));
    let agency = world.collector.web.json(&format!("/api/v1/agencies/{AGENCY}")).await;
    let agency = agency.expect("it answers").to_string();
    assert!(agency.contains("shutdown"), "{agency}");
    let other = world.collector.web.json(&format!("/api/v1/agencies/{OTHER}")).await;
    let other = other.expect("it answers").to_string();
    assert!(!other.contains("shutdown"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_is_refused_on_its_next_report_and_keeps_its_key() {
    let world = world().await;
    let mut agent = world.start_agent(AGENCY, 0, "agent").unwrap_or_else(|e| panic!("{e:#}"));
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let listed = world.collector.run(&["agent", "list"]).expect("listed");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let id = listed.split_whitespace().find(|word| word.parse::<uuid::Uuid>().is_ok());
    let id = id.unwrap_or_else(|| panic!("no agent in {listed}"));
    let revoked = world.collector.run(&["agent", "revoke", id]).expect("started");
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let rejected = "haidang_collector_rejected_total";
    reaches(&world.collector, rejected, &[("reason", "revoked")], 1.0).await;
    agent.process().check_running().expect("a revoked agent waits for a new enrolment");
    assert!(agent.plan.state_dir().is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_comes_back_after_a_restart_and_no_state_is_guessed() {
    let world = world().await;
    let _agent = world.start_agent(AGENCY, 0, "agent").unwrap_or_else(|e| panic!("{e:#}"));
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let Loopback { collector, binaries, directory } = world;
    let plan = collector.kill();
    let collector = Collector::start_again(plan).await.unwrap_or_else(|e| panic!("{e:#}"));
    let metrics = collector.metrics().await.expect("metrics");
    let seen = AgencySeen::read(&metrics, AGENCY).expect("one state");
    assert!(["unknown", "connected", "degraded"].contains(&seen.state.as_str()), "{seen:?}");
    let world = Loopback { collector, binaries, directory };
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_an_agent_goes_on_and_delivers_its_journal_later() {
    let world = world().await;
    let agent = world.start_agent(AGENCY, 0, "agent").unwrap_or_else(|e| panic!("{e:#}"));
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    let plan = agent.plan.clone();
    agent.kill();
    let Loopback { collector, binaries, directory } = world;
    let collector_plan = collector.kill();
    // It starts while nobody listens: the start itself is a record for the journal.
    let mut agent = Agent::start(plan).expect("starts");
    wait::until("an answer of the agent", DEADLINE, || async {
        agent.status().await.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    agent.process().check_running().expect("it goes on");
    let collector =
        Collector::start_again(collector_plan).await.unwrap_or_else(|e| panic!("{e:#}"));
    let world = Loopback { collector, binaries, directory };
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));
    wait::until("an empty journal", DEADLINE, || async {
        let status = agent.status().await.map_err(|error| format!("{error:#}"))?;
        match status["journal"]["waiting_records"].as_u64() {
            Some(0) => Ok(()),
            _ => Err(status["journal"].to_string()),
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_refused_with_file_and_key() {
    let world = world().await;
    let agent = world.agent(AGENCY, 0, "agent");
    agent.write_config().expect("written");
    let collector_plan = world.collector.stop().await.expect("stops");
    for (path, command) in [
        (agent.config_path(), agent.command(&["run"])),
        (collector_plan.config_path(), collector_plan.command(&["serve"])),
    ] {
        let mut command = command;
        let text = fs::read_to_string(&path).expect("readable");
        fs::write(&path, format!("colour = \"blue\"\n{text}")).expect("written");
        let output = command.output().expect("started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains(&path.display().to_string()) && said.contains("colour"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_roster_is_refused_with_its_line_and_the_old_one_stays() {
    let world = world().await;
    let good = fs::read_to_string(&world.collector.plan.roster.roster).expect("readable");
    let bad = world.directory.path().join("bad.csv");
    let bad_name = bad.display().to_string();
    let second = good.lines().nth(1).expect("a row");
    let rows = [
        (format!("{good}{second}\n"), format!("{}", AGENCIES + 2)),
        (good.replace(",01,001,", ",09-no-such,001,"), "24".to_owned()),
        (good.replace("Quận Ba Đình", "Qua\u{323}\u{302}n Ba Đình"), "24".to_owned()),
    ];
    for (text, line) in rows {
        assert_ne!(text, good, "the row to spoil is there");
        fs::write(&bad, text).expect("written");
        let output = world.collector.run(&["roster", "import", &bad_name]).expect("started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "accepted");
        assert!(said.contains("bad.csv") && said.contains(&line), "line {line}: {said}");
    }
    states_sum_to_the_roster(&world.collector.metrics().await.expect("metrics"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_on_the_report_port_change_nothing() {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    let world = world().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0x16, 3, 1, 255, 255, 1, 2, 3]] {
        let mut stream = TcpStream::connect(world.collector.plan.dedicated[0]).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.write_all(bytes).expect("sent");
        // Closed, or a TLS alert and closed.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    reaches(&world.collector, "haidang_collector_rejected_total", &[], 1.0).await;
    states_sum_to_the_roster(&world.collector.metrics().await.expect("metrics"));
}
