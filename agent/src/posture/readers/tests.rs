use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use haidang_proto::model::posture::{CheckId, Outcome, UnknownReason};

use super::*;
use crate::posture::pass::Guidance;
use crate::posture::{Check, checks};

const MOMENT: Duration = Duration::from_millis(300);

struct Listener {
    path: PathBuf,
    _place: tempfile::TempDir,
    thread: JoinHandle<()>,
}

/// One that does as told with the one connection it gets.
fn listener(act: impl FnOnce(UnixStream) + Send + 'static) -> Listener {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("reader.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || act(listener.accept().unwrap().0));
    Listener { path, _place: place, thread }
}

/// Says it, as far as somebody listens.
fn says(bytes: Vec<u8>) -> Listener {
    listener(move |mut stream| {
        let _ = stream.write_all(&bytes);
    })
}

/// Hears the question, then says it.
fn answers(bytes: Vec<u8>) -> Listener {
    listener(move |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
        let _ = stream.write_all(&bytes);
    })
}

fn frame(content: &[u8]) -> Vec<u8> {
    [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

#[track_caller]
fn netfilter_is(listener: Listener, expected: UnknownReason) {
    let asked = netfilter::ask_within(&listener.path, MOMENT);
    assert_eq!(asked.expect_err("it is no dump").reason(), expected);
    listener.thread.join().unwrap();
}

#[test]
fn an_answer_that_is_garbage_cut_too_long_or_none_is_unknown_with_its_reason() {
    netfilter_is(says(Vec::new()), UnknownReason::ParseError);
    netfilter_is(says(b"\0\0".to_vec()), UnknownReason::ParseError);
    netfilter_is(says(frame(b"")), UnknownReason::ParseError);
    netfilter_is(says(frame(b"\x07nonsense")), UnknownReason::ParseError);
    netfilter_is(says(frame(b"\x01{}")), UnknownReason::ParseError);
    netfilter_is(says(frame(b"\0nonsense of a dump")), UnknownReason::ParseError);
    netfilter_is(says(frame(&[0; 64])[..40].to_vec()), UnknownReason::ParseError);
    netfilter_is(says(u32::MAX.to_be_bytes().to_vec()), UnknownReason::Unsupported);
}

#[test]
fn a_reader_that_is_silent_or_drips_is_late() {
    let silent = |stream: UnixStream| {
        let _ = (&mut &stream).read(&mut [0; 1]);
    };
    netfilter_is(listener(silent), UnknownReason::Timeout);
    let drips = |mut stream: UnixStream| {
        let _ = stream.write_all(&1000_u32.to_be_bytes());
        while stream.write_all(b"\0").is_ok() {
            thread::sleep(MOMENT / 10);
        }
    };
    netfilter_is(listener(drips), UnknownReason::Timeout);
}

#[test]
fn what_the_reader_could_not_read_keeps_its_reason() {
    let denied = Unknown::PermissionDenied { what: "nftables tables".into() };
    let json = serde_json::to_vec(&denied).unwrap();
    let listener = says(frame(&[b"\x01", &json[..]].concat()));
    assert_eq!(netfilter::ask_within(&listener.path, MOMENT), Err(denied));
    listener.thread.join().unwrap();
}

#[test]
fn where_there_is_no_reader_permission_is_denied() {
    let nowhere = Path::new("/nonexistent/reader.sock");
    let asked = netfilter::ask_within(nowhere, MOMENT).expect_err("nobody is there");
    assert_eq!(asked.reason(), UnknownReason::PermissionDenied);
    let wanted: Vec<&'static Check> = checks().collect();
    let (answers, figures) = whole::Reader::new(nowhere).ask(&wanted, &Guidance::default());
    assert_eq!(answers.len(), wanted.len());
    let denied = Outcome::Unknown(UnknownReason::PermissionDenied);
    assert!(answers.iter().all(|answer| answer.outcome == denied), "{answers:?}");
    assert_eq!(figures.updates, None);
}

fn told(checks: &[&str]) -> Vec<u8> {
    let answers: Vec<_> = checks
        .iter()
        .map(|check| {
            let outcome = serde_json::json!({ "verdict": "pass", "reason": "ok" });
            serde_json::json!({ "check": check, "outcome": outcome, "observed": "x", "took_us": 7 })
        })
        .collect();
    let told = serde_json::json!({
        "answers": answers, "machine": "server", "updates": null,
        "malware_signature_age_s": null, "certificate_remaining_s": 60,
    });
    frame(&serde_json::to_vec(&told).unwrap())
}

#[track_caller]
fn ip_forwarding_is(answer: Vec<u8>, expected: Outcome) {
    let listener = answers(answer);
    let check = checks().find(|check| check.id == CheckId::IpForwarding).unwrap();
    let (answers, _) = whole::Reader::new(&listener.path).ask(&[check], &Guidance::default());
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].check, answers[0].outcome), (CheckId::IpForwarding, expected));
    listener.thread.join().unwrap();
}

#[test]
fn a_pass_is_believed_only_when_it_answers_what_was_asked() {
    ip_forwarding_is(told(&["ip_forwarding"]), Outcome::Pass);
    let malformed = Outcome::Unknown(UnknownReason::ParseError);
    ip_forwarding_is(told(&[]), malformed);
    ip_forwarding_is(told(&["ip_forwarding", "ip_forwarding"]), malformed);
    ip_forwarding_is(told(&["ip_forwarding", "os_supported"]), malformed);
    ip_forwarding_is(told(&["os_supported"]), malformed);
    ip_forwarding_is(told(&["no_such_check"]), malformed);
    ip_forwarding_is(frame(b"{}"), malformed);
    ip_forwarding_is(Vec::new(), malformed);
}
