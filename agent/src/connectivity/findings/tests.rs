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
