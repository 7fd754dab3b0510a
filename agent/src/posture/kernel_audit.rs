//! The kernel's audit status (linux/audit.h, AUDIT_GET), which needs CAP_AUDIT_CONTROL.

use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{AUDIT, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::finding::Unknown;

/// The kernel answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages that may come before the answer: the acknowledgement.
const MESSAGES_MAX: usize = 8;

const AUDIT_GET: u16 = 1000;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const HEADER_BYTES: usize = 16;

/// What the kernel says of its auditing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditStatus {
    /// It records events; also when that is locked.
    pub is_enabled: bool,
    /// A process takes the records.
    pub has_daemon: bool,
}

/// Asks.
///
/// # Errors
/// Permission denied without the capability or outside the first user namespace; unsupported for
/// a kernel without auditing.
pub fn ask() -> Result<AuditStatus, Unknown> {
    let refused = |errno: Errno| match errno {
        Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
            Unknown::Unsupported("this kernel does not audit".into())
        }
        // The kernel answers so outside its first user namespace.
        Errno::CONNREFUSED | Errno::PERM => denied(),
        errno => Unknown::from_io("audit", &errno.into()),
    };
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(AUDIT),
    )
    .map_err(refused)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT)).map_err(refused)?;
    let mut request = Vec::with_capacity(HEADER_BYTES);
    request.extend((HEADER_BYTES as u32).to_ne_bytes());
    request.extend(AUDIT_GET.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    request.extend([0; 8]);
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &kernel).map_err(refused)?;
    let mut buffer = [0; 1024];
    for _ in 0..MESSAGES_MAX {
        let (length, _) =
            rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()).map_err(refused)?;
        if let Some(answer) = answer(&buffer[..length])? {
            return Ok(answer);
        }
    }
    Err(Unknown::Unsupported("the kernel does not tell its audit status".into()))
}

fn denied() -> Unknown {
    Unknown::PermissionDenied { what: "audit status".into() }
}

/// One datagram: `None` for an acknowledgement.
///
/// # Errors
/// A refusal, or what is no message.
pub fn answer(datagram: &[u8]) -> Result<Option<AuditStatus>, Unknown> {
    let misshapen = || Unknown::Malformed {
        what: "the kernel's answer".into(),
        problem: "is shorter than an audit status".into(),
    };
    let word = |at: usize| {
        let bytes = datagram.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| u32::from_ne_bytes(*bytes)).ok_or_else(misshapen)
    };
    let kind = datagram.get(4..6).ok_or_else(misshapen)?;
    match u16::from_ne_bytes([kind[0], kind[1]]) {
        NLMSG_ERROR => match word(HEADER_BYTES)?.cast_signed() {
            0 => Ok(None),
            error
                if error == -Errno::PERM.raw_os_error()
                    || error == -Errno::CONNREFUSED.raw_os_error() =>
            {
                Err(denied())
            }
            error => Err(Unknown::Unreadable {
                what: "audit status".into(),
                problem: std::io::Error::from_raw_os_error(error.wrapping_neg()).to_string(),
            }),
        },
        // struct audit_status: mask, enabled, failure, pid.
        AUDIT_GET => Ok(Some(AuditStatus {
            is_enabled: word(HEADER_BYTES + 4)? != 0,
            has_daemon: word(HEADER_BYTES + 12)? != 0,
        })),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u16, words: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn the_status_is_read() {
        let status = answer(&datagram(AUDIT_GET, &[0, 1, 1, 423])).unwrap().unwrap();
        assert_eq!(status, AuditStatus { is_enabled: true, has_daemon: true });
        let off = answer(&datagram(AUDIT_GET, &[0, 0, 1, 0])).unwrap().unwrap();
        assert_eq!(off, AuditStatus { is_enabled: false, has_daemon: false });
    }

    #[test]
    fn a_refusal_is_permission_denied_and_a_fragment_malformed() {
        let refused = answer(&datagram(NLMSG_ERROR, &[(-1_i32).cast_unsigned()]));
        assert!(matches!(refused, Err(Unknown::PermissionDenied { .. })));
        assert_eq!(answer(&datagram(NLMSG_ERROR, &[0])), Ok(None));
        let whole = datagram(AUDIT_GET, &[0, 1, 1, 423]);
        for end in 0..HEADER_BYTES + 16 {
            assert!(answer(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn this_kernel_answers_or_says_why_not() {
        match ask() {
            Ok(_) | Err(Unknown::PermissionDenied { .. } | Unknown::Unsupported(_)) => {}
            Err(unknown) => panic!("{unknown}"),
        }
    }
}
