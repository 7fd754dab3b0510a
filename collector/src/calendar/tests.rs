use std::path::Path;

use super::*;

const SAMPLE: &str = include_str!("../../../deploy/calendar.toml");

const OFFICE: &str = "[[hours]]\nweekdays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\"]\n\
                      open = [\"08:00-12:00\", \"13:00-17:00\"]\n";

fn parsed(text: &str) -> Calendar {
    Calendar::parse(text, Path::new("calendar.toml")).expect(text)
}

fn at(text: &str) -> DateTime {
    text.parse().expect(text)
}

#[track_caller]
fn expects(calendar: &Calendar, agency: &str, kind: AgencyKind, moments: &[(&str, bool)]) {
    let agency = agency.parse().expect("an id");
    for (moment, want) in moments {
        assert_eq!(calendar.expects(&agency, kind, at(moment)), *want, "{moment}");
    }
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let error = Calendar::parse(text, Path::new("calendar.toml")).expect_err(text);
    let shown = error.to_string();
    for word in words {
        assert!(shown.contains(word), "{shown:?} does not say {word:?}");
    }
}

#[test]
fn without_a_calendar_every_moment_is_a_working_one() {
    let none = Calendar::default();
    expects(&none, "01-001", AgencyKind::Quan, &[("2026-11-22T03:00", true)]);
    assert!(none.covers(2026));
}

#[test]
fn an_office_is_expected_within_its_hours_less_the_margin() {
    // 2026-11-25 is a Wednesday.
    let moments = [
        ("2026-11-25T08:14:59", false),
        ("2026-11-25T08:15:00", true),
        ("2026-11-25T11:44:59", true),
        ("2026-11-25T11:45:00", false),
        ("2026-11-25T13:15:00", true),
        ("2026-11-25T16:45:00", false),
        ("2026-11-25T23:59:59", false),
        ("2026-11-28T10:00:00", false),
    ];
    expects(&parsed(OFFICE), "01-001", AgencyKind::Quan, &moments);
}

#[test]
fn the_nearest_hours_count() {
    let text = format!(
        "{OFFICE}[[hours]]\nkinds = [\"xa\"]\nweekdays = [\"sat\"]\nopen = [\"07:00-11:00\"]\n\
         [[hours]]\nagencies = [\"01-001\"]\nworks_on_holidays = true\n\
         weekdays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\n\
         open = [\"00:00-24:00\"]\n\
         [[holiday]]\nname = \"x\"\nfrom = \"2026-11-25\"\nsource = \"a decision\"\n"
    );
    let calendar = parsed(&text);
    let always = [("2026-11-25T00:00:00", true), ("2026-11-28T23:59:59", true)];
    expects(&calendar, "01-001", AgencyKind::Xa, &always);
    let saturday = [("2026-11-28T09:00:00", true), ("2026-11-26T09:00:00", false)];
    expects(&calendar, "01-002", AgencyKind::Xa, &saturday);
    let office = [("2026-11-26T09:00:00", true), ("2026-11-25T09:00:00", false)];
    expects(&calendar, "01-002", AgencyKind::Quan, &office);
}

#[test]
fn a_holiday_is_off_and_the_day_worked_instead_is_not() {
    let text = format!(
        "{OFFICE}[[holiday]]\nname = \"x\"\nfrom = \"2026-02-14\"\nto = \"2026-02-22\"\n\
         source = \"a\"\n[[working_day]]\ndate = \"2026-02-28\"\nsource = \"a\"\n"
    );
    let calendar = parsed(&text);
    let moments = [
        ("2026-02-13T09:00:00", true),
        ("2026-02-16T09:00:00", false),
        ("2026-02-20T09:00:00", false),
        ("2026-02-23T09:00:00", true),
        ("2026-02-28T09:00:00", true),
        ("2026-03-07T09:00:00", false),
    ];
    expects(&calendar, "01-001", AgencyKind::Quan, &moments);
    assert!(calendar.covers(2026) && !calendar.covers(2027));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let holiday = |rest: &str| format!("[[holiday]]\nname = \"x\"\n{rest}");
    refused("margins = \"1m\"\n", &["calendar.toml, line 1", "margins"]);
    refused("margin = \"3h\"\n", &["line 1", "longer than 2h"]);
    refused("\n[[hours]]\nopen = []\n", &["line 2", "weekdays"]);
    refused("[[hours]]\nweekdays = [\"monday\"]\nopen = []\n", &["line 2", "monday", "mon"]);
    refused("[[hours]]\nweekdays = [\"mon\", \"mon\"]\nopen = []\n", &["line 2", "already"]);
    for span in ["8:00-12:00", "12:00-08:00", "08:00-24:01", "08:60-09:00", "08:00", "+8:00-12:00"]
    {
        let text = format!("[[hours]]\nweekdays = []\nopen = [\"{span}\"]\n");
        refused(&text, &["line 3", span, "08:00-12:00"]);
    }
    let overlap = "[[hours]]\nweekdays = []\nopen = [\"08:00-12:00\",\n\"11:00-13:00\"]\n";
    refused(overlap, &["line 4", "begins before"]);
    refused("[[hours]]\nweekdays = []\nopen = [\"08:00-08:30\"]\n", &["line 3", "margin"]);
    refused(&format!("{OFFICE}{OFFICE}"), &["line 4", "every other agency", "line 1"]);
    let twice = |who: &str| {
        let entry = format!("[[hours]]\n{who}\nweekdays = []\nopen = []\n");
        format!("{entry}{entry}")
    };
    refused(&twice("agencies = [\"01-001\"]"), &["line 6", "01-001", "line 2"]);
    refused(&twice("kinds = [\"xa\"]"), &["line 6", "xa", "line 2"]);
    let kind = "[[hours]]\nkinds = [\"city\"]\nweekdays = []\nopen = []\n";
    refused(kind, &["line 2", "city"]);
    refused(&holiday("from = \"2026-02-30\"\nsource = \"a\"\n"), &["line 3", "2026-02-30"]);
    refused(&holiday("from = \"2026-02-01\"\n"), &["line 1", "source"]);
    refused(&holiday("from = \"2026-02-01\"\nsource = \" \"\n"), &["line 1", "source is empty"]);
    let backwards = holiday("from = \"2026-02-02\"\nto = \"2026-02-01\"\nsource = \"a\"\n");
    refused(&backwards, &["line 1", "1 to 31 days"]);
}

#[test]
fn the_shipped_calendar_loads_and_covers_its_years() {
    let calendar = parsed(SAMPLE);
    assert!(calendar.covers(2026) && calendar.covers(2027));
    let moments = [
        ("2026-02-17T10:00:00", false),
        ("2026-04-27T10:00:00", false),
        ("2026-09-02T10:00:00", false),
        ("2026-11-25T10:00:00", true),
        ("2026-11-25T17:00:00", false),
        ("2027-01-01T10:00:00", false),
    ];
    expects(&calendar, "01-001", AgencyKind::Quan, &moments);
}
