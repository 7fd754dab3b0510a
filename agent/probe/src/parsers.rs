//! The parsers of outside bytes in this crate by name, for fuzz targets and the tests that replay
//! their corpus.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{control, errors, packet};

/// A parser by name; it takes any bytes and must come to an end without a panic.
pub type Parser = (&'static str, fn(&[u8]));

/// Those of this crate.
pub const ALL: &[Parser] = &[("icmp_reply", reply), ("error_queue", error_queue)];

const TARGETS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A reply is no quoted request: the types differ.
fn reply(bytes: &[u8]) {
    for target in TARGETS {
        let reply = packet::read_reply(target, bytes);
        let quoted = packet::read_quoted_request(target, bytes);
        assert!(reply.is_none() || quoted.is_none());
        let whole = bytes.len() >= packet::HEADER_BYTES + size_of::<packet::Nonce>();
        let nonce = reply.or(quoted).and_then(|identity| identity.nonce);
        assert!(nonce.is_none() || whole);
    }
}

/// This machine is never the one that rejected.
fn error_queue(bytes: &[u8]) {
    let Some(error) = control::read(bytes).error else { return };
    let _ = errors::rejection(&error, None);
    assert!(errors::rejection(&error, error.offender).is_none());
}
