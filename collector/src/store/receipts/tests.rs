use std::time::Duration;

use haidang_proto::model::agency::AgentId;
use haidang_proto::model::record::{Delivery, Event, Moment, Record, Transition};
use haidang_proto::model::verdict::{DownCause, Verdict};
use uuid::Uuid;

use super::super::journals::{JournalDelivery, take};
use super::super::schema::migrate;
use super::*;

const DOWN: Verdict = Verdict::Disconnected(DownCause::LinkDown);
const UP: Verdict = Verdict::Connected;
const ALL: u32 = 1_000;
const NOTHING: [Vec<i64>; 2] = [Vec::new(), Vec::new()];

fn store() -> Connection {
    let mut connection = Connection::open_in_memory().expect("memory");
    connection.pragma_update(None, "foreign_keys", true).expect("it is set");
    migrate(&mut connection).expect("the schema");
    connection
}

fn second(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + second)
}

fn at(seq: u64) -> Moment {
    let boottime = Duration::from_secs(seq);
    Moment { boot_id: Uuid::from_u128(9), boottime, wall: second(seq) }
}

fn short(seq: u64) -> Record {
    let event =
        Event::ShortOutage { first_seen: at(seq), bad_cycles: 1, cause: DownCause::NoRoute };
    Record { seq, at: at(seq), event }
}

fn becomes(seq: u64, from: Verdict, to: Verdict) -> Record {
    let transition = Transition { from, to, first_seen: at(seq), evidence: Vec::new() };
    Record { seq, at: at(seq), event: Event::Transition(transition) }
}

/// Records of a journal of the one agent arrive at this second.
fn deliver(connection: &Connection, journal: u128, received: u64, records: Vec<Record>) {
    let last = records.last().map_or(0, |record| record.seq);
    let delivery = Delivery { journal_id: Uuid::from_u128(journal), first_seq: 1, records };
    let agent = AgentId(Uuid::from_u128(7));
    let prepared = JournalDelivery::prepare(agent, &delivery, second(received));
    let taken = take(connection, &prepared.expect("small numbers")).expect("it is taken");
    assert_eq!(taken.receipt.acknowledged_seq, last);
}

/// Numbers of the records and of the outages that are left.
fn left(connection: &Connection) -> [Vec<i64>; 2] {
    ["records", "outages"].map(|table| {
        let sql = format!("SELECT seq FROM {table} ORDER BY journal, seq");
        let mut statement = connection.prepare(&sql).expect("sound");
        let rows = statement.query_map([], |row| row.get(0)).expect("readable");
        rows.collect::<Result<_, _>>().expect("readable")
    })
}

#[test]
fn what_was_received_before_is_dropped_and_nothing_else() {
    let store = store();
    deliver(&store, 1, 100, (1..=3).map(short).collect());
    deliver(&store, 1, 200, (4..=6).map(short).collect());
    deliver(&store, 1, 200, (5..=7).map(short).collect());
    assert_eq!(oldest(&store).expect("readable"), Some(unix_ms(second(100))));
    assert!(!prune(&store, second(100), ALL).expect("pruned"));
    assert_eq!(left(&store), [vec![1, 2, 3, 4, 5, 6, 7], vec![1, 2, 3, 4, 5, 6, 7]]);
    assert!(!prune(&store, second(200), ALL).expect("pruned"));
    assert_eq!(left(&store), [vec![4, 5, 6, 7], vec![4, 5, 6, 7]]);
    assert!(!prune(&store, second(201), ALL).expect("pruned"));
    assert_eq!((left(&store), oldest(&store).expect("readable")), (NOTHING, None));
}

#[test]
fn so_many_rows_are_dropped_at_a_time() {
    let store = store();
    for delivery in 0..4 {
        deliver(&store, 1, 100 + delivery, vec![short(delivery + 1)]);
    }
    // Record, outage and receipt are three.
    assert!(prune(&store, second(900), 4).expect("pruned"));
    assert_eq!(left(&store), [vec![3, 4], vec![3, 4]]);
    assert!(!prune(&store, second(900), 7).expect("pruned"));
    assert_eq!(left(&store), NOTHING);
}

#[test]
fn an_outage_that_is_open_stays_until_it_has_ended_and_that_is_long_ago() {
    let store = store();
    deliver(&store, 1, 100, vec![becomes(1, UP, DOWN)]);
    prune(&store, second(150), ALL).expect("pruned");
    assert_eq!(left(&store), [vec![], vec![1]]);
    deliver(&store, 1, 200, vec![becomes(2, DOWN, UP)]);
    prune(&store, second(150), ALL).expect("pruned");
    assert_eq!(left(&store), [vec![2], vec![1]]);
    prune(&store, second(201), ALL).expect("pruned");
    assert_eq!(left(&store), NOTHING);
}

#[test]
fn an_outage_whose_end_is_lost_is_dropped_like_one_that_has_healed() {
    let store = store();
    deliver(&store, 1, 100, vec![becomes(1, UP, DOWN)]);
    prune(&store, second(150), ALL).expect("pruned");
    deliver(&store, 1, 200, vec![becomes(2, UP, DOWN)]);
    prune(&store, second(201), ALL).expect("pruned");
    assert_eq!(left(&store), [vec![], vec![2]]);
    deliver(&store, 2, 300, vec![short(1)]);
    prune(&store, second(300), ALL).expect("pruned");
    assert_eq!(left(&store), [vec![1], vec![2, 1]]);
    prune(&store, second(301), ALL).expect("pruned");
    assert_eq!(left(&store), NOTHING);
}
