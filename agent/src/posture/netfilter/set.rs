//! Sets and maps of nf_tables: whether a connection is among the elements, and to which verdict.
//!
//! The elements of a set with intervals are dumped as bounds: where one begins, and, flagged,
//! where it has ended (`NFT_SET_ELEM_INTERVAL_END`). A key of several parts has the ends of its
//! ranges beside their beginnings (`NFTA_SET_ELEM_KEY_END`).

use std::mem;

use super::super::netlink::{Misshapen, attributes};
use super::clause::{Chance, End, field, value_of};
use super::register::{Arrival, Bytes, Part};
use super::rule::{expression, first, verdict_of};

/// A set, or a map to verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Set {
    key_bytes: usize,
    has_intervals: bool,
    /// Where intervals begin, and to which end they lead, and where they have ended.
    bounds: Vec<(Vec<u8>, Option<End>)>,
    /// `None` where they were not asked for.
    elements: Option<Vec<Element>>,
    /// What is not among the others (`NFT_SET_ELEM_CATCHALL`).
    rest: Option<End>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    from: Vec<u8>,
    /// Inclusive.
    to: Vec<u8>,
    end: End,
}

/// Where a connection is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Nowhere.
    Nowhere,
    /// In an element; a map's leads to this.
    Element(&'a End),
    /// That depends on what is not read.
    Unread(&'static str),
}

const FLAG_INTERVAL: u32 = 4;
const FLAG_CONCATENATION: u32 = 0x80;
const ELEMENT_INTERVAL_END: u32 = 1;
const ELEMENT_CATCHALL: u32 = 2;
/// Types of keys that nft(8) numbers: addresses of IPv4, IPv6 and Ethernet.
const ADDRESS_TYPES: std::ops::RangeInclusive<u32> = 7..=9;

/// The head of a set, as `NEWSET` tells it.
pub(super) struct Head<'a> {
    pub(super) table: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) set: Set,
    /// Whether its elements can matter: of a list of addresses, which may be long, nothing is
    /// known anyway.
    pub(super) is_of_interest: bool,
}

/// Reads the head.
pub(super) fn head(body: &[u8]) -> Result<Head<'_>, Misshapen> {
    let (mut table, mut name) = (&[][..], &[][..]);
    let (mut flags, mut key_type, mut key_bytes) = (0, 0, 0);
    for attribute in attributes(body) {
        let attribute = attribute?;
        match attribute.kind {
            1 => table = attribute.value,
            2 => name = attribute.value,
            3 => flags = super::number(attribute.value)?,
            4 => key_type = super::number(attribute.value)?,
            5 => key_bytes = super::number(attribute.value)?,
            _ => {}
        }
    }
    let set = Set {
        key_bytes: key_bytes as usize,
        has_intervals: flags & FLAG_INTERVAL != 0 && flags & FLAG_CONCATENATION == 0,
        ..Set::default()
    };
    Ok(Head { table, name, set, is_of_interest: !ADDRESS_TYPES.contains(&key_type) })
}

/// An element as it is dumped.
struct Dumped {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    flags: u32,
    end: End,
}

impl Set {
    /// Takes in elements (`NFTA_SET_ELEM_LIST_ELEMENTS`); a large set has several messages of
    /// them.
    pub(super) fn extend(&mut self, list: &[u8]) -> Result<(), Misshapen> {
        let elements = self.elements.get_or_insert_default();
        for element in attributes(list) {
            let Dumped { key, key_end, flags, end } = dumped(element?.value)?;
            if flags & ELEMENT_CATCHALL != 0 {
                self.rest = Some(end);
            } else if self.has_intervals {
                self.bounds.push((key, (flags & ELEMENT_INTERVAL_END == 0).then_some(end)));
            } else {
                let to = key_end.unwrap_or_else(|| key.clone());
                elements.push(Element { from: key, to, end });
            }
        }
        Ok(())
    }

    /// Makes ranges of bounds, when all of them are there.
    pub(super) fn close(&mut self) {
        let mut bounds = mem::take(&mut self.bounds);
        // Where one has ended and the next begins at once, the beginning counts.
        bounds.sort_by(|a, b| (&a.0, a.1.is_some()).cmp(&(&b.0, b.1.is_some())));
        let mut bounds = bounds.into_iter().peekable();
        while let Some((from, end)) = bounds.next() {
            let Some(end) = end else { continue };
            let next = bounds.peek().map(|(next, _)| next.clone());
            let to = next.map_or_else(|| vec![u8::MAX; from.len()], before);
            self.elements.get_or_insert_default().push(Element { from, to, end });
        }
    }

    /// Where a connection is found, whose key the parts begin with.
    pub(super) fn find(&self, parts: &[Part], arrival: Arrival) -> Found<'_> {
        let (Some(elements), Some(parts)) = (&self.elements, self.key(parts)) else {
            return Found::Unread("set");
        };
        let mut unread = None;
        for element in elements {
            match element.holds(&parts, arrival) {
                (Chance::Yes, _) => return Found::Element(&element.end),
                (Chance::No, _) => {}
                (Chance::Maybe, kind) => unread = unread.or(Some(kind)),
            }
        }
        match (unread, &self.rest) {
            (Some(kind), _) => Found::Unread(kind),
            (None, Some(end)) => Found::Element(end),
            (None, None) => Found::Nowhere,
        }
    }

    /// The parts of which the key is made, each with where it begins; `None` when the key is made
    /// in another way.
    fn key(&self, parts: &[Part]) -> Option<Vec<(usize, Part)>> {
        if let Some(part) = parts.first().filter(|part| part.width == self.key_bytes) {
            return Some(vec![(0, *part)]);
        }
        let (mut key, mut at) = (Vec::new(), 0);
        for part in parts {
            if at == self.key_bytes {
                break;
            }
            key.push((at, *part));
            at += part.padded();
        }
        (at == self.key_bytes).then_some(key)
    }
}

impl Element {
    /// Whether a connection is this element, and what that depends on.
    fn holds(&self, parts: &[(usize, Part)], arrival: Arrival) -> (Chance, &'static str) {
        let mut all = (Chance::Yes, "set");
        for (at, part) in parts {
            let within = *at..at + part.width;
            let (Some(from), Some(to)) = (self.from.get(within.clone()), self.to.get(within))
            else {
                return (Chance::Maybe, "set");
            };
            let here = match part.loaded.bytes(arrival) {
                Bytes::Known(bytes) if (from..=to).contains(&bytes.as_slice()) => Chance::Yes,
                Bytes::Known(_) => Chance::No,
                Bytes::AnyBut(bytes) if from == bytes && to == bytes => Chance::No,
                Bytes::AnyBut(_) | Bytes::Any => Chance::Maybe,
            };
            if here < all.0 {
                all = (here, part.loaded.kind());
            }
        }
        // One with a limit or a quota of its own lets some through.
        match (all.0, &self.end) {
            (Chance::Yes, End::Unread(kind)) if *kind == LIMITED => (Chance::Maybe, LIMITED),
            _ => all,
        }
    }
}

/// What an element depends on that has an expression of its own.
const LIMITED: &str = "limit in a set";

fn dumped(element: &[u8]) -> Result<Dumped, Misshapen> {
    let end = match first(element, 2)? {
        Some(data) => verdict_of(data.value)?.map_or(End::Unread("map"), End::of),
        None => End::Next,
    };
    let key_end = first(element, 10)?.is_some().then(|| value_of(element, 10)).transpose()?;
    Ok(Dumped {
        key: value_of(element, 1)?.to_vec(),
        key_end: key_end.map(<[u8]>::to_vec),
        flags: field(element, 3)?.unwrap_or_default(),
        end: if is_limited(element)? { End::Unread(LIMITED) } else { end },
    })
}

/// Whether an element has an expression that is more than a counter.
fn is_limited(element: &[u8]) -> Result<bool, Misshapen> {
    let mut own: Vec<&[u8]> = first(element, 7)?.map(|one| one.value).into_iter().collect();
    if let Some(list) = first(element, 11)? {
        for one in attributes(list.value) {
            own.push(one?.value);
        }
    }
    for one in own {
        if !matches!(expression(one)?.0.as_str(), "counter" | "last") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The value before another; bounds are compared with their most significant byte first.
fn before(mut value: Vec<u8>) -> Vec<u8> {
    for byte in value.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    value
}
