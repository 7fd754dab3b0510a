//! What one rule does with a stranger's new connection to a port of this machine.
//!
//! Conditions on transport, port, family, connection state, kind of address and loopback are
//! read, whether nft or iptables-nft wrote them, and whether they stand in the rule or in a set or
//! a map. Everything else (source addresses, limits) is kept as a condition of which only its kind
//! is known, so that nothing rests on it.
//!
//! Layout: `nf_tables.h`, and `xt_tcpudp.h`, `xt_multiport.h`, `xt_conntrack.h`, `xt_addrtype.h`.

use super::super::netlink::{Misshapen, attributes, read_text, read_u32};
use super::number;
use super::register::{Arrival, LOOPBACK_INDEX, Loaded, NEW, Part, RTN_LOCAL, Registers};
use super::rule::{Effect, expression, first, verdict};
use super::set::{Found, Set};

/// A rule: when all conditions hold, its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    conditions: Vec<Condition>,
    end: End,
}

/// What a rule comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The next rule.
    Next,
    /// A verdict that is read.
    Known(Effect),
    /// A verdict out of a map.
    Looked { up: Key },
    /// A verdict by a program, or what else is not read: what it is made by.
    Unread(&'static str),
}

/// What is looked up, and in which set or map of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    set: String,
    parts: Vec<Part>,
}

impl End {
    /// Where a verdict leads.
    pub(super) fn of(effect: Effect) -> Self {
        match effect {
            Effect::Conditional => Self::Unread("queue"),
            effect => Self::Known(effect),
        }
    }
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
    Among { key: Key, is_negated: bool },
    Never,
    Unread(&'static str),
}

impl Clause {
    /// Whether a connection meets the conditions, and what of them is not read. Sets are found by
    /// their names.
    pub(super) fn holds<'a>(
        &self,
        arrival: Arrival,
        sets: &impl Fn(&str) -> Option<&'a Set>,
    ) -> (Chance, Option<&'static str>) {
        let mut unread = None;
        for condition in &self.conditions {
            match condition.holds(arrival, sets) {
                Ok(true) => {}
                Ok(false) => return (Chance::No, None),
                Err(kind) => unread = unread.or(Some(kind)),
            }
        }
        (if unread.is_some() { Chance::Maybe } else { Chance::Yes }, unread)
    }

    /// How the rule ends for a connection that meets the conditions.
    pub(super) fn end<'a>(
        &'a self,
        arrival: Arrival,
        sets: &impl Fn(&str) -> Option<&'a Set>,
    ) -> &'a End {
        static NEXT: End = End::Next;
        static UNREAD: End = End::Unread("map");
        let End::Looked { up } = &self.end else { return &self.end };
        match up.find(arrival, sets) {
            Found::Element(end) => end,
            Found::Nowhere => &NEXT,
            Found::Unread(_) => &UNREAD,
        }
    }
}

impl Key {
    fn find<'a>(&self, arrival: Arrival, sets: &impl Fn(&str) -> Option<&'a Set>) -> Found<'a> {
        sets(&self.set).map_or(Found::Unread("set"), |set| set.find(&self.parts, arrival))
    }
}

impl Condition {
    fn holds<'a>(
        &self,
        arrival: Arrival,
        sets: &impl Fn(&str) -> Option<&'a Set>,
    ) -> Result<bool, &'static str> {
        match self {
            Self::Protocol { number, is_negated } => {
                Ok((*number == arrival.protocol()) != *is_negated)
            }
            Self::Family { number, is_negated } => Ok((*number == arrival.family()) != *is_negated),
            Self::Ports { ranges, is_negated } => {
                let is_in = ranges.iter().any(|(from, to)| (*from..=*to).contains(&arrival.port));
                Ok(is_in != *is_negated)
            }
            Self::Among { key, is_negated } => match key.find(arrival, sets) {
                Found::Element(_) => Ok(!is_negated),
                Found::Nowhere => Ok(*is_negated),
                Found::Unread(kind) => Err(kind),
            },
            Self::Never => Ok(false),
            Self::Unread(kind) => Err(kind),
        }
    }

    /// What is settled for every new connection to this machine; `None` for a truth.
    fn settled(is_met: bool) -> Option<Self> {
        (!is_met).then_some(Self::Never)
    }
}

const COMPARE_EQUAL: u32 = 0;
const COMPARE_NOT_EQUAL: u32 = 1;

/// Kinds of objects that let every packet through: counters, helpers and timeouts of connections,
/// marks, expectations (`NFT_OBJECT_*`).
const OBJECTS_WITHOUT_CONDITION: [u32; 5] = [1, 3, 7, 8, 9];
const LOOKUP_INVERTED: u32 = 1;

/// Reads a rule's expressions (`NFTA_RULE_EXPRESSIONS`).
pub(super) fn clause(expressions: &[u8]) -> Result<Clause, Misshapen> {
    let mut registers = Registers::default();
    let mut conditions = Vec::new();
    for element in attributes(expressions) {
        let (name, data) = expression(element?.value)?;
        if let Some(end) = read(&name, data, &mut registers, &mut conditions)? {
            return Ok(Clause { conditions, end });
        }
    }
    Ok(Clause { conditions, end: End::Next })
}

/// Reads one expression; what it ends the rule with.
fn read(
    name: &str,
    data: &[u8],
    registers: &mut Registers,
    conditions: &mut Vec<Condition>,
) -> Result<Option<End>, Misshapen> {
    match name {
        "counter" | "log" | "notrack" | "last" => {}
        "objref" => {
            if !field(data, 1)?.is_some_and(|kind| OBJECTS_WITHOUT_CONDITION.contains(&kind)) {
                conditions.push(Condition::Unread("limit"));
            }
        }
        "reject" => return Ok(Some(End::Known(Effect::Refuse))),
        "immediate" => match verdict(data)? {
            Some(effect) => return Ok(Some(End::of(effect))),
            None => registers.constant(data)?,
        },
        "target" => match first(data, 1)?.map(|name| read_text(name.value)).as_deref() {
            Some("REJECT") => return Ok(Some(End::Known(Effect::Refuse))),
            Some("LOG" | "NFLOG" | "TRACE" | "MARK" | "CONNMARK") => {}
            _ => return Ok(Some(End::Unread("target"))),
        },
        "meta" | "payload" | "ct" | "fib" => registers.load(name, data)?,
        "bitwise" => registers.mask(data)?,
        "byteorder" => registers.swap(data)?,
        "cmp" => {
            let source = registers.get(field(data, 1)?);
            compare(source, field(data, 2)?, value_of(data, 3)?, conditions);
        }
        "range" => {
            let source = registers.get(field(data, 1)?);
            let is_negated = field(data, 2)? == Some(COMPARE_NOT_EQUAL);
            let bounds = (port(value_of(data, 3)?), port(value_of(data, 4)?));
            conditions.push(match (source, bounds) {
                (Some(Loaded::DestinationPort), (Some(from), Some(to))) => {
                    Condition::Ports { ranges: vec![(from, to)], is_negated }
                }
                (source, _) => Condition::Unread(kind(source)),
            });
        }
        "lookup" => {
            let set = first(data, 1)?.map(|set| read_text(set.value)).unwrap_or_default();
            let key = Key { set, parts: registers.parts(field(data, 2)?) };
            match field(data, 3)? {
                // Into the verdict register: a map of verdicts.
                Some(0) => return Ok(Some(End::Looked { up: key })),
                // Into another: a value for a later expression.
                Some(_) => conditions.push(Condition::Unread("map")),
                None => {
                    let is_negated = field(data, 5)?.unwrap_or_default() & LOOKUP_INVERTED != 0;
                    conditions.push(Condition::Among { key, is_negated });
                }
            }
        }
        "match" => extension(data, conditions)?,
        _ => conditions.push(Condition::Unread("condition")),
    }
    Ok(None)
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

fn kind(loaded: Option<Loaded>) -> &'static str {
    loaded.map_or("condition", Loaded::kind)
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

pub(super) fn field(nested: &[u8], kind: u16) -> Result<Option<u32>, Misshapen> {
    first(nested, kind)?.map(|attribute| number(attribute.value)).transpose()
}

/// The bytes of a nested value (`NFTA_DATA_VALUE`).
pub(super) fn value_of(nested: &[u8], kind: u16) -> Result<&[u8], Misshapen> {
    let data = first(nested, kind)?.map_or(&[][..], |data| data.value);
    Ok(first(data, 1)?.map_or(&[][..], |value| value.value))
}

fn port(value: &[u8]) -> Option<u16> {
    (value.len() == 2).then(|| value.first_chunk().copied().map(u16::from_be_bytes))?
}
