//! What one rule does with a stranger's new connection to a port of this machine.
//!
//! Conditions on transport, port, family, connection state, kind of address and loopback are
//! read, whether nft or iptables-nft wrote them. Everything else (source addresses, sets, maps,
//! limits) is kept as a condition of which only its kind is known, so that nothing rests on it.
//!
//! Layout: `nf_tables.h`, and `xt_tcpudp.h`, `xt_multiport.h`, `xt_conntrack.h`, `xt_addrtype.h`.

use std::collections::HashMap;

use super::super::listeners::Transport;
use super::super::netlink::{Misshapen, attributes, read_text, read_u32};
use super::rule::{Effect, expression, first, verdict};
use super::{FAMILY_IPV4, FAMILY_IPV6, Family, number};

/// A rule: when all conditions hold, its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    conditions: Vec<Condition>,
    pub(super) end: End,
}

/// What a rule comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The next rule.
    Next,
    /// A verdict that is read.
    Known(Effect),
    /// A verdict out of a map, or by a program: what it is made by.
    Unread(&'static str),
}

/// A connection as it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) family: Family,
    pub(super) transport: Transport,
    pub(super) port: u16,
}

/// Whether something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chance {
    /// It does not.
    No,
    /// It depends on what is not read.
    Maybe,
    /// It does.
    Yes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Protocol { number: u8, is_negated: bool },
    Family { number: u8, is_negated: bool },
    Ports { ranges: Vec<(u16, u16)>, is_negated: bool },
    Never,
    Unread(&'static str),
}

impl Clause {
    /// Whether a connection meets the conditions, and what of them is not read.
    pub(super) fn holds(&self, arrival: Arrival) -> (Chance, Option<&'static str>) {
        let mut unread = None;
        for condition in &self.conditions {
            match condition.holds(arrival) {
                Ok(true) => {}
                Ok(false) => return (Chance::No, None),
                Err(kind) => unread = unread.or(Some(kind)),
            }
        }
        (if unread.is_some() { Chance::Maybe } else { Chance::Yes }, unread)
    }
}

impl Condition {
    fn holds(&self, arrival: Arrival) -> Result<bool, &'static str> {
        match self {
            Self::Protocol { number, is_negated } => {
                Ok((*number == protocol(arrival.transport)) != *is_negated)
            }
            Self::Family { number, is_negated } => {
                let own = match arrival.family {
                    Family::V4 => FAMILY_IPV4,
                    Family::V6 => FAMILY_IPV6,
                };
                Ok((*number == own) != *is_negated)
            }
            Self::Ports { ranges, is_negated } => {
                let is_in = ranges.iter().any(|(from, to)| (*from..=*to).contains(&arrival.port));
                Ok(is_in != *is_negated)
            }
            Self::Never => Ok(false),
            Self::Unread(kind) => Err(kind),
        }
    }

    /// What is settled for every new connection to this machine; `None` for a truth.
    fn settled(is_met: bool) -> Option<Self> {
        (!is_met).then_some(Self::Never)
    }
}

const fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Protocol,
    Family,
    InterfaceIndex,
    InterfaceName,
    PacketType,
    DestinationPort,
    BothPorts,
    DestinationAddress,
    DestinationType,
    /// The state of the connection, under a mask.
    State(u32),
    Other(&'static str),
}

const NEW: u32 = 8;
const RTN_LOCAL: u32 = 2;
const LOOPBACK_INDEX: u32 = 1;

const COMPARE_EQUAL: u32 = 0;
const COMPARE_NOT_EQUAL: u32 = 1;

/// Reads a rule's expressions (`NFTA_RULE_EXPRESSIONS`).
pub(super) fn clause(expressions: &[u8]) -> Result<Clause, Misshapen> {
    let mut registers: HashMap<u32, Loaded> = HashMap::new();
    let mut conditions = Vec::new();
    let ended = |conditions, end| Ok(Clause { conditions, end });
    for element in attributes(expressions) {
        let (name, data) = expression(element?.value)?;
        match name.as_str() {
            "counter" | "log" | "notrack" | "last" | "objref" => {}
            "reject" => return ended(conditions, End::Known(Effect::Refuse)),
            "immediate" => match verdict(data)? {
                Some(Effect::Conditional) => return ended(conditions, End::Unread("queue")),
                Some(effect) => return ended(conditions, End::Known(effect)),
                None => {
                    let register = field(data, 1)?.unwrap_or_default();
                    registers.insert(register, Loaded::Other("value"));
                }
            },
            "target" => match first(data, 1)?.map(|name| read_text(name.value)).as_deref() {
                Some("REJECT") => return ended(conditions, End::Known(Effect::Refuse)),
                Some("LOG" | "NFLOG" | "TRACE" | "MARK" | "CONNMARK") => {}
                _ => return ended(conditions, End::Unread("target")),
            },
            "meta" | "payload" | "ct" | "fib" => {
                if let Some((register, loaded)) = load(&name, data)? {
                    registers.insert(register, loaded);
                }
            }
            "bitwise" => {
                let source = field(data, 1)?.and_then(|register| registers.get(&register));
                let loaded = masked(source.copied(), data)?;
                registers.insert(field(data, 2)?.unwrap_or_default(), loaded);
            }
            "cmp" => {
                let source = field(data, 1)?.and_then(|register| registers.get(&register));
                let operation = field(data, 2)?;
                let value = value_of(data, 3)?;
                compare(source.copied(), operation, value, &mut conditions);
            }
            "range" => {
                let source = field(data, 1)?.and_then(|register| registers.get(&register));
                let is_negated = field(data, 2)? == Some(COMPARE_NOT_EQUAL);
                let bounds = (port(value_of(data, 3)?), port(value_of(data, 4)?));
                conditions.push(match (source, bounds) {
                    (Some(Loaded::DestinationPort), (Some(from), Some(to))) => {
                        Condition::Ports { ranges: vec![(from, to)], is_negated }
                    }
                    (source, _) => Condition::Unread(kind(source.copied())),
                });
            }
            "lookup" => {
                // Into the verdict register: a map of verdicts, which may be any.
                if first(data, 3)?.is_some_and(|to| number(to.value) == Ok(0)) {
                    return ended(conditions, End::Unread("map"));
                }
                conditions.push(Condition::Unread("set"));
            }
            "match" => extension(data, &mut conditions)?,
            _ => conditions.push(Condition::Unread("condition")),
        }
    }
    ended(conditions, End::Next)
}

/// What is loaded, and where to; `None` for an expression that writes into the packet or its mark.
fn load(name: &str, data: &[u8]) -> Result<Option<(u32, Loaded)>, Misshapen> {
    let Some(register) = field(data, 1)? else { return Ok(None) };
    let loaded = match name {
        "meta" => match field(data, 2)? {
            Some(4) => Loaded::InterfaceIndex,
            Some(6) => Loaded::InterfaceName,
            Some(15) => Loaded::Family,
            Some(16) => Loaded::Protocol,
            Some(19) => Loaded::PacketType,
            _ => Loaded::Other("packet's mark or kind"),
        },
        "ct" => match field(data, 2)? {
            Some(0) => Loaded::State(u32::MAX),
            _ => Loaded::Other("connection"),
        },
        "fib" => match (field(data, 2)?, field(data, 3)?) {
            (Some(3), Some(2)) => Loaded::DestinationType,
            _ => Loaded::Other("route"),
        },
        _ => match (field(data, 2)?, field(data, 3)?, field(data, 4)?) {
            (Some(1), Some(9), Some(1)) | (Some(1), Some(6), Some(1)) => Loaded::Protocol,
            (Some(1), Some(16), Some(4)) | (Some(1), Some(24), Some(16)) => {
                Loaded::DestinationAddress
            }
            (Some(1), Some(12), Some(4)) | (Some(1), Some(8), Some(16)) => {
                Loaded::Other("source address")
            }
            (Some(2), Some(2), Some(2)) => Loaded::DestinationPort,
            (Some(2), Some(0), Some(4)) => Loaded::BothPorts,
            (Some(2), Some(0), Some(2)) => Loaded::Other("source port"),
            _ => Loaded::Other("packet's content"),
        },
    };
    Ok(Some((register, loaded)))
}

fn masked(source: Option<Loaded>, data: &[u8]) -> Result<Loaded, Misshapen> {
    let host = |value: &[u8]| value.first_chunk().copied().map(u32::from_ne_bytes);
    Ok(match (source, host(value_of(data, 4)?), host(value_of(data, 5)?)) {
        (Some(Loaded::State(before)), Some(mask), Some(0)) => Loaded::State(before & mask),
        (source, ..) => Loaded::Other(kind(source)),
    })
}

fn compare(
    source: Option<Loaded>,
    operation: Option<u32>,
    value: &[u8],
    conditions: &mut Vec<Condition>,
) {
    let host = value.first_chunk().copied().map(u32::from_ne_bytes);
    let is_negated = match operation {
        Some(COMPARE_EQUAL) => false,
        Some(COMPARE_NOT_EQUAL) => true,
        _ => {
            conditions.push(ordered(source, operation, value));
            return;
        }
    };
    // iptables-nft compares both ports at once.
    if let (Some(Loaded::BothPorts), [_, _, high, low], false) = (source, value, is_negated) {
        let port = u16::from_be_bytes([*high, *low]);
        conditions.push(Condition::Ports { ranges: vec![(port, port)], is_negated });
        conditions.push(Condition::Unread("source port"));
        return;
    }
    let unread = Some(Condition::Unread(kind(source)));
    let settled = |is_equal: bool| Condition::settled(is_equal != is_negated);
    conditions.extend(match (source, value) {
        (Some(Loaded::Protocol), [number, ..]) => {
            Some(Condition::Protocol { number: *number, is_negated })
        }
        (Some(Loaded::Family), [number, ..]) => {
            Some(Condition::Family { number: *number, is_negated })
        }
        (Some(Loaded::InterfaceName), name) if read_text(name) == "lo" => settled(false),
        (Some(Loaded::InterfaceIndex), _) if host == Some(LOOPBACK_INDEX) => settled(false),
        // 0 is to this host; broadcast and multicast carry no connection.
        (Some(Loaded::PacketType), [kind, ..]) => settled(*kind == 0),
        (Some(Loaded::DestinationType), _) => match host {
            Some(kind) => settled(kind == RTN_LOCAL),
            None => unread,
        },
        (Some(Loaded::State(mask)), _) => match host {
            Some(state) => settled(NEW & mask == state),
            None => unread,
        },
        (Some(Loaded::DestinationAddress), [0xe0..=0xef | 0xff, ..]) => settled(false),
        (Some(Loaded::DestinationPort), value) => match port(value) {
            Some(port) => Some(Condition::Ports { ranges: vec![(port, port)], is_negated }),
            None => unread,
        },
        _ => unread,
    });
}

/// Comparisons other than equal: they are read for ports.
fn ordered(source: Option<Loaded>, operation: Option<u32>, value: &[u8]) -> Condition {
    let range = match (source, operation, port(value)) {
        (Some(Loaded::DestinationPort), Some(2), Some(port)) => {
            port.checked_sub(1).map(|last| (0, last))
        }
        (Some(Loaded::DestinationPort), Some(3), Some(port)) => Some((0, port)),
        (Some(Loaded::DestinationPort), Some(4), Some(port)) => {
            port.checked_add(1).map(|first| (first, u16::MAX))
        }
        (Some(Loaded::DestinationPort), Some(5), Some(port)) => Some((port, u16::MAX)),
        _ => return Condition::Unread(kind(source)),
    };
    range.map_or(Condition::Never, |range| Condition::Ports {
        ranges: vec![range],
        is_negated: false,
    })
}

const fn kind(loaded: Option<Loaded>) -> &'static str {
    match loaded {
        Some(Loaded::InterfaceIndex | Loaded::InterfaceName) => "interface",
        Some(Loaded::DestinationAddress | Loaded::DestinationType) => "destination address",
        Some(Loaded::DestinationPort | Loaded::BothPorts) => "port",
        Some(Loaded::State(_)) => "connection",
        Some(Loaded::Protocol | Loaded::Family | Loaded::PacketType) => "packet's kind",
        Some(Loaded::Other(kind)) => kind,
        None => "condition",
    }
}

/// A match of iptables that nf_tables has no expression for.
fn extension(data: &[u8], conditions: &mut Vec<Condition>) -> Result<(), Misshapen> {
    let name = first(data, 1)?.map(|name| read_text(name.value)).unwrap_or_default();
    let revision = field(data, 2)?.unwrap_or_default();
    let info = first(data, 3)?.map_or(&[][..], |info| info.value);
    let u16_at = |at: usize| info.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes);
    let read = match (name.as_str(), revision) {
        ("comment", _) => Some(Vec::new()),
        // They look at packets of their own protocol alone.
        ("icmp" | "icmp6", _) => Some(vec![Condition::Never]),
        ("tcp" | "udp", 0) => tcp_or_udp(&name, info),
        ("multiport", 1) => multiport(info),
        ("conntrack", 3) => match (u16_at(146), u16_at(148), u16_at(150)) {
            // Nothing but the state is asked for.
            (Some(1), Some(inverted), Some(states)) => {
                let is_met = (u32::from(states) & NEW != 0) != (inverted & 1 != 0);
                Some(Condition::settled(is_met).into_iter().collect())
            }
            _ => None,
        },
        ("state", 0) => {
            read_u32(info).map(|states| Condition::settled(states & NEW != 0).into_iter().collect())
        }
        ("addrtype", 1) => match (u16_at(0), u16_at(2), u16_at(4)) {
            (Some(0), Some(kinds), Some(flags @ 0..=2)) => {
                let is_met = (kinds & (1 << RTN_LOCAL) != 0) != (flags & 2 != 0);
                Some(Condition::settled(is_met).into_iter().collect())
            }
            _ => None,
        },
        _ => None,
    };
    conditions.extend(read.unwrap_or_else(|| vec![Condition::Unread("match of iptables")]));
    Ok(())
}

/// `struct xt_tcp` and `struct xt_udp`: ranges of source and destination ports, then flags.
fn tcp_or_udp(name: &str, info: &[u8]) -> Option<Vec<Condition>> {
    let [a, b, c, d, e, f, g, h] = *info.first_chunk::<8>()?;
    let range = |a, b, c, d| (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
    let (sources, destinations) = (range(a, b, c, d), range(e, f, g, h));
    let (number, inverted, flags) = match name {
        "tcp" => {
            let [option, mask, wanted, inverted] = *info.get(8..)?.first_chunk::<4>()?;
            // Only options of TCP are not read; a new connection has SYN and nothing else.
            let is_syn = (0x02 & mask == wanted) != (inverted & 4 != 0);
            (6, inverted, (option == 0).then_some(is_syn)?)
        }
        _ => (17, *info.get(8)?, true),
    };
    let mut conditions = vec![
        Condition::Protocol { number, is_negated: false },
        Condition::Ports { ranges: vec![destinations], is_negated: inverted & 2 != 0 },
    ];
    conditions.extend(Condition::settled(flags));
    if sources != (0, u16::MAX) {
        conditions.push(Condition::Unread("source port"));
    }
    Some(conditions)
}

/// `struct xt_multiport_v1`: which ports, how many, the ports, which of them begin a range, and
/// whether all that is inverted.
fn multiport(info: &[u8]) -> Option<Vec<Condition>> {
    const DESTINATION: u8 = 1;
    const PORTS: usize = 15;
    let (side, count) = (*info.first()?, usize::from(*info.get(1)?));
    let begins = info.get(2 + 2 * PORTS..2 + 3 * PORTS)?;
    let is_negated = *info.get(2 + 3 * PORTS)? != 0;
    let port = |at: usize| info.get(2 + 2 * at..)?.first_chunk().copied().map(u16::from_ne_bytes);
    if side != DESTINATION || count > PORTS {
        return None;
    }
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < count {
        let is_range = begins[at] != 0;
        let last = if is_range { at + 1 } else { at };
        ranges.push((port(at)?, port(last)?));
        at = last + 1;
    }
    Some(vec![Condition::Ports { ranges, is_negated }])
}

fn field(nested: &[u8], kind: u16) -> Result<Option<u32>, Misshapen> {
    first(nested, kind)?.map(|attribute| number(attribute.value)).transpose()
}

/// The bytes of a nested value (`NFTA_DATA_VALUE`).
fn value_of(nested: &[u8], kind: u16) -> Result<&[u8], Misshapen> {
    let data = first(nested, kind)?.map_or(&[][..], |data| data.value);
    Ok(first(data, 1)?.map_or(&[][..], |value| value.value))
}

fn port(value: &[u8]) -> Option<u16> {
    (value.len() == 2).then(|| value.first_chunk().copied().map(u16::from_be_bytes))?
}
