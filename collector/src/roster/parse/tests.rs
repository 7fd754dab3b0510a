use super::*;
use crate::roster::RosterDiff;

const HEADER: &str = "id,name,kind,parent,gso_code,id_code,lat,lon";

fn source<'a>(name: &'a str, text: &'a str) -> Source<'a> {
    Source { name, bytes: text.as_bytes() }
}

fn shipped(name: &str) -> Roster {
    let path = format!("{}/../deploy/rosters/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).expect("the roster is shipped");
    parse(Source { name, bytes: &bytes }, None, Loopback::Refused).expect("it is sound")
}

#[test]
fn the_shipped_rosters_have_the_published_counts() {
    let count = |roster: &Roster, kind| {
        roster.agencies().iter().filter(|agency| agency.kind == kind).count()
    };
    let counts = |name| {
        let roster = shipped(name);
        AgencyKind::ALL.iter().map(|kind| count(&roster, *kind)).collect::<Vec<_>>()
    };
    assert_eq!(counts("hanoi-2020.csv"), [22, 12, 17, 1, 175, 383, 21]);
    assert_eq!(counts("hanoi-2025.csv"), [16, 0, 0, 0, 51, 75, 0]);
    let diff = RosterDiff::between(&shipped("hanoi-2020.csv"), &shipped("hanoi-2025.csv"));
    assert!(diff.added.len() >= 126 && diff.removed.len() >= 609, "{diff}");
}

#[track_caller]
fn refused(rows: &str, line: u64, column: &str, says: &str) {
    refused_with(HEADER, rows, line, column, says);
}

#[track_caller]
fn refused_with(header: &str, rows: &str, line: u64, column: &str, says: &str) {
    let text = format!("{header}\n{rows}");
    let error = parse(source("roster.csv", &text), None, Loopback::Refused).expect_err(rows);
    let first = &error.problems[0];
    assert_eq!((first.line, first.column.as_str()), (line, column), "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn a_bad_row_is_told_by_file_line_and_column() {
    refused("01-001,Quận Ba Đình,quan,01,,,,\n01-001,Quận Tây Hồ,quan,01,,,,", 3, "id", "line 2");
    refused("01-001,Quận Ba Đình,quan,02,,,,", 2, "parent", "no row has the id 02");
    refused("01-001,Qua\u{302}\u{323}n,quan,01,,,,", 2, "name", "NFC");
    refused("01-001,Quận,district,01,,,,", 2, "kind", "thi_tran");
    refused("01_001,Quận,quan,01,,,,", 2, "id", "01-018");
    refused("01-001,Quận,quan,01,,,95,105", 2, "lat", "90");
    refused("01-001,Quận,quan,01,,,21,", 2, "lat", "together");
    refused("01-001,Quận,quan,01,,,NaN,105", 2, "lat", "NaN");
    refused("01-001,Quận,quan,01,,", 2, "", "6 fields");
    refused("01-001, Quận,quan,01,,,,", 2, "name", "space");
    refused("", 1, "", "no agency");
    refused_with("id,name", "", 1, "kind", "missing");
    refused_with(&format!("{HEADER},colour"), "", 1, "colour", "not a column");
}

#[test]
fn prefixes_are_checked_too() {
    let header = format!("{HEADER},local_prefixes,gateways,valid_from,valid_to");
    let refused = |rows, line, column, says| refused_with(&header, rows, line, column, says);
    refused("01-001,A,quan,01,,,,,198.18.1.1/24,,,", 2, "local_prefixes", "198.18.1.0/24");
    refused("01-001,A,quan,01,,,,,198.18.1.0/33,,,", 2, "local_prefixes", "not a prefix");
    refused("01-001,A,quan,01,,,,,0.0.0.0/0,,,", 2, "local_prefixes", "everything");
    refused("01-001,A,quan,01,,,,,127.1.0.0/16,,,", 2, "local_prefixes", "demo");
    refused("01-001,A,quan,01,,,,,198.18.1.0/24,198.18.2.1,,", 2, "gateways", "outside");
    refused("01-001,A,quan,01,,,,,,,2021-02-30,", 2, "valid_from", "2021-02-30");
    refused("01-001,A,quan,01,,,,,,,2021-02-02,2021-02-01", 2, "valid_to", "before");
    refused(
        "01-001,A,quan,01,,,,,198.18.0.0/16,,,\n01-002,B,quan,01,,,,,198.18.7.0/24,,,",
        3,
        "local_prefixes",
        "(line 2)",
    );
}

#[test]
fn a_prefix_can_change_hands_from_one_day_to_the_next() {
    let rows = format!("{HEADER}\n01-001,A,quan,01,,,,\n01-002,B,quan,01,,,,\n");
    let prefixes = "agency,prefix,side,valid_from,valid_to\n\
        01-001,198.18.1.0/24,seen,,2025-06-30\n\
        01-002,198.18.1.0/24,seen,2025-07-01,\n";
    let roster = parse(
        source("roster.csv", &rows),
        Some(source("prefixes.csv", prefixes)),
        Loopback::Refused,
    )
    .expect("the days do not overlap");
    let owner = |day: &str| {
        roster.owner_of("198.18.1.9".parse().expect("address"), day.parse().expect("date"))
    };
    assert_eq!(owner("2025-06-30"), Some(0));
    assert_eq!(owner("2025-07-01"), Some(1));
    let mapped = "::ffff:198.18.1.9".parse().expect("address");
    assert_eq!(roster.owner_of(mapped, "2026-01-01".parse().expect("date")), Some(1));
    assert_eq!(
        roster
            .owner_of("198.18.2.9".parse().expect("address"), "2026-01-01".parse().expect("date")),
        None
    );

    let overlapping = prefixes.replace("2025-06-30", "2025-07-01");
    let error = parse(
        source("roster.csv", &rows),
        Some(source("prefixes.csv", &overlapping)),
        Loopback::Refused,
    )
    .expect_err("both have it on the first of July");
    assert!(
        error.to_string().contains("line 2") && error.to_string().contains("line 3"),
        "{error}"
    );
}

#[test]
fn many_problems_are_told_at_once_but_not_without_end() {
    let rows: String = (0..500).map(|n| format!("01-{n:03},X,city,01,,,,\n")).collect();
    let text = format!("{HEADER}\n{rows}");
    let error = parse(source("r", &text), None, Loopback::Refused).expect_err("no such kind");
    assert_eq!(error.problems.len(), PROBLEMS_MAX);
}
