//! Enrolment with real programs on loopback: one code, one agency, and one clear sentence with
//! nothing written when it is refused. Needs no root.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Output;

use haidang_tests::agent::AgentPlan;
use haidang_tests::collector::free_port;
use haidang_tests::loopback::Loopback;

const AGENCY: &str = "01-018";

async fn world() -> Loopback {
    Loopback::start(&[AGENCY, "01-001"]).await.unwrap_or_else(|error| panic!("{error:#}"))
}

#[track_caller]
fn enrols(plan: &AgentPlan, code: &str) {
    plan.write_config().expect("written");
    let output = plan.enrol(code).expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The refusal is one line of words on stderr, and no identity is left behind.
#[track_caller]
fn is_refused(plan: &AgentPlan, code: &str, because: &str) {
    plan.write_config().expect("written");
    let Output { status, stderr, .. } = plan.enrol(code).expect("started");
    let said = String::from_utf8_lossy(&stderr);
    assert!(!status.success(), "{code} was accepted");
    let sentence = said.trim();
    assert!(sentence.contains(because), "{sentence:?} does not say {because:?}");
    assert!(!sentence.contains(code), "the code is repeated: {sentence}");
    // The bare prefix may be named, as what a code begins with; nothing of a code may follow it.
    let mut after_prefix = sentence.split("haidang1.").skip(1);
    let reveals = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    assert!(!after_prefix.any(reveals), "a part of the code: {sentence}");
    assert!(!sentence.to_lowercase().contains("panic"), "{sentence}");
    let secrets = files_below(&plan.state_dir())
        .into_iter()
        .filter(|path| path.contains("key") || path.contains("cert") || path.contains("identity"));
    assert_eq!(secrets.collect::<Vec<_>>(), [""; 0], "something was written");
}

fn files_below(directory: &std::path::Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(files_below(&path)),
            path => files.push(path.display().to_string()),
        }
    }
    let strip = directory.display().to_string();
    files.iter().map(|file| file.replace(&strip, "")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_for_its_uses_and_no_more() {
    let world = world().await;
    let code = world.collector.create_token(AGENCY, 2, "1h").expect("created");
    enrols(&world.agent(AGENCY, 0, "first"), &code);
    enrols(&world.agent(AGENCY, 0, "second"), &code);
    is_refused(&world.agent(AGENCY, 0, "third"), &code, "used as often as it may be");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_code_is_refused() {
    let world = world().await;
    let code = world.collector.create_token(AGENCY, 1, "1s").expect("created");
    let plan = world.agent(AGENCY, 0, "late");
    // Nothing announces the end of a second; the first refusal does.
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    is_refused(&plan, &code, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_code_is_refused() {
    let world = world().await;
    let code = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let listed = world.collector.run(&["token", "list"]).expect("listed");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(!listed.contains("haidang1."), "a list reveals no code: {listed}");
    let parsed: haidang_proto::model::enrolment_code::EnrolmentCode =
        code.parse().expect("its own code");
    assert!(listed.contains(&parsed.token_id), "{listed}");
    let revoked = world.collector.run(&["token", "revoke", &parsed.token_id]).expect("started");
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    is_refused(&world.agent(AGENCY, 0, "late"), &code, "withdrawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_mistyped_code_is_refused() {
    let world = world().await;
    let code = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let cut_short = &code[..code.len() - 3];
    is_refused(&world.agent(AGENCY, 0, "short"), cut_short, "incomplete or mistyped");
    is_refused(&world.agent(AGENCY, 0, "other"), "hello", "begins with haidang1.");
    let mut wrong: haidang_proto::model::enrolment_code::EnrolmentCode =
        code.parse().expect("its own code");
    wrong.secret[0] ^= 1;
    is_refused(&world.agent(AGENCY, 0, "wrong"), &wrong.reveal(), "does not know");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_collector_is_not_trusted_with_the_secret() {
    let world = world().await;
    let code = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let mut foreign: haidang_proto::model::enrolment_code::EnrolmentCode =
        code.parse().expect("its own code");
    foreign.ca_pin[0] ^= 1;
    is_refused(&world.agent(AGENCY, 0, "foreign"), &foreign.reveal(), "not the collector");
    // The secret was not spent on it: the right pin still enrols.
    enrols(&world.agent(AGENCY, 0, "right"), &code);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_is_named() {
    let world = world().await;
    let code = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let mut nowhere: haidang_proto::model::enrolment_code::EnrolmentCode =
        code.parse().expect("its own code");
    nowhere.endpoint = free_port(Ipv4Addr::LOCALHOST.into()).expect("a port").to_string();
    let endpoint = nowhere.endpoint.clone();
    is_refused(&world.agent(AGENCY, 0, "nowhere"), &nowhere.reveal(), &endpoint);
}
