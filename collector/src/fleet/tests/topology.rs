//! What counts as a parent: uplinks before the administration, and the city as none.

use super::*;
use crate::snapshot::IncidentKind;

/// A flat city: every agency hangs off `01`, with the uplinks that are given.
fn flat(agencies: u64, uplink: impl Fn(u64) -> String) -> Fleet {
    let rows: String = (0..agencies)
        .map(|n| format!("01-{n:05},Xã {n},xa,01,,,,,198.18.{n}.0/24,{}\n", uplink(n)))
        .collect();
    let text =
        format!("id,name,kind,parent,gso_code,id_code,lat,lon,local_prefixes,uplink\n{rows}");
    let source = Source { name: "roster.csv", bytes: text.as_bytes() };
    let roster = Arc::new(parse(source, None, Loopback::Refused).expect("sound"));
    let mut fleet = Fleet::new(roster, config(), at(0));
    for n in 0..agencies {
        fleet.enrolled(id(n.into()), named(&format!("01-{n:05}")), at(86_400).wall);
    }
    fleet
}

fn run(fleet: &mut Fleet, agencies: u64, until: u64, heard: impl Fn(u64, u64) -> bool) {
    for second in 100..until {
        for n in (0..agencies).filter(|n| second % INTERVAL == n % INTERVAL) {
            if heard(n, second) {
                let arrival = from(Listener::Dedicated, &format!("198.18.{n}.9"));
                fleet.report(id(n.into()), said(second, Verdict::Connected), arrival, at(second));
            }
        }
        fleet.tick(at(second));
    }
}

fn incidents(fleet: &Fleet, second: u64) -> Vec<(IncidentKind, String, usize)> {
    let incidents = fleet.snapshot(at(second)).incidents;
    incidents.into_iter().map(|i| (i.kind, i.scope, i.agencies.len())).collect()
}

#[test]
fn agencies_behind_one_uplink_fall_as_one_incident_of_it() {
    let mut fleet = flat(60, |n| format!("pop-{}", n % 6));
    run(&mut fleet, 60, 200, |n, second| n % 6 != 4 || second < 150);
    assert_eq!(incidents(&fleet, 199), [(IncidentKind::Parent, "pop-4".to_owned(), 10)]);
}

#[test]
fn a_third_of_a_flat_city_has_no_parent_to_blame() {
    let mut fleet = flat(60, |_| String::new());
    run(&mut fleet, 60, 200, |n, second| n % 3 != 0 || second < 150);
    let expected = (IncidentKind::CollectorSuspected, "collector".to_owned(), 20);
    assert_eq!(incidents(&fleet, 199), [expected]);
}

#[test]
fn three_of_four_in_a_small_city_are_one_incident() {
    let mut fleet = flat(4, |_| String::new());
    run(&mut fleet, 4, 200, |n, second| n == 0 || second < 150);
    assert_eq!(incidents(&fleet, 199), [(IncidentKind::Parent, "01".to_owned(), 3)]);
}

#[test]
fn one_of_three_is_no_incident() {
    let mut fleet = flat(3, |_| String::new());
    run(&mut fleet, 3, 200, |n, second| n != 0 || second < 150);
    assert_eq!(incidents(&fleet, 199), []);
    assert_eq!(state(&mut fleet, 199), SILENT);
}

#[test]
fn offices_that_stop_at_night_are_no_incident() {
    let mut fleet = flat(60, |n| format!("pop-{}", n % 6));
    run(&mut fleet, 60, 150, |_, _| true);
    for n in 0..60u64 {
        let goodbye = Goodbye { reason: GoodbyeReason::Shutdown, process_nonce: [7; 16] };
        fleet.goodbye(id(n.into()), goodbye);
    }
    for second in 150..300 {
        fleet.tick(at(second));
        assert_eq!(incidents(&fleet, second), []);
    }
}
