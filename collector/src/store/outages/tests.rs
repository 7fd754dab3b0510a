use haidang_proto::model::record::Delivery;
use haidang_proto::model::verdict::UnknownCause;
use proptest::prelude::*;

use super::super::journals::{JournalDelivery, take};
use super::super::schema::migrate;
use super::*;

const DOWN: Verdict = Verdict::Disconnected(DownCause::CoreUnreachable);
const UNPLUGGED: Verdict = Verdict::Disconnected(DownCause::LinkDown);
const UP: Verdict = Verdict::Connected;
const UNCLEAR: Verdict = Verdict::Unknown(UnknownCause::Starved);

fn agent() -> AgentId {
    AgentId(Uuid::from_u128(1))
}

/// A second of the agent's first boot.
fn at(second: u64) -> Moment {
    Moment {
        boot_id: Uuid::from_u128(9),
        boottime: Duration::from_secs(100 + second),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + second),
    }
}

/// A record that was written four seconds after what it tells was seen first.
fn becomes(second: u64, from: Verdict, to: Verdict) -> (u64, Event) {
    let transition = Transition { from, to, first_seen: at(second), evidence: Vec::new() };
    (second + 4, Event::Transition(transition))
}

fn started(second: u64) -> (u64, Event) {
    let (agent_version, previous_stop_was_clean) = ("0.1.0".into(), false);
    (second, Event::Started { agent_version, previous_stop_was_clean })
}

fn records(events: &[(u64, Event)]) -> Vec<Record> {
    let numbered = (1..).zip(events.iter().cloned());
    numbered.map(|(seq, (second, event))| Record { seq, at: at(second), event }).collect()
}

fn store() -> Connection {
    let mut connection = Connection::open_in_memory().expect("memory");
    migrate(&mut connection).expect("the schema");
    connection
}

fn delivers(connection: &Connection, journal: u128, first_seq: u64, records: &[Record]) -> u64 {
    let journal_id = Uuid::from_u128(journal);
    let delivery = Delivery { journal_id, first_seq, records: records.to_vec() };
    let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_001_000);
    let prepared = JournalDelivery::prepare(agent(), &delivery, received).expect("small numbers");
    take(connection, &prepared).expect("it is taken").receipt.acknowledged_seq
}

/// `began-ended/lasted cause`, in the order of their beginning.
fn told(connection: &Connection) -> Vec<String> {
    let sql = "SELECT began_ms / 1000 - 1790000000, ending, ended_ms / 1000 - 1790000000,
                   lasted_ms / 1000, cause, short, interrupted FROM outages ORDER BY began_ms, id";
    let mut statement = connection.prepare(sql).expect("sound");
    let rows = statement.query_map([], |row| {
        let (began, ending): (i64, String) = (row.get(0)?, row.get(1)?);
        let (ended, lasted): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
        let (cause, short, interrupted): (String, bool, bool) =
            (row.get(4)?, row.get(5)?, row.get(6)?);
        let span = match ended.zip(lasted) {
            Some((ended, lasted)) => format!("{began}-{ended}/{lasted}"),
            None => format!("{began}-{ending}"),
        };
        let mark = |is: bool, mark| if is { mark } else { "" };
        Ok(format!("{span} {cause}{}{}", mark(short, " short"), mark(interrupted, " interrupted")))
    });
    rows.expect("readable").collect::<Result<_, _>>().expect("readable")
}

#[track_caller]
fn becomes_outages(events: &[(u64, Event)], want: &[&str]) {
    let connection = store();
    delivers(&connection, 5, 1, &records(events));
    assert_eq!(told(&connection), want);
}

#[test]
fn an_outage_lasts_from_its_first_bad_to_its_first_good_cycle() {
    becomes_outages(&[becomes(10, UP, DOWN)], &["10-open core_unreachable"]);
    becomes_outages(
        &[becomes(10, UP, DOWN), becomes(50, DOWN, UP), becomes(90, UP, UNPLUGGED)],
        &["10-50/40 core_unreachable", "90-open link_down"],
    );
}

#[test]
fn the_deepest_cause_names_it() {
    becomes_outages(
        &[becomes(10, UP, DOWN), becomes(20, DOWN, UNPLUGGED), becomes(30, UNPLUGGED, DOWN)],
        &["10-open link_down"],
    );
}

#[test]
fn only_a_path_that_was_seen_up_ends_it() {
    let unclear = [becomes(10, UP, DOWN), becomes(20, DOWN, UNCLEAR), becomes(30, UNCLEAR, UP)];
    becomes_outages(&unclear, &["10-30/20 core_unreachable interrupted"]);
    let restarted = [
        becomes(10, UP, DOWN),
        started(40),
        becomes(50, UNCLEAR, DOWN),
        becomes(60, DOWN, UP),
        started(70),
    ];
    becomes_outages(&restarted, &["10-60/50 core_unreachable interrupted"]);
}

#[test]
fn a_short_outage_is_kept_beside_the_others() {
    let cause = DownCause::NoRoute;
    let short = (12, Event::ShortOutage { first_seen: at(10), bad_cycles: 2, cause });
    becomes_outages(
        &[short, becomes(50, UP, DOWN)],
        &["10-12/2 no_route short", "50-open core_unreachable"],
    );
}

#[test]
fn an_end_that_was_lost_is_not_invented() {
    let all = records(&[
        becomes(10, UP, DOWN),
        becomes(20, DOWN, UP),
        becomes(30, UP, DOWN),
        becomes(40, DOWN, UP),
    ]);
    let connection = store();
    delivers(&connection, 5, 1, &all[..1]);
    delivers(&connection, 5, 3, &all[2..]);
    let want = ["10-lost core_unreachable interrupted", "30-40/10 core_unreachable"];
    assert_eq!(told(&connection), want);

    let connection = store();
    delivers(&connection, 5, 1, &all[..1]);
    delivers(&connection, 6, 1, &records(&[becomes(30, UP, DOWN)]));
    let want = ["10-lost core_unreachable interrupted", "30-open core_unreachable"];
    assert_eq!(told(&connection), want, "a new journal");
}

#[test]
fn a_clock_that_was_set_back_makes_no_negative_duration() {
    let healed = Moment { wall: SystemTime::UNIX_EPOCH, ..at(50) };
    let up = Transition { from: DOWN, to: UP, first_seen: healed, evidence: Vec::new() };
    let events = [becomes(10, UP, DOWN), (54, Event::Transition(up.clone()))];
    becomes_outages(&events, &["10--1790000000/40 core_unreachable"]);
    let other_boot = Moment { boot_id: Uuid::from_u128(10), ..healed };
    let up = Transition { first_seen: other_boot, ..up };
    let events = [becomes(10, UP, DOWN), (54, Event::Transition(up))];
    becomes_outages(&events, &["10--1790000000/0 core_unreachable"]);
}

fn an_event() -> impl Strategy<Value = Event> {
    let verdict = || prop::sample::select(vec![UP, DOWN, UNPLUGGED, UNCLEAR]);
    let transition = (verdict(), verdict(), 0_u64..10_000).prop_map(|(from, to, second)| {
        Event::Transition(Transition { from, to, first_seen: at(second), evidence: Vec::new() })
    });
    let short = (0_u64..10_000).prop_map(|second| Event::ShortOutage {
        first_seen: at(second),
        bad_cycles: 1,
        cause: DownCause::NoRoute,
    });
    prop_oneof![4 => transition, 1 => short, 1 => Just(started(0).1)]
}

/// What a delivery tries to send, and whether the collector dies before its commit.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    begin: usize,
    length: usize,
    crashes: bool,
}

fn an_attempt() -> impl Strategy<Value = Attempt> {
    (0_usize..20, 1_usize..8, prop::bool::weighted(0.3))
        .prop_map(|(begin, length, crashes)| Attempt { begin, length, crashes })
}

proptest! {
    /// Deliveries repeat, overlap, run ahead and die with the collector; in the end the agent sends
    /// what was not acknowledged, and the history is the one of a single undisturbed delivery.
    #[test]
    fn every_outage_is_there_exactly_once(
        events in prop::collection::vec(an_event(), 1..20),
        attempts in prop::collection::vec(an_attempt(), 0..30),
    ) {
        let events: Vec<(u64, Event)> = (0..).zip(events).collect();
        let all = records(&events);
        let undisturbed = store();
        delivers(&undisturbed, 5, 1, &all);

        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.db");
        let open = || {
            let mut connection = Connection::open(&path).expect("opened");
            connection.pragma_update(None, "synchronous", "OFF").expect("only a test");
            migrate(&mut connection).expect("the schema");
            connection
        };
        let mut connection = open();
        for Attempt { begin, length, crashes } in attempts {
            let begin = begin.min(all.len() - 1);
            let end = (begin + length).min(all.len());
            let transaction = connection.transaction().expect("begun");
            delivers(&transaction, 5, 1, &all[begin..end]);
            if crashes {
                drop(transaction);
                drop(connection);
                connection = open();
            } else {
                transaction.commit().expect("committed");
            }
        }
        let acknowledged = delivers(&connection, 5, 1, &[]);
        let rest = usize::try_from(acknowledged).expect("small");
        prop_assert_eq!(delivers(&connection, 5, 1, &all[rest..]), all.len() as u64);
        prop_assert_eq!(told(&connection), told(&undisturbed));
    }
}
