//! The commented sample configurations load, by the programs' own `--check-config`.

use std::process::Command;

use haidang_tests::binaries::{Binaries, repository};

#[track_caller]
fn loads(command: &mut Command) {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

#[test]
fn the_agents_sample_loads() {
    let binaries = Binaries::find().expect("built");
    let sample = repository("deploy/agent.toml");
    loads(Command::new(binaries.agent).args(["run", "--check-config", "--config"]).arg(sample));
}

#[test]
fn the_collectors_sample_loads() {
    let binaries = Binaries::find().expect("built");
    let sample = repository("deploy/collector.toml");
    loads(
        Command::new(binaries.collector).args(["serve", "--check-config", "--config"]).arg(sample),
    );
}
