use std::path::Path;

use super::*;

const SAMPLE: &str = r#"
[dedicated]
interface = { name = "eth0" }
local_prefixes = ["10.9.0.0/24"]
network_prefixes = ["198.18.0.0/16", "2001:db8::/32"]
gateways = ["10.9.0.1"]
[[anchor]]
name = "core"
address = "198.18.0.10"
tcp_port = 7443
[dns]
resolvers = ["198.18.0.53"]
name = "svc.tslcd.test"
[[service]]
name = "web"
url = "http://198.18.0.80/"
"#;

fn config() -> Config {
    Config::parse(SAMPLE, Path::new("agent.toml")).unwrap()
}

/// The refusal of a configuration that the file's own limits did not see.
#[track_caller]
fn refusal(change: impl FnOnce(&mut Config)) -> String {
    let mut config = config();
    change(&mut config);
    Targets::new(&config, &[]).expect_err("lies outside the limits").to_string()
}

#[test]
fn nothing_outside_the_network_becomes_a_target() {
    let outside: IpAddr = [203, 0, 113, 1].into();
    let end = "203.0.113.1 lies outside dedicated.network_prefixes; nothing else is ever probed: \
               correct the address or the prefixes";
    let cases = [
        (refusal(|config| config.anchors[0].address = outside), "anchor core"),
        (refusal(|config| config.dedicated.gateways[0] = outside), "gateway"),
        (
            refusal(|config| {
                config.dns.iter_mut().for_each(|dns| dns.resolvers[0] = outside);
            }),
            "resolver",
        ),
        (refusal(|config| config.services[0].url = "http://203.0.113.1/".into()), "service web"),
    ];
    for (message, what) in cases {
        assert_eq!(message, format!("{what} {end}"));
    }
}

#[test]
fn a_group_is_no_target() {
    let message = refusal(|config| {
        config.dedicated.network_prefixes.push("224.0.0.0/4".parse().unwrap());
        config.anchors[0].address = [224, 0, 0, 1].into();
    });
    assert!(message.starts_with("anchor core 224.0.0.1"), "{message}");
}

#[test]
fn a_url_has_an_address_a_port_and_a_path() {
    let url = read_url("web", "http://198.18.0.80/").unwrap();
    assert_eq!((url.is_tls, url.target.to_string().as_str()), (false, "198.18.0.80:80"));
    let url = read_url("web", "https://[2001:db8::80]:8443/a?b=c").unwrap();
    assert_eq!(url.target, "[2001:db8::80]:8443".parse().unwrap());
    assert_eq!((url.is_tls, url.path.as_str()), (true, "/a?b=c"));
    for bad in ["svc", "ftp://198.18.0.80/", "http://svc.test/", "http://a@198.18.0.80/", ""] {
        assert!(read_url("web", bad).is_err(), "{bad}");
    }
}

#[test]
fn without_a_ca_nothing_that_needs_it_is_tried() {
    let mut config = config();
    config.services[0].url = "https://198.18.0.80/".into();
    let targets = Targets::new(&config, &[]).unwrap();
    assert!(targets.anchors[0].tcp.is_none());
    assert!(targets.services[0].question.is_err());
    config.anchors[0].tcp_proof = TcpProof::Handshake;
    assert!(Targets::new(&config, &[]).unwrap().anchors[0].tcp.is_some());
}

#[test]
fn gateways_of_a_family_without_anchors_are_left_out() {
    let mut config = config();
    config.dedicated.gateways.push("2001:db8::1".parse().unwrap());
    assert_eq!(Targets::new(&config, &[]).unwrap().gateways.len(), 1);
}

#[test]
fn roots_that_cannot_be_read_are_named() {
    let mut config = config();
    config.services[0].url = "https://198.18.0.80/".into();
    config.services[0].ca_file = Some("absent.pem".into());
    let message = Targets::new(&config, &[]).unwrap_err().to_string();
    assert!(
        message.starts_with("service web: cannot read certificates from absent.pem"),
        "{message}"
    );
}
