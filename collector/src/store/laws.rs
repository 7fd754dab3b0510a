//! Laws of delivery: whatever is repeated, overtaken, cut short or sent again much later, the store
//! holds in the end what a single undisturbed delivery would have left: every record once, and
//! everything that was made of them once.

use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::AgentId;
use haidang_proto::model::posture::{
    CATALOGUE_VERSION, CheckId, CheckResult, Extent, FailReason, MachineKind, Outcome,
    PostureMeasures, PostureSnapshot, UnknownReason,
};
use haidang_proto::model::record::{Delivery, Event, Moment, Record, Transition};
use haidang_proto::model::verdict::{DownCause, Verdict};
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;
use uuid::Uuid;

use super::journals::{JournalDelivery, take};
use super::schema::migrate;

/// Agents, each with one journal; a journal has so many records at most.
const AGENTS: usize = 3;
const RECORDS_MAX: usize = 16;
const DOWN: Verdict = Verdict::Disconnected(DownCause::CoreUnreachable);

fn store() -> Connection {
    let mut connection = Connection::open_in_memory().expect("memory");
    migrate(&mut connection).expect("the schema");
    connection
}

fn at(second: u64) -> Moment {
    Moment {
        boot_id: Uuid::from_u128(9),
        boottime: Duration::from_secs(second),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + second),
    }
}

fn snapshot(extent: Extent, check: CheckId, outcome: Outcome) -> Event {
    let result = CheckResult {
        check,
        outcome,
        observed: String::new(),
        age: Duration::ZERO,
        took: Duration::ZERO,
        is_parked: false,
    };
    Event::Posture(PostureSnapshot {
        extent,
        catalogue_version: CATALOGUE_VERSION,
        machine: MachineKind::Server,
        results: vec![result],
        measures: PostureMeasures::default(),
        unrecognised: 0,
    })
}

fn event() -> impl Strategy<Value = Event> {
    let verdict = || prop::sample::select(vec![Verdict::Connected, DOWN]);
    let transition = (verdict(), verdict(), 0_u64..100).prop_map(|(from, to, second)| {
        Event::Transition(Transition { from, to, first_seen: at(second), evidence: Vec::new() })
    });
    let short = (0_u64..100).prop_map(|second| Event::ShortOutage {
        first_seen: at(second),
        bad_cycles: 1,
        cause: DownCause::NoRoute,
    });
    let extent = prop::sample::select(vec![Extent::Full, Extent::Partial]);
    let check = prop::sample::select(vec![CheckId::EmptyPasswords, CheckId::MacEnforced]);
    let outcome = prop::sample::select(vec![
        Outcome::Pass,
        Outcome::Fail(FailReason::Absent),
        Outcome::Unknown(UnknownReason::Timeout),
    ]);
    let posture = (extent, check, outcome)
        .prop_map(|(extent, check, outcome)| snapshot(extent, check, outcome));
    prop_oneof![2 => transition, 1 => short, 2 => posture]
}

fn journal() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(event(), 0..RECORDS_MAX).prop_map(|events| {
        let numbered = (1..).zip(events);
        numbered.map(|(seq, event)| Record { seq, at: at(seq), event }).collect()
    })
}

/// A delivery that arrives: of whom, from which record, how many.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    agent: usize,
    begin: usize,
    length: usize,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    (0..AGENTS, 0..RECORDS_MAX, 1..RECORDS_MAX).prop_map(|(agent, begin, length)| Arrival {
        agent,
        begin,
        length,
    })
}

/// Answers how far the journal is durable.
fn deliver(connection: &Connection, agent: usize, records: &[Record]) -> usize {
    let id = Uuid::from_u128(1 + agent as u128);
    let delivery = Delivery { journal_id: id, first_seq: 1, records: records.to_vec() };
    let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_001_000);
    let prepared = JournalDelivery::prepare(AgentId(id), &delivery, received);
    let done = take(connection, &prepared.expect("small numbers")).expect("it is taken");
    usize::try_from(done.receipt.acknowledged_seq).expect("small")
}

/// Every table that a delivery writes, without the numbers that rows were given.
fn everything(connection: &Connection) -> Vec<Vec<Value>> {
    let of_journal = "(SELECT hex(j.journal) FROM journals j WHERE j.id = t.journal)";
    let tables = [
        "SELECT hex(journal), agent, acknowledged_seq FROM journals".to_owned(),
        format!("SELECT {of_journal}, seq, received_ms, at_ms, kind, body FROM records t"),
        format!(
            "SELECT {of_journal}, seq, received_ms, began_ms, ending, ended_ms, lasted_ms, cause,
                 evidence, short, interrupted FROM outages t"
        ),
        format!("SELECT {of_journal}, first_seq, last_seq FROM gaps t"),
        "SELECT agent, body FROM postures".to_owned(),
    ];
    let mut rows = Vec::new();
    for sql in tables {
        let mut statement = connection.prepare(&sql).expect(&sql);
        let columns = statement.column_count();
        let found = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect());
        let mut found: Vec<Vec<Value>> =
            found.expect("readable").collect::<Result<_, _>>().expect("readable");
        found.sort_by_key(|row| format!("{row:?}"));
        rows.extend(found);
    }
    rows
}

proptest! {
    #[test]
    fn disturbed_deliveries_leave_what_undisturbed_ones_leave(
        journals in prop::collection::vec(journal(), AGENTS),
        arrivals in prop::collection::vec(arrival(), 0..40),
        replays in prop::collection::vec(arrival(), 0..10),
    ) {
        let (straight, disturbed) = (store(), store());
        let part = |Arrival { agent, begin, length }| {
            let records: &[Record] = &journals[agent];
            let begin = begin.min(records.len());
            &records[begin..(begin + length).min(records.len())]
        };
        let mut acknowledged = [0; AGENTS];
        for (agent, records) in journals.iter().enumerate() {
            deliver(&straight, agent, records);
            // The journal is begun in the same order in both.
            deliver(&disturbed, agent, &[]);
        }
        for arrival in arrivals {
            let now = deliver(&disturbed, arrival.agent, part(arrival));
            prop_assert!(now >= acknowledged[arrival.agent], "what is acknowledged stays so");
            acknowledged[arrival.agent] = now;
        }
        for (agent, records) in journals.iter().enumerate() {
            let rest = &records[acknowledged[agent]..];
            prop_assert_eq!(deliver(&disturbed, agent, rest), records.len());
        }
        for replay in replays {
            deliver(&disturbed, replay.agent, part(replay));
        }
        prop_assert_eq!(everything(&disturbed), everything(&straight));
    }
}
