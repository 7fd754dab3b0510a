//! What joins the dedicated network to another one on this machine. Pure: typed facts of the
//! kernel in, joints out.
//!
//! | mechanism | joins when | and not when |
//! |---|---|---|
//! | forwarding | packets from either side are forwarded, and the other side is a network of its own: hardware with a foreign address, or anything that leads beyond its own subnets | the other side is a container's bridge that leads nowhere else |
//! | bridge | the dedicated interface shares a bridge; or is one over two pieces of hardware, over a tunnel, or over any port behind which a gateway to elsewhere sits while the dedicated network sits behind another | a virtual machine's or container's port is the only other one of a dedicated bridge |
//! | proxy | a port that proxies use listens on the dedicated side, and another interface leads beyond | it listens on loopback only, or there is nowhere else to go |
//! | tunnel | a tunnel is up, carries an address or a route, and its far end is outside the dedicated network or not known | it is down, carries nothing, or both its ends are the dedicated network's |
//!
//! Address translation joins nothing without forwarding, and its rules cannot be read without
//! CAP_NET_ADMIN (`net/netfilter/nfnetlink.c`): it is told as a fact beside ([`Nat`]).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::evidence::{Forwarding, Joint};

use super::{
    BridgeNeighbour, Device, DeviceAddress, DeviceKind, OTHER_INTERFACES_MAX, TableRoute, inside,
    is_link_local,
};

/// Default ports of SOCKS (IANA `socks`), Squid, Privoxy (IANA `privoxy`) and Tor. 8080 and 8888
/// are left out: every other office application listens there.
const PROXY_PORTS: [u16; 4] = [1080, 3128, 8118, 9050];
/// Joints that the evidence names; one is bad enough.
const JOINTS_MAX: usize = 16;

/// What the kernel says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) dedicated: &'a Device,
    pub(super) devices: &'a [Device],
    pub(super) addresses: &'a [DeviceAddress],
    pub(super) routes: &'a [TableRoute],
    pub(super) network_prefixes: &'a [IpNet],
    /// Who is known behind which port, where the dedicated interface is a bridge.
    pub(super) behind: &'a [BridgeNeighbour],
    /// Of each device that forwards, by index.
    pub(super) forwarding: &'a [(u32, Forwarding)],
    /// TCP sockets that listen.
    pub(super) listeners: &'a [Listener],
}

/// A TCP socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    /// Unspecified: on every address.
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// The device it is bound to.
    pub(super) device: Option<u32>,
}

/// Everything that joins the dedicated network to another, the nearest to the wire first.
pub(super) fn joints(facts: &Facts<'_>) -> Vec<Joint> {
    let mut joints = bridges(facts);
    joints.extend(forwarding(facts));
    joints.extend(tunnels(facts));
    joints.extend(proxies(facts));
    joints.truncate(JOINTS_MAX);
    joints
}

/// Other interfaces that lead somewhere: up, with a foreign address, and with a route beyond the
/// subnets of their own addresses. A port of a bridge carries no route of its own; a container's
/// veth has no address, or no route but to its own subnet. An interface all of whose addresses
/// are the dedicated network's is a second leg of the same network.
pub(super) fn other_routed<'a>(
    dedicated: Option<&Device>,
    devices: &'a [Device],
    addresses: &[DeviceAddress],
    routes: &[TableRoute],
    network_prefixes: &[IpNet],
) -> Vec<&'a Device> {
    let others = devices.iter().filter(|device| {
        let is_dedicated = dedicated.is_some_and(|dedicated| dedicated.index == device.index);
        !is_dedicated
            && stands_alone(device)
            && is_foreign(&own(addresses, device), network_prefixes)
            && leads_beyond(device, addresses, routes)
    });
    others.take(OTHER_INTERFACES_MAX).collect()
}

fn bridges(facts: &Facts<'_>) -> Vec<Joint> {
    let Facts { dedicated, devices, .. } = *facts;
    let ports = |bridge: u32| devices.iter().filter(move |port| port.controller == Some(bridge));
    let bridge = dedicated.controller.and_then(|controller| {
        devices.iter().find(|one| one.index == controller && one.kind == DeviceKind::Bridge)
    });
    if let Some(bridge) = bridge {
        let others = ports(bridge.index).filter(|port| port.index != dedicated.index);
        return others.map(|port| joined(bridge, port)).collect();
    }
    if dedicated.kind != DeviceKind::Bridge {
        return Vec::new();
    }
    // The first piece of hardware is the dedicated network's own.
    let hardware = ports(dedicated.index).filter(|port| is_hardware(port.kind)).skip(1);
    let tunnels = ports(dedicated.index)
        .filter(|port| matches!(port.kind, DeviceKind::Tunnel { .. }))
        .filter(|port| !ends_inside(port, facts.network_prefixes));
    let mut joining: Vec<&Device> = hardware.chain(tunnels).collect();
    let exits = exits(facts);
    for port in ports(dedicated.index).filter(|port| exits.contains(&port.index)) {
        if joining.iter().all(|known| known.index != port.index) {
            joining.push(port);
        }
    }
    joining.into_iter().map(|port| joined(dedicated, port)).collect()
}

/// Ports of the dedicated bridge behind which a gateway to elsewhere sits, and no neighbour of
/// the dedicated network. What kind of port it is does not matter: inside a virtual machine or a
/// container, every wire ends in a virtual port. Nothing is concluded while no neighbour of the
/// dedicated network is known: one wire may carry both.
fn exits(facts: &Facts<'_>) -> Vec<u32> {
    let Facts { dedicated, routes, network_prefixes, behind, .. } = *facts;
    let (near, foreign): (Vec<BridgeNeighbour>, Vec<BridgeNeighbour>) =
        behind.iter().copied().partition(|one| inside(network_prefixes, one.address));
    if near.is_empty() {
        return Vec::new();
    }
    let is_gateway = |address: IpAddr| {
        routes.iter().any(|route| route.index == dedicated.index && route.via == Some(address))
    };
    let exits = foreign.iter().filter(|one| is_gateway(one.address)).map(|one| one.port);
    exits.filter(|port| near.iter().all(|one| one.port != *port)).collect()
}

fn joined(bridge: &Device, port: &Device) -> Joint {
    Joint::Bridge { bridge: bridge.name.clone(), with: port.name.clone() }
}

fn forwarding(facts: &Facts<'_>) -> Vec<Joint> {
    let forwards = |device: &Device| {
        let found = facts.forwarding.iter().find(|(index, _)| *index == device.index);
        found.map_or(Forwarding::default(), |(_, forwarding)| *forwarding)
    };
    let here = forwards(facts.dedicated);
    let mut found = Vec::new();
    for device in facts.devices {
        if device.index == facts.dedicated.index || !is_other_side(device, facts) {
            continue;
        }
        let there = forwards(device);
        // A packet is forwarded where it comes in, so either side is enough.
        let v4 = (here.v4 || there.v4) && reach_each_other(device, facts, IpAddr::is_ipv4);
        let v6 = (here.v6 || there.v6) && reach_each_other(device, facts, IpAddr::is_ipv6);
        if v4 || v6 {
            let forwarding = Forwarding { v4, v6 };
            found.push(Joint::Forwarding { with: device.name.clone(), forwarding });
        }
    }
    found
}

/// Whether a device is a network of its own, and not a container's.
fn is_other_side(device: &Device, facts: &Facts<'_>) -> bool {
    let has_hardware = is_hardware(device.kind)
        || facts
            .devices
            .iter()
            .any(|port| port.controller == Some(device.index) && is_hardware(port.kind));
    stands_alone(device)
        && is_foreign(&own(facts.addresses, device), facts.network_prefixes)
        && (has_hardware || leads_beyond(device, facts.addresses, facts.routes))
}

/// Whether both sides have an address of a family.
fn reach_each_other(device: &Device, facts: &Facts<'_>, is_of_family: fn(&IpAddr) -> bool) -> bool {
    let has = |device| own(facts.addresses, device).iter().any(|net| is_of_family(&net.addr()));
    has(facts.dedicated) && has(device)
}

fn tunnels(facts: &Facts<'_>) -> Vec<Joint> {
    let carries = |device: &Device| {
        let own = own(facts.addresses, device);
        let has_route = facts
            .routes
            .iter()
            .any(|route| route.index == device.index && !is_link_local(route.destination.addr()));
        // Without an address, what it carries is known by the routes alone.
        if own.is_empty() { has_route } else { is_foreign(&own, facts.network_prefixes) }
    };
    let tunnels = facts.devices.iter().filter(|device| {
        matches!(device.kind, DeviceKind::Tunnel { .. } | DeviceKind::Tun)
            && device.index != facts.dedicated.index
            && stands_alone(device)
            && carries(device)
            && !ends_inside(device, facts.network_prefixes)
    });
    tunnels.map(|device| Joint::Tunnel { interface: device.name.clone() }).collect()
}

fn proxies(facts: &Facts<'_>) -> Vec<Joint> {
    let Facts { dedicated, devices, addresses, routes, network_prefixes, .. } = *facts;
    let others = other_routed(Some(dedicated), devices, addresses, routes, network_prefixes);
    if others.is_empty() {
        return Vec::new();
    }
    let own = own(addresses, dedicated);
    let is_here = |listener: &&Listener| {
        listener.device.is_none_or(|device| device == dedicated.index)
            && (listener.address.is_unspecified()
                || own.iter().any(|net| net.addr() == listener.address))
    };
    let mut ports: Vec<u16> = facts.listeners.iter().filter(is_here).map(|one| one.port).collect();
    ports.retain(|port| PROXY_PORTS.contains(port));
    ports.sort_unstable();
    ports.dedup();
    ports.into_iter().map(|port| Joint::Proxy { port }).collect()
}

/// Up, and no port of a bridge or bond.
fn stands_alone(device: &Device) -> bool {
    !device.loopback && device.admin_up && device.controller.is_none()
}

const fn is_hardware(kind: DeviceKind) -> bool {
    match kind {
        DeviceKind::Hardware | DeviceKind::Stacked => true,
        DeviceKind::Bridge | DeviceKind::Tun | DeviceKind::Tunnel { .. } | DeviceKind::Virtual => {
            false
        }
    }
}

fn ends_inside(device: &Device, network_prefixes: &[IpNet]) -> bool {
    match device.kind {
        DeviceKind::Tunnel { far_end: Some(far_end) } => inside(network_prefixes, far_end),
        _ => false,
    }
}

/// The addresses of a device that reach beyond its link.
fn own(addresses: &[DeviceAddress], device: &Device) -> Vec<IpNet> {
    let own = addresses.iter().filter(|address| address.index == device.index);
    own.map(|address| address.net).filter(|net| !is_link_local(net.addr())).collect()
}

fn is_foreign(own: &[IpNet], network_prefixes: &[IpNet]) -> bool {
    own.iter().any(|net| !inside(network_prefixes, net.addr()))
}

fn leads_beyond(device: &Device, addresses: &[DeviceAddress], routes: &[TableRoute]) -> bool {
    let own = own(addresses, device);
    routes.iter().any(|route| {
        route.index == device.index
            && !is_link_local(route.destination.addr())
            && !own.iter().any(|net| net.contains(&route.destination))
    })
}

#[cfg(test)]
mod tests;
