//! Asks this kernel for its packet filter. Dump requests only: nothing is changed.

use rustix::net::netlink::NETFILTER;

use super::super::finding::Unknown;
use super::super::netlink::{Misshapen, attribute, dump, messages};
use super::set::{Head, head};
use super::{GENMSG_BYTES, Ruleset, SUBSYSTEM, genmsg, parse};

/// Sets whose elements are asked for, and bytes of all of them. What is beyond is not read, and
/// what depends on it is unknown.
const SETS_MAX: usize = 256;
const ELEMENT_BYTES_MAX: usize = 2 << 20;
/// Attempts at dumps that fit together.
const ATTEMPTS_MAX: usize = 3;

const GETTABLE: u16 = SUBSYSTEM | 1;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const GETRULE: u16 = SUBSYSTEM | 7;
const GETSET: u16 = SUBSYSTEM | 10;
const GETSETELEM: u16 = SUBSYSTEM | 13;

/// Dumps tables, chains, rules and sets of this kernel. Needs CAP_NET_ADMIN.
///
/// # Errors
/// [`Unknown::PermissionDenied`] without it.
pub fn ask() -> Result<Ruleset, Unknown> {
    parse(&record()?)
}

/// The dumps, one behind the other, all of one generation of the ruleset.
///
/// # Errors
/// As [`ask`].
pub fn record() -> Result<Vec<u8>, Unknown> {
    for _ in 0..ATTEMPTS_MAX {
        let bytes = attempt()?;
        if is_of_one_generation(&bytes)? {
            return Ok(bytes);
        }
    }
    Err(Unknown::Unreadable {
        what: "nftables".into(),
        problem: format!("changed during each of {ATTEMPTS_MAX} attempts"),
    })
}

fn attempt() -> Result<Vec<u8>, Unknown> {
    let all_families = [0_u8; GENMSG_BYTES];
    let mut bytes = Vec::new();
    for (kind, what) in
        [(GETTABLE, "nftables tables"), (GETCHAIN, "nftables chains"), (GETRULE, "nftables rules")]
    {
        bytes.extend(dump(Some(NETFILTER), kind, &all_families, what)?);
    }
    let sets = dump(Some(NETFILTER), GETSET, &all_families, "nftables sets")?;
    let requests = element_requests(&sets)?;
    bytes.extend(sets);
    let mut left = ELEMENT_BYTES_MAX;
    for request in requests.iter().take(SETS_MAX) {
        // One that is too large, or is gone, is not read; no other depends on it.
        let Ok(elements) = dump(Some(NETFILTER), GETSETELEM, request, "nftables set") else {
            continue;
        };
        if let Some(rest) = left.checked_sub(elements.len()) {
            left = rest;
            bytes.extend(elements);
        }
    }
    Ok(bytes)
}

/// What asks for the elements of each set that can matter.
fn element_requests(sets: &[u8]) -> Result<Vec<Vec<u8>>, Misshapen> {
    let mut requests = Vec::new();
    for message in messages(sets) {
        let (family, body) = genmsg(message?.payload)?;
        let Head { table, name, is_of_interest, .. } = head(body)?;
        if is_of_interest {
            let mut request = vec![family, 0, 0, 0];
            request.extend(attribute(1, table));
            request.extend(attribute(2, name));
            requests.push(request);
        }
    }
    Ok(requests)
}

/// Every message of a dump carries the low half of the ruleset's generation (`res_id`).
fn is_of_one_generation(bytes: &[u8]) -> Result<bool, Misshapen> {
    let mut generation = None;
    for message in messages(bytes) {
        let of_message = message?.payload.get(2..GENMSG_BYTES).map(<[u8]>::to_vec);
        if *generation.get_or_insert_with(|| of_message.clone()) != of_message {
            return Ok(false);
        }
    }
    Ok(true)
}
