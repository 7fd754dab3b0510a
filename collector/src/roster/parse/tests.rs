use super::*;
use crate::roster::{AgencyKind, RosterDiff};

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
    refused_with(&format!("{HEADER},colour"), "", 1, "", "\"colour\" is not a column");
}

#[test]
fn prefixes_are_checked_too() {
    let header = format!("{HEADER},local_prefixes,gateways,valid_from,valid_to");
    let refused = |rows, line, column, says| refused_with(&header, rows, line, column, says);
    refused("01-001,A,quan,01,,,,,198.18.1.1/24,,,", 2, "local_prefixes", "198.18.1.0/24");
    refused("01-001,A,quan,01,,,,,198.18.1.0/33,,,", 2, "local_prefixes", "not a prefix");
    refused("01-001,A,quan,01,,,,,0.0.0.0/0,,,", 2, "local_prefixes", "every address");
    refused("01-001,A,quan,01,,,,,127.1.0.0/16,,,", 2, "local_prefixes", "demo");
    refused("01-001,A,quan,01,,,,,198.18.1.0/24,198.18.2.1,,", 2, "gateways", "outside");
    refused("01-001,A,quan,01,,,,,,,2021-02-30,", 2, "valid_from", "2021-02-30");
    refused("01-001,A,quan,01,,,,,,,2021-02-02,2021-02-01", 2, "valid_to", "before");
    refused(
        "01-001,A,quan,01,,,,,198.18.0.0/16,,,\n01-002,B,quan,01,,,,,198.18.7.0/24,,,",
        3,
        "local_prefixes",
        "line 2)",
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

#[test]
fn a_bad_row_does_not_spoil_its_children() {
    let rows = "01-001,Quận,quan!,01,,,,\n01-001-00001,Phường,phuong,01-001,,,,\n";
    let text = format!("{HEADER}\n{rows}");
    let error = parse(source("r", &text), None, Loopback::Refused).expect_err("no such kind");
    assert_eq!(error.problems.len(), 1, "{error}");
    assert_eq!(
        error.to_string(),
        "r, line 2, column kind: \"quan!\" is none of so_ban_nganh, quan, huyen, thi_xa, phuong, \
         xa, thi_tran"
    );
}

#[test]
fn parents_lead_to_one_root() {
    refused("01-001,A,quan,01-001,,,,", 2, "parent", "its own parent");
    refused("01-001,A,quan,01-002,,,,\n01-002,B,quan,01-001,,,,", 2, "parent", "leads back");
    refused("01-001,A,quan,01,,,,\n02-002,B,quan,01,,,,", 2, "parent", "no row has the id 01");
    refused("01-00-1,A,quan,01-00,,,,\n01-00-2,B,quan,01,,,,", 3, "parent", "is the root");
}

#[test]
fn a_byte_order_mark_and_crlf_do_no_harm_but_another_encoding_is_refused() {
    let text = format!("\u{feff}{HEADER}\r\n01-001,Quận,quan,01,,,,\r\n");
    let roster = parse(source("r", &text), None, Loopback::Refused).expect("it is sound");
    assert_eq!(roster.agencies()[0].name, "Quận");
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let error = parse(Source { name: "r", bytes: &utf16 }, None, Loopback::Refused)
        .expect_err("it is UTF-16");
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn a_roster_has_a_limit() {
    let rows: String =
        (0..=crate::roster::ROWS_MAX).map(|n| format!("01-{n:06},X,xa,01,,,,\n")).collect();
    let text = format!("{HEADER}\n{rows}");
    let error = parse(source("r", &text), None, Loopback::Refused).expect_err("one too many");
    assert!(error.to_string().contains("100000 rows"), "{error}");
    let fits = text.rsplit_once("01-").expect("rows").0;
    assert!(parse(source("r", fits), None, Loopback::Refused).is_ok());
}

#[test]
fn a_prefix_belongs_to_its_agency_only_while_the_row_holds() {
    let header = format!("{HEADER},local_prefixes,valid_from,valid_to");
    let rows = "01-001,A,quan,01,,,,,198.18.1.0/24,,2025-06-30\n\
        01-00001,B,phuong,01,,,,,198.18.1.0/24,2025-07-01,\n";
    let text = format!("{header}\n{rows}");
    let roster = parse(source("r", &text), None, Loopback::Refused).expect("the days differ");
    let address = "198.18.1.9".parse().expect("address");
    let owner = |day: &str| roster.owner_of(address, day.parse().expect("date"));
    assert_eq!((owner("2025-06-30"), owner("2025-07-01")), (Some(0), Some(1)));
    let valid = |day: &str| roster.valid_on(day.parse().expect("date")).count();
    assert_eq!((valid("2025-06-30"), valid("2025-07-02")), (1, 1));
}

#[test]
fn a_bad_prefixes_file_is_told_by_its_own_lines() {
    let rows = format!("{HEADER}\n01-001,A,quan,01,,,,\n01-002,B,quan,01,,,,\n");
    for (line, column, says, text) in [
        (2, "agency", "no row", "01-003,198.18.1.0/24,seen,,"),
        (2, "side", "neither", "01-001,198.18.1.0/24,left,,"),
        (2, "prefix", "host bits", "01-001,198.18.1.1/24,seen,,"),
        (2, "valid_to", "before", "01-001,198.18.1.0/24,seen,2025-01-02,2025-01-01"),
        (3, "prefix", "already", "01-001,198.18.1.0/24,seen,,\n01-001,198.18.1.0/24,seen,,"),
        (
            4,
            "prefix",
            "(prefixes.csv, line 2)",
            "01-001,198.18.0.0/16,seen,,\n01-001,198.19.0.0/16,seen,,\n01-002,198.18.1.0/24,local,,",
        ),
    ] {
        let prefixes = format!("agency,prefix,side,valid_from,valid_to\n{text}\n");
        let prefixes = source("prefixes.csv", &prefixes);
        let error =
            parse(source("roster.csv", &rows), Some(prefixes), Loopback::Refused).expect_err(text);
        let RosterProblem { file, line: found, column: cell, problem } = &error.problems[0];
        assert_eq!(
            (file.as_str(), *found, cell.as_str()),
            ("prefixes.csv", line, column),
            "{error}"
        );
        assert!(problem.contains(says), "{error}");
    }
}

#[test]
fn loopback_stands_only_in_a_demonstration() {
    let text = format!("{HEADER},local_prefixes\n01-001,A,quan,01,,,,,127.1.0.0/16\n");
    assert!(parse(source("r", &text), None, Loopback::Demo).is_ok());
    let wider = text.replace("127.1.0.0/16", "126.0.0.0/7");
    assert!(parse(source("r", &wider), None, Loopback::Refused).is_err());
}

#[test]
fn an_import_tells_what_it_would_change() {
    let header = format!("{HEADER},local_prefixes,agents_expected");
    let roster = |rows: &str| {
        let text = format!("{header}\n{rows}");
        parse(source("r", &text), None, Loopback::Refused).expect("it is sound")
    };
    let old = roster(
        "01-001,A,quan,01,,,,,198.18.1.0/24,\n01-002,B,quan,01,,,,,,\n01-003,C,quan,01,,,,,,\n\
         01-004,D,quan,01,,,,,,1\n01-005,E,quan,01,,,,,,\n",
    );
    let new = roster(
        "01-001,A,quan,01,,,,,198.18.2.0/24,\n01-002,B,quan,01-001,,,,,,\n\
         01-003,C mới,quan,01,,,,,,\n01-004,D,quan,01,,,,,,2\n01-006,F,quan,01,,,,,,\n",
    );
    let expected = "~ 01-001 prefixes and gateways from [198.18.1.0/24] to [198.18.2.0/24]\n\
        ~ 01-002 moved from 01 to 01-001\n\
        ~ 01-003 renamed from C (quan) to C mới (quan)\n\
        ~ 01-004 other columns changed\n\
        + 01-006 F\n\
        - 01-005 E\n\
        1 added, 1 removed, 1 moved, 1 renamed, 1 with other prefixes, 1 otherwise changed";
    assert_eq!(RosterDiff::between(&old, &new).to_string(), expected);
    assert!(RosterDiff::between(&old, &old).is_empty());
    assert_ne!(old.version(), new.version());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let mut text = format!("{HEADER},local_prefixes,valid_to\n").into_bytes();
        text.extend(&bytes);
        for bytes in [&bytes, &text] {
            let roster = Source { name: "r", bytes };
            let _ = parse(roster, Some(roster), Loopback::Demo);
        }
    }
}
