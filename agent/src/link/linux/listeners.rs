//! TCP sockets that listen, by `NETLINK_SOCK_DIAG` (`sock_diag(7)`), which needs no privilege.
//!
//! Read from plain bytes, so that no answer can do more than be refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto,
    socket_with,
};

use crate::evidence::LocalFault;
use crate::link::joints::Listener;

/// Sockets listed at most: an office machine has a few dozen.
const LISTENERS_MAX: usize = 4_096;
/// A dump is answered while it is read; more is a kernel in trouble.
const TIMEOUT: Duration = Duration::from_millis(200);
/// The kernel fills at most this much at once (`net/netlink/af_netlink.c`, `netlink_recvmsg`).
const BUFFER_BYTES: usize = 32 << 10;

/// `include/uapi/linux/netlink.h`, `sock_diag.h`, `inet_diag.h`, `include/net/tcp_states.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;
const HEADER_BYTES: usize = 16;
/// `inet_diag_req_v2`.
const REQUEST_BYTES: usize = 56;
/// `inet_diag_msg` up to and with the interface.
const SOCKET_BYTES: usize = 4 + 44;

/// Lists the sockets of both families.
///
/// # Errors
/// When the kernel refuses, or answers what is not understood.
pub(super) fn listeners() -> Result<Vec<Listener>, LocalFault> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        dump(family, &mut found).map_err(|problem| {
            LocalFault(format!("cannot list the TCP sockets that listen: {problem}"))
        })?;
    }
    Ok(found)
}

fn dump(family: u8, found: &mut Vec<Listener>) -> Result<(), String> {
    let text = |errno: Errno| errno.to_string();
    let socket = open().map_err(text)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &request(family), SendFlags::empty(), &kernel).map_err(text)?;
    let mut bytes = vec![0; BUFFER_BYTES];
    loop {
        let (length, full) = match recv(&socket, &mut bytes, RecvFlags::TRUNC) {
            Ok((_, full)) if full > BUFFER_BYTES => return Err("an answer is too long".into()),
            Ok((length, full)) => (length, full),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.to_string()),
        };
        debug_assert!(length == full, "nothing was cut off");
        match read(&bytes[..length], found)? {
            Progress::More if found.len() > LISTENERS_MAX => {
                return Err(format!("there are more than {LISTENERS_MAX}"));
            }
            Progress::More => {}
            Progress::Done => return Ok(()),
        }
    }
}

fn open() -> Result<OwnedFd, Errno> {
    let protocol = Some(netlink::SOCK_DIAG);
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
    Ok(socket)
}

fn request(family: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    bytes.extend_from_slice(&((HEADER_BYTES + REQUEST_BYTES) as u32).to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(&[family, IPPROTO_TCP, 0, 0]);
    bytes.extend_from_slice(&(1_u32 << TCP_LISTEN).to_ne_bytes());
    bytes.resize(HEADER_BYTES + REQUEST_BYTES, 0);
    bytes
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
}

/// Reads the messages of one datagram.
fn read(mut bytes: &[u8], found: &mut Vec<Listener>) -> Result<Progress, String> {
    let truncated = || "a truncated message".to_owned();
    while !bytes.is_empty() {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(truncated)?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = bytes.get(HEADER_BYTES..length).ok_or_else(truncated)?;
        if u16::from_ne_bytes([f0, f1]) & NLM_F_DUMP_INTR != 0 {
            return Err("the sockets changed during the dump".into());
        }
        match u16::from_ne_bytes([k0, k1]) {
            NLMSG_DONE => return Ok(Progress::Done),
            NLMSG_ERROR => {
                let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(Errno::from_raw_os_error(code.saturating_neg()).to_string());
            }
            SOCK_DIAG_BY_FAMILY => found.push(listener(body).ok_or_else(truncated)?),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Progress::More)
}

/// `inet_diag_msg`: family, state, timer, retransmissions; then source port and destination port,
/// both addresses of 16 bytes, and the interface.
fn listener(body: &[u8]) -> Option<Listener> {
    let fixed = body.first_chunk::<SOCKET_BYTES>()?;
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let octets: [u8; 16] = *fixed[8..].first_chunk()?;
    let address = match fixed[0] {
        AF_INET => IpAddr::from(Ipv4Addr::from(*octets.first_chunk::<4>()?)),
        AF_INET6 => IpAddr::from(Ipv6Addr::from(octets)),
        _ => return None,
    };
    let device = u32::from_ne_bytes(*fixed[40..].first_chunk()?);
    Some(Listener { address, port, device: Some(device).filter(|device| *device != 0) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(body);
        bytes
    }

    fn body(family: u8, port: u16, octets: [u8; 16], device: u32) -> Vec<u8> {
        let mut body = vec![family, 10, 0, 0];
        body.extend_from_slice(&port.to_be_bytes());
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&octets);
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(&device.to_ne_bytes());
        body.resize(72, 0);
        body
    }

    #[test]
    fn sockets_of_the_kernel_are_listed_in_both_families() {
        let bind = |address: &str| std::net::TcpListener::bind((address, 0)).expect("a port");
        let sockets = [bind("127.0.0.1"), bind("::1")];
        let found = listeners().expect("the kernel answers");
        for socket in sockets {
            let address = socket.local_addr().expect("its address");
            let expected = Listener { address: address.ip(), port: address.port(), device: None };
            assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
        }
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&[198, 18, 10, 10]);
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, &body(AF_INET, 3128, octets, 2));
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, &body(AF_INET6, 1080, [0; 16], 0)));
        let mut found = Vec::new();
        assert_eq!(read(&bytes, &mut found), Ok(Progress::More));
        let v4 = Listener { address: [198, 18, 10, 10].into(), port: 3128, device: Some(2) };
        let any = Listener { address: Ipv6Addr::UNSPECIFIED.into(), port: 1080, device: None };
        assert_eq!(found, [v4, any]);
        assert_eq!(read(&message(NLMSG_DONE, &[0; 4]), &mut found), Ok(Progress::Done));
    }

    #[test]
    fn refusals_and_truncated_messages_are_errors_and_never_an_empty_list() {
        let refused = message(NLMSG_ERROR, &(-2_i32).to_ne_bytes());
        let short = message(SOCK_DIAG_BY_FAMILY, &[AF_INET; SOCKET_BYTES - 1]);
        let unknown_family = message(SOCK_DIAG_BY_FAMILY, &body(1, 1, [0; 16], 0));
        let mut beyond = message(NLMSG_DONE, &[0; 4]);
        beyond[0] = 200;
        let mut interrupted = message(SOCK_DIAG_BY_FAMILY, &body(AF_INET, 1, [0; 16], 0));
        interrupted[6] = NLM_F_DUMP_INTR as u8;
        for bytes in [refused, short, unknown_family, beyond, interrupted, vec![0; 5]] {
            assert!(read(&bytes, &mut Vec::new()).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut found = Vec::new();
            let _ = read(&bytes, &mut found);
            prop_assert!(found.len() * (HEADER_BYTES + SOCKET_BYTES) <= bytes.len());
        }
    }
}
