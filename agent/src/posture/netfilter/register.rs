//! What the registers of a rule hold of a stranger's new connection.
//!
//! Expressions load a part of a packet into a register; later ones compare it, or look it up in
//! a set. A register of 16 bytes is four small ones of 4, and a key of several parts stands in
//! small ones that follow each other, each part filled up to 4 bytes (`nft_parse_register` and
//! `NFT_REG32_*` in `nf_tables.h`).

use std::collections::HashMap;

use super::super::listeners::Transport;
use super::super::netlink::Misshapen;
use super::clause::{field, value_of};
use super::{FAMILY_IPV4, FAMILY_IPV6, Family};

/// A connection as it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) family: Family,
    pub(super) transport: Transport,
    pub(super) port: u16,
}

impl Arrival {
    /// `IPPROTO_TCP`, `IPPROTO_UDP`.
    pub(super) const fn protocol(self) -> u8 {
        match self.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    pub(super) const fn family(self) -> u8 {
        match self.family {
            Family::V4 => FAMILY_IPV4,
            Family::V6 => FAMILY_IPV6,
        }
    }
}

/// What is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loaded {
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

/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
pub(super) const NEW: u32 = 8;
pub(super) const RTN_LOCAL: u32 = 2;
/// Interface index of loopback, which the kernel creates first in every namespace.
pub(super) const LOOPBACK_INDEX: u32 = 1;
const INTERFACE_NAME_BYTES: usize = 16;
/// `lo` as the kernel keeps a name.
const LOOPBACK_NAME: [u8; INTERFACE_NAME_BYTES] = {
    let mut name = [0; INTERFACE_NAME_BYTES];
    name[0] = b'l';
    name[1] = b'o';
    name
};

/// What is known of the bytes of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bytes {
    /// These.
    Known(Vec<u8>),
    /// Any but these.
    AnyBut(Vec<u8>),
    /// Any.
    Any,
}

impl Loaded {
    /// What a new connection from elsewhere has here, as the kernel writes it.
    pub(super) fn bytes(self, arrival: Arrival) -> Bytes {
        match self {
            Self::Protocol => Bytes::Known(vec![arrival.protocol()]),
            Self::Family => Bytes::Known(vec![arrival.family()]),
            // To this host; broadcast and multicast carry no connection.
            Self::PacketType => Bytes::Known(vec![0]),
            Self::DestinationPort => Bytes::Known(arrival.port.to_be_bytes().to_vec()),
            Self::DestinationType => Bytes::Known(RTN_LOCAL.to_ne_bytes().to_vec()),
            Self::State(mask) => Bytes::Known((NEW & mask).to_ne_bytes().to_vec()),
            Self::InterfaceIndex => Bytes::AnyBut(LOOPBACK_INDEX.to_ne_bytes().to_vec()),
            Self::InterfaceName => Bytes::AnyBut(LOOPBACK_NAME.to_vec()),
            Self::BothPorts | Self::DestinationAddress | Self::Other(_) => Bytes::Any,
        }
    }

    /// Its name where a verdict depends on it.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::InterfaceIndex | Self::InterfaceName => "interface",
            Self::DestinationAddress | Self::DestinationType => "destination address",
            Self::DestinationPort | Self::BothPorts => "port",
            Self::State(_) => "connection",
            Self::Protocol | Self::Family | Self::PacketType => "packet's kind",
            Self::Other(kind) => kind,
        }
    }
}

/// A part of a key: what was loaded, and how many bytes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) loaded: Loaded,
    pub(super) width: usize,
}

impl Part {
    /// Bytes that it takes among other parts.
    pub(super) const fn padded(self) -> usize {
        self.width.next_multiple_of(SMALL_BYTES as usize)
    }
}

/// The registers of one rule, by the number of the small register that they begin with.
#[derive(Debug, Default)]
pub(super) struct Registers(HashMap<u32, Part>);

/// Bytes of a small register.
const SMALL_BYTES: u32 = 4;
/// The number of the first small register by that name (`NFT_REG32_00`); it is where the first of
/// the large ones begins, and large ones are numbered from 1.
const SMALL_FIRST: u32 = 8;
const SMALL_LAST: u32 = SMALL_FIRST + 15;
const LARGE_LAST: u32 = 4;

/// Where a register begins, in small ones; `None` for one that the kernel does not have.
fn slot(register: u32) -> Option<u32> {
    match register {
        0..=LARGE_LAST => Some(register * 4),
        SMALL_FIRST..=SMALL_LAST => Some(register - SMALL_FIRST + 4),
        _ => None,
    }
}

impl Registers {
    /// Takes in what one of the loading expressions loads. One that writes into the packet, its
    /// mark or its connection loads nothing.
    pub(super) fn load(&mut self, name: &str, data: &[u8]) -> Result<(), Misshapen> {
        let Some(register) = field(data, 1)? else { return Ok(()) };
        let part = match name {
            "meta" => meta(field(data, 2)?),
            "ct" => match field(data, 2)? {
                Some(0) => Part { loaded: Loaded::State(u32::MAX), width: 4 },
                _ => Part { loaded: Loaded::Other("connection"), width: 4 },
            },
            "fib" => match (field(data, 2)?, field(data, 3)?) {
                (Some(3), Some(2)) => Part { loaded: Loaded::DestinationType, width: 4 },
                _ => Part { loaded: Loaded::Other("route"), width: 4 },
            },
            _ => payload(field(data, 2)?, field(data, 3)?, field(data, 4)?),
        };
        self.put(Some(register), part);
        Ok(())
    }

    /// Keeps a value that says nothing of the packet.
    pub(super) fn constant(&mut self, data: &[u8]) -> Result<(), Misshapen> {
        let width = value_of(data, 2)?.len();
        self.put(field(data, 1)?, Part { loaded: Loaded::Other("value"), width });
        Ok(())
    }

    /// Takes in what a mask leaves of a register.
    pub(super) fn mask(&mut self, data: &[u8]) -> Result<(), Misshapen> {
        let host = |value: &[u8]| value.first_chunk().copied().map(u32::from_ne_bytes);
        let source = self.part(field(data, 1)?);
        let width = source.map_or(4, |part| part.width);
        let loaded = match (source, host(value_of(data, 4)?), host(value_of(data, 5)?)) {
            (Some(Part { loaded: Loaded::State(before), .. }), Some(mask), Some(0)) => {
                Loaded::State(before & mask)
            }
            (source, ..) => Loaded::Other(source.map_or("condition", |part| part.loaded.kind())),
        };
        self.put(field(data, 2)?, Part { loaded, width });
        Ok(())
    }

    /// Takes in a register with its bytes swapped; a single byte stays as it is.
    pub(super) fn swap(&mut self, data: &[u8]) -> Result<(), Misshapen> {
        let part = match self.part(field(data, 1)?) {
            Some(byte @ Part { width: 1, .. }) => byte,
            Some(Part { loaded, width }) => Part { loaded: Loaded::Other(loaded.kind()), width },
            None => Part { loaded: Loaded::Other("condition"), width: 4 },
        };
        self.put(field(data, 2)?, part);
        Ok(())
    }

    /// What a register holds.
    pub(super) fn get(&self, register: Option<u32>) -> Option<Loaded> {
        self.part(register).map(|part| part.loaded)
    }

    /// The parts that stand behind each other from a register on. More may stand there than a key
    /// has.
    pub(super) fn parts(&self, register: Option<u32>) -> Vec<Part> {
        let mut parts = Vec::new();
        let Some(mut at) = register.and_then(slot) else { return parts };
        while let Some(part) = self.0.get(&at).filter(|part| part.width > 0) {
            parts.push(*part);
            at += part.padded() as u32 / SMALL_BYTES;
        }
        parts
    }

    fn part(&self, register: Option<u32>) -> Option<Part> {
        self.0.get(&slot(register?)?).copied()
    }

    /// What stood in the registers that it covers is gone.
    fn put(&mut self, register: Option<u32>, part: Part) {
        let Some(first) = register.and_then(slot) else { return };
        let after = first + part.padded() as u32 / SMALL_BYTES;
        self.0.retain(|at, old| {
            let end = *at + old.padded() as u32 / SMALL_BYTES;
            end <= first || *at >= after
        });
        self.0.insert(first, part);
    }
}

fn meta(key: Option<u32>) -> Part {
    let (loaded, width) = match key {
        Some(4) => (Loaded::InterfaceIndex, 4),
        Some(6) => (Loaded::InterfaceName, INTERFACE_NAME_BYTES),
        Some(15) => (Loaded::Family, 1),
        Some(16) => (Loaded::Protocol, 1),
        Some(19) => (Loaded::PacketType, 1),
        _ => (Loaded::Other("packet's mark or kind"), 4),
    };
    Part { loaded, width }
}

/// By base (1 the network header, 2 the transport header), offset and length.
fn payload(base: Option<u32>, offset: Option<u32>, length: Option<u32>) -> Part {
    let loaded = match (base, offset, length) {
        (Some(1), Some(9), Some(1)) | (Some(1), Some(6), Some(1)) => Loaded::Protocol,
        (Some(1), Some(16), Some(4)) | (Some(1), Some(24), Some(16)) => Loaded::DestinationAddress,
        (Some(1), Some(12), Some(4)) | (Some(1), Some(8), Some(16)) => {
            Loaded::Other("source address")
        }
        (Some(2), Some(2), Some(2)) => Loaded::DestinationPort,
        (Some(2), Some(0), Some(4)) => Loaded::BothPorts,
        (Some(2), Some(0), Some(2)) => Loaded::Other("source port"),
        _ => Loaded::Other("packet's content"),
    };
    // A key has at most 64 bytes (`NFT_DATA_VALUE_MAXLEN`).
    Part { loaded, width: length.unwrap_or_default().min(64) as usize }
}
