//! Control messages of `recvmsg(2)`: the kernel's receive stamp, and the error queue's
//! `sock_extended_err` with its offender (`ip(7)`, `IP_RECVERR`; `include/uapi/linux/errqueue.h`).
//!
//! Read from plain bytes, so that no input can do more than be ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Bytes of a control buffer: a stamp and an error with an IPv6 offender take 112; the rest is
/// room for messages that another kernel may add.
pub(crate) const BUFFER_BYTES: usize = 256;

/// What the control messages of one packet say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Control {
    /// When the packet arrived, on the wall clock, since 1970.
    pub(crate) arrived: Option<Duration>,
    /// The error that the packet carries.
    pub(crate) error: Option<ExtendedError>,
}

/// An entry of the error queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExtendedError {
    pub(crate) origin: Origin,
    /// ICMP or ICMPv6 type.
    pub(crate) kind: u8,
    /// ICMP or ICMPv6 code.
    pub(crate) code: u8,
    /// The next hop's MTU in "fragmentation needed" and "packet too big", else 0.
    pub(crate) info: u32,
    /// Who sent the error.
    pub(crate) offender: Option<IpAddr>,
}

/// Who raised an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Icmp,
    Icmp6,
    /// This machine, or a kind that we do not know.
    Other,
}

/// `cmsghdr` begins with a `size_t`, then level and type; data and the next header are aligned
/// to a `size_t` (`cmsg(3)`).
const WORD: usize = size_of::<usize>();
const HEADER_BYTES: usize = (WORD + 8).next_multiple_of(WORD);

/// Reads all messages up to the first that is empty or does not fit.
pub(crate) fn read(mut bytes: &[u8]) -> Control {
    let mut control = Control::default();
    while let Some((level, kind, data, rest)) = next(bytes) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => control.arrived = timestamp(data),
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => {
                control.error = extended_error(data);
            }
            _ => {}
        }
        bytes = rest;
    }
    control
}

fn next(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(*bytes.first_chunk::<WORD>()?);
    let level = i32_at(bytes, WORD)?;
    let kind = i32_at(bytes, WORD + 4)?;
    let data = bytes.get(HEADER_BYTES..length)?;
    let following = length.checked_next_multiple_of(WORD)?;
    Some((level, kind, data, bytes.get(following..).unwrap_or_default()))
}

fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A `timespec`: two words of 64 bits, or of 32 on old 32-bit systems.
fn timestamp(data: &[u8]) -> Option<Duration> {
    let (seconds, nanoseconds) = match data.len() {
        16 => {
            let (seconds, nanoseconds) = data.split_first_chunk::<8>()?;
            let nanoseconds = nanoseconds.first_chunk::<8>()?;
            (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*nanoseconds))
        }
        8 => (i64::from(i32_at(data, 0)?), i64::from(i32_at(data, 4)?)),
        _ => return None,
    };
    let nanoseconds = u32::try_from(nanoseconds).ok().filter(|value| *value < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))
}

/// `sock_extended_err`: errno (4), origin, type, code, pad, info (4), data (4), then the offender
/// as a `sockaddr`.
fn extended_error(data: &[u8]) -> Option<ExtendedError> {
    let (fixed, offender) = data.split_first_chunk::<16>()?;
    let [_, _, _, _, origin, kind, code, _, i0, i1, i2, i3, _, _, _, _] = *fixed;
    let origin = match origin {
        libc::SO_EE_ORIGIN_ICMP => Origin::Icmp,
        libc::SO_EE_ORIGIN_ICMP6 => Origin::Icmp6,
        _ => Origin::Other,
    };
    let info = u32::from_ne_bytes([i0, i1, i2, i3]);
    Some(ExtendedError { origin, kind, code, info, offender: socket_address(offender) })
}

/// `sockaddr_in` has its address at offset 4, `sockaddr_in6` at 8.
fn socket_address(bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(u16::from_ne_bytes(*bytes.first_chunk()?)) {
        libc::AF_INET => {
            let octets: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some(Ipv4Addr::from(octets).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER_BYTES + data.len()).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(WORD), 0);
        bytes
    }

    fn stamp(seconds: i64, nanoseconds: i64) -> Vec<u8> {
        let data = [seconds.to_ne_bytes(), nanoseconds.to_ne_bytes()].concat();
        message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &data)
    }

    fn net_unreachable() -> Vec<u8> {
        let mut data = 101_u32.to_ne_bytes().to_vec();
        data.extend_from_slice(&[libc::SO_EE_ORIGIN_ICMP, 3, 0, 0]);
        data.extend_from_slice(&[0; 8]);
        data.extend_from_slice(&2_u16.to_ne_bytes());
        data.extend_from_slice(&[0, 0, 198, 18, 10, 1]);
        data.extend_from_slice(&[0; 8]);
        message(libc::SOL_IP, libc::IP_RECVERR, &data)
    }

    #[test]
    fn stamp_and_error_are_read_together() {
        let bytes = [stamp(1_700_000_000, 5), net_unreachable(), vec![0; 64]].concat();
        assert_eq!(
            read(&bytes),
            Control {
                arrived: Some(Duration::new(1_700_000_000, 5)),
                error: Some(ExtendedError {
                    origin: Origin::Icmp,
                    kind: 3,
                    code: 0,
                    info: 0,
                    offender: Some(Ipv4Addr::new(198, 18, 10, 1).into()),
                }),
            }
        );
    }

    #[test]
    fn a_nonsensical_stamp_is_no_stamp() {
        for (seconds, nanoseconds) in [(-1, 0), (0, -1), (0, 1_000_000_000), (0, i64::MAX)] {
            assert_eq!(read(&stamp(seconds, nanoseconds)).arrived, None);
        }
    }

    #[test]
    fn unknown_messages_are_skipped() {
        let bytes = [message(1, 99, &[1, 2, 3]), stamp(1, 2)].concat();
        assert_eq!(read(&bytes).arrived, Some(Duration::new(1, 2)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
        }

        #[test]
        fn any_damage_to_real_messages_is_survived(
            at in 0_usize..112, value in any::<u8>(), length in 0_usize..112,
        ) {
            let mut bytes = [stamp(1_700_000_000, 5), net_unreachable()].concat();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(length);
            read(&bytes);
        }

        #[test]
        fn any_length_field_ends_the_reading(length in any::<usize>(), tail in 0_usize..64) {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(HEADER_BYTES + tail, 0);
            read(&bytes);
        }
    }
}
