use haidang_proto::model::record::{Delivery, Moment};

use super::super::schema::migrate;
use super::*;

const JOURNAL: Uuid = Uuid::from_u128(1);

fn store() -> Connection {
    let mut connection = Connection::open_in_memory().expect("memory");
    migrate(&mut connection).expect("the schema");
    connection
}

/// A start of the agent, written at this second.
fn started(seq: u64, second: u64) -> Record {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + second);
    let boottime = Duration::from_secs(second);
    let (agent_version, previous_stop_was_clean) = ("0.1.0".into(), false);
    Record {
        seq,
        at: Moment { boot_id: Uuid::from_u128(9), boottime, wall },
        event: Event::Started { agent_version, previous_stop_was_clean },
    }
}

/// Records with these numbers, each written at the second that is its number and `later` more.
fn delivers(
    connection: &Connection,
    journal_id: Uuid,
    seqs: std::ops::RangeInclusive<u64>,
    later: u64,
) -> Receipt {
    let first_seq = *seqs.start();
    let records = seqs.map(|seq| started(seq, seq + later)).collect();
    let delivery = Delivery { journal_id, first_seq, records };
    let agent = AgentId(Uuid::from_u128(7));
    let prepared = JournalDelivery::prepare(agent, &delivery, SystemTime::UNIX_EPOCH);
    take(connection, &prepared.expect("small numbers")).expect("it is taken").receipt
}

fn receipt_of(acknowledged_seq: u64, conflicting_seq: Option<u64>) -> Receipt {
    Receipt { acknowledged_seq, conflicting_seq }
}

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM records", [], |row| row.get(0)).expect("a count")
}

#[test]
fn what_is_delivered_again_changes_nothing_and_is_no_conflict() {
    let store = store();
    assert_eq!(delivers(&store, JOURNAL, 1..=9, 0), receipt_of(9, None));
    assert_eq!(delivers(&store, JOURNAL, 3..=7, 0), receipt_of(9, None));
    assert_eq!(delivers(&store, JOURNAL, 8..=12, 0), receipt_of(12, None));
    assert_eq!(count(&store), 12);
}

#[test]
fn nothing_is_taken_of_an_old_copy_and_the_first_new_record_is_named() {
    let store = store();
    delivers(&store, JOURNAL, 1..=9, 0);
    // Records 1 to 5 of the image are those that were delivered; 6 and on were written after it.
    delivers(&store, Uuid::from_u128(2), 1..=1, 0);
    let records = (4..=5).map(|seq| started(seq, seq)).chain((6..=14).map(|n| started(n, n + 60)));
    let delivery = Delivery { journal_id: JOURNAL, first_seq: 4, records: records.collect() };
    let agent = AgentId(Uuid::from_u128(7));
    let prepared = JournalDelivery::prepare(agent, &delivery, SystemTime::UNIX_EPOCH);
    let delivered = take(&store, &prepared.expect("small numbers")).expect("it is answered");
    assert_eq!(delivered.receipt, receipt_of(9, Some(6)));
    assert_eq!(count(&store), 10, "not even what lies beyond the collector's mark");
    assert_eq!(delivers(&store, Uuid::from_u128(3), 1..=9, 65), receipt_of(9, None));
    assert_eq!(count(&store), 19);
}

#[test]
fn a_record_that_was_pruned_cannot_be_compared() {
    let store = store();
    delivers(&store, JOURNAL, 1..=9, 0);
    store.execute("DELETE FROM records WHERE seq < 5", []).expect("pruned");
    assert_eq!(delivers(&store, JOURNAL, 2..=4, 60), receipt_of(9, None));
    assert_eq!(delivers(&store, JOURNAL, 4..=6, 60), receipt_of(9, Some(5)));
}
