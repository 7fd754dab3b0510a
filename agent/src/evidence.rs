//! Evidence: what one probe cycle saw, as plain values.
//!
//! Written by `link` and `probe`, read by `connectivity`. Each thing probed is an enum of
//! its possible lives; what could not be read or tried is its own variant, never a
//! missing or default value, because only positive evidence may turn anything green.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Everything one cycle saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Cycle {
    /// L0: the kernel's view of the dedicated interface.
    pub link: Link,
    /// L1: one entry for each configured gateway of a family in use; empty when none is known.
    pub gateways: Vec<Gateway>,
    /// L2: one entry for each configured anchor.
    pub anchors: Vec<Anchor>,
    /// L3: one entry for each resolver; empty when this cycle did not climb so far.
    pub resolvers: Vec<Resolver>,
    /// L4: one entry for each service; empty when this cycle did not climb so far.
    pub services: Vec<Service>,
    /// What a probe without any binding reached; `None` when none was sent this cycle.
    pub unbound: Option<Unbound>,
    /// Whether the Internet canary answered an unbound connect; `None` when none is configured
    /// or none was sent this cycle.
    pub canary: Option<Canary>,
    /// Large-packet probe; `None` when none was sent this cycle.
    pub path_mtu: Option<PathMtu>,
    /// The worst lag of the prober's own timers during the cycle.
    pub prober_lag_max: Duration,
}

/// A local failure that says nothing about the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFault(pub String);

/// L0 facts, dumped afresh for each cycle.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The dedicated interface.
    pub interface: Interface,
    /// The address inside the agency's prefixes that probes bind to.
    pub address: Address,
    /// The FIB's answer for each anchor, in the order of the configuration.
    pub routes: Vec<Route>,
    /// What else this machine is attached to.
    pub surroundings: Result<Surroundings, LocalFault>,
}

/// Life of the dedicated interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// Nothing matches the selector.
    Missing,
    /// Switched off by the administrator of the machine.
    AdminDown {
        /// Its present name.
        name: String,
    },
    /// Cable or CPE off.
    NoCarrier {
        /// Its present name.
        name: String,
    },
    /// Up with carrier.
    Up {
        /// Its present name.
        name: String,
        /// Kernel index.
        index: u32,
    },
    /// The kernel could not be asked.
    Unreadable(LocalFault),
}

/// Whether the interface has an address inside the agency's prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// It has; probes bind to it.
    Present(IpAddr),
    /// It has none; `others` are outside the prefixes.
    Absent {
        /// Addresses that are there but outside the prefixes, at most 8.
        others: Vec<IpAddr>,
    },
    /// The kernel could not be asked.
    Unreadable(LocalFault),
}

/// The FIB's answer for one anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The anchor.
    pub target: IpAddr,
    /// The answer.
    pub lookup: RouteLookup,
}

/// Life of a FIB lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteLookup {
    /// Through the dedicated interface.
    Dedicated {
        /// Next hop, unless on-link.
        via: Option<IpAddr>,
    },
    /// Through another interface.
    Elsewhere {
        /// Its name.
        interface: String,
    },
    /// ENETUNREACH and its like.
    None,
    /// The kernel could not be asked.
    Unreadable(LocalFault),
}

/// Facts for the security flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Other interfaces that are up, have an address and carry a route beyond their own
    /// subnet; loopback, bridges' members and containers' veths are left out.
    pub other_routed_interfaces: Vec<String>,
    /// Whether this machine forwards packets that come in by the dedicated interface. By itself
    /// it joins nothing: containers set it.
    pub forwarding: Forwarding,
    /// What joins the dedicated network to another.
    pub joints: Vec<Joint>,
    /// Address translation, as far as it can be read without privilege.
    pub nat: Nat,
    /// What could not be read: `joints` may lack what it would show.
    pub unread: Vec<LocalFault>,
}

/// Which packets are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// One thing that joins the dedicated network to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joint {
    /// The dedicated interface shares a bridge.
    Bridge {
        /// The bridge.
        bridge: String,
        /// Its other port.
        with: String,
    },
    /// Packets are forwarded between the dedicated interface and another.
    Forwarding {
        /// The other.
        with: String,
        /// Which packets.
        forwarding: Forwarding,
    },
    /// A tunnel leads to another network.
    Tunnel {
        /// Its interface.
        interface: String,
    },
    /// A proxy's port listens on the dedicated side, and another interface leads elsewhere.
    Proxy {
        /// TCP.
        port: u16,
    },
}

impl fmt::Display for Joint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge { bridge, with } => write!(f, "bridge {bridge}: {with}"),
            Self::Forwarding { with, forwarding: Forwarding { v4, v6 } } => {
                let families = match (v4, v6) {
                    (true, false) => "IPv4",
                    (false, true) => "IPv6",
                    _ => "IPv4, IPv6",
                };
                write!(f, "forwarding {families}: {with}")
            }
            Self::Tunnel { interface } => write!(f, "tunnel {interface}"),
            Self::Proxy { port } => write!(f, "proxy TCP {port}"),
        }
    }
}

/// Address translation. Its rules cannot be read without CAP_NET_ADMIN; whether the kernel can
/// translate at all can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nat {
    /// The kernel has no address translation loaded.
    Absent,
    /// It is loaded; whether a rule uses it, and between which interfaces, is not known.
    Loaded,
    /// Not even that could be read.
    Unreadable(LocalFault),
}

impl Default for Nat {
    fn default() -> Self {
        Self::Unreadable(LocalFault("not asked".into()))
    }
}

/// L1 facts.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// Neighbour state.
    pub neighbour: Neighbour,
    /// One echo, bound.
    pub echo: Echo,
}

/// Neighbour (ARP, NDP) state as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Neighbour {
    /// REACHABLE, DELAY, PROBE, STALE, PERMANENT or NOARP: a link-layer address is known.
    Known,
    /// INCOMPLETE or FAILED: it does not answer ARP or NDP.
    Unresolved,
    /// No entry yet.
    Absent,
    /// The kernel could not be asked.
    Unreadable(LocalFault),
}

/// Life of a bound echo exchange.
#[derive(Debug, Clone, PartialEq)]
pub enum Echo {
    /// At least one answer in time.
    Answered(Exchange),
    /// No answer before the deadline.
    Silent(Exchange),
    /// No answer, and an ICMP error came back.
    Rejected {
        /// The packets.
        exchange: Exchange,
        /// Who sent the first error.
        by: IpAddr,
        /// ICMP or ICMPv6 type.
        kind: u8,
        /// ICMP or ICMPv6 code.
        code: u8,
    },
    /// The kernel had no way to send: ENETUNREACH, ENODEV, EADDRNOTAVAIL and their like.
    Unsendable(LocalFault),
    /// This machine may not send echo (`net.ipv4.ping_group_range`).
    Forbidden,
    /// Not tried this cycle.
    NotTried,
}

/// What became of each packet of an echo exchange.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exchange {
    /// In the order of sending.
    pub packets: Vec<Packet>,
    /// When those packets of earlier exchanges were sent whose answers have come in since.
    pub late_before: Vec<Duration>,
    /// Forged or stray replies and errors that were received meanwhile, and not believed.
    pub ignored: u32,
}

/// One echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// When it was sent, on CLOCK_MONOTONIC: its name among all packets to the same target.
    pub sent: Duration,
    /// What became of it until its exchange ended.
    pub fate: Fate,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Answered within its own deadline, after this round-trip time.
    Answered(Duration),
    /// Answered after it.
    Late,
    /// Not answered so far; a later exchange may name it in [`Exchange::late_before`].
    Lost,
    /// An ICMP error came back.
    Rejected,
}

impl Exchange {
    /// Packets sent.
    pub fn sent(&self) -> usize {
        self.packets.len()
    }

    /// Round-trip times of the answers in time, in the order of sending.
    pub fn rtts(&self) -> impl Iterator<Item = Duration> {
        self.packets.iter().filter_map(|packet| match packet.fate {
            Fate::Answered(rtt) => Some(rtt),
            Fate::Late | Fate::Lost | Fate::Rejected => None,
        })
    }

    /// Answers after their own deadline, to this and to earlier exchanges.
    pub fn late(&self) -> usize {
        let late = self.packets.iter().filter(|packet| packet.fate == Fate::Late);
        late.count() + self.late_before.len()
    }
}

/// L2 facts.
#[derive(Debug, Clone, PartialEq)]
pub struct Anchor {
    /// Its name in the configuration.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Echo, bound.
    pub echo: Echo,
    /// TCP, bound.
    pub tcp: Tcp,
}

/// Life of a bound TCP probe.
#[derive(Debug, Clone, PartialEq)]
pub enum Tcp {
    /// Connected, and the target proved to be itself by banner or TLS identity.
    Proved {
        /// Time to connect.
        connect: Duration,
    },
    /// Connected, but nothing was expected of the target: weaker, still two-way TCP.
    Connected {
        /// Time to connect.
        connect: Duration,
    },
    /// Connected, but to something else. A TLS-intercepting middlebox ends here.
    Impostor {
        /// What it presented: a banner's beginning or a certificate's issuer.
        presented: String,
    },
    /// RST: proves nothing, a firewall sends them.
    Refused,
    /// Nothing came back.
    Silent,
    /// An ICMP error came back.
    Rejected {
        /// Text of the error.
        error: String,
    },
    /// The kernel had no way to send.
    Unsendable(LocalFault),
    /// Not tried this cycle, or no port is configured.
    NotTried,
}

/// L3 facts.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolver {
    /// Its address.
    pub address: IpAddr,
    /// One uncached query.
    pub answer: Dns,
}

/// Life of a DNS query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    /// The expected answer.
    Right {
        /// Round-trip time.
        rtt: Duration,
    },
    /// NOERROR or NXDOMAIN, but not what was expected.
    Wrong {
        /// What was answered, at most 128 bytes.
        answered: String,
    },
    /// Port closed or rcode REFUSED.
    Refused,
    /// SERVFAIL or another error.
    ServerFailure {
        /// The rcode.
        rcode: u16,
    },
    /// No answer with the right id before the deadline.
    Silent,
    /// The kernel had no way to send.
    Unsendable(LocalFault),
}

/// L4 facts.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it is asked over TLS: only then it proves that nobody intercepts.
    pub is_tls: bool,
    /// The exchange.
    pub answer: ServiceAnswer,
}

/// Life of a service probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceAnswer {
    /// As expected.
    Right {
        /// Time from connect to the end of the answer.
        took: Duration,
        /// The source address that the server says it saw, if it tells.
        seen_source: Option<IpAddr>,
    },
    /// An unexpected HTTP status.
    WrongStatus {
        /// The status.
        status: u16,
    },
    /// Not HTTP, without the nonce, or longer than allowed.
    WrongAnswer {
        /// What was wrong.
        problem: String,
    },
    /// A certificate that the configured roots did not sign.
    TlsIntercepted {
        /// The issuer it names.
        issuer: String,
    },
    /// Connection refused or reset.
    Refused,
    /// No answer before the deadline.
    Silent,
    /// The kernel had no way to send.
    Unsendable(LocalFault),
}

/// The way to an anchor, followed for a person who asks; no verdict rests on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The anchor's name.
    pub anchor: String,
    /// Its address.
    pub address: IpAddr,
    /// How far it could be followed.
    pub life: WayLife,
}

/// Life of a followed way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WayLife {
    /// The hops, nearest first. The way ends at the target, where somebody refused, or in silence.
    Followed(Vec<Hop>),
    /// The kernel had no way to send.
    Unsendable(LocalFault),
    /// This machine may not send echo (`net.ipv4.ping_group_range`).
    Forbidden,
}

/// Who answered at one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// A router passed the packet on.
    Router {
        /// Its address on our side.
        by: IpAddr,
        /// Until its answer.
        rtt: Duration,
    },
    /// The anchor.
    Target {
        /// Until its answer.
        rtt: Duration,
    },
    /// Somebody refused to pass the packet on.
    Refused {
        /// Who.
        by: IpAddr,
        /// ICMP or ICMPv6 type.
        kind: u8,
        /// ICMP or ICMPv6 code.
        code: u8,
        /// Until the refusal.
        rtt: Duration,
    },
    /// Nothing came back: a router that does not tell, or the end of the way.
    Silent,
}

/// What a probe without any binding reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unbound {
    /// A dedicated target answered.
    Reached {
        /// The source address the kernel chose.
        source: IpAddr,
        /// Whether that address is inside the agency's prefixes on the dedicated interface.
        dedicated: bool,
    },
    /// Nothing answered.
    Unreached,
    /// Not possible here.
    Failed(LocalFault),
}

/// An Internet address that must not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canary {
    /// It answered: this machine reaches the Internet.
    Reached,
    /// It did not answer in time, or was refused on the way.
    Unreached,
    /// Could not be tried.
    Failed(LocalFault),
}

/// Large-packet probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMtu {
    /// An echo of the interface's full size, with DF, came back.
    Full {
        /// IP packet size that passed.
        bytes: u16,
    },
    /// Small packets pass, large ones vanish.
    Hole {
        /// IP packet size that vanished.
        bytes: u16,
    },
    /// A router said the packet is too big: path MTU discovery works, nothing is broken.
    Signalled {
        /// The MTU that it named.
        mtu: u16,
    },
    /// Could not be tried.
    NotMeasured(LocalFault),
}
