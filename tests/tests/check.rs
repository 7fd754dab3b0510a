//! `haidang-agent check` as the person at the machine meets it: without configuration, in 80
//! columns, with an exit status that says how it went. Needs no root.

use std::io::Read as _;
use std::process::{Command, Stdio};

use haidang_tests::binaries::Binaries;

fn check(arguments: &[&str]) -> Command {
    let mut command = Command::new(Binaries::find().expect("built").agent);
    let directory = std::env::temp_dir().join("no-such-haidang/agent.toml");
    command.arg("check").args(arguments).arg("--config").arg(directory);
    command
}

#[test]
fn without_enrolment_it_is_readable_in_80_columns_and_never_all_good() {
    for language in ["vi", "en"] {
        let output = check(&["--lang", language]).output().expect("it runs");
        let said = String::from_utf8(output.stdout).expect("text");
        for line in said.lines() {
            assert!(line.chars().count() <= 80, "{language}: {line}");
            assert!(!line.contains('\u{1b}'), "{language}: colours in a pipe: {line}");
        }
        // Without configuration the path is unknown; something else may fail besides.
        assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}", output.status);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let whole = check(&[]).output().expect("it runs");
    let mut child =
        check(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    let status = child.wait().expect("it ends");
    assert_eq!((said.as_str(), status.code()), ("", whole.status.code()));
}

#[test]
fn a_wrong_command_line_has_a_status_of_its_own() {
    let output = check(&["--lang", "fr"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(64));
}
