//! Many agencies at once: a parent's outage, our own, and the ends of both.

use super::*;
use crate::snapshot::IncidentKind;

/// Six districts of eight communes each; every office has one agent.
pub(super) struct City {
    pub(super) fleet: Fleet,
    sequence: u64,
}

const DISTRICTS: u64 = 6;
const COMMUNES: u64 = 8;

pub(super) fn agents() -> impl Iterator<Item = (u128, String, String)> {
    (0..DISTRICTS).flat_map(|district| {
        let office = std::iter::once(format!("01-10{district}"));
        let communes = (0..COMMUNES).map(move |c| format!("01-10{district}-0000{c}"));
        office.chain(communes).enumerate().map(move |(at, agency)| {
            let n = district * 16 + u64::try_from(at).expect("small");
            (u128::from(n), agency, format!("198.18.{n}.9"))
        })
    })
}

pub(super) fn district_of(agency: &str) -> u64 {
    agency[5..6].parse().expect("a digit")
}

impl City {
    pub(super) fn new() -> Self {
        let rows: String = agents()
            .map(|(n, agency, _)| {
                let parent = if agency.len() == 6 { "01" } else { &agency[..6] };
                let kind = if agency.len() == 6 { "quan" } else { "phuong" };
                format!("{agency},Nơi {n},{kind},{parent},,,,,198.18.{n}.0/24,,\n")
            })
            .collect();
        let mut fleet = Fleet::new(roster_of(&rows), config(), at(0));
        for (n, agency, _) in agents() {
            fleet.enrolled(id(n), named(&agency), at(86_400).wall);
        }
        Self { fleet, sequence: 0 }
    }

    /// Time goes on second by second, and the agents that are wanted report every interval.
    pub(super) fn run(&mut self, seconds: std::ops::Range<u64>, heard: impl Fn(&str) -> bool) {
        for second in seconds {
            self.sequence += 1;
            for (n, _, source) in agents().filter(|(_, agency, _)| heard(agency)) {
                let phase = u64::try_from(n).expect("small") % INTERVAL;
                if second % INTERVAL == phase {
                    let arrival = from(Listener::Dedicated, &source);
                    let report = said(self.sequence, Verdict::Connected);
                    self.fleet.report(id(n), report, arrival, at(second));
                }
            }
            self.fleet.tick(at(second));
        }
    }

    pub(super) fn count(&self, second: u64, state: &str) -> usize {
        let snapshot = self.fleet.snapshot(at(second));
        snapshot.agencies.iter().filter(|view| view.state.as_str() == state).count()
    }

    pub(super) fn incidents(&self, second: u64) -> Vec<(IncidentKind, String, usize)> {
        let incidents = self.fleet.snapshot(at(second)).incidents;
        incidents.into_iter().map(|i| (i.kind, i.scope, i.agencies.len())).collect()
    }
}

pub(super) const EVERYBODY: fn(&str) -> bool = |_| true;

#[test]
fn a_parents_outage_is_one_incident_and_its_children_are_suppressed() {
    let mut city = City::new();
    city.run(0..100, EVERYBODY);
    city.run(100..150, |agency| district_of(agency) != 2);
    assert_eq!(city.incidents(149), [(IncidentKind::Parent, "01-102".to_owned(), 8)]);
    assert_eq!(city.count(149, "silent"), 9, "the district's own office with its eight communes");
    let snapshot = city.fleet.snapshot(at(149));
    let suppressed =
        snapshot.agencies.iter().filter(|v| v.suppressed == Some(Suppression::ParentIncident));
    assert_eq!(suppressed.count(), 8);
    city.run(150..4_000, |agency| district_of(agency) != 2);
    assert_eq!(city.incidents(3_999).len(), 1, "it lasts as long as the outage");
    city.run(4_000..4_020, EVERYBODY);
    assert_eq!(city.incidents(4_019), []);
    assert_eq!(city.count(4_019, "connected"), 54);
}

#[test]
fn the_last_children_of_a_healing_parent_are_held_back_until_they_had_time_to_follow() {
    let mut city = City::new();
    let straggler = |agency: &str| district_of(agency) == 2 && agency.ends_with('7');
    city.run(0..100, EVERYBODY);
    city.run(100..300, |agency| district_of(agency) != 2);
    city.run(300..320, |agency| !straggler(agency));
    assert_eq!(city.incidents(319), [], "most are back");
    assert_eq!(city.count(319, "silent"), 1);
    let held_back = |city: &City, second| {
        let snapshot = city.fleet.snapshot(at(second));
        snapshot
            .agencies
            .iter()
            .filter(|v| v.suppressed == Some(Suppression::ParentIncident))
            .count()
    };
    assert_eq!(held_back(&city, 319), 1);
    city.run(320..440, |agency| !straggler(agency));
    assert_eq!(held_back(&city, 439), 0, "now it speaks for itself");
}

#[test]
fn when_all_fall_silent_we_suspect_ourselves_and_no_agency_is_accused() {
    let mut city = City::new();
    city.run(0..100, EVERYBODY);
    for second in 100..3_000 {
        city.run(second..second + 1, |_| false);
        assert_eq!(city.count(second, "silent"), 0, "at {second}");
    }
    assert_eq!(city.count(2_999, "unknown"), 54);
    let suspected = (IncidentKind::CollectorSuspected, "collector".to_owned(), 54);
    assert_eq!(city.incidents(2_999), [suspected]);
    city.run(3_000..3_020, EVERYBODY);
    assert_eq!(city.count(3_019, "connected"), 54);
    assert_eq!(city.incidents(3_019), []);
}

#[test]
fn a_scattered_third_is_unknown_until_the_majority_has_cleared_us() {
    let mut city = City::new();
    let scattered = |agency: &str| !agency.ends_with(['0', '3', '6']);
    city.run(0..100, EVERYBODY);
    city.run(100..200, scattered);
    let missing = 54 - agents().filter(|(_, agency, _)| scattered(agency)).count();
    assert_eq!(city.count(199, "unknown"), missing);
    assert_eq!(city.incidents(199).len(), 1);
    city.run(200..800, scattered);
    assert_eq!(city.count(799, "silent"), missing, "who is heard for ten minutes clears us");
    assert_eq!(city.incidents(799), []);
}

#[test]
fn a_few_that_fall_silent_are_just_silent() {
    let mut city = City::new();
    city.run(0..100, EVERYBODY);
    city.run(100..200, |agency| !agency.ends_with("00003"));
    assert_eq!(city.count(199, "silent"), 6);
    assert_eq!(city.incidents(199), []);
}

#[test]
fn an_incident_outlives_a_change_of_roster() {
    let mut city = City::new();
    city.run(0..100, EVERYBODY);
    city.run(100..400, |agency| district_of(agency) != 2);
    let same = Arc::clone(city.fleet.roster());
    city.fleet.replace_roster(same, at(400));
    city.run(400..401, |agency| district_of(agency) != 2);
    assert_eq!(city.incidents(400), [(IncidentKind::Parent, "01-102".to_owned(), 8)]);
}

#[test]
fn while_our_own_anchors_fail_no_agency_is_accused() {
    let mut city = City::new();
    city.run(0..100, EVERYBODY);
    for second in 100..400 {
        city.fleet.anchors_checked(false, at(second));
        // Too few and in one district: lateness alone would blame their parent.
        city.run(second..second + 1, |agency| district_of(agency) != 2);
        let accused = city.count(second, "silent") + city.count(second, "disconnected");
        assert_eq!(accused, 0, "at {second}");
    }
    assert_eq!(city.count(399, "unknown"), 9);
    let incident = (IncidentKind::CollectorSuspected, "collector".to_owned(), 9);
    assert_eq!(city.incidents(399), [incident]);
    for second in 400..500 {
        city.fleet.anchors_checked(true, at(second));
        city.run(second..second + 1, EVERYBODY);
    }
    assert_eq!(city.incidents(499), []);
    assert_eq!(city.count(499, "connected"), 54);
}

#[test]
fn agents_that_blame_the_core_are_not_believed_while_our_own_anchors_fail() {
    let mut city = City::new();
    city.run(0..100, EVERYBODY);
    for second in 100..160 {
        city.fleet.anchors_checked(false, at(second));
        city.sequence += 1;
        for (n, _, source) in agents() {
            let down = said(city.sequence, Verdict::Disconnected(DownCause::CoreUnreachable));
            city.fleet.report(id(n), down, from(Listener::Fallback, &source), at(second));
        }
        city.fleet.tick(at(second));
        if second >= 105 {
            assert_eq!(city.count(second, "disconnected"), 0, "at {second}");
        }
    }
    assert_eq!(city.count(159, "unknown"), 54);
}

#[test]
fn anchors_that_fail_alone_are_cleared_by_those_who_are_heard() {
    let mut city = City::new();
    city.run(0..100, EVERYBODY);
    for second in 100..800 {
        city.fleet.anchors_checked(false, at(second));
        city.run(second..second + 1, EVERYBODY);
        assert_eq!(city.count(second, "connected"), 54, "at {second}");
    }
    assert_eq!(city.incidents(799), [], "after ten minutes it is the anchors");
    for second in 800..900 {
        city.fleet.anchors_checked(false, at(second));
        city.run(second..second + 1, |_| false);
    }
    assert_eq!(city.count(899, "silent"), 0, "and the agencies' lateness is still understood");
}
