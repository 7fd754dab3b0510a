//! An enrolled agent of 01-018 that delivers one outage that healed and one that stands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haidang_proto::model::agency::AgentId;
use haidang_proto::model::fact::{Fact, FactKind};
use haidang_proto::model::record::{Delivery, Event, Moment, Record, Transition};
use haidang_proto::model::verdict::{DownCause, Verdict};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::identity::{Identity, IdentityState, Serial};
use crate::store::{Enrolment, JournalDelivery, Store};
use crate::token::{NewToken, TokenTerms};

fn wall(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000 + second)
}

fn at(second: u64) -> Moment {
    let boottime = Duration::from_secs(second);
    Moment { boot_id: Uuid::from_u128(9), boottime, wall: wall(second) }
}

async fn enrol(store: &Store, agent: AgentId) {
    let agency: haidang_proto::model::agency::AgencyId = "01-018".parse().expect("an id");
    let terms =
        TokenTerms { agency: agency.clone(), uses: 1, expires: wall(3_600), note: String::new() };
    let NewToken { token, secret } = NewToken::draw(terms, wall(0)).expect("random bytes");
    let id = token.id.clone();
    store.insert_token(token).await.expect("it is kept");
    let identity = Identity {
        agent,
        agency,
        state: IdentityState::Active,
        current: Serial([0x41; 16]),
        not_after: wall(90 * 86_400),
        next: None,
        machine_fingerprint: [7; 32],
        pinned: false,
    };
    let enrolment = Enrolment {
        identity,
        hostname: "pc".into(),
        source: [198, 18, 1, 9].into(),
        token: id,
        secret: Zeroizing::new(secret.to_vec()),
        supersedes: Vec::new(),
        at: wall(1),
    };
    store.enrol(enrolment, || ()).await.expect("it is written").expect("it is admitted");
}

pub(super) async fn happen(store: &Store) {
    let agent = AgentId(Uuid::from_u128(77));
    enrol(store, agent).await;
    let down = |cause| Verdict::Disconnected(cause);
    let steps = [
        (10, Verdict::Connected, down(DownCause::LinkDown)),
        (50, down(DownCause::LinkDown), Verdict::Connected),
        (90, Verdict::Connected, down(DownCause::NoRoute)),
    ];
    let fact = Fact { kind: FactKind::Link, subject: "eth0".into(), value: "no carrier".into() };
    let records = (1..).zip(steps).map(|(seq, (second, from, to))| Record {
        seq,
        at: at(second + 4),
        event: Event::Transition(Transition {
            from,
            to,
            first_seen: at(second),
            evidence: vec![fact.clone()],
        }),
    });
    let delivery =
        Delivery { journal_id: Uuid::from_u128(5), first_seq: 1, records: records.collect() };
    let prepared = JournalDelivery::prepare(agent, &delivery, wall(200)).expect("small numbers");
    for _ in 0..2 {
        let delivered = store.deliver(prepared.clone()).await.expect("it is taken");
        assert_eq!(delivered.receipt.acknowledged_seq, 3);
    }
}
