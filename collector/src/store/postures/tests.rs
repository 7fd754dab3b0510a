use std::time::{Duration, UNIX_EPOCH};

use haidang_proto::model::posture::{
    CATALOGUE_VERSION, CheckId, CheckResult, Extent, FailReason, MachineKind, Outcome,
    PostureMeasures, UnknownReason,
};
use haidang_proto::model::record::{Delivery, Event, Moment, Record};
use uuid::Uuid;

use super::*;
use crate::posture::{Decision, Exception, ExceptionTerms, PolicyChange, PolicyTerms, Scope};
use crate::store::{JournalDelivery, Opened, StoreThread, exceptions, policies};

const FAIL: Outcome = Outcome::Fail(FailReason::Absent);
const DENIED: Outcome = Outcome::Unknown(UnknownReason::PermissionDenied);
const AGENT: AgentId = AgentId(Uuid::from_u128(7));

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
}

struct Disk(tempfile::TempDir);

impl Disk {
    /// Opens the store; its threads end with the last handle.
    fn open(&self) -> (Store, Vec<std::thread::JoinHandle<()>>) {
        let Opened { store, writer, reader } =
            Store::open(&self.0.path().join("store.db")).expect("it opens");
        let run = |thread: StoreThread| std::thread::spawn(move || thread.run());
        (store, vec![run(writer), run(reader)])
    }
}

fn snapshot(extent: Extent, outcome: Outcome) -> Event {
    Event::Posture(PostureSnapshot {
        extent,
        catalogue_version: CATALOGUE_VERSION,
        machine: MachineKind::Server,
        results: vec![CheckResult {
            check: CheckId::HostFirewallActive,
            outcome,
            observed: "input policy accept".into(),
            age: Duration::ZERO,
            took: Duration::ZERO,
            is_parked: false,
        }],
        measures: PostureMeasures::default(),
        unrecognised: 0,
    })
}

fn delivery(first: u64, events: Vec<Event>) -> JournalDelivery {
    let records = (first..).zip(events).map(|(seq, event)| Record {
        seq,
        at: Moment { boot_id: Uuid::nil(), boottime: Duration::ZERO, wall: at(seq) },
        event,
    });
    let delivery =
        Delivery { journal_id: Uuid::from_u128(1), first_seq: 1, records: records.collect() };
    JournalDelivery::prepare(AGENT, &delivery, at(100)).expect("numbers that can be stored")
}

#[tokio::test]
async fn a_delivery_tells_what_is_held_and_a_repeated_one_changes_nothing() {
    let disk = Disk(tempfile::tempdir().expect("a directory"));
    let (store, _) = disk.open();
    let started = Event::Started { agent_version: "0.1.0".into(), previous_stop_was_clean: true };
    let other = store.deliver(delivery(1, vec![started.clone()])).await.expect("taken");
    assert_eq!(other.posture, None);
    let sent =
        delivery(1, vec![started, snapshot(Extent::Full, FAIL), snapshot(Extent::Partial, DENIED)]);
    let first = store.deliver(sent.clone()).await.expect("taken");
    let second = store.deliver(sent).await.expect("taken");
    assert_eq!(first, second, "and the fleet is told again");
    assert_eq!(first.receipt.acknowledged_seq, 3);
    let posture = first.posture.expect("it is told");
    assert_eq!(posture.order.seq, 3);
    assert!(posture.findings.fail().contains(CheckId::HostFirewallActive), "a fail stands");
    assert_eq!(store.records(AGENT, 10).await.expect("read").len(), 3);
    let held = store.posture(AGENT).await.expect("read").expect("held");
    assert_eq!(held.answers[0].observed, "input policy accept");
    assert_eq!(held.whole_at, Some(at(2)));
}

#[tokio::test]
async fn a_restart_finds_postures_exceptions_and_policies_again() {
    let disk = Disk(tempfile::tempdir().expect("a directory"));
    let (store, threads) = disk.open();
    let told = store.deliver(delivery(1, vec![snapshot(Extent::Full, FAIL)])).await.expect("taken");
    let exception = |check| {
        let terms = ExceptionTerms {
            agency: "01-001".parse().expect("an id"),
            check,
            owner: "Phòng CNTT".into(),
            reason: "thay máy trong quý tới".into(),
            life: Duration::from_secs(86_400),
        };
        Exception::new(terms, at(0)).expect("sound")
    };
    store.put_exception(exception(CheckId::ScreenLock)).await.expect("kept");
    store.put_exception(exception(CheckId::ScreenLock)).await.expect("renewed");
    let all = store.put_exception(exception(CheckId::DiskEncrypted)).await.expect("kept");
    assert_eq!(all.len(), 2, "one for a check of an agency");
    let agency: haidang_proto::model::agency::AgencyId = "01-001".parse().expect("an id");
    let remove = || store.remove_exception(agency.clone(), CheckId::DiskEncrypted, at(1));
    assert_eq!(remove().await.expect("removed").map(|left| left.len()), Some(1));
    assert_eq!(remove().await.expect("asked"), None);
    let decide = |score_min, former| {
        let change = PolicyChange {
            score_min: Some(score_min),
            level: Some(3),
            thresholds: vec![("dormant_accounts.days_max".into(), Some(90))],
            ..PolicyChange::default()
        };
        let terms = PolicyTerms::default().changed(change).expect("sound");
        Decision::after(former, terms, ("Phòng CNTT", "hồ sơ cấp độ"), at(2)).expect("sound")
    };
    let scope = Scope::Agency(agency.clone());
    let first = decide(85, None);
    let policy = decide(90, Some(&first));
    assert_eq!((first.revision, policy.revision), (1, 2));
    store.put_policy(scope.clone(), first, "score_min 85".into()).await.expect("kept");
    let all = store.put_policy(Scope::All, policy.clone(), "score_min 90".into()).await;
    assert_eq!(all.expect("kept").len(), 2);
    let all = store.put_policy(scope.clone(), policy.clone(), "score_min 90".into()).await;
    assert_eq!(all.expect("kept").len(), 2, "one for a scope");
    let entry = store.audit(None, 1).await.expect("read").remove(0);
    assert_eq!(entry.subject, "01-001");
    assert_eq!(entry.detail, "owner Phòng CNTT; score_min 90: hồ sơ cấp độ");
    let actions: Vec<String> =
        store.audit(None, 10).await.expect("read").into_iter().map(|row| row.action).collect();
    assert_eq!(
        actions,
        [
            "policy_set",
            "policy_set",
            "policy_set",
            "exception_removed",
            "exception_added",
            "exception_added",
            "exception_added"
        ]
    );
    drop(store);
    for thread in threads {
        thread.join().expect("it ends");
    }
    let Opened { writer, .. } = Store::open(&disk.0.path().join("store.db")).expect("it opens");
    let connection = writer.connection();
    assert_eq!(postures(connection).expect("read"), [(AGENT, told.posture.expect("told"))]);
    assert_eq!(exceptions(connection).expect("read"), [exception(CheckId::ScreenLock)]);
    let mut kept = policies(connection).expect("read");
    kept.sort_by_key(|(scope, _)| scope.to_string());
    assert_eq!(kept, [(Scope::All, policy.clone()), (scope, policy)]);
}

#[tokio::test]
async fn a_posture_that_cannot_be_read_is_unread_and_holds_up_nothing() {
    let disk = Disk(tempfile::tempdir().expect("a directory"));
    let (store, _) = disk.open();
    store.deliver(delivery(1, vec![snapshot(Extent::Full, Outcome::Pass)])).await.expect("taken");
    let damage = |connection: &Connection| {
        connection.execute("UPDATE postures SET body = '{\"order\":'", [])?;
        Ok(())
    };
    store.write(1, damage).await.expect("written");
    assert_eq!(store.posture(AGENT).await.expect("asked"), None);
    let sent = vec![snapshot(Extent::Full, Outcome::Pass), snapshot(Extent::Full, FAIL)];
    let told = store.deliver(delivery(1, sent)).await.expect("taken");
    assert!(told.posture.is_some_and(|posture| !posture.findings.fail().is_empty()));
}
