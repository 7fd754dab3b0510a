//! Echo packets, as a datagram ICMP socket sends and receives them: from the ICMP header on. The
//! kernel fills in checksum and identifier, and hands over only what carries its identifier.

use std::net::IpAddr;

use crate::plan::IDENTITY_BYTES;

/// ICMP and ICMPv6 echo header: type, code, checksum, identifier, sequence.
pub(crate) const HEADER_BYTES: usize = 8;

/// Random bytes at the start of the payload: who did not see the request cannot answer it.
pub(crate) type Nonce = [u8; IDENTITY_BYTES as usize];

/// A packet that the kernel handed over, reduced to what says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Sequence number.
    pub(crate) sequence: u16,
    /// The payload's start; `None` when it is shorter.
    pub(crate) nonce: Option<Nonce>,
}

/// Types of RFC 792 and RFC 4443.
#[derive(Debug, Clone, Copy)]
struct EchoTypes {
    request: u8,
    reply: u8,
}

const fn echo_types(target: IpAddr) -> EchoTypes {
    match target {
        IpAddr::V4(_) => EchoTypes { request: 8, reply: 0 },
        IpAddr::V6(_) => EchoTypes { request: 128, reply: 129 },
    }
}

/// Writes a request; the payload after the nonce is a pattern that compresses badly, so that a
/// compressing line carries it at full size.
pub(crate) fn write_request(
    target: IpAddr,
    sequence: u16,
    nonce: &Nonce,
    payload_bytes: u16,
    packet: &mut Vec<u8>,
) {
    packet.clear();
    packet.extend_from_slice(&[echo_types(target).request, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(nonce);
    let seed = u64::from_le_bytes([
        nonce[0], nonce[1], nonce[2], nonce[3], nonce[4], nonce[5], nonce[6], nonce[7],
    ]);
    // An odd state keeps xorshift away from its fixed point at 0.
    let mut state = seed | 1;
    for _ in IDENTITY_BYTES..payload_bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        packet.push((state >> 24) as u8);
    }
}

/// Reads an echo reply; `None` for anything else.
pub(crate) fn read_reply(target: IpAddr, bytes: &[u8]) -> Option<Identity> {
    read(echo_types(target).reply, bytes)
}

/// Reads the start of our own request as an ICMP error quotes it. Routers may quote as little as
/// the header (RFC 792), so the nonce may be missing.
pub(crate) fn read_quoted_request(target: IpAddr, bytes: &[u8]) -> Option<Identity> {
    read(echo_types(target).request, bytes)
}

fn read(kind: u8, bytes: &[u8]) -> Option<Identity> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [found, code, _, _, _, _, high, low] = *header;
    (found == kind && code == 0).then(|| Identity {
        sequence: u16::from_be_bytes([high, low]),
        nonce: payload.first_chunk::<{ IDENTITY_BYTES as usize }>().copied(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const TARGETS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    #[test]
    fn a_reply_to_a_request_is_no_request() {
        for target in TARGETS {
            let mut packet = Vec::new();
            write_request(target, 7, &[9; 16], 32, &mut packet);
            assert_eq!(packet.len(), HEADER_BYTES + 32);
            assert_eq!(read_reply(target, &packet), None);
            assert_eq!(
                read_quoted_request(target, &packet),
                Some(Identity { sequence: 7, nonce: Some([9; 16]) })
            );
        }
    }

    #[test]
    fn a_quote_of_the_header_alone_has_no_nonce() {
        let mut packet = Vec::new();
        write_request(TARGETS[0], 0x0102, &[9; 16], 16, &mut packet);
        let quoted = read_quoted_request(TARGETS[0], &packet[..HEADER_BYTES]);
        assert_eq!(quoted, Some(Identity { sequence: 0x0102, nonce: None }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for target in TARGETS {
                if let Some(identity) = read_reply(target, &bytes) {
                    prop_assert!(bytes.len() >= HEADER_BYTES);
                    prop_assert_eq!(identity.nonce.is_some(), bytes.len() >= HEADER_BYTES + 16);
                }
                let _ = read_quoted_request(target, &bytes);
            }
        }

        #[test]
        fn a_request_has_the_size_asked_for(
            nonce in any::<Nonce>(), sequence in any::<u16>(), payload in IDENTITY_BYTES..2_000,
        ) {
            let mut packet = Vec::new();
            write_request(TARGETS[0], sequence, &nonce, payload, &mut packet);
            prop_assert_eq!(packet.len(), HEADER_BYTES + usize::from(payload));
            prop_assert_eq!(
                read_quoted_request(TARGETS[0], &packet),
                Some(Identity { sequence, nonce: Some(nonce) })
            );
        }
    }
}
