use std::path::Path;

use super::*;

const SAMPLE: &str = include_str!("../../../deploy/collector.toml");

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let error = Config::parse(text, Path::new("collector.toml")).expect_err(text);
    let shown = error.to_string();
    for word in words {
        assert!(shown.contains(word), "{shown:?} does not say {word:?}");
    }
}

#[test]
fn the_sample_equals_the_defaults() {
    let sample = Config::parse(SAMPLE, Path::new("collector.toml")).expect("the sample is valid");
    assert_eq!(sample, Config::default());
    assert_eq!(Config::parse("", Path::new("x")).expect("all keys have defaults"), sample);
}

#[test]
fn every_commented_key_of_the_sample_exists() {
    let uncommented: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => key,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let parsed: Result<Config, _> = toml::from_str(&uncommented);
    parsed.expect("each commented key can be switched on");
}

#[test]
fn what_cannot_work_is_refused_with_file_and_key() {
    refused("demo = true\nfoo = 1\n", &["collector.toml, line 2", "foo"]);
    refused("[listen]\n\ndedicate = []\n", &["line 3", "dedicate"]);
    refused("state_dir = 7\n", &["line 1", "string"]);
    refused("trust_domain = \"Hà Nội\"\n", &["line 1", "trust domain"]);
    refused("[listen]\ndedicated = []\n", &["listen.dedicated", "empty"]);
    refused("[listen]\nhttp = \"127.0.0.1:7443\"\n", &["listen.http", "taken by listen.dedicated"]);
    refused("[listen]\ndedicated = [\"0.0.0.0:7443\"]\n", &["advertise.dedicated", "0.0.0.0"]);
    refused("[advertise]\ndedicated = [\"::1:7443\"]\n", &["advertise.dedicated", "host:port"]);
    refused("[advertise]\nenrolment = \"a:1\"\n", &["advertise.enrolment", "not listened on"]);
    refused("[listen]\nhttp = \"0.0.0.0:7080\"\n", &["http.bearer_token_file", "0.0.0.0:7080"]);
    refused("[report]\ninterval = \"1ms\"\n", &["report.interval", "500ms"]);
    refused("[report]\nconfirm_period = \"5s\"\n", &["report.confirm_period", "probe_period"]);
    refused("[identity]\nca_key_file = \"k\"\n", &["identity.ca_certificate_file"]);
    refused("[identity]\nca_certificate_file = \"c\"\n", &["identity.ca_key_file"]);
    refused("[core_check]\nenabled = true\n", &["core_check.device"]);
    refused(
        "[core_check]\nenabled = true\ndevice = \"lo\"\nnetwork_prefixes = [\"127.0.0.0/8\"]\n",
        &["core_check.network_prefixes", "demo = true"],
    );
    refused("[goals]\ndedicated_network_target_ratio = 1.5\n", &["goals", "0 to 1"]);
    refused("[goals]\ninformation_security_target_ratio = -0.1\n", &["goals", "0 to 1"]);
    refused("[limits]\nconnections_max = 0\n", &["limits.connections_max"]);
}

#[test]
fn the_certificate_names_every_advertised_host_once() {
    let text = "[listen]\nenrolment = \"[::1]:7444\"\n\
                [advertise]\ndedicated = [\"198.18.0.10:7443\", \"tslcd.example:7443\"]\n";
    let config = Config::parse(text, Path::new("x")).expect("it is valid");
    let endpoints = config.endpoints();
    assert_eq!(endpoints.hosts(), ["198.18.0.10", "::1", "tslcd.example"]);
    assert_eq!(endpoints.enrolment.as_deref(), Some("[::1]:7444"));
}
