//! Netlink messages to facts. Pure: what a message does not say is left out, never guessed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::evidence::{LocalFault, Neighbour, RouteLookup};
use crate::link::{Device, DeviceAddress, DeviceKind, TableRoute};

pub(super) fn device(message: &LinkMessage) -> Option<Device> {
    let flags = message.header.flags;
    let mut device = Device {
        index: message.header.index,
        name: String::new(),
        mac: Vec::new(),
        mtu: None,
        admin_up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        kind: DeviceKind::Hardware,
        controller: None,
    };
    let (mut broadcast, mut kind) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(address) => device.mac.clone_from(address),
            LinkAttribute::Broadcast(address) => broadcast = Some(address.as_slice()),
            LinkAttribute::Mtu(mtu) => device.mtu = Some(*mtu),
            LinkAttribute::Controller(index) => device.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    device.kind = kind.map_or(DeviceKind::Hardware, |kind| device_kind(kind, broadcast));
    (!device.name.is_empty()).then_some(device)
}

/// A point-to-point IP tunnel has its far end for a broadcast address
/// (`net/ipv4/ip_tunnel.c`, `ip_tunnel_bind_dev`).
fn device_kind(kind: &InfoKind, broadcast: Option<&[u8]>) -> DeviceKind {
    let far_end = || match broadcast? {
        octets if octets.iter().all(|octet| *octet == 0) => None,
        octets => match octets.len() {
            4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
            _ => None,
        },
    };
    match kind {
        InfoKind::Bridge => DeviceKind::Bridge,
        InfoKind::Tun => DeviceKind::Tun,
        InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::Vti
        | InfoKind::Vti6 => DeviceKind::Tunnel { far_end: far_end() },
        InfoKind::Wireguard
        | InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan
        | InfoKind::Xfrm
        | InfoKind::Gtp
        | InfoKind::Amt
        | InfoKind::BareUdp => DeviceKind::Tunnel { far_end: None },
        // L2TP, PPP and OpenVPN's own driver.
        InfoKind::Other(name) if matches!(name.as_str(), "l2tp" | "ppp" | "ovpn") => {
            DeviceKind::Tunnel { far_end: None }
        }
        InfoKind::Vlan
        | InfoKind::Bond
        | InfoKind::Team
        | InfoKind::MacVlan
        | InfoKind::MacVtap
        | InfoKind::IpVlan
        | InfoKind::IpVtap
        | InfoKind::MacSec
        | InfoKind::Hsr
        | InfoKind::Wwan
        | InfoKind::Ipoib
        | InfoKind::Dsa
        | InfoKind::VirtWifi => DeviceKind::Stacked,
        _ => DeviceKind::Virtual,
    }
}

pub(super) fn device_address(message: &AddressMessage) -> Option<DeviceAddress> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut peer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link Local is ours and Address the other end's.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            AddressAttribute::Flags(all) => flags |= *all,
            _ => {}
        }
    }
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    let optimistic = flags.contains(AddressFlags::Optimistic);
    if flags.intersects(unusable) && !optimistic {
        return None;
    }
    Some(DeviceAddress {
        index: message.header.index,
        net: IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?,
        deprecated: flags.contains(AddressFlags::Deprecated),
    })
}

/// A route's next hops on their devices; only unicast routes of the main table count.
pub(super) fn table_routes(message: &RouteMessage) -> Vec<TableRoute> {
    if message.header.kind != RouteType::Unicast
        || message.header.table != RouteHeader::RT_TABLE_MAIN
    {
        return Vec::new();
    }
    let mut indices = Vec::new();
    let (mut destination, mut via) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => indices.push(*index),
            RouteAttribute::MultiPath(hops) => {
                indices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some((*address).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => via = Some((*address).into()),
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                destination = Some(IpAddr::from(*address));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                destination = Some(IpAddr::from(*address));
            }
            _ => {}
        }
    }
    let anywhere: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Vec::new(),
    };
    let length = message.header.destination_prefix_length;
    let Ok(destination) = IpNet::new(destination.unwrap_or(anywhere), length) else {
        return Vec::new();
    };
    indices.into_iter().map(|index| TableRoute { index, destination, via }).collect()
}

pub(super) fn judge_route(
    route: &RouteMessage,
    devices: &[Device],
    dedicated: Option<&Device>,
) -> RouteLookup {
    if !matches!(route.header.kind, RouteType::Unicast | RouteType::Local | RouteType::Broadcast) {
        return RouteLookup::None;
    }
    let (mut out, mut via) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => out = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some((*address).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => via = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet(address)) => via = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => via = Some((*address).into()),
            _ => {}
        }
    }
    match (out, dedicated) {
        (Some(out), Some(dedicated)) if out == dedicated.index => RouteLookup::Dedicated { via },
        (Some(out), _) => {
            let name = devices.iter().find(|device| device.index == out);
            RouteLookup::Elsewhere {
                interface: name
                    .map_or_else(|| format!("index {out}"), |device| device.name.clone()),
            }
        }
        (None, _) => {
            RouteLookup::Unreadable(LocalFault("the kernel's route names no interface".into()))
        }
    }
}

/// A hardware address and the port behind which a bridge has learnt it; the bridge's own are
/// permanent and left out.
pub(super) fn learnt(message: &NeighbourMessage, bridge: u32) -> Option<(Vec<u8>, u32)> {
    let (mut mac, mut controller) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(address) => mac = Some(address.clone()),
            NeighbourAttribute::Controller(index) => controller = Some(*index),
            _ => {}
        }
    }
    let is_own = message.header.state == NeighbourState::Permanent;
    mac.filter(|_| controller == Some(bridge) && !is_own).zip(Some(message.header.ifindex))
}

/// A neighbour on a device, with its hardware address where it is known.
pub(super) fn resolved(message: &NeighbourMessage, device: u32) -> Option<(IpAddr, Vec<u8>)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(inet)) => {
                address = Some(IpAddr::from(*inet));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(inet)) => {
                address = Some(IpAddr::from(*inet));
            }
            NeighbourAttribute::LinkLayerAddress(link) => mac = Some(link.clone()),
            _ => {}
        }
    }
    address.zip(mac).filter(|_| message.header.ifindex == device)
}

pub(super) fn neighbour_state(state: NeighbourState) -> Neighbour {
    match state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Noarp
        | NeighbourState::Permanent => Neighbour::Known,
        NeighbourState::Incomplete | NeighbourState::Failed => Neighbour::Unresolved,
        NeighbourState::None => Neighbour::Absent,
        other => Neighbour::Unreadable(LocalFault(format!("unknown neighbour state {other:?}"))),
    }
}

/// Reads bytes as a message of the kernel, and says whether they tell of a device, an address or a
/// route; for [`crate::parsers`] and the tests below, since dumps arrive taken apart.
pub(crate) fn parse(bytes: &[u8]) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
        return false;
    };
    let NetlinkPayload::InnerMessage(message) = message.payload else { return false };
    match message {
        RouteNetlinkMessage::NewLink(message) => device(&message).is_some(),
        RouteNetlinkMessage::NewAddress(message) => device_address(&message).is_some(),
        RouteNetlinkMessage::NewNeighbour(message) => {
            neighbour_state(message.header.state) == Neighbour::Known
        }
        RouteNetlinkMessage::NewRoute(message) => {
            judge_route(&message, &[], None);
            !table_routes(&message).is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(index: u32, name: &str) -> Device {
        Device {
            index,
            name: name.into(),
            mac: Vec::new(),
            mtu: None,
            admin_up: true,
            carrier: true,
            loopback: false,
            kind: DeviceKind::Hardware,
            controller: None,
        }
    }

    fn route(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.address_family = AddressFamily::Inet;
        message.attributes = attributes;
        message
    }

    #[track_caller]
    fn check(kind: RouteType, attributes: Vec<RouteAttribute>, expected: &RouteLookup) {
        let devices = [device(2, "eth0"), device(3, "eth1")];
        assert_eq!(judge_route(&route(kind, attributes), &devices, Some(&devices[0])), *expected);
    }

    #[test]
    fn a_route_is_dedicated_only_through_the_dedicated_interface() {
        let gateway = Ipv4Addr::new(198, 18, 10, 1);
        let via = RouteAttribute::Gateway(RouteAddress::Inet(gateway));
        let elsewhere = |name: &str| RouteLookup::Elsewhere { interface: name.into() };
        let unicast = RouteType::Unicast;
        let dedicated = RouteLookup::Dedicated { via: Some(gateway.into()) };
        check(unicast, vec![RouteAttribute::Oif(2), via], &dedicated);
        check(unicast, vec![RouteAttribute::Oif(2)], &RouteLookup::Dedicated { via: None });
        check(
            RouteType::Local,
            vec![RouteAttribute::Oif(2)],
            &RouteLookup::Dedicated { via: None },
        );
        check(unicast, vec![RouteAttribute::Oif(3)], &elsewhere("eth1"));
        check(unicast, vec![RouteAttribute::Oif(9)], &elsewhere("index 9"));
        check(RouteType::Unreachable, vec![RouteAttribute::Oif(2)], &RouteLookup::None);
        check(RouteType::Prohibit, vec![RouteAttribute::Oif(2)], &RouteLookup::None);
        check(RouteType::BlackHole, Vec::new(), &RouteLookup::None);
        let nowhere = judge_route(&route(unicast, Vec::new()), &[], None);
        assert!(matches!(nowhere, RouteLookup::Unreadable(_)));
    }

    #[test]
    fn tunnels_are_known_by_kind_and_their_far_end_where_it_is_told() {
        let tunnel =
            |far_end: Option<[u8; 4]>| DeviceKind::Tunnel { far_end: far_end.map(Into::into) };
        let far = [203, 0, 113, 9];
        let table = [
            (InfoKind::GreTun, Some(&far[..]), tunnel(Some(far))),
            (InfoKind::IpIp, Some(&far[..]), tunnel(Some(far))),
            (InfoKind::SitTun, Some(&[0; 4][..]), tunnel(None)),
            (InfoKind::Ip6Tnl, Some(&[0; 3][..]), tunnel(None)),
            (InfoKind::Wireguard, None, tunnel(None)),
            (InfoKind::Vxlan, Some(&[255; 6][..]), tunnel(None)),
            (InfoKind::Other("ppp".into()), None, tunnel(None)),
            (InfoKind::Tun, None, DeviceKind::Tun),
            (InfoKind::Bridge, None, DeviceKind::Bridge),
            (InfoKind::Vlan, None, DeviceKind::Stacked),
            (InfoKind::Veth, None, DeviceKind::Virtual),
            (InfoKind::Other("next".into()), None, DeviceKind::Virtual),
        ];
        for (kind, broadcast, expected) in table {
            assert_eq!(device_kind(&kind, broadcast), expected, "{kind}");
        }
        let v6 = device_kind(&InfoKind::GreTun6, Some(&Ipv6Addr::LOCALHOST.octets()));
        assert_eq!(v6, DeviceKind::Tunnel { far_end: Some(Ipv6Addr::LOCALHOST.into()) });
    }

    #[test]
    fn only_unicast_routes_of_the_main_table_count() {
        let default = route(RouteType::Unicast, vec![RouteAttribute::Oif(3)]);
        let anywhere = "0.0.0.0/0".parse().unwrap();
        assert_eq!(
            table_routes(&default),
            [TableRoute { index: 3, destination: anywhere, via: None }]
        );
        let mut local = default.clone();
        local.header.table = 255;
        assert_eq!(table_routes(&local), []);
        assert_eq!(table_routes(&route(RouteType::Unreachable, default.attributes)), []);
    }

    #[test]
    fn a_neighbour_is_known_only_by_its_link_layer_address() {
        for (state, expected) in [
            (NeighbourState::Reachable, Neighbour::Known),
            (NeighbourState::Stale, Neighbour::Known),
            (NeighbourState::Permanent, Neighbour::Known),
            (NeighbourState::Incomplete, Neighbour::Unresolved),
            (NeighbourState::Failed, Neighbour::Unresolved),
            (NeighbourState::None, Neighbour::Absent),
        ] {
            assert_eq!(neighbour_state(state), expected);
        }
        assert!(matches!(neighbour_state(NeighbourState::Other(3)), Neighbour::Unreadable(_)));
    }

    #[test]
    fn a_tentative_address_is_not_usable_and_a_peer_is_not_ours() {
        let mut message = AddressMessage::default();
        message.header.index = 2;
        message.header.prefix_len = 32;
        let ours: IpAddr = [198, 18, 255, 2].into();
        message.attributes = vec![
            AddressAttribute::Address([198, 18, 255, 1].into()),
            AddressAttribute::Local(ours),
        ];
        assert_eq!(device_address(&message).map(|address| address.net.addr()), Some(ours));
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Tentative));
        assert_eq!(device_address(&message), None);
    }

    /// What the kernel could send, as bytes: a link with a kind, an address, a route.
    fn messages() -> Vec<Vec<u8>> {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName("wg0".into()),
            LinkAttribute::Mtu(1_420),
            LinkAttribute::Broadcast(vec![203, 0, 113, 9]),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::IpIp)]),
        ];
        let mut address = AddressMessage::default();
        address.header.prefix_len = 24;
        address.attributes = vec![AddressAttribute::Local([198, 18, 10, 10].into())];
        let route = route(RouteType::Unicast, vec![RouteAttribute::Oif(3)]);
        let all = [
            RouteNetlinkMessage::NewLink(link),
            RouteNetlinkMessage::NewAddress(address),
            RouteNetlinkMessage::NewRoute(route),
        ];
        let bytes = all.map(|message| {
            let mut message = NetlinkMessage::from(message);
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        });
        bytes.into()
    }

    #[test]
    fn whole_messages_are_read_and_truncated_ones_are_not() {
        for bytes in messages() {
            assert!(parse(&bytes));
            for length in 0..bytes.len() {
                assert!(!parse(&bytes[..length]), "{length} of {} bytes", bytes.len());
            }
        }
    }

    proptest! {
        #[test]
        fn any_damage_to_a_message_is_survived(
            which in 0usize..3, at in 0usize..120, value in any::<u8>(), cut in 0usize..120,
        ) {
            let mut bytes = messages().swap_remove(which);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            parse(&bytes);
            bytes.truncate(cut);
            parse(&bytes);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
        }

        #[test]
        fn any_prefix_length_is_survived(length in any::<u8>()) {
            let mut message = route(RouteType::Unicast, vec![RouteAttribute::Oif(3)]);
            message.header.destination_prefix_length = length;
            prop_assert_eq!(table_routes(&message).is_empty(), length > 32);
        }
    }
}
