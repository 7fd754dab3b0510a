use std::time::SystemTime;

use haidang_proto::model::agency::AgentId;
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use tempfile::TempDir;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::config::Config;
use crate::fleet::{Fleet, FleetConfig};
use crate::identity::{
    CertificateRequest, CertificateTerm, Identity, IdentityState, RECOVERY_AGE_MAX,
};
use crate::live::live;
use crate::roster::{Loopback, Source, parse};
use crate::store::Opened;

const HOME: &str = "198.18.1.9";
const DAY: Duration = Duration::from_secs(86_400);
/// How long ago the certificate ended.
const ENDED: Duration = Duration::from_secs(3 * 86_400);

fn agent() -> AgentId {
    AgentId(Uuid::from_u128(1))
}

fn now() -> Now {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    Now { mono: Duration::from_secs(100), wall }
}

fn later(by: Duration) -> Now {
    Now { mono: now().mono + by, wall: now().wall + by }
}

/// A collector's recovery service, and a machine whose certificate has ended.
struct World {
    service: Recover,
    key: KeyPair,
    expired: Vec<u8>,
    serial: Serial,
    _directory: TempDir,
}

impl World {
    fn new() -> Self {
        Self::of("01-001,Quận Ba Đình,quan,01,001,,,,198.18.1.0/24\n")
    }

    fn of(rows: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config { state_dir: directory.path().into(), ..Config::default() };
        let past = now().wall - RECOVERY_AGE_MAX - DAY;
        let authority = Arc::new(Authority::open(&config, past).expect("it is made"));
        let opened = Store::open(&directory.path().join("store.db")).expect("a new store");
        let Opened { store, writer, reader } = opened;
        std::thread::spawn(move || writer.run());
        std::thread::spawn(move || reader.run());
        let head = "id,name,kind,parent,gso_code,id_code,lat,lon,local_prefixes\n";
        let text = format!("{head}{rows}");
        let source = Source { name: "roster.csv", bytes: text.as_bytes() };
        let roster = Arc::new(parse(source, None, Loopback::Refused).expect("sound"));
        let fleet_config = FleetConfig {
            report_interval: Duration::from_secs(10),
            goal_target_ratio: 1.0,
            security_goal_target_ratio: 1.0,
        };
        let fleet = Fleet::new(roster, fleet_config, now());
        let (live, _task, _) = live(fleet, mpsc::channel(1).0, Clock::start());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let serial = Serial::draw().expect("random bytes");
        let expired = certificate(&authority, &key, serial, now().wall - ENDED);
        let identity = Identity {
            agent: agent(),
            agency: "01-001".parse().expect("an id"),
            state: IdentityState::Active,
            current: serial,
            not_after: now().wall - ENDED,
            next: None,
            machine_fingerprint: [7; 32],
            pinned: false,
        };
        let issue = Issue {
            trust_domain: config.trust_domain.clone(),
            certificate_lifetime: 90 * DAY,
            roots: vec![authority.certificate().clone()],
        };
        let register = Arc::new(Register::new([identity]));
        let service = Recover::new(register, live, store, authority, issue, Clock::start());
        let service = service.expect("its roots are sound");
        Self { service, key, expired, serial, _directory: directory }
    }

    fn first_call(&self) -> wire::RenewExpiredRequest {
        wire::RenewExpiredRequest {
            expired_chain_der: vec![self.expired.clone()],
            csr_der: request(&self.key),
            server_nonce: Vec::new(),
            nonce_signature: Vec::new(),
        }
    }

    fn second_call(&self, nonce: &[u8]) -> wire::RenewExpiredRequest {
        wire::RenewExpiredRequest {
            server_nonce: nonce.to_vec(),
            nonce_signature: self.key.sign(nonce).expect("it signs"),
            ..self.first_call()
        }
    }

    async fn call(
        &self,
        request: wire::RenewExpiredRequest,
        source: &str,
        at: Now,
    ) -> Result<wire::RenewExpiredResponse, Option<Refusal>> {
        let source = source.parse().expect("an address");
        let answer = self.service.renew_expired(request, source, at).await;
        answer.map_err(|status| {
            let reason = status.metadata().get(haidang_proto::model::refusal::REASON_KEY);
            reason.and_then(|reason| Refusal::from_label(reason.to_str().ok()?))
        })
    }

    /// The audit, once all that was left to be written is.
    async fn audited(&self) -> Vec<crate::store::AuditRow> {
        self.service.store.note_roster_file(String::new()).await.expect("it is written in order");
        self.service.store.audit(None, 10).await.expect("it is readable")
    }

    async fn nonce(&self, at: Now) -> Vec<u8> {
        self.call(self.first_call(), HOME, at).await.expect("a nonce").server_nonce
    }

    #[track_caller]
    fn refuses(
        &self,
        request: wire::RenewExpiredRequest,
        source: &str,
        want: Refusal,
    ) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let answer = self.call(request, source, now()).await;
            assert_eq!(answer.err(), Some(Some(want)), "{at}");
        }
    }
}

fn request(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::default();
    params.serialize_request(key).expect("a request").der().to_vec()
}

fn certificate(
    authority: &Authority,
    key: &KeyPair,
    serial: Serial,
    not_after: SystemTime,
) -> Vec<u8> {
    let agency = "01-001".parse().expect("an id");
    let term = CertificateTerm { not_before: not_after - 90 * DAY, not_after };
    let request = CertificateRequest::parse(&request(key)).expect("it is accepted");
    let workload = Workload::Agent { agency, agent: agent() };
    authority.issue_agent(&request, workload, serial, term).expect("it is signed").to_vec()
}

#[tokio::test]
async fn the_holder_of_an_expired_certificate_gets_a_new_one_for_the_same_key() {
    let world = World::new();
    let nonce = world.nonce(now()).await;
    let call = world.second_call(&nonce);
    let answer = world.call(call.clone(), HOME, now()).await.expect("it is renewed");
    let [new] = answer.certificate_chain_der.try_into().expect("one certificate");
    let trust_domain = Config::default().trust_domain;
    let new = PeerCertificate::parse(&new, &trust_domain).expect("an agent's");
    assert_eq!((new.agent, new.agency.as_str()), (agent(), "01-001"));
    assert_eq!(new.not_after, now().wall + 90 * DAY);

    let rows = world.audited().await;
    assert_eq!(rows.iter().map(|row| row.action.as_str()).collect::<Vec<_>>(), ["recovered"]);
    let authorized = world.service.register.authorize(&new, now().mono, now().wall);
    assert_eq!(authorized.map(|accepted| accepted.promoted), Ok(Some(new.not_after)));

    let replayed = world.call(call, HOME, now()).await;
    assert_eq!(replayed.err(), Some(Some(Refusal::SerialSuperseded)), "the old one is replaced");
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again() {
    let world = World::new();
    for attempt in 0..3_u32 {
        let at = later(attempt * 11 * Duration::from_secs(1));
        let nonce = world.nonce(at).await;
        world.call(world.second_call(&nonce), HOME, at).await.expect("it is renewed");
    }
    let at = later(Duration::from_secs(23));
    let nonce = world.nonce(at).await;
    let at_once = world.call(world.second_call(&nonce), HOME, at).await;
    assert_eq!(at_once.err(), Some(Some(Refusal::RateLimited)), "renewals have a pause");
}

#[tokio::test]
async fn only_the_holder_of_the_key_is_answered() {
    let world = World::new();
    let stranger = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let foreign_request =
        wire::RenewExpiredRequest { csr_der: request(&stranger), ..world.first_call() };
    world.refuses(foreign_request, HOME, Refusal::CsrInvalid).await;

    let invented = world.second_call(&[1; 32]);
    world.refuses(invented, HOME, Refusal::RecoveryRefused).await;

    let nonce = world.nonce(now()).await;
    let forged = wire::RenewExpiredRequest {
        nonce_signature: stranger.sign(&nonce).expect("it signs"),
        ..world.second_call(&nonce)
    };
    world.refuses(forged, HOME, Refusal::RecoveryRefused).await;
    world.refuses(world.second_call(&nonce), HOME, Refusal::RecoveryRefused).await;

    let nonce = world.nonce(now()).await;
    let late = world.call(world.second_call(&nonce), HOME, later(Duration::from_secs(61))).await;
    assert_eq!(late.err(), Some(Some(Refusal::RecoveryRefused)), "the nonce has ended");
    let rows = world.audited().await;
    assert!(rows.iter().all(|row| row.action == "recovery_refused"), "{rows:?}");
    assert_eq!(rows.len(), 5);
}

#[tokio::test]
async fn a_certificate_that_is_not_ours_is_refused() {
    let world = World::new();
    let other = World::new();
    let foreign = wire::RenewExpiredRequest {
        csr_der: request(&other.key),
        expired_chain_der: vec![other.expired.clone()],
        ..world.first_call()
    };
    world.refuses(foreign, HOME, Refusal::Handshake).await;
    let no_certificate =
        |chain| wire::RenewExpiredRequest { expired_chain_der: chain, ..world.first_call() };
    world.refuses(no_certificate(Vec::new()), HOME, Refusal::Malformed).await;
    world.refuses(no_certificate(vec![vec![0; 9]; 5]), HOME, Refusal::Malformed).await;
    world.refuses(no_certificate(vec![vec![0x30; 99]]), HOME, Refusal::IdentityMalformed).await;
    let collector = world.service.authority.issue_server(
        &["127.0.0.1"],
        CertificateTerm { not_before: now().wall - 90 * DAY, not_after: now().wall - ENDED },
    );
    let collector = collector.expect("it is issued").leaf_only.cert[0].to_vec();
    world.refuses(no_certificate(vec![collector]), HOME, Refusal::IdentityMalformed).await;
}

#[tokio::test]
async fn what_was_withdrawn_replaced_or_never_enrolled_is_refused() {
    for (state, refusal) in [
        (IdentityState::Revoked, Refusal::Revoked),
        (IdentityState::Blocked, Refusal::Cloned),
        (IdentityState::Superseded, Refusal::SerialSuperseded),
    ] {
        let world = World::new();
        let nonce = world.nonce(now()).await;
        world.service.register.set_state(agent(), state);
        world.refuses(world.first_call(), HOME, refusal).await;
        world.refuses(world.second_call(&nonce), HOME, refusal).await;
    }
    let world = World::new();
    let former = Identity {
        current: Serial([0x41; 16]),
        ..world.service.register.identity(agent()).expect("known")
    };
    world.service.register.put(former.clone());
    world.refuses(world.first_call(), HOME, Refusal::SerialSuperseded).await;
    let pending = Identity { next: Some((world.serial, now().wall - ENDED)), ..former.clone() };
    world.service.register.put(pending);
    assert!(!world.nonce(now()).await.is_empty(), "the pending one counts");
    let moved = Identity { agency: "01-002".parse().expect("an id"), ..former };
    world.service.register.put(moved);
    world.refuses(world.first_call(), HOME, Refusal::IdentityUnknown).await;
}

#[tokio::test]
async fn a_certificate_is_renewed_from_its_end_for_180_days() {
    let world = World::new();
    let end = now().wall - ENDED;
    let cases = [
        (end - DAY, Some(Refusal::RecoveryRefused)),
        (end, Some(Refusal::RecoveryRefused)),
        (end + Duration::from_secs(1), None),
        (end + RECOVERY_AGE_MAX, None),
        (end + RECOVERY_AGE_MAX + Duration::from_secs(1), Some(Refusal::RecoveryRefused)),
    ];
    for (wall, want) in cases {
        let at = Now { wall, ..now() };
        let answer = world.call(world.first_call(), HOME, at).await;
        assert_eq!(answer.err().flatten(), want, "{wall:?}");
    }
}

#[tokio::test]
async fn only_the_agencys_own_addresses_are_answered() {
    let world = World::new();
    for source in ["198.18.2.9", "203.0.113.7", "::1"] {
        world.refuses(world.first_call(), source, Refusal::SourceOutsidePrefixes).await;
    }
    let without_prefixes = World::of("01-001,Quận Ba Đình,quan,01,001,,,,\n");
    let call = without_prefixes.first_call();
    without_prefixes.refuses(call, HOME, Refusal::SourceOutsidePrefixes).await;
    let without_row = World::of("01-002,Quận Hoàn Kiếm,quan,01,002,,,,198.18.1.0/24\n");
    without_row.refuses(without_row.first_call(), HOME, Refusal::AgencyNotInRoster).await;
}

#[tokio::test]
async fn attempts_are_limited() {
    let world = World::new();
    let mut refused = 0;
    for _ in 0..40 {
        let answer = world.call(world.first_call(), HOME, now()).await;
        refused += u32::from(answer.err() == Some(Some(Refusal::RateLimited)));
    }
    assert_eq!(refused, 10);
}
