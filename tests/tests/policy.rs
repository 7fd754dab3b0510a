//! What an operator asks of an agency reaches its machines, changes their verdicts and the
//! agency's figures, and is written down; a machine that falls silent lowers the figures. Real
//! programs on loopback; needs no root.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use haidang_tests::agent::Agent;
use haidang_tests::loopback::Loopback;
use haidang_tests::wait;
use serde_json::Value;

const AGENCY: &str = "01-018";
/// A pass takes a second, a delivery waits for its turn.
const DEADLINE: Duration = Duration::from_secs(90);
const LENGTH: &str = "password_policy.length_min";

/// An agent whose first pass does not wait for a city.
fn start(world: &Loopback) -> Agent {
    let plan = world.agent(AGENCY, 0, "agent");
    plan.write_config().expect("written");
    let mut config = OpenOptions::new().append(true).open(plan.config_path()).expect("it is there");
    config.write_all(b"\n[posture]\nfirst_pass_within = \"1s\"\n").expect("written");
    let code = world.collector.create_token(AGENCY, 1, "1h").expect("a code");
    let output = plan.enrol(&code).expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Agent::start(plan).unwrap_or_else(|error| panic!("{error:#}"))
}

#[track_caller]
fn operator(world: &Loopback, arguments: &[&str]) -> String {
    let output = world.collector.run(arguments).expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn set(world: &Loopback, what: &[&str]) -> String {
    let words = ["--owner", "Phòng CNTT", "--reason", "hồ sơ cấp độ 2025"];
    operator(world, &[&["policy", "set", "--agency", AGENCY], what, &words[..]].concat())
}

/// Waits until the one machine's answer to a check has this verdict, and returns its posture.
async fn verdict(world: &Loopback, check: &str, awaited: &str) -> Value {
    let web = &world.collector.web;
    let look = || async {
        let agents = web.json("/api/v1/agents").await.map_err(|error| format!("{error:#}"))?;
        let id = agents["items"][0]["id"].as_str().ok_or("no agent")?.to_owned();
        let posture = web.json(&format!("/api/v1/agents/{id}/posture")).await;
        let posture = posture.map_err(|error| format!("{error:#}"))?;
        let checks = posture["checks"].as_array().cloned().unwrap_or_default();
        match checks.iter().find(|answer| answer["check"] == check) {
            Some(answer) if answer["verdict"] == awaited => Ok(posture),
            answer => Err(format!("{answer:?}")),
        }
    };
    let seen = wait::until(&format!("{check} {awaited}"), DEADLINE, look).await;
    seen.unwrap_or_else(|error| panic!("{error:#}")).0
}

/// Waits until a figure of the agency is as it should be.
async fn figure(world: &Loopback, name: &str, labels: &[(&str, &str)], right: fn(f64) -> bool) {
    let labels: Vec<_> = labels.iter().copied().chain([("agency", AGENCY)]).collect();
    let look = || async {
        let metrics = world.collector.metrics().await.map_err(|error| format!("{error:#}"))?;
        let value = metrics.find(name, &labels).map(|sample| sample.value).next();
        if value.is_some_and(right) { Ok(()) } else { Err(format!("{value:?}")) }
    };
    wait::until(name, DEADLINE, look).await.unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_threshold_changes_the_machines_verdict_and_the_agencys_figures_and_is_written_down() {
    let world = Loopback::start(&[AGENCY]).await.unwrap_or_else(|error| panic!("{error:#}"));
    let _agent = start(&world);

    let said = set(&world, &["--threshold", &format!("{LENGTH}=64")]);
    assert!(said.contains(LENGTH) && !said.contains("less than"), "{said}");
    let strict = verdict(&world, "password_policy", "fail").await;
    let checks = "haidang_agency_posture_checks";
    let failing = [("check", "password_policy"), ("result", "fail")];
    figure(&world, checks, &failing, |machines| machines == 1.0).await;
    figure(&world, "haidang_agency_policy_laxer", &[], |laxer| laxer == 0.0).await;

    let said = set(&world, &["--threshold", &format!("{LENGTH}=6"), "--level", "1"]);
    assert!(said.contains("less than the catalogue asks"), "{said}");
    let lax = verdict(&world, "password_policy", "pass").await;
    figure(&world, checks, &failing, |machines| machines == 0.0).await;
    figure(&world, "haidang_agency_policy_laxer", &[], |laxer| laxer == 3.0).await;
    let score = |posture: &Value| posture["score"].as_u64().expect("a score");
    assert!(score(&lax) > score(&strict), "{} is no more than {}", score(&lax), score(&strict));

    let shown = operator(&world, &["policy", "show", "--agency", AGENCY]);
    assert!(shown.contains(&format!("{LENGTH}\t6\t14\tagency\tyes")), "{shown}");
    let posture = world.collector.web.json("/api/v1/agencies/01-018/posture").await.expect("shown");
    assert_eq!(posture["policy"]["thresholds"][LENGTH], 6);
    assert_eq!(posture["policy"]["decisions"][0]["owner"], "Phòng CNTT");
    let written = operator(&world, &["audit", "--limit", "10"]);
    let entry = written.lines().find(|line| line.contains("policy_set")).expect("an entry");
    for part in [AGENCY, "Phòng CNTT", "hồ sơ cấp độ 2025", "password_policy.length_min 6"]
    {
        assert!(entry.contains(part), "{entry}");
    }

    let words = ["--owner", "Phòng CNTT", "--reason", "hết ngoại lệ"];
    operator(&world, &[&["policy", "clear", "--agency", AGENCY], &words[..]].concat());
    figure(&world, "haidang_agency_policy_laxer", &[], |laxer| laxer == 0.0).await;
    assert_eq!(operator(&world, &["policy", "list"]).lines().count(), 1, "only the heading");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_be_asked_for_is_refused_and_changes_nothing() {
    let world = Loopback::start(&[AGENCY]).await.unwrap_or_else(|error| panic!("{error:#}"));
    let words = ["--owner", "Phòng CNTT", "--reason", "thử"];
    for (what, because) in [
        (&["--agency", AGENCY, "--threshold", "screen_lock.seconds_max=999999"][..], "30 to 7200"),
        (&["--agency", AGENCY, "--threshold", "screen_lock.minutes=5"], "there is no threshold"),
        (&["--agency", AGENCY, "--score-min", "49"], "50 to 100"),
        (&["--agency", AGENCY, "--level", "6"], "1..=5"),
        (&["--agency", AGENCY], "name what is to be asked"),
        (&["--agency", "01-999", "--level", "2"], "not in the roster"),
        (&["--level", "2"], "--all"),
    ] {
        let output = world.collector.run(&[&["policy", "set"], what, &words[..]].concat());
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(because), "{what:?}: {said}");
    }
    assert_eq!(operator(&world, &["policy", "list"]).lines().count(), 1, "only the heading");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulling_an_agents_plug_lowers_its_agencys_figures() {
    let world = Loopback::start(&[AGENCY]).await.unwrap_or_else(|error| panic!("{error:#}"));
    let agent = start(&world);
    let machines = "haidang_agency_posture_machines";
    figure(&world, machines, &[("stat", "covered")], |covered| covered == 1.0).await;
    let critical = "haidang_agency_posture_critical_machines";
    figure(&world, critical, &[("check", "empty_passwords")], |failing| failing == 0.0).await;
    agent.kill();
    figure(&world, machines, &[("stat", "covered")], |covered| covered == 0.0).await;
    figure(&world, "haidang_agency_agents", &[("stat", "enrolled")], |all| all == 1.0).await;
}
