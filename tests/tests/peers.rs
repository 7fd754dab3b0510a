//! The comparison with other tools, as far as a short test can go: what a command costs is told,
//! and every answer of our agent has its place. The whole takes minutes and packages, and is the
//! recorded run of `haidang-posture-peers`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use haidang_proto::model::posture::CheckId;
use haidang_tests::binaries::{Binaries, repository};
use haidang_tests::peers::explained::{self, Mapping};
use haidang_tests::peers::usage::Usage;
use haidang_tests::peers::{Ours, Peer, System, Theirs, compare};

const PROGRAM: &str = env!("CARGO_BIN_EXE_haidang-posture-peers");

#[test]
fn a_measured_command_leaves_its_cost_and_its_status() {
    let directory = tempfile::tempdir().expect("a directory");
    let figures = directory.path().join("figures");
    let mut measured = Command::new(PROGRAM);
    measured.arg("measured").arg(&figures).args(["--", "sh", "-c", "echo seen; exit 3"]);
    let output = measured.output().expect("it starts");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"seen\n");
    let text = fs::read_to_string(figures).expect("figures");
    let usage: Usage = serde_json::from_str(&text).expect("figures as JSON");
    assert!(usage.rss_max_kib > 0, "{usage:?}");
}

#[test]
fn every_answer_of_the_agent_is_compared() {
    let agent = Binaries::find().expect("a build").agent;
    let output = Command::new(agent).args(["check", "--json"]).output().expect("it starts");
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let answers = page["posture"].as_array().expect("answers");
    let ours: BTreeMap<CheckId, Ours> = answers
        .iter()
        .map(|answer| {
            let check = answer["check"].as_str().and_then(CheckId::from_label);
            let verdict = serde_json::from_value(answer["verdict"].clone());
            (check.expect("a check"), verdict.expect("a verdict"))
        })
        .collect();
    let read = |path| fs::read_to_string(repository(path)).expect("it is there");
    let mapping = Mapping::parse(&read("tests/peers/mapping.csv")).expect("a mapping");
    let silent = |peer: Peer| {
        let items = mapping.items(peer).into_iter();
        items.map(move |item| ((peer, item.to_owned()), Theirs::NoFinding)).collect::<Vec<_>>()
    };
    let theirs = [Peer::OpenScap, Peer::Lynis].into_iter().flat_map(silent).collect();
    let cells = mapping.cells(System::Debian, &ours, &theirs).expect("all are answered");
    let explained = explained::parse(&read("tests/peers/explained.csv")).expect("explanations");
    // Peers that say nothing agree with nobody: what is written of their answers fits no more.
    let comparison = compare(cells, &explained);
    assert!(comparison.cells.len() > 2 * CheckId::ALL.len() - 1);
    assert!(!comparison.problems.is_empty());
}
