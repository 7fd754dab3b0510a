//! What people and programs read, and the exit status.

use serde_json::Value;

use crate::connectivity::scenes::{
    core_dark, dark, dedicated, fault, healthy, local_faults, ms, no_address, no_carrier, silent,
};
use crate::evidence::{Dns, Echo, Forwarding, Interface, Nat, Surroundings, Tcp};

use crate::language::Key;

use super::*;

const CONFIG: &str = r#"
[dedicated]
interface = { name = "ded0" }
local_prefixes = ["198.18.10.0/24"]
network_prefixes = ["198.18.0.0/15"]
gateways = ["198.18.10.1"]

[[anchor]]
name = "core-a"
address = "198.18.0.10"
tcp_port = 7443

[[anchor]]
name = "core-b"
address = "198.19.0.10"
tcp_port = 7443
"#;

fn config() -> Config {
    let config: Config = toml::from_str(CONFIG).expect("the test's configuration parses");
    assert_eq!(config.dedicated, dedicated());
    config
}

fn enrolled() -> Enrolment {
    Enrolment::Enrolled("01-018-00565".parse().expect("an agency id"))
}

fn page(cycle: &Cycle, enrolment: &Enrolment, language: Language) -> (String, Outcome) {
    let config = config();
    let checkup = Checkup { config: &config, cycle, enrolment, host: None, ways: &[], clock: None };
    (checkup.table(language, Style::Plain), checkup.outcome())
}

fn changed(mut cycle: Cycle, change: impl FnOnce(&mut Cycle)) -> Cycle {
    change(&mut cycle);
    cycle
}

fn each_echo(echo: &Echo) -> Cycle {
    changed(healthy(), |cycle| {
        cycle.anchors.iter_mut().for_each(|anchor| anchor.echo = echo.clone());
    })
}

#[test]
fn the_exit_status_tells_good_failing_and_unknown_apart() {
    let dns = changed(healthy(), |cycle| cycle.resolvers[0].answer = Dns::Silent);
    let one_dead = changed(healthy(), |cycle| {
        (cycle.anchors[1].echo, cycle.anchors[1].tcp) = (silent(), Tcp::Silent);
    });
    let hole = changed(healthy(), |cycle| cycle.path_mtu = Some(PathMtu::Hole { bytes: 1500 }));
    let table = [
        (healthy(), 0),
        (each_echo(&Echo::Forbidden), 0),
        (each_echo(&silent()), 0),
        (dark(), 1),
        (no_carrier(), 1),
        (dns, 1),
        (one_dead, 1),
        (hole, 1),
        (local_faults(), 2),
    ];
    for (cycle, status) in table {
        let (text, outcome) = page(&cycle, &enrolled(), Language::En);
        assert_eq!(outcome.exit_status(), status, "{text}");
    }
    let (_, outcome) = page(&healthy(), &Enrolment::NotEnrolled, Language::En);
    assert_eq!(outcome.exit_status(), 2, "the collector cannot know of this machine");
    let (_, outcome) = page(&dark(), &Enrolment::NotEnrolled, Language::En);
    assert_eq!(outcome.exit_status(), 1);
}

#[test]
fn no_line_is_wider_than_eighty_columns() {
    let mut crowded = each_echo(&Echo::Unsendable(fault()));
    crowded.anchors[0].name = "a-name-of-thirty-two-characters-".into();
    crowded.anchors[0].address = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("IPv6");
    crowded.anchors[0].tcp = Tcp::Impostor { presented: "CN=Ủy ban".repeat(20) };
    for cycle in [healthy(), dark(), core_dark(), no_address(), local_faults(), crowded] {
        for language in [Language::Vi, Language::En] {
            let (text, _) = page(&cycle, &Enrolment::NotEnrolled, language);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}

#[test]
fn vietnamese_is_spoken_with_the_official_terms() {
    let (text, _) = page(&healthy(), &enrolled(), Language::Vi);
    assert!(text.contains("mạng truyền số liệu chuyên dùng"), "{text}");
    assert!(text.contains("Kết luận: Đã kết nối"), "{text}");
    let (text, _) = page(&core_dark(), &enrolled(), Language::Vi);
    assert!(text.contains("Kết luận: Mất kết nối"), "{text}");
    assert!(text.contains("Liên hệ: đơn vị cung cấp đường truyền"), "{text}");
}

#[test]
fn a_machine_without_network_set_up_reads_what_is_missing() {
    let bare = changed(local_faults(), |cycle| {
        cycle.link.interface = Interface::Missing;
        cycle.anchors.clear();
        cycle.gateways.clear();
    });
    let mut config = config();
    config.anchors.clear();
    let enrolment = Enrolment::NotEnrolled;
    let checkup = Checkup {
        config: &config,
        cycle: &bare,
        enrolment: &enrolment,
        host: None,
        ways: &[],
        clock: None,
    };
    let text = checkup.table(Language::En, Style::Plain);
    for words in [
        "interface was not found",
        "name = ded0",
        "No anchor is configured",
        "haidang-agent enroll",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    let (text, _) = page(&each_echo(&Echo::Forbidden), &enrolled(), Language::En);
    assert!(text.contains("sysctl -w"), "{text}");
    let (text, _) = page(&no_address(), &enrolled(), Language::En);
    assert!(text.contains("198.18.10.0/24") && text.contains("169.254.7.7"), "{text}");
}

#[test]
fn a_missing_configuration_is_said_in_words() {
    let path = Path::new("/etc/haidang/agent.toml");
    let text = without_config(path, "no such file", Language::Vi, Style::Plain);
    assert!(text.contains("/etc/haidang/agent.toml: no such file"), "{text}");
    assert!(text.contains("Chưa xác định"), "{text}");
    let json: Value =
        serde_json::from_str(&without_config_json(path, "no such file")).expect("JSON");
    assert_eq!(json["outcome"], "unknown");
    assert_eq!(json["missing"][0]["what"], "config");
}

#[test]
fn the_json_has_its_documented_shape() {
    let config = config();
    let (cycle, enrolment) = (core_dark(), enrolled());
    let checkup = Checkup {
        config: &config,
        cycle: &cycle,
        enrolment: &enrolment,
        host: None,
        ways: &[],
        clock: None,
    };
    let json: Value = serde_json::from_str(&checkup.json()).expect("JSON");
    let mut keys: Vec<_> = json.as_object().expect("an object").keys().cloned().collect();
    keys.sort();
    let documented = [
        "agency",
        "call",
        "checks",
        "diagnosis",
        "evidence",
        "findings",
        "flags",
        "format",
        "host",
        "missing",
        "outcome",
        "verdict",
        "ways",
    ];
    assert_eq!(keys, documented);
    assert_eq!(json["verdict"]["cause"], "core_unreachable");
    assert_eq!(json["outcome"], "fails");
    assert_eq!(json["call"], "carrier");
    assert_eq!(json["agency"], "01-018-00565");
    assert_eq!(json["checks"][0]["layer"], "Interface");
}

#[test]
fn a_finding_says_what_it_is_and_whom_to_call_in_both_languages() {
    let one_dead = changed(healthy(), |cycle| {
        (cycle.anchors[1].echo, cycle.anchors[1].tcp) = (silent(), Tcp::Silent);
    });
    for language in [Language::Vi, Language::En] {
        let (text, _) = page(&one_dead, &enrolled(), language);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let call = Key::Call.text(language);
        let expected =
            format!("{} {call}: {}", Key::AnchorDown.text(language), Key::CallCore.text(language));
        assert!(words.contains(&expected), "{text}");
    }
    let config = config();
    let enrolment = enrolled();
    let checkup = Checkup {
        config: &config,
        cycle: &one_dead,
        enrolment: &enrolment,
        host: None,
        ways: &[],
        clock: None,
    };
    let json: Value = serde_json::from_str(&checkup.json()).expect("JSON");
    assert_eq!(json["findings"][0]["flag"], "anchor_down");
    assert_eq!(json["findings"][0]["call"], "core");
    assert_eq!(json["findings"][0]["vi"], Key::AnchorDown.text(Language::Vi));
}

#[test]
fn translation_that_cannot_be_read_is_unknown_where_packets_are_forwarded() {
    for (forwards, nat, outcome) in [
        (false, Nat::Loaded, "good"),
        (true, Nat::Absent, "good"),
        (true, Nat::Loaded, "unknown"),
        (true, Nat::Unreadable(fault()), "unknown"),
    ] {
        let cycle = changed(healthy(), |cycle| {
            let forwarding = Forwarding { v4: forwards, v6: false };
            let seen = Surroundings { forwarding, nat, ..Surroundings::default() };
            cycle.link.surroundings = Ok(seen);
        });
        let (config, enrolment) = (config(), enrolled());
        let checkup = Checkup {
            config: &config,
            cycle: &cycle,
            enrolment: &enrolment,
            host: None,
            ways: &[],
            clock: None,
        };
        let json: Value = serde_json::from_str(&checkup.json()).expect("JSON");
        let mut rows = json["checks"].as_array().expect("rows").iter();
        let row = rows.find(|row| row["layer"] == "Other networks").expect("its row");
        assert_eq!(row["outcome"], outcome, "{row}");
    }
}

#[test]
fn colours_come_only_on_a_terminal_and_peers_cannot_send_their_own() {
    let config = config();
    let mut cycle = dark();
    cycle.anchors[0].tcp = Tcp::Impostor { presented: "\u{1b}[2J\u{7}".into() };
    cycle.prober_lag_max = ms(1);
    let enrolment = enrolled();
    let checkup = Checkup {
        config: &config,
        cycle: &cycle,
        enrolment: &enrolment,
        host: None,
        ways: &[],
        clock: None,
    };
    let plain = checkup.table(Language::Vi, Style::Plain);
    assert!(!plain.chars().any(|c| c.is_control() && c != '\n'), "{plain:?}");
    let coloured = checkup.table(Language::Vi, Style::Coloured);
    assert!(coloured.contains("\u{1b}[31m") && !coloured.contains("\u{1b}[2J"));
}
