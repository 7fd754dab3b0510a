//! The kernel's view on Linux: one rtnetlink connection for each dump, driven and closed within
//! it, so that nothing is left over from a lost or interrupted one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;
use rustix::io::Errno;

use super::joints::{Facts, joints, other_routed};
use super::{
    BridgeNeighbour, Device, DeviceAddress, DeviceKind, Snapshot, Sources, TableRoute, address,
    interface, select, sources,
};
use crate::config::Dedicated;
use crate::evidence::{
    Address, Forwarding, Interface, Link, LocalFault, Neighbour, Route, RouteLookup, Surroundings,
};

mod changes;
mod decode;
mod listeners;
mod sysctl;

use decode::{
    device, device_address, judge_route, learnt, neighbour_state, resolved, table_routes,
};

pub use changes::{Changes, ChangesError};
pub(crate) use decode::parse;

/// All dumps of one snapshot together: the kernel answers within milliseconds; a machine that
/// takes longer is starved, which is a fault of its own.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);
/// Entries of one dump. More devices, addresses or routes than an office machine can have would
/// make each cycle expensive; then nothing is said.
const ENTRIES_MAX: usize = 10_000;
/// Attempts at a dump that the kernel marks as interrupted by a change, or that overran.
const ATTEMPTS_MAX: usize = 3;

/// The kernel's network state, dumped on demand.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Index of the dedicated interface when it was last seen.
    remembered: Option<u32>,
}

/// Everything dumped at once.
struct Dump {
    devices: Vec<Device>,
    addresses: Vec<DeviceAddress>,
    routes: Result<Vec<TableRoute>, LocalFault>,
}

impl Kernel {
    /// Nothing is asked before the first snapshot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Dumps links, addresses and routes, and looks each anchor up in the FIB. Takes
    /// [`SNAPSHOT_TIMEOUT`] at most; what cannot be read is `Unreadable`.
    pub async fn snapshot(&mut self, dedicated: &Dedicated, anchors: &[IpAddr]) -> Snapshot {
        let remembered = self.remembered;
        let work = |handle| async move {
            let dump = dump(&handle).await?;
            Ok(evaluate(&handle, dump, dedicated, anchors, remembered).await)
        };
        match with_kernel(work).await {
            Ok(snapshot) => {
                self.remembered = snapshot.index.or(remembered);
                snapshot
            }
            Err(fault) => unreadable(&fault, anchors),
        }
    }

    /// Neighbour state of each gateway on the interface of that index.
    pub async fn neighbours(&self, index: u32, gateways: &[IpAddr]) -> Vec<Neighbour> {
        let work = |handle| async move {
            let mut states = Vec::with_capacity(gateways.len());
            for gateway in gateways {
                states.push(neighbour(&handle, index, *gateway).await);
            }
            Ok(states)
        };
        with_kernel(work).await.unwrap_or_else(|fault: LocalFault| {
            gateways.iter().map(|_| Neighbour::Unreadable(fault.clone())).collect()
        })
    }
}

/// Opens a connection, drives it while `work` uses it, and closes it.
async fn with_kernel<T, W, F>(work: W) -> Result<T, LocalFault>
where
    W: FnOnce(Handle) -> F,
    F: Future<Output = Result<T, LocalFault>>,
{
    let (connection, handle, _unasked) = rtnetlink::new_connection()
        .map_err(|error| LocalFault(format!("cannot open a netlink socket: {error}")))?;
    tokio::select! {
        outcome = tokio::time::timeout(SNAPSHOT_TIMEOUT, work(handle)) => outcome
            .unwrap_or_else(|_| Err(LocalFault(format!(
                "the kernel did not answer over netlink within {} s", SNAPSHOT_TIMEOUT.as_secs()
            )))),
        () = connection => Err(LocalFault("the netlink connection closed by itself".into())),
    }
}

async fn dump(handle: &Handle) -> Result<Dump, LocalFault> {
    let links = all(handle, "links", || RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let devices = links.await?.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(message) => device(&message),
        _ => None,
    });
    let devices = devices.collect();
    let addresses =
        all(handle, "addresses", || RouteNetlinkMessage::GetAddress(AddressMessage::default()));
    let addresses = addresses.await?.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) => device_address(&message),
        _ => None,
    });
    let addresses = addresses.collect();
    let routes = all(handle, "routes", || RouteNetlinkMessage::GetRoute(RouteMessage::default()));
    let routes = routes.await.map(|messages| {
        let routes = messages.into_iter().map(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => table_routes(&message),
            _ => Vec::new(),
        });
        routes.flatten().collect()
    });
    Ok(Dump { devices, addresses, routes })
}

/// One dump, complete and consistent, or a fault.
async fn all(
    handle: &Handle,
    what: &'static str,
    request: impl Fn() -> RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, LocalFault> {
    for _ in 0..ATTEMPTS_MAX {
        let mut message = NetlinkMessage::from(request());
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let fault = |problem: &dyn std::fmt::Display| {
            LocalFault(format!("cannot dump the kernel's {what}: {problem}"))
        };
        let mut answers = handle.clone().request(message).map_err(|error| fault(&error))?;
        let mut answer_so_far = Dumped::default();
        while let Some(answer) = answers.next().await {
            answer_so_far.take(answer).map_err(|problem| fault(&problem))?;
        }
        if answer_so_far.completeness == Completeness::Whole {
            return Ok(answer_so_far.messages);
        }
    }
    Err(LocalFault(format!("the kernel's {what} changed during each of {ATTEMPTS_MAX} dumps")))
}

/// A dump, as far as it has come.
#[derive(Debug, Default)]
struct Dumped {
    messages: Vec<RouteNetlinkMessage>,
    completeness: Completeness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Completeness {
    #[default]
    Whole,
    /// The kernel's state changed meanwhile, or messages were lost: to be asked again.
    Interrupted,
}

impl Dumped {
    fn take(&mut self, answer: NetlinkMessage<RouteNetlinkMessage>) -> Result<(), String> {
        if answer.header.flags & NLM_F_DUMP_INTR != 0 {
            self.completeness = Completeness::Interrupted;
        }
        match answer.payload {
            NetlinkPayload::InnerMessage(_) if self.messages.len() >= ENTRIES_MAX => {
                return Err(format!("there are more than {ENTRIES_MAX}"));
            }
            NetlinkPayload::InnerMessage(message) => self.messages.push(message),
            NetlinkPayload::Error(error) => return Err(error.to_io().to_string()),
            NetlinkPayload::Overrun(_) => self.completeness = Completeness::Interrupted,
            _ => {}
        }
        Ok(())
    }
}

async fn evaluate(
    handle: &Handle,
    dump: Dump,
    dedicated: &Dedicated,
    anchors: &[IpAddr],
    remembered: Option<u32>,
) -> Snapshot {
    let Dump { devices, addresses, routes } = dump;
    let device = select(&devices, &addresses, &dedicated.interface, remembered);
    let sources = device.map_or_else(Sources::default, |device| {
        sources(device, &addresses, &dedicated.local_prefixes)
    });
    let mut lookups = Vec::with_capacity(anchors.len());
    for target in anchors {
        let lookup = lookup(handle, &devices, device, *target, sources.toward(*target)).await;
        lookups.push(Route { target: *target, lookup });
    }
    let behind = match device {
        Some(device) if device.kind == DeviceKind::Bridge => behind(handle, device.index).await,
        _ => Ok(Vec::new()),
    };
    let surroundings =
        routes.map(|routes| surroundings(device, &devices, &addresses, &routes, behind, dedicated));
    let link = Link {
        interface: interface(device),
        address: address(device, &addresses, sources, anchors.first().copied()),
        routes: lookups,
        surroundings,
    };
    Snapshot {
        link,
        sources,
        index: device.map(|device| device.index),
        mtu: device.and_then(|device| device.mtu),
        is_loopback: device.is_some_and(|device| device.loopback),
    }
}

fn surroundings(
    device: Option<&Device>,
    devices: &[Device],
    addresses: &[DeviceAddress],
    routes: &[TableRoute],
    behind: Result<Vec<BridgeNeighbour>, LocalFault>,
    dedicated: &Dedicated,
) -> Surroundings {
    let network_prefixes = &dedicated.network_prefixes;
    let others = other_routed(device, devices, addresses, routes, network_prefixes);
    let mut seen = Surroundings {
        other_routed_interfaces: others.iter().map(|other| other.name.clone()).collect(),
        nat: sysctl::nat(Path::new("/")),
        ..Surroundings::default()
    };
    let Some(device) = device else { return seen };
    let names = devices.iter().filter(|one| !one.loopback && one.admin_up);
    let forwarding = match sysctl::forwarding(Path::new("/proc/sys/net"), names) {
        Ok(forwarding) => forwarding,
        Err(fault) => {
            seen.unread.push(fault);
            Vec::new()
        }
    };
    let own = forwarding.iter().find(|(index, _)| *index == device.index);
    seen.forwarding = own.map_or(Forwarding::default(), |(_, forwarding)| *forwarding);
    // Where nothing else leads, no listener is a proxy.
    let listeners = match others.is_empty() {
        true => Ok(Vec::new()),
        false => listeners::listeners(),
    };
    let listeners = listeners.unwrap_or_else(|fault| {
        seen.unread.push(fault);
        Vec::new()
    });
    let behind = behind.unwrap_or_else(|fault| {
        seen.unread.push(fault);
        Vec::new()
    });
    seen.joints = joints(&Facts {
        dedicated: device,
        devices,
        addresses,
        routes,
        network_prefixes,
        behind: &behind,
        forwarding: &forwarding,
        listeners: &listeners,
    });
    seen
}

fn unreadable(fault: &LocalFault, anchors: &[IpAddr]) -> Snapshot {
    let route =
        |target: &IpAddr| Route { target: *target, lookup: RouteLookup::Unreadable(fault.clone()) };
    let link = Link {
        interface: Interface::Unreadable(fault.clone()),
        address: Address::Unreadable(fault.clone()),
        routes: anchors.iter().map(route).collect(),
        surroundings: Err(fault.clone()),
    };
    Snapshot { link, sources: Sources::default(), index: None, mtu: None, is_loopback: false }
}

/// Asks the FIB where a packet of the bound source would go. The interface is not given: a
/// device-bound lookup never says "no route", it takes the target for a neighbour.
async fn lookup(
    handle: &Handle,
    devices: &[Device],
    dedicated: Option<&Device>,
    target: IpAddr,
    source: Option<IpAddr>,
) -> RouteLookup {
    let mut answer = fib(handle, target, source).await;
    if matches!(answer, Err(Some(Errno::INVAL))) && source.is_some() {
        // The kernel no longer owns the source, or a black hole is configured: the lookup
        // without source tells which.
        answer = fib(handle, target, None).await;
    }
    match answer {
        Ok(route) => judge_route(&route, devices, dedicated),
        // EINVAL is how a black-hole route reads (`net/ipv4/fib_semantics.c`, `fib_props`).
        Err(Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL)) => {
            RouteLookup::None
        }
        Err(Some(errno)) => {
            RouteLookup::Unreadable(LocalFault(format!("route lookup for {target}: {errno}")))
        }
        Err(None) => {
            RouteLookup::Unreadable(LocalFault(format!("route lookup for {target}: no answer")))
        }
    }
}

async fn fib(
    handle: &Handle,
    target: IpAddr,
    source: Option<IpAddr>,
) -> Result<RouteMessage, Option<Errno>> {
    let mut message = RouteMessage::default();
    let bits = if target.is_ipv4() { 32 } else { 128 };
    message.header.address_family = family(target);
    message.header.destination_prefix_length = bits;
    message.attributes.push(RouteAttribute::Destination(target.into()));
    if let Some(source) = source {
        message.header.source_prefix_length = bits;
        message.attributes.push(RouteAttribute::Source(source.into()));
    }
    match one(handle, RouteNetlinkMessage::GetRoute(message)).await? {
        RouteNetlinkMessage::NewRoute(route) => Ok(route),
        _ => Err(None),
    }
}

/// The neighbours of a bridge, each with the port behind which it sits.
async fn behind(handle: &Handle, bridge: u32) -> Result<Vec<BridgeNeighbour>, LocalFault> {
    let of_family = |family| {
        move || {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            RouteNetlinkMessage::GetNeighbour(message)
        }
    };
    let entries = |messages: Vec<RouteNetlinkMessage>| {
        messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(entry) => Some(entry),
            _ => None,
        })
    };
    let table = all(handle, "bridge ports", of_family(AddressFamily::Bridge)).await?;
    let ports: HashMap<_, _> = entries(table).filter_map(|entry| learnt(&entry, bridge)).collect();
    let neighbours = all(handle, "neighbours", of_family(AddressFamily::Unspec)).await?;
    let known = entries(neighbours).filter_map(|entry| resolved(&entry, bridge));
    Ok(known
        .filter_map(|(address, mac)| Some(BridgeNeighbour { address, port: *ports.get(&mac)? }))
        .collect())
}

async fn neighbour(handle: &Handle, index: u32, gateway: IpAddr) -> Neighbour {
    let mut message = NeighbourMessage::default();
    message.header.family = family(gateway);
    message.header.ifindex = index;
    let destination = match gateway {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    let answer = one(handle, RouteNetlinkMessage::GetNeighbour(message)).await;
    match answer {
        Ok(RouteNetlinkMessage::NewNeighbour(entry)) => neighbour_state(entry.header.state),
        Err(Some(Errno::NOENT)) => Neighbour::Absent,
        Err(Some(errno)) => {
            Neighbour::Unreadable(LocalFault(format!("neighbour lookup for {gateway}: {errno}")))
        }
        Ok(_) | Err(None) => {
            Neighbour::Unreadable(LocalFault(format!("neighbour lookup for {gateway}: no answer")))
        }
    }
}

/// A request with one answer. `Err(None)`: there was none.
async fn one(
    handle: &Handle,
    request: RouteNetlinkMessage,
) -> Result<RouteNetlinkMessage, Option<Errno>> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST;
    let mut answers = handle.clone().request(message).map_err(|_| None)?;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => return Ok(message),
            NetlinkPayload::Error(error) => {
                let code = error.code.map(|code| code.get().saturating_neg());
                return Err(code.map(Errno::from_raw_os_error));
            }
            _ => {}
        }
    }
    Err(None)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{ErrorMessage, NetlinkHeader};

    use super::*;

    fn message(
        flags: u16,
        payload: NetlinkPayload<RouteNetlinkMessage>,
    ) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        NetlinkMessage::new(header, payload)
    }

    fn link() -> NetlinkPayload<RouteNetlinkMessage> {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(LinkMessage::default()))
    }

    #[test]
    fn a_dump_is_whole_interrupted_or_refused() {
        let taken = |messages: Vec<NetlinkMessage<RouteNetlinkMessage>>| {
            let mut dumped = Dumped::default();
            let outcome = messages.into_iter().try_for_each(|message| dumped.take(message));
            outcome.map(|()| (dumped.messages.len(), dumped.completeness))
        };
        let whole = taken(vec![message(0, link()), message(0, NetlinkPayload::Noop)]);
        assert_eq!(whole, Ok((1, Completeness::Whole)));
        let changed = taken(vec![message(NLM_F_DUMP_INTR, link()), message(0, link())]);
        assert_eq!(changed, Ok((2, Completeness::Interrupted)));
        let overrun = taken(vec![message(0, NetlinkPayload::Overrun(vec![0; 3]))]);
        assert_eq!(overrun, Ok((0, Completeness::Interrupted)));
        let mut error = ErrorMessage::default();
        error.code = std::num::NonZeroI32::new(-1);
        assert!(taken(vec![message(0, NetlinkPayload::Error(error))]).is_err());
        assert!(taken(vec![message(0, link()); ENTRIES_MAX]).is_ok());
        assert!(taken(vec![message(0, link()); ENTRIES_MAX + 1]).is_err());
    }
}
