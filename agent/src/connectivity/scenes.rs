//! Scenes for tests: a healthy cycle, and the cuts of the laboratory as changes to it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use haidang_proto::model::record::Moment;

use crate::config;
use crate::evidence::{
    Address, Anchor, Cycle, Dns, Echo, Exchange, Fate, Gateway, Interface, Link, LocalFault,
    Neighbour, Packet, PathMtu, Resolver, Route, RouteLookup, Service, ServiceAnswer, Surroundings,
    Tcp, Unbound,
};

use super::Now;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal of the tests")
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn fault() -> LocalFault {
    LocalFault("EPERM".into())
}

/// A moment so many milliseconds after the boot of a machine that never slept.
pub(crate) fn at(ms_since_boot: u64) -> Now {
    let boottime = ms(ms_since_boot);
    Now {
        moment: Moment {
            boot_id: uuid::Uuid::from_u128(7),
            boottime,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000) + boottime,
        },
        monotonic: boottime,
    }
}

pub(crate) fn dedicated() -> config::Dedicated {
    config::Dedicated {
        interface: config::InterfaceSelector::Name("ded0".into()),
        local_prefixes: vec!["198.18.10.0/24".parse().expect("a prefix")],
        network_prefixes: vec!["198.18.0.0/15".parse().expect("a prefix")],
        gateways: vec![ip("198.18.10.1")],
    }
}

/// An exchange of packets with these fates, a tenth of a second apart.
pub(crate) fn exchange(fates: &[Fate]) -> Exchange {
    let packets = (0u64..).zip(fates).map(|(at, fate)| Packet { sent: ms(100 * at), fate: *fate });
    Exchange { packets: packets.collect(), ..Exchange::default() }
}

pub(crate) fn answered(rtt: Duration) -> Echo {
    Echo::Answered(exchange(&[Fate::Answered(rtt); 2]))
}

/// One answer, and one packet that was lost.
pub(crate) fn half_answered(rtt: Duration) -> Echo {
    Echo::Answered(exchange(&[Fate::Answered(rtt), Fate::Lost]))
}

pub(crate) fn silent() -> Echo {
    Echo::Silent(exchange(&[Fate::Lost; 2]))
}

pub(crate) fn rejected(by: &str) -> Echo {
    let exchange = exchange(&[Fate::Rejected, Fate::Lost]);
    Echo::Rejected { exchange, by: ip(by), kind: 3, code: 0 }
}

/// Everything as it should be, with two anchors and a climb.
pub(crate) fn healthy() -> Cycle {
    let anchor = |name: &str, address| Anchor {
        name: name.into(),
        address: ip(address),
        echo: answered(ms(5)),
        tcp: Tcp::Proved { connect: ms(6) },
    };
    let route = |target| Route {
        target: ip(target),
        lookup: RouteLookup::Dedicated { via: Some(ip("198.18.10.1")) },
    };
    Cycle {
        link: Link {
            interface: Interface::Up { name: "ded0".into(), index: 2 },
            address: Address::Present(ip("198.18.10.20")),
            routes: vec![route("198.18.0.10"), route("198.19.0.10")],
            surroundings: Ok(Surroundings::default()),
        },
        gateways: vec![Gateway {
            address: ip("198.18.10.1"),
            neighbour: Neighbour::Known,
            echo: answered(ms(1)),
        }],
        anchors: vec![anchor("core-a", "198.18.0.10"), anchor("core-b", "198.19.0.10")],
        resolvers: vec![Resolver { address: ip("198.18.0.53"), answer: Dns::Right { rtt: ms(6) } }],
        services: vec![Service {
            name: "portal".into(),
            is_tls: true,
            answer: ServiceAnswer::Right { took: ms(20), seen_source: Some(ip("198.18.10.20")) },
        }],
        unbound: Some(Unbound::Reached { source: ip("198.18.10.20"), dedicated: true }),
        canary: None,
        path_mtu: Some(PathMtu::Full { bytes: 1500 }),
        prober_lag_max: ms(1),
    }
}

/// A cycle in which nothing came back from beyond this machine.
pub(crate) fn dark() -> Cycle {
    let mut cycle = healthy();
    for anchor in &mut cycle.anchors {
        anchor.echo = silent();
        anchor.tcp = Tcp::Silent;
    }
    cycle.gateways[0].echo = silent();
    cycle.resolvers.clear();
    cycle.services.clear();
    cycle.unbound = Some(Unbound::Unreached);
    cycle.path_mtu = None;
    cycle
}

/// The core is a black hole, the gateway answers.
pub(crate) fn core_dark() -> Cycle {
    let mut cycle = dark();
    cycle.gateways[0].echo = answered(ms(1));
    cycle
}

/// The cable is out.
pub(crate) fn no_carrier() -> Cycle {
    let mut cycle = dark();
    cycle.link.interface = Interface::NoCarrier { name: "ded0".into() };
    cycle.gateways[0].neighbour = Neighbour::Unresolved;
    cycle
}

/// The address is gone, and another interface leads to the Internet.
pub(crate) fn no_address() -> Cycle {
    let mut cycle = no_route();
    cycle.link.address = Address::Absent { others: vec![ip("169.254.7.7")] };
    cycle
}

/// The route is gone, and another interface leads to the Internet.
pub(crate) fn no_route() -> Cycle {
    let mut cycle = core_dark();
    for route in &mut cycle.link.routes {
        route.lookup = RouteLookup::Elsewhere { interface: "wan0".into() };
    }
    cycle.unbound = Some(Unbound::Reached { source: ip("192.0.2.7"), dedicated: false });
    cycle
}

/// Nothing could be probed for reasons of this machine.
pub(crate) fn local_faults() -> Cycle {
    let mut cycle = dark();
    for anchor in &mut cycle.anchors {
        anchor.echo = Echo::Unsendable(fault());
        anchor.tcp = Tcp::Unsendable(fault());
    }
    cycle.gateways[0].echo = Echo::Unsendable(fault());
    cycle.unbound = Some(Unbound::Failed(fault()));
    cycle
}
