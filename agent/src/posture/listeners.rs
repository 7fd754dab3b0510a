//! Sockets of this machine that wait for strangers, from `NETLINK_SOCK_DIAG` (sock_diag(7)), which
//! any user may ask. Their owners are not looked at: which ports are open is all that is judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::netlink::SOCK_DIAG;

use super::finding::Unknown;
use super::netlink::{Misshapen, dump, messages};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// `TCP_LISTEN`, as a bit of the states that are asked for.
const STATE_LISTEN: u32 = 1 << 10;
/// `TCP_CLOSE`: a UDP socket that is connected to nobody.
const STATE_CLOSE: u32 = 1 << 7;
/// `struct inet_diag_req_v2`.
const REQUEST_BYTES: usize = 56;

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A socket that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener {
    /// Its transport.
    pub transport: Transport,
    /// Its port.
    pub port: u16,
    /// Where it waits; unspecified for everywhere.
    pub address: IpAddr,
}

impl Transport {
    /// The label in what was seen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Asks for TCP sockets that listen and UDP sockets that are connected to nobody, both families.
///
/// # Errors
/// When the kernel does not tell.
pub fn ask() -> Result<Vec<Listener>, Unknown> {
    let mut listeners = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        listeners.extend(parse(transport, &record(transport)?)?);
    }
    Ok(listeners)
}

/// The dumps of both families, one behind the other.
///
/// # Errors
/// When the kernel does not tell.
pub fn record(transport: Transport) -> Result<Vec<u8>, Unknown> {
    let mut bytes = Vec::new();
    for family in [AF_INET, AF_INET6] {
        match dump(Some(SOCK_DIAG), BY_FAMILY, &request(transport, family), "listening sockets") {
            Ok(dumped) => bytes.extend(dumped),
            // No such family in this kernel, so no such sockets.
            Err(Unknown::Absent { .. }) if family == AF_INET6 => {}
            Err(unknown) => return Err(unknown),
        }
    }
    Ok(bytes)
}

fn request(transport: Transport, family: u8) -> [u8; REQUEST_BYTES] {
    let (protocol, states) = match transport {
        Transport::Tcp => (IPPROTO_TCP, STATE_LISTEN),
        Transport::Udp => (IPPROTO_UDP, STATE_CLOSE),
    };
    let mut request = [0; REQUEST_BYTES];
    request[0] = family;
    request[1] = protocol;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request
}

/// Takes dumps apart: `struct inet_diag_msg` begins with family, state, timer and retransmissions,
/// then source and destination port and addresses in network order.
///
/// # Errors
/// When the bytes are none.
pub fn parse(transport: Transport, bytes: &[u8]) -> Result<Vec<Listener>, Unknown> {
    let mut listeners = Vec::new();
    for message in messages(bytes) {
        let message = message?;
        if message.kind != BY_FAMILY {
            continue;
        }
        let misshapen = Misshapen("socket");
        let socket = message.payload.first_chunk::<24>().ok_or(misshapen)?;
        let port = u16::from_be_bytes([socket[4], socket[5]]);
        let source: [u8; 16] = socket[8..24].try_into().map_err(|_| misshapen)?;
        let address = match socket[0] {
            AF_INET => Ipv4Addr::new(source[0], source[1], source[2], source[3]).into(),
            AF_INET6 => IpAddr::from(Ipv6Addr::from(source)).to_canonical(),
            _ => return Err(Misshapen("socket's family").into()),
        };
        // A socket that is bound to nothing yet waits for nobody.
        if port != 0 {
            listeners.push(Listener { transport, port, address });
        }
    }
    listeners.sort_unstable();
    listeners.dedup();
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_machines_own_sockets_are_found() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let listeners = ask().unwrap();
        let expected = [(Transport::Tcp, tcp.local_addr()), (Transport::Udp, udp.local_addr())];
        for (transport, address) in expected {
            let address = address.unwrap();
            let own = Listener { transport, port: address.port(), address: address.ip() };
            assert!(listeners.contains(&own), "{own:?} is not among {listeners:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(Transport::Udp, &bytes);
        }
    }
}
