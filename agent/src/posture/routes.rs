//! IPv6 default routes that a router advertisement made, whoever took it in: the kernel and
//! NetworkManager both mark them `RTPROT_RA` (rtnetlink(7)), which `/proc/net/ipv6_route` does
//! not show. Any user may ask.

use rustix::net::Protocol;

use super::finding::Unknown;
use super::netlink::{Misshapen, attributes, dump, messages, read_u32};

/// `NETLINK_ROUTE` is protocol 0.
const ROUTE: Option<Protocol> = None;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const AF_INET6: u8 = 10;
/// `struct rtmsg`: family, destination bits, source bits, TOS, table, protocol, scope, type, flags.
const RTMSG_BYTES: usize = 12;
const PROTOCOL_RA: u8 = 9;
const TYPE_UNICAST: u8 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;

/// Kernel indices of the interfaces.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn ask() -> Result<Vec<u32>, Unknown> {
    let mut request = [0; RTMSG_BYTES];
    request[0] = AF_INET6;
    parse(&dump(ROUTE, GETROUTE, &request, "IPv6 routes")?)
}

/// Takes a dump apart.
///
/// # Errors
/// When the bytes are none.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<u32>, Unknown> {
    let mut interfaces = Vec::new();
    for message in messages(bytes) {
        let message = message?;
        let header = message.payload.first_chunk::<RTMSG_BYTES>().ok_or(Misshapen("route"))?;
        let [AF_INET6, 0, _, _, _, PROTOCOL_RA, _, TYPE_UNICAST, ..] = *header else { continue };
        if message.kind != NEWROUTE {
            continue;
        }
        for attribute in attributes(&message.payload[RTMSG_BYTES..]) {
            let attribute = attribute?;
            match attribute.kind {
                RTA_OIF => interfaces.extend(read_u32(attribute.value)),
                // Several next hops: `struct rtnexthop` has its interface at byte 4.
                RTA_MULTIPATH => {
                    interfaces.extend(attribute.value.get(4..).and_then(read_u32));
                }
                _ => {}
            }
        }
    }
    interfaces.sort_unstable();
    interfaces.dedup();
    Ok(interfaces)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn the_kernel_answers_any_user() {
        assert!(ask().is_ok());
    }
}
