//! A configuration that names what cannot be probed is refused before the agent runs, by name.

use std::process::{Command, Output};

fn agent(arguments: &[&str], targets: &str) -> (Output, tempfile::TempDir) {
    let place = tempfile::tempdir().expect("make a directory");
    let config = format!(
        "state_dir = \"{0}\"\nstatus_socket = \"{0}/status.sock\"\n[dedicated]\n\
         interface = {{ name = \"lo\" }}\nlocal_prefixes = [\"10.20.30.0/24\"]\n\
         network_prefixes = [\"198.18.0.0/15\"]\ngateways = []\n{targets}",
        place.path().join("state").display(),
    );
    let file = place.path().join("agent.toml");
    std::fs::write(&file, config).expect("write the configuration");
    let output = Command::new(env!("CARGO_BIN_EXE_haidang-agent"))
        .args(arguments)
        .arg("--config")
        .arg(&file)
        .output()
        .expect("start the agent");
    (output, place)
}

#[test]
fn a_target_that_cannot_be_probed_is_named_and_nothing_runs() {
    let cases = [
        (
            "[[service]]\nname = \"portal\"\nurl = \"https://198.18.0.20/\"\n\
             ca_file = \"/absent/ca.pem\"\n",
            "service portal: cannot read certificates from /absent/ca.pem",
        ),
        (
            "[[anchor]]\nname = \"core\"\naddress = \"203.0.113.1\"\n",
            "agent.toml:10: anchor.address holds 203.0.113.1, outside dedicated.network_prefixes",
        ),
    ];
    for (targets, problem) in cases {
        for arguments in [["run", "--check-config"].as_slice(), &["run"]] {
            let (output, place) = agent(arguments, targets);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
            assert!(said.contains(problem), "{arguments:?}: {said}");
            assert!(!said.contains("running"), "{arguments:?}: {said}");
            assert!(!place.path().join("status.sock").exists(), "{arguments:?}: nobody answers");
        }
    }
}
