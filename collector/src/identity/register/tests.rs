use uuid::Uuid;

use super::*;

const YEAR_2020: Duration = Duration::from_secs(1_577_836_800);

fn wall(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + YEAR_2020 + Duration::from_secs(seconds)
}

fn serial(number: u8) -> Serial {
    Serial([number; 16])
}

fn identity() -> Identity {
    Identity {
        agent: AgentId(Uuid::from_u128(1)),
        agency: "01-018".parse().expect("an id"),
        state: IdentityState::Active,
        current: serial(1),
        not_after: wall(1_000),
        next: Some((serial(2), wall(2_000))),
        machine_fingerprint: [7; 32],
        pinned: false,
    }
}

fn peer(number: u8) -> PeerCertificate {
    PeerCertificate {
        agency: identity().agency,
        agent: identity().agent,
        serial: serial(number),
        not_before: wall(0),
        not_after: wall(1_000),
    }
}

#[track_caller]
fn answers(register: &Register, peer: &PeerCertificate, at: u64, want: Result<(), Refusal>) {
    let got = register.authorize(peer, Duration::from_secs(at), wall(at)).map(|_| ());
    assert_eq!(got, want);
}

#[test]
fn only_the_current_serial_of_a_living_identity_is_accepted() {
    let register = Register::new([identity()]);
    answers(&register, &peer(1), 10, Ok(()));
    answers(&register, &peer(1), 1_001, Err(Refusal::CertificateExpired));
    let early = PeerCertificate { not_before: wall(20), ..peer(1) };
    answers(&register, &early, 19, Err(Refusal::CertificateNotYetValid));
    answers(&register, &peer(3), 10, Err(Refusal::SerialSuperseded));
    let stranger = PeerCertificate { agent: AgentId(Uuid::from_u128(2)), ..peer(1) };
    answers(&register, &stranger, 10, Err(Refusal::IdentityUnknown));
    let moved = PeerCertificate { agency: "01-019".parse().expect("an id"), ..peer(1) };
    answers(&register, &moved, 10, Err(Refusal::IdentityUnknown));
    for (state, refusal) in [
        (IdentityState::Revoked, Refusal::Revoked),
        (IdentityState::Superseded, Refusal::SerialSuperseded),
        (IdentityState::Blocked, Refusal::Cloned),
    ] {
        register.set_state(identity().agent, state);
        answers(&register, &peer(1), 10, Err(refusal));
    }
}

#[test]
fn a_renewed_certificate_becomes_current_with_its_first_use() {
    let register = Register::new([identity()]);
    answers(&register, &peer(1), 1, Ok(()));
    let accepted = register.authorize(&peer(2), Duration::from_secs(2), wall(2));
    assert_eq!(accepted, Ok(Accepted { promoted: Some(wall(2_000)) }));
    answers(&register, &peer(1), 3, Err(Refusal::SerialSuperseded));
    let again = register.authorize(&peer(2), Duration::from_secs(4), wall(4));
    assert_eq!(again, Ok(Accepted { promoted: None }));
}

#[test]
fn a_foreign_machine_blocks_the_identity_until_an_operator_decides() {
    let agent = identity().agent;
    let register = Register::new([identity()]);
    let [home, away] = [1, 2].map(|host| IpAddr::from([198, 18, 0, host]));
    assert_eq!(register.machine(agent, &[7; 32], home), Machine::Enrolled);
    answers(&register, &peer(1), 10, Ok(()));
    let foreign = register.machine(agent, &[8; 32], away);
    assert_eq!(foreign, Machine::Foreign { former: Some(home) });
    answers(&register, &peer(1), 10, Err(Refusal::Cloned));

    register.put(Identity { pinned: true, ..identity() });
    assert_eq!(register.machine(agent, &[8; 32], away), Machine::Refused);
    assert_eq!(register.machine(agent, &[7; 32], home), Machine::Enrolled);
    answers(&register, &peer(1), 10, Ok(()));
}

#[test]
fn a_flood_is_refused_until_time_has_passed() {
    let register = Register::new([identity()]);
    let refused = (0..300)
        .filter(|_| register.authorize(&peer(1), Duration::from_secs(1), wall(1)).is_err())
        .count();
    assert_eq!(refused, 100);
    answers(&register, &peer(1), 2, Ok(()));
}

#[test]
fn a_fresh_identity_is_never_superseded() {
    let Identity { agent, agency, machine_fingerprint, .. } = identity();
    let register = Register::new([identity()]);
    let fresh_for = Duration::from_secs(30);
    let superseded = |register: &Register, at| {
        register.superseded_by(&agency, &machine_fingerprint, fresh_for, Duration::from_secs(at))
    };
    assert_eq!(superseded(&register, 0), [agent]);
    answers(&register, &peer(1), 100, Ok(()));
    assert_eq!(superseded(&register, 130), []);
    assert_eq!(superseded(&register, 131), [agent]);
}
