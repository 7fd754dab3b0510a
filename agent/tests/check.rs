//! `haidang-agent check` in network namespaces of the tests' own: IPv6 alone, both families, and
//! the way hop by hop. Needs root and iproute2, and says so.

#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}

/// A namespace that goes when the test ends.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("hdcheck-{name}-{}", std::process::id());
        run(&format!("ip netns add {name}"));
        let namespace = Self(name);
        namespace.ip("link set lo up");
        for switch in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            run(&format!("ip netns exec {} sysctl -qw {switch}=1", namespace.0));
        }
        run(&format!("ip netns exec {} sysctl -qw {NO_DAD}", namespace.0));
        namespace
    }

    fn ip(&self, command: &str) {
        run(&format!("ip -n {} {command}", self.0));
    }
}

/// Addresses are usable at once: nobody else is there who could have them.
const NO_DAD: &str = "net.ipv6.conf.default.accept_dad=0";

/// The families of a test.
const V4: [&str; 4] = ["198.18.10", ".1", "198.18.99", "198.18.0.10"];
const V6: [&str; 4] = ["2001:db8:10", "::1", "2001:db8:99", "2001:db8::10"];

/// eth0 here, a gateway, and a core router with the anchors behind it.
fn network(name: &str, families: &[[&str; 4]]) -> [Namespace; 2] {
    let gateway = Namespace::new(&format!("{name}-g"));
    let core = Namespace::new(&format!("{name}-c"));
    run(&format!("ip link add eth0 type veth peer name g0 netns {}", gateway.0));
    gateway.ip(&format!("link add c0 type veth peer name g0 netns {}", core.0));
    run("ip link set eth0 up");
    for (namespace, device) in [(&gateway, "g0"), (&gateway, "c0"), (&core, "g0")] {
        namespace.ip(&format!("link set {device} up"));
    }
    for [local, router, between, anchor] in families {
        let is_v6 = local.contains(':');
        let colon = if is_v6 { "::" } else { "." };
        let (length, whole, nodad) = if is_v6 { (64, 128, "nodad") } else { (24, 32, "") };
        let network = if is_v6 { "2001:db8::/32" } else { "198.18.0.0/15" };
        run(&format!("ip addr add {local}{colon}10/{length} dev eth0 {nodad}"));
        gateway.ip(&format!("addr add {local}{router}/{length} dev g0 {nodad}"));
        gateway.ip(&format!("addr add {between}{colon}1/{length} dev c0 {nodad}"));
        core.ip(&format!("addr add {between}{colon}2/{length} dev g0 {nodad}"));
        core.ip(&format!("addr add {anchor}/{whole} dev lo"));
        run(&format!("ip route add {network} via {local}{router}"));
        gateway.ip(&format!("route add {anchor}/{whole} via {between}{colon}2"));
        core.ip(&format!("route add {network} via {between}{colon}1"));
    }
    [gateway, core]
}

fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("network namespaces need root: run as root");
        run("ip link set lo up");
        run(&format!("sysctl -qw {NO_DAD}"));
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        test();
    });
    thread.join().unwrap();
}

/// What `check --path --json` says.
fn check(families: &[[&str; 4]]) -> Value {
    let place = tempfile::tempdir().unwrap();
    let list = |of: &dyn Fn(&[&str; 4]) -> String| {
        families.iter().map(|one| format!("\"{}\"", of(one))).collect::<Vec<_>>().join(", ")
    };
    let prefix = |[local, ..]: &[&str; 4]| match local.contains(':') {
        true => format!("{local}::/64"),
        false => format!("{local}.0/24"),
    };
    let mut config = format!(
        "state_dir = \"{}\"\n[dedicated]\ninterface = {{ name = \"eth0\" }}\n\
         local_prefixes = [{}]\nnetwork_prefixes = [\"198.18.0.0/15\", \"2001:db8::/32\"]\n\
         gateways = [{}]\n",
        place.path().display(),
        list(&prefix),
        list(&|[local, router, ..]| format!("{local}{router}")),
    );
    for [.., anchor] in families {
        let family = if anchor.contains(':') { 6 } else { 4 };
        config += &format!("[[anchor]]\nname = \"core-v{family}\"\naddress = \"{anchor}\"\n");
    }
    let file = place.path().join("agent.toml");
    std::fs::write(&file, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_haidang-agent"))
        .args(["check", "--path", "--json", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The values of the facts of a kind.
fn facts(page: &Value, kind: &str) -> Vec<String> {
    let all = page["evidence"].as_array().unwrap().iter();
    all.filter(|fact| fact["kind"] == kind)
        .map(|fact| fact["value"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_agency_with_ipv6_alone_is_connected_and_its_way_is_shown() {
    in_namespace(|| {
        let [gateway, core] = network("six", &[V6]);
        let page = check(&[V6]);
        assert_eq!(page["verdict"]["state"], "connected", "{page:#}");
        assert_eq!(facts(&page, "route"), ["dedicated via 2001:db8:10::1"]);
        assert_eq!(facts(&page, "neighbour"), ["known"]);
        assert_eq!(facts(&page, "address"), ["present"]);
        assert_eq!(facts(&page, "path_mtu"), ["1500 bytes pass"]);
        assert!(facts(&page, "gateway_echo")[0].starts_with("answered"), "{page:#}");
        let way = &page["ways"][0];
        assert_eq!(way["end"], "reached", "{page:#}");
        assert_eq!(way["hops"][0]["by"], "2001:db8:10::1");

        gateway.ip("-6 route replace blackhole 2001:db8::10/128");
        let page = check(&[V6]);
        assert_eq!(page["verdict"]["cause"], "core_unreachable", "{page:#}");
        assert_eq!(page["ways"][0]["end"], "silent");
        gateway.ip("-6 route del blackhole 2001:db8::10/128");
        gateway.ip("-6 route replace 2001:db8::10/128 via 2001:db8:99::2");

        // Large packets vanish behind the core's door: a hole, not a router's word.
        run(&format!("ip netns exec {} ip link set g0 mtu 1280", core.0));
        let page = check(&[V6]);
        assert_ne!(facts(&page, "path_mtu"), ["1500 bytes pass"], "{page:#}");

        run("ip -6 addr flush dev eth0 scope global");
        let page = check(&[V6]);
        assert_eq!(page["verdict"]["cause"], "no_address", "{page:#}");
    });
}

#[test]
fn an_agency_with_both_families_is_judged_by_each_apart() {
    in_namespace(|| {
        let [gateway, _core] = network("two", &[V4, V6]);
        let page = check(&[V4, V6]);
        assert_eq!(page["verdict"]["state"], "connected", "{page:#}");
        assert_eq!(page["flags"], serde_json::json!([]), "{page:#}");
        let ends = |page: &Value| [0, 1].map(|at| page["ways"][at]["end"].clone());
        assert_eq!(ends(&page), ["reached", "reached"]);

        // One family fails alone: the path works, and the anchor of that family is named.
        gateway.ip("-6 route replace blackhole 2001:db8::10/128");
        let page = check(&[V4, V6]);
        assert_eq!(page["verdict"]["state"], "connected", "{page:#}");
        assert_eq!(page["flags"], serde_json::json!(["anchor_down"]), "{page:#}");
        assert_eq!(ends(&page), ["reached", "silent"]);

        run("ip -4 addr flush dev eth0");
        gateway.ip("-6 route del blackhole 2001:db8::10/128");
        gateway.ip("-6 route replace 2001:db8::10/128 via 2001:db8:99::2");
        let page = check(&[V4, V6]);
        assert_eq!(page["verdict"]["state"], "connected", "{page:#}");
        assert!(facts(&page, "anchor_echo")[0].contains("no IPv4 address"), "{page:#}");
    });
}
