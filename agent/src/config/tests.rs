use super::*;

const SAMPLE: &str = include_str!("../../../deploy/agent.toml");

const SMALL: &str = r#"
[dedicated]
interface = { name = "eth0" }
local_prefixes = ["198.18.10.0/24"]
network_prefixes = ["198.18.0.0/16"]
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("agent.toml"))
}

#[track_caller]
fn refused(addition: &str, message: &str) {
    let error = parse(&format!("{SMALL}{addition}")).expect_err("breaks a limit").to_string();
    assert_eq!(error, message);
}

/// The sample with its commented-out settings switched on: `#key = value` is a setting, `# text`
/// is prose.
fn sample_switched_on() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    SAMPLE.lines().map(line).collect()
}

#[test]
fn the_sample_is_valid_and_its_commented_settings_are_the_defaults() {
    let plain = parse(SAMPLE).expect("the sample is valid");
    let all = parse(&sample_switched_on()).expect("the sample's settings are valid");
    let small = parse(SMALL).expect("the smallest file is valid");
    assert_eq!(all.state_dir, small.state_dir);
    assert_eq!(all.status_socket, small.status_socket);
    assert_eq!(all.demo, small.demo);
    assert_eq!(all.collector, small.collector);
    assert_eq!(all.verdict, Verdict::default());
    assert_eq!(all.journal, Journal::default());
    assert_eq!(all.readers, Readers::default());
    assert_eq!(plain.verdict, Verdict::default());
    assert_eq!(all.services[0].status, default_status());
    assert_eq!(all.services[0].echoes_nonce, bool::default());
    assert_eq!(all.anchors[0].tcp_proof, TcpProof::default());
    assert_eq!(plain.anchors.len(), 2);
}

#[test]
fn the_sample_names_every_key() {
    for key in [
        "state_dir",
        "status_socket",
        "netfilter_socket",
        "posture_socket",
        "demo",
        "internet_canary",
        "endpoints",
        "fallback_endpoints",
        "interface",
        "local_prefixes",
        "network_prefixes",
        "gateways",
        "name",
        "address",
        "tcp_port",
        "tcp_proof",
        "resolvers",
        "expected",
        "url",
        "host",
        "status",
        "echoes_nonce",
        "ca_file",
        "bad_cycles",
        "good_cycles",
        "kernel_confirm",
        "recovering",
        "quality_window",
        "starved_lag",
        "warm_up",
        "bytes_max",
        "age_max",
        "allowed_ports",
        "permitted_interfaces",
        "backups",
    ] {
        let names =
            |line: &str| line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} = "));
        assert!(SAMPLE.lines().any(names), "{key}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_key() {
    let error = parse(&format!("{SMALL}gatways = []\n")).expect_err("unknown key").to_string();
    assert!(error.starts_with("agent.toml:6: unknown field `gatways`"), "{error}");
    let error = parse(&format!("{SMALL}\n[journal]\nage_max = 3\n")).expect_err("type").to_string();
    assert!(error.starts_with("agent.toml:8: age_max: invalid type"), "{error}");
}

#[test]
fn limits_name_line_and_key() {
    let anchor = "[[anchor]]\nname = \"a\"\naddress = \"198.18.0.1\"\n";
    let outside = "outside dedicated.network_prefixes";
    refused(
        &format!("{anchor}[[anchor]]\nname = \"b\"\naddress = \"192.0.2.1\"\n"),
        &format!("agent.toml:11: anchor.address holds 192.0.2.1, {outside}"),
    );
    refused(&format!("{anchor}{anchor}"), "agent.toml:10: anchor.name \"a\" is used twice");
    refused(
        "gateways = [\"198.18.11.1\"]\n",
        "agent.toml:6: dedicated.gateways holds 198.18.11.1, outside local_prefixes",
    );
    refused(
        "[collector]\nendpoints = [\"203.0.113.1:7443\"]\n",
        &format!("agent.toml:7: collector.endpoints holds 203.0.113.1, {outside}"),
    );
    refused(
        "[dns]\nname = \"x.test\"\nresolvers = [\"203.0.113.1\"]\n",
        &format!("agent.toml:8: dns.resolvers holds 203.0.113.1, {outside}"),
    );
    refused(
        "[[service]]\nname = \"s\"\nurl = \"http://203.0.113.1/\"\n",
        &format!("agent.toml:8: service.url holds 203.0.113.1, {outside}"),
    );
    refused("[verdict]\nbad_cycles = 0\n", "agent.toml:7: verdict.bad_cycles is not 1 to 100");
    refused(
        "[journal]\nbytes_max = 1\n",
        "agent.toml:7: journal.bytes_max is not 262144 to 1073741824",
    );
}

#[test]
fn names_urls_and_counts_are_bounded() {
    for bad in ["", "Ă", "a_b", "A", "abcdefghijklmnopqrstuvwxyz0123456"] {
        let text = format!("{SMALL}[[anchor]]\nname = \"{bad}\"\naddress = \"198.18.0.1\"\n");
        assert!(parse(&text).is_err(), "{bad}");
    }
    for bad in ["198.18.0.1", "ftp://198.18.0.1", "http://portal.test/", "http://u@198.18.0.1/"] {
        assert!(parse(&format!("{SMALL}[[service]]\nname = \"s\"\nurl = \"{bad}\"\n")).is_err());
    }
    let anchors = |count: usize| {
        let one = |n| format!("[[anchor]]\nname = \"a{n}\"\naddress = \"198.18.0.1\"\n");
        format!("{SMALL}{}", (0..count).map(one).collect::<String>())
    };
    assert!(parse(&anchors(ANCHORS_MAX)).is_ok());
    assert!(parse(&anchors(ANCHORS_MAX + 1)).is_err());
}

#[test]
fn loopback_prefixes_need_the_demo_flag() {
    let loopback = SMALL.replace("198.18", "127.18");
    let error = parse(&loopback).expect_err("loopback").to_string();
    assert!(error.ends_with("loopback prefixes need demo = true"), "{error}");
    assert!(parse(&format!("demo = true\n{loopback}")).is_ok());
    for prefix in ["0.0.0.0/0", "198.18.10.1/24"] {
        assert!(parse(&SMALL.replace("198.18.10.0/24", prefix)).is_err(), "{prefix}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "([a-z_.]{1,9}|\\[|\\]|=|\"|\\{|\\}|\n|á|[0-9/.]{1,9}){0,40}") {
        let _ = parse(&text);
        let _ = parse(&format!("{SMALL}{text}"));
    }
}
