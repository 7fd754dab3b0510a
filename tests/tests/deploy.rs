//! What is shipped beside the programs is right by the tools that will read it. Needs Debian's
//! `prometheus`, `prometheus-alertmanager` and `systemd` packages; needs no root.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use haidang_tests::binaries::repository;
use haidang_tests::expressions::{self, Expression};
use haidang_tests::loopback::Loopback;

/// Exposure above this fails the gate; the units reach about 13 (1.3).
const EXPOSURE_MAX: &str = "20";
/// The reader of evidence goes without what would hide evidence; it reaches about 26 (2.6).
const READER_EXPOSURE_MAX: &str = "28";
/// Series that no collector exports: Prometheus' own.
const OF_PROMETHEUS: [&str; 2] = ["ALERTS", "up"];

/// Runs a tool, which must succeed.
#[track_caller]
fn check(command: &mut Command) {
    run(command);
}

/// Runs a tool, which must succeed and say nothing on stderr: `systemd-analyze verify` returns 0
/// on a bad value.
#[track_caller]
fn check_silent(command: &mut Command) {
    let said = run(command);
    assert!(said.trim().is_empty(), "{command:?} warns: {said}");
}

/// Returns what it said on stderr.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; tests/run installs the packages that the tests need")
    });
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stderr
}

#[track_caller]
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = repository(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|has| has == extension));
    paths.sort();
    assert!(!paths.is_empty(), "{folder:?} has no .{extension} file");
    paths
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

#[test]
fn rules_are_valid_and_pass_their_unit_tests() {
    let rules = repository("deploy/prometheus/haidang.rules.yml");
    check(Command::new("promtool").args(["check", "rules"]).arg(rules));
    let tests = files("deploy/prometheus/tests", "yml");
    check(Command::new("promtool").args(["test", "rules"]).args(tests));
}

#[test]
fn the_sample_configuration_of_prometheus_is_valid() {
    let config = repository("deploy/prometheus/prometheus.yml");
    check(Command::new("promtool").args(["check", "config"]).arg(config));
}

#[test]
fn alerts_are_routed_to_the_receiver_that_they_are_meant_for() {
    let config = repository("deploy/alertmanager/alertmanager.yml");
    check(Command::new("amtool").arg("check-config").arg(&config));
    let table = read(&repository("deploy/alertmanager/routes.tests"));
    let rows = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for row in rows {
        let (receiver, labels) = row.split_once(' ').expect("a receiver, then labels");
        check(
            Command::new("amtool")
                .args(["config", "routes", "test", "--config.file"])
                .arg(&config)
                .arg(format!("--verify.receivers={receiver}"))
                .args(labels.split(' ')),
        );
    }
}

#[test]
fn units_verify_without_a_word_and_expose_little() {
    let directory = tempfile::tempdir().expect("a directory");
    // A service that a socket starts is verified beside it.
    for socket in files("deploy/systemd", "socket") {
        let copy = directory.path().join(socket.file_name().expect("a unit has a name"));
        fs::copy(&socket, copy).expect("copied");
    }
    for unit in files("deploy/systemd", "service") {
        let is_evidence_reader = unit.ends_with("haidang-posture@.service");
        let exposure_max = if is_evidence_reader { READER_EXPOSURE_MAX } else { EXPOSURE_MAX };
        check(
            Command::new("systemd-analyze")
                .args(["security", "--offline=yes", "--threshold", exposure_max])
                .arg(&unit),
        );
        // The programs are not installed here; any program stands for them.
        let text =
            read(&unit).replace("ExecStart=/usr/bin/haidang-", "ExecStart=/bin/true haidang-");
        let copy = directory.path().join(unit.file_name().expect("a unit has a name"));
        fs::write(&copy, text).expect("written");
        check_silent(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy));
    }
}

/// systemd cannot look into the arguments of openat2 and takes the whole call away.
#[test]
fn units_that_read_evidence_keep_the_call_that_opens_files_safely() {
    for unit in ["haidang-agent.service", "haidang-posture@.service"] {
        let text = read(&repository("deploy/systemd").join(unit));
        let options = text.lines().filter(|line| !line.starts_with('#'));
        let taken = options.filter(|line| line.starts_with("RestrictSUIDSGID")).count();
        assert_eq!(taken, 0, "{unit}");
    }
}

#[test]
fn every_alert_has_its_runbook_and_its_test() {
    let rules = read(&repository("deploy/prometheus/haidang.rules.yml"));
    let tests: String =
        files("deploy/prometheus/tests", "yml").iter().map(|path| read(path)).collect();
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert:"));
    for alert in alerts.map(str::trim).collect::<BTreeSet<_>>() {
        let runbook = repository("deploy/runbooks").join(format!("{alert}.md"));
        assert!(runbook.is_file(), "{alert} has no {}", runbook.display());
        assert!(tests.contains(&format!("alertname: {alert}")), "{alert} has no test");
    }
}

/// Every expression that is shipped, and the series that the rules record.
fn shipped_expressions() -> (Vec<Expression>, BTreeSet<String>) {
    let rules = read(&repository("deploy/prometheus/haidang.rules.yml"));
    let (mut all, recorded) = expressions::of_rules(&rules);
    assert!(!all.is_empty(), "the rule file is read");
    for path in files("dashboards", "json") {
        let dashboard = serde_json::from_str(&read(&path)).expect("a dashboard is JSON");
        let found = expressions::of_dashboard(&dashboard);
        assert!(!found.is_empty(), "{path:?} has no expression");
        all.extend(found);
    }
    (all, recorded)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_in_rules_and_dashboards_exists_in_a_real_scrape() {
    let world = Loopback::start(&["01-018"]).await.unwrap_or_else(|error| panic!("{error:#}"));
    let _agent =
        world.start_agent("01-018", 0, "agent").unwrap_or_else(|error| panic!("{error:#}"));
    world.connected("01-018").await.unwrap_or_else(|error| panic!("{error:#}"));
    let text = world.collector.web.text("/metrics").await.expect("it answers");
    let scrape = haidang_tests::exposition::Exposition::parse(&text).expect("it is a scrape");
    let mut exported = scrape.names();
    // A family without a series at the moment, such as exceptions, is declared all the same.
    exported
        .extend(text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()));
    let (expressions, recorded) = shipped_expressions();
    let mut unknown = Vec::new();
    for Expression { place, text } in expressions {
        let names = expressions::metrics_of(&text).unwrap_or_else(|e| panic!("{place}: {e}"));
        unknown.extend(names.into_iter().filter_map(|name| {
            let known = exported.contains(name.as_str())
                || recorded.contains(&name)
                || OF_PROMETHEUS.contains(&name.as_str());
            (!known).then(|| format!("{place}: {name}"))
        }));
    }
    assert!(unknown.is_empty(), "not in /metrics:\n{}", unknown.join("\n"));
}
