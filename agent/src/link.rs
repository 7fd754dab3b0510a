//! L0: what the kernel says of the dedicated interface, the way to the anchors and what else this
//! machine is attached to.
//!
//! The platform dumps device, address and route facts afresh for each cycle
//! (`link/linux.rs`; Windows gets a file of its own beside it); what they mean is decided here,
//! without any system call. Kernel events only wake ([`Changes`]): the deletion of an IPv4 route
//! when its link goes down is never announced, and a full socket loses events.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::InterfaceSelector;
use crate::evidence::{Address, Interface, Link};

mod joints;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::parse;
#[cfg(target_os = "linux")]
pub use linux::{Changes, ChangesError, Kernel};

/// Addresses outside the prefixes that the evidence names.
const OTHERS_MAX: usize = 8;
/// Other interfaces that the evidence names; more would not change any verdict.
const OTHER_INTERFACES_MAX: usize = 16;

/// What one dump says.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The evidence.
    pub link: Link,
    /// The addresses that probes bind to, one a family at most.
    pub sources: Sources,
    /// Kernel index of the dedicated interface, in whatever state it is.
    pub index: Option<u32>,
    /// MTU of the dedicated interface.
    pub mtu: Option<u32>,
    /// Whether the dedicated interface is loopback, as in the demonstration on one machine.
    pub is_loopback: bool,
}

/// The addresses of the dedicated interface inside the agency's prefixes that probes bind to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sources {
    /// For IPv4 targets.
    pub v4: Option<IpAddr>,
    /// For IPv6 targets.
    pub v6: Option<IpAddr>,
}

impl Sources {
    /// The one for a target.
    pub fn toward(&self, target: IpAddr) -> Option<IpAddr> {
        if target.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// A network device, as dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    index: u32,
    name: String,
    mac: Vec<u8>,
    mtu: Option<u32>,
    admin_up: bool,
    carrier: bool,
    loopback: bool,
    kind: DeviceKind,
    /// The bridge or bond it belongs to.
    controller: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceKind {
    /// No kind is named: hardware.
    Hardware,
    Bridge,
    /// Over hardware, and the same network: VLAN, bond, team, macvlan and their like.
    Stacked,
    /// tun or tap: a VPN's, or a virtual machine's.
    Tun,
    /// WireGuard, GRE, IP in IP, SIT, VXLAN and their like.
    Tunnel {
        /// Where it leads, if rtnetlink tells: it does not for WireGuard.
        far_end: Option<IpAddr>,
    },
    /// veth, dummy and whatever else is within the machine.
    Virtual,
}

/// An address of a device, as dumped; tentative and failed ones are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DeviceAddress {
    index: u32,
    /// The address with its prefix length.
    net: IpNet,
    /// Past its preferred lifetime.
    deprecated: bool,
}

/// A unicast route of the main table, as dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TableRoute {
    index: u32,
    destination: IpNet,
    /// The next hop.
    via: Option<IpAddr>,
}

/// A neighbour on the dedicated bridge, and the port behind which the bridge has learnt it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BridgeNeighbour {
    address: IpAddr,
    port: u32,
}

/// Finds the dedicated interface. `remembered` is the index it had last time: an interface that
/// is known by its prefix alone stays the dedicated one when it loses its address.
fn select<'a>(
    devices: &'a [Device],
    addresses: &[DeviceAddress],
    selector: &InterfaceSelector,
    remembered: Option<u32>,
) -> Option<&'a Device> {
    match selector {
        InterfaceSelector::Name(name) => devices.iter().find(|device| device.name == *name),
        InterfaceSelector::Mac(mac) => {
            let mac = read_mac(mac)?;
            // Ports of a bridge or bond and VLANs share a hardware address with what carries
            // the traffic: prefer the one that belongs to nothing, then the hardware.
            devices.iter().filter(|device| device.mac == mac).min_by_key(|device| {
                (device.controller.is_some(), device.kind != DeviceKind::Hardware, device.index)
            })
        }
        InterfaceSelector::Prefix(prefix) => {
            let has = |device: &&Device| {
                addresses.iter().any(|address| {
                    address.index == device.index && prefix.contains(&address.net.addr())
                })
            };
            devices
                .iter()
                .find(has)
                .or_else(|| devices.iter().find(|device| Some(device.index) == remembered))
        }
    }
}

/// Six bytes in hexadecimal, between colons or hyphens.
fn read_mac(text: &str) -> Option<Vec<u8>> {
    let bytes = text
        .split([':', '-'])
        .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten());
    bytes.collect::<Option<Vec<u8>>>().filter(|mac| mac.len() == 6)
}

fn interface(device: Option<&Device>) -> Interface {
    match device {
        None => Interface::Missing,
        Some(Device { name, admin_up: false, .. }) => Interface::AdminDown { name: name.clone() },
        Some(Device { name, carrier: false, .. }) => Interface::NoCarrier { name: name.clone() },
        Some(Device { name, index, .. }) => Interface::Up { name: name.clone(), index: *index },
    }
}

/// The addresses to bind to: of each family the first inside the prefixes, preferred ones before
/// deprecated ones.
fn sources(device: &Device, addresses: &[DeviceAddress], local_prefixes: &[IpNet]) -> Sources {
    // The kernel owns the whole subnet of a loopback address, not only the one that it lists: in
    // the demonstration, 127.18.11.0/24 of 127.0.0.1/8 stands for an agency.
    let whole_subnet = |v4: bool| {
        let owned = |prefix: &IpNet| {
            let mut own = addresses.iter().filter(|address| address.index == device.index);
            own.any(|address| address.net.contains(prefix))
        };
        let mut prefixes = local_prefixes.iter().filter(|prefix| prefix.addr().is_ipv4() == v4);
        let prefix = prefixes.find(|prefix| device.loopback && owned(prefix))?;
        prefix.hosts().next()
    };
    let first = |v4: bool| {
        addresses
            .iter()
            .filter(|address| address.index == device.index)
            .filter(|address| address.net.addr().is_ipv4() == v4)
            .filter(|address| inside(local_prefixes, address.net.addr()))
            .min_by_key(|address| address.deprecated)
            .map(|address| address.net.addr())
            .or_else(|| whole_subnet(v4))
    };
    Sources { v4: first(true), v6: first(false) }
}

fn address(
    device: Option<&Device>,
    addresses: &[DeviceAddress],
    sources: Sources,
    first_anchor: Option<IpAddr>,
) -> Address {
    let toward_anchor = first_anchor.and_then(|anchor| sources.toward(anchor));
    match toward_anchor.or(sources.v4).or(sources.v6) {
        Some(source) => Address::Present(source),
        None => Address::Absent {
            others: addresses
                .iter()
                .filter(|address| device.is_some_and(|device| device.index == address.index))
                .map(|address| address.net.addr())
                .take(OTHERS_MAX)
                .collect(),
        },
    }
}

fn inside(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

#[cfg(test)]
mod tests;
