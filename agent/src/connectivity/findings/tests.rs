//! Flags through the detector, as they are reported.

use crate::connectivity::bench::{Bench, changed};
use crate::connectivity::scenes::{fault, healthy, ip, ms, silent};

use haidang_proto::model::verdict::Verdict;

use crate::evidence::{Forwarding, Joint};

use super::*;

#[test]
fn security_flags_follow_their_evidence_and_outlast_its_absence() {
    let around = Unbound::Reached { source: ip("192.0.2.7"), dedicated: false };
    let leaking = changed(healthy(), |cycle| cycle.unbound = Some(around));
    let unasked = changed(healthy(), |cycle| cycle.unbound = None);
    let mut bench = Bench::connected();
    bench.sees(&leaking, 1);
    bench.sees(&unasked, 50);
    assert!(bench.has(Flag::Leak));
    bench.sees(&healthy(), 1);
    assert!(!bench.has(Flag::Leak));

    let seen_outside = changed(healthy(), |cycle| {
        let seen_source = Some(ip("192.0.2.7"));
        cycle.services[0].answer = ServiceAnswer::Right { took: ms(9), seen_source };
    });
    bench.sees(&seen_outside, 1);
    assert!(bench.has(Flag::Leak));

    let dual = changed(healthy(), |cycle| {
        let surroundings = cycle.link.surroundings.as_mut().expect("the scene has them");
        surroundings.other_routed_interfaces.push("wlan0".into());
    });
    bench.sees(&dual, 1);
    assert!(bench.has(Flag::DualHomed) && !bench.has(Flag::Bridging));
    let bridging = changed(dual, |cycle| {
        let forwarding = Forwarding { v4: true, v6: false };
        let joint = Joint::Forwarding { with: "wlan0".into(), forwarding };
        cycle.link.surroundings.as_mut().expect("the scene has them").joints.push(joint);
    });
    bench.sees(&bridging, 1);
    assert!(bench.has(Flag::Bridging));
    let unread = changed(healthy(), |cycle| cycle.link.surroundings = Err(fault()));
    bench.sees(&unread, 5);
    assert!(bench.has(Flag::Bridging), "what could not be read clears nothing");
    let half_read = changed(healthy(), |cycle| {
        cycle.link.surroundings.as_mut().expect("the scene has them").unread.push(fault());
    });
    bench.sees(&half_read, 5);
    assert!(bench.has(Flag::Bridging), "nor does what was read in part");
    bench.sees(&healthy(), 1);
    assert_eq!(bench.detector.flags(), Flags::NONE);

    let online = changed(healthy(), |cycle| cycle.canary = Some(Canary::Reached));
    bench.sees(&online, 1);
    assert!(bench.has(Flag::InternetReachable));
}

#[test]
fn a_declared_interface_is_told_and_no_finding_unless_it_joins() {
    let attached = changed(healthy(), |cycle| {
        let surroundings = cycle.link.surroundings.as_mut().expect("the scene has them");
        surroundings.other_routed_interfaces = vec!["wwan0".into(), "wlan0".into()];
    });
    let told = |bench: &Bench| -> Vec<String> {
        let facts = bench.detector.surroundings().iter();
        facts.map(|fact| format!("{} {}", fact.subject, fact.value)).collect()
    };
    let declaring = |interfaces: &[&str]| {
        let interfaces: Vec<String> = interfaces.iter().map(|&name| name.into()).collect();
        let Bench { detector, now_ms, events } = Bench::connected();
        Bench { detector: detector.declaring(&interfaces), now_ms, events }
    };
    let mut bench = declaring(&["wwan0"]);
    bench.sees(&attached, 1);
    assert!(bench.has(Flag::DualHomed), "one of them is not declared");
    assert_eq!(told(&bench), ["wwan0 declared", "wlan0 not declared"]);

    let mut bench = declaring(&["wwan0", "wlan0"]);
    bench.sees(&attached, 1);
    assert!(!bench.has(Flag::DualHomed));
    let joined = changed(attached, |cycle| {
        let surroundings = cycle.link.surroundings.as_mut().expect("the scene has them");
        surroundings.forwarding = Forwarding { v4: true, v6: false };
        let forwarding = surroundings.forwarding;
        surroundings.joints = vec![
            Joint::Bridge { bridge: "br0".into(), with: "wlan0".into() },
            Joint::Forwarding { with: "wwan0".into(), forwarding },
            Joint::Proxy { port: 3128 },
        ];
        surroundings.nat = crate::evidence::Nat::Loaded;
    });
    bench.sees(&joined, 1);
    assert!(bench.has(Flag::Bridging), "joining is never permitted");
    let expected = [
        "bridge bridge br0: wlan0",
        "forwarding forwarding IPv4: wwan0",
        "proxy proxy TCP 3128",
        "nat loaded, rules not readable",
        "wwan0 declared",
        "wlan0 declared",
    ];
    assert_eq!(told(&bench), expected);
    let half_read = changed(healthy(), |cycle| {
        cycle.link.surroundings.as_mut().expect("the scene has them").unread.push(fault());
    });
    bench.sees(&half_read, 3);
    assert_eq!(told(&bench), expected, "what was read in part takes nothing back");
    bench.sees(&healthy(), 1);
    assert!(told(&bench).is_empty());
}

#[test]
fn forwarding_with_nowhere_else_to_forward_to_joins_nothing() {
    let container_host = changed(healthy(), |cycle| {
        let forwarding = Forwarding { v4: true, v6: true };
        cycle.link.surroundings.as_mut().expect("the scene has them").forwarding = forwarding;
    });
    let mut bench = Bench::connected();
    bench.sees(&container_host, 1);
    assert!(!bench.has(Flag::Bridging));
}

#[test]
fn echo_that_is_shut_or_filtered_leaves_the_work_to_tcp() {
    let with_echo = |echo: Echo| {
        changed(healthy(), |cycle| {
            cycle.anchors.iter_mut().for_each(|anchor| anchor.echo = echo.clone());
        })
    };
    let mut bench = Bench::connected();
    bench.sees(&with_echo(Echo::Forbidden), 5);
    assert!(bench.has(Flag::IcmpUnavailable) && !bench.has(Flag::IcmpFiltered));
    assert_eq!(bench.detector.outlook().echo, EchoTrust::Useless);
    bench.is(Verdict::Connected);
    bench.sees(&with_echo(silent()), 1);
    assert_eq!(bench.detector.outlook().echo, EchoTrust::Useless);
    assert!(!bench.has(Flag::IcmpFiltered));
    bench.sees(&with_echo(silent()), 2);
    assert!(bench.has(Flag::IcmpFiltered) && !bench.has(Flag::IcmpUnavailable));
    bench.sees(&healthy(), 1);
    assert_eq!(bench.detector.outlook().echo, EchoTrust::Trusted);
}

#[test]
fn a_path_that_filters_echo_is_measured_by_tcp_and_not_degraded() {
    let filtered = changed(healthy(), |cycle| {
        cycle.anchors.iter_mut().for_each(|anchor| anchor.echo = silent());
    });
    let mut bench = Bench::connected();
    bench.sees(&filtered, 700);
    bench.is(Verdict::Connected);
    bench.detector.take_quality();
    bench.sees(&filtered, 30);
    let quality = bench.detector.take_quality();
    assert_eq!((quality.tcp_connects, quality.received), (30, 30));
}
