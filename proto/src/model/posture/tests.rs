use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn result(check: CheckId, outcome: Outcome) -> CheckResult {
    CheckResult {
        check,
        outcome,
        observed: "policy=drop".into(),
        age: Duration::from_millis(1_500),
        took: Duration::from_micros(420),
        is_parked: false,
    }
}

fn snapshot() -> PostureSnapshot {
    let outcomes = Outcome::ALL.iter().cycle();
    let results =
        CheckId::ALL.iter().zip(outcomes).map(|(check, outcome)| result(*check, *outcome));
    PostureSnapshot {
        extent: Extent::Full,
        catalogue_version: CATALOGUE_VERSION,
        machine: MachineKind::Workstation,
        results: results.collect(),
        measures: PostureMeasures {
            security_updates_pending: Some(3),
            oldest_security_update_age: Some(Duration::from_secs(86_400)),
            malware_signature_age: None,
            certificate_remaining: Some(Duration::ZERO),
        },
        unrecognised: 0,
    }
}

#[track_caller]
fn refused(name: &str, mutate: fn(&mut wire::PostureSnapshot)) {
    let mut sent = wire::PostureSnapshot::from(snapshot());
    mutate(&mut sent);
    assert!(PostureSnapshot::try_from(sent).is_err(), "{name}");
}

#[test]
fn a_snapshot_survives_the_wire() {
    let mut sent = snapshot();
    sent.results[7].outcome = Outcome::Unknown(UnknownReason::Timeout);
    sent.results[7].is_parked = true;
    for extent in [Extent::Full, Extent::Partial] {
        for machine in [MachineKind::Server, MachineKind::Workstation] {
            let sent = PostureSnapshot { extent, machine, ..sent.clone() };
            assert_eq!(
                PostureSnapshot::try_from(wire::PostureSnapshot::from(sent.clone())),
                Ok(sent)
            );
        }
    }
}

#[test]
fn what_breaks_the_contract_is_refused() {
    refused("no catalogue", |sent| sent.catalogue_version = 0);
    refused("no machine", |sent| sent.machine = 0);
    refused("no measures", |sent| sent.measures = None);
    refused("a check twice", |sent| sent.results[1].check = 1);
    refused("no check", |sent| sent.results[0].check = 0);
    refused("no verdict", |sent| sent.results[0].verdict = 0);
    refused("no reason", |sent| sent.results[0].reason = 0);
    refused("a pass that was not allowed", |sent| sent.results[0].reason = 5);
    refused("a parked pass", |sent| sent.results[0].parked = true);
    refused("a long text", |sent| sent.results[0].observed = "x".repeat(129));
    refused("a control character", |sent| sent.results[0].observed = "a\u{1b}[31m".into());
    refused("too many", |sent| {
        sent.results = (0..129)
            .map(|n| wire::CheckResult { check: 1_000 + n, ..Default::default() })
            .collect();
    });
}

#[test]
fn checks_of_a_newer_catalogue_are_counted_and_kept_out() {
    let mut sent = wire::PostureSnapshot::from(snapshot());
    let newer = |check| wire::CheckResult {
        check,
        verdict: 77,
        observed: "\n".repeat(500),
        ..Default::default()
    };
    let next = CHECKS as i32 + 1;
    sent.results.extend([newer(next), newer(next), newer(-3)]);
    sent.machine = 9;
    let expected = PostureSnapshot { unrecognised: 3, machine: MachineKind::Server, ..snapshot() };
    assert_eq!(PostureSnapshot::try_from(sent), Ok(expected));
}

#[test]
fn what_an_honest_agent_sends_is_accepted_and_small() {
    let mut sent = snapshot();
    for result in &mut sent.results {
        result.observed = "cổng mở:\n".repeat(100);
        (result.age, result.took) = (Duration::MAX, Duration::MAX);
    }
    let sent = wire::PostureSnapshot::from(sent);
    assert!(sent.encoded_len() < 8 << 10, "{}", sent.encoded_len());
    assert!(PostureSnapshot::try_from(sent).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_panic_and_none_make_a_pass_of_another_verdict(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        verdict in any::<i32>(),
        reason in any::<i32>(),
    ) {
        if let Ok(sent) = wire::PostureSnapshot::decode(bytes.as_slice()) {
            let _ = PostureSnapshot::try_from(sent);
        }
        let read = Outcome::from_wire(verdict, reason);
        prop_assert!(read != Ok(Outcome::Pass) || (verdict, reason) == (1, 1));
    }
}
