//! A collector that starts and is not heard by anybody, or by nearly nobody.

use super::mass::{City, EVERYBODY, agents, district_of};
use super::*;
use crate::snapshot::IncidentKind;

/// A city whose agents all lived until the collector stopped.
fn restarted() -> City {
    let mut city = City::new();
    for (n, agency, _) in agents() {
        // As a checkpoint has it: some beats of the agents apart.
        let last_verified = UNIX_EPOCH + Duration::from_secs(u64::try_from(n).expect("small") % 10);
        city.fleet.restore(RestoredAgent {
            agent: id(n),
            agency: named(&agency),
            last_verified: Some(last_verified),
            certificate_expiry: at(86_400).wall,
        });
        city.fleet.restore_state(&named(&agency), AgencyState::Connected, UNIX_EPOCH);
    }
    city
}

const NOBODY: fn(&str) -> bool = |_| false;

#[test]
fn who_hears_nobody_after_a_start_suspects_itself_and_accuses_no_agency() {
    let mut city = restarted();
    for second in 0..4_000 {
        city.run(second..second + 1, NOBODY);
        assert_eq!(city.count(second, "unknown"), 54, "after {second} s");
        let expected = usize::from(second >= 80);
        assert_eq!(city.incidents(second).len(), expected, "after {second} s");
    }
    assert_eq!(
        city.incidents(3_999),
        [(IncidentKind::CollectorSuspected, "collector".to_owned(), 54)]
    );
    city.run(4_000..4_020, EVERYBODY);
    assert_eq!(city.incidents(4_019), []);
    assert_eq!(city.count(4_019, "connected"), 54);
}

#[test]
fn a_state_that_was_told_is_enough_to_miss_an_agency() {
    let mut city = City::new();
    for (_, agency, _) in agents() {
        city.fleet.restore_state(&named(&agency), AgencyState::Connected, UNIX_EPOCH);
    }
    city.run(0..90, NOBODY);
    assert_eq!(city.count(89, "unknown"), 54);
    assert_eq!(city.incidents(89).len(), 1);
}

#[test]
fn a_sound_start_accuses_nobody_while_all_come_back() {
    let mut city = restarted();
    for second in 0..200 {
        // They come back over the minute in which they try.
        city.run(second..second + 1, |agency| second >= 65 || district_of(agency) * 11 < second);
        assert_eq!(city.incidents(second), [], "after {second} s");
        assert_eq!(city.count(second, "silent"), 0, "after {second} s");
    }
    assert_eq!(city.count(199, "connected"), 54);
}

#[test]
fn who_stayed_away_while_most_came_back_is_judged_after_ten_minutes() {
    let mut city = restarted();
    // Two of nine in every district.
    let came_back = |agency: &str| !agency.ends_with(['0', '1']) || agency.len() == 6;
    city.run(0..600, came_back);
    assert_eq!(city.count(599, "silent"), 0);
    assert_eq!(city.count(599, "unknown"), 12);
    city.run(600..700, came_back);
    assert_eq!(city.incidents(699), []);
    assert_eq!(city.count(699, "silent"), 12);
}

#[test]
fn a_parents_outage_that_began_while_the_collector_was_away_is_one_incident() {
    let mut city = restarted();
    city.run(0..100, |agency| district_of(agency) != 2);
    assert_eq!(city.incidents(99), [(IncidentKind::Parent, "01-102".to_owned(), 8)]);
    assert_eq!(city.count(99, "silent"), 9);
    city.run(100..120, EVERYBODY);
    assert_eq!(city.incidents(119), []);
}

#[test]
fn who_was_silent_before_the_stop_says_nothing_about_the_start() {
    let mut city = City::new();
    for (n, agency, _) in agents() {
        let lived = district_of(&agency) < 5;
        city.fleet.restore(RestoredAgent {
            agent: id(n),
            agency: named(&agency),
            last_verified: Some(if lived { at(0).wall } else { UNIX_EPOCH }),
            certificate_expiry: at(86_400).wall,
        });
    }
    city.run(0..90, |agency| district_of(agency) < 5);
    assert_eq!(city.incidents(89), []);
    assert_eq!(city.count(89, "silent"), 9);
}
