//! Netlink as bytes: a dump is asked for here, and taken apart into messages and attributes.
//!
//! Taking apart is pure and total: whatever the bytes are, the iterators end, and what does not
//! fit its length is an error. Layout: netlink(7), RFC 3549; attributes are aligned to 4 bytes and
//! in host order, unless a protocol says otherwise.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::finding::Unknown;

/// Bytes of one dump: a firewall of some ten thousand rules. Larger ones are not judged.
const DUMP_BYTES_MAX: usize = 8 << 20;
/// A datagram of a dump is at most 32 KiB (`netlink_dump`, `NLMSG_GOODSIZE` and what recvmsg
/// offered before).
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// The kernel answers within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts at a dump that a change interrupted.
const ATTEMPTS_MAX: usize = 3;

const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// `NLA_TYPE_MASK`: the two highest bits of an attribute's type are flags.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// One message: its type and what follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// After the header.
    pub payload: &'a [u8],
    flags: u16,
    whole: &'a [u8],
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type without flags.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

/// The bytes are not what netlink promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a netlink {0} does not fit its length")]
pub struct Misshapen(pub(super) &'static str);

impl From<Misshapen> for Unknown {
    fn from(error: Misshapen) -> Self {
        Self::Malformed { what: "the kernel's answer".into(), problem: error.to_string() }
    }
}

/// The messages in a dump.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Misshapen>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let taken = take_message(bytes);
        bytes = taken.as_ref().map_or(&[], |(_, rest)| rest);
        Some(taken.map(|(message, _)| message))
    })
}

fn take_message(bytes: &[u8]) -> Result<(Message<'_>, &[u8]), Misshapen> {
    let misshapen = Misshapen("message");
    let length = read_u32(bytes).ok_or(misshapen)? as usize;
    let body = bytes.get(HEADER_BYTES..length).ok_or(misshapen)?;
    let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
    let flags = u16::from_ne_bytes([bytes[6], bytes[7]]);
    let rest = bytes.get(aligned(length)..).unwrap_or(&[]);
    let whole = &bytes[..aligned(length).min(bytes.len())];
    Ok((Message { kind, payload: body, flags, whole }, rest))
}

/// The attributes in a payload behind its fixed part, or in a nested attribute.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, Misshapen>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let taken = take_attribute(bytes);
        bytes = taken.as_ref().map_or(&[], |(_, rest)| rest);
        Some(taken.map(|(attribute, _)| attribute))
    })
}

fn take_attribute(bytes: &[u8]) -> Result<(Attribute<'_>, &[u8]), Misshapen> {
    let misshapen = Misshapen("attribute");
    let header = bytes.first_chunk::<ATTRIBUTE_HEADER_BYTES>().ok_or(misshapen)?;
    let length = u16::from_ne_bytes([header[0], header[1]]) as usize;
    let kind = u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_TYPE_MASK;
    let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length).ok_or(misshapen)?;
    Ok((Attribute { kind, value }, bytes.get(aligned(length)..).unwrap_or(&[])))
}

/// An attribute to ask with; `value` is a name, its NUL included.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = ATTRIBUTE_HEADER_BYTES + value.len();
    let mut bytes = Vec::with_capacity(aligned(length));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(length), 0);
    bytes
}

const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// The first four bytes, in host order.
pub fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

/// The value of a NUL-terminated text attribute.
pub fn read_text(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or(&[]);
    String::from_utf8_lossy(text).into_owned()
}

/// Asks for a dump and answers its messages in one piece, without the end mark. `body` is what
/// follows the header; `what` names the dump in errors.
///
/// # Errors
/// [`Unknown::PermissionDenied`] when the kernel refuses this process, [`Unknown::Unsupported`]
/// when it does not know the request, else what happened.
pub fn dump(
    protocol: Option<Protocol>,
    kind: u16,
    body: &[u8],
    what: &str,
) -> Result<Vec<u8>, Unknown> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(bytes) = attempt(protocol, kind, body).map_err(|fault| fault.told(what))? {
            return Ok(bytes);
        }
    }
    Err(Unknown::Unreadable {
        what: what.into(),
        problem: format!("changed during each of {ATTEMPTS_MAX} dumps"),
    })
}

enum Fault {
    System(Errno),
    TooLarge,
    Misshapen(Misshapen),
}

impl Fault {
    fn told(self, what: &str) -> Unknown {
        let what = what.to_owned();
        match self {
            Self::System(Errno::PERM | Errno::ACCESS) => Unknown::PermissionDenied { what },
            Self::System(Errno::AGAIN) => Unknown::TimedOut(ANSWER_TIMEOUT),
            Self::System(Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => {
                Unknown::Unsupported(format!("{what}: not in this kernel"))
            }
            Self::System(errno) => {
                Unknown::Unreadable { what, problem: io::Error::from(errno).to_string() }
            }
            Self::TooLarge => Unknown::TooLarge { what, bytes_max: DUMP_BYTES_MAX as u64 },
            Self::Misshapen(error) => Unknown::Malformed { what, problem: error.to_string() },
        }
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// `None` when a change of what was dumped interrupted it.
fn attempt(protocol: Option<Protocol>, kind: u16, body: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    let timeout = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(ANSWER_TIMEOUT))?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request(kind, body), SendFlags::empty(), &kernel)?;

    let mut dumped = Vec::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (received, _) = rustix::net::recv(&socket, &mut datagram[..], RecvFlags::empty())?;
        let bytes = &datagram[..received];
        for message in messages(bytes) {
            let message = message.map_err(Fault::Misshapen)?;
            if message.flags & NLM_F_DUMP_INTR != 0 {
                return Ok(None);
            }
            match message.kind {
                NLMSG_DONE if is_failure(message.payload) => return Err(refusal(message.payload)),
                NLMSG_DONE => return Ok(Some(dumped)),
                NLMSG_ERROR => return Err(refusal(message.payload)),
                _ if dumped.len() + message.whole.len() > DUMP_BYTES_MAX => {
                    return Err(Fault::TooLarge);
                }
                _ => dumped.extend_from_slice(message.whole),
            }
        }
    }
}

/// A dump that broke off says so in its end mark.
fn is_failure(payload: &[u8]) -> bool {
    read_u32(payload).is_some_and(|code| (code as i32) < 0)
}

/// The error that a refusal carries; an acknowledgement where a dump was asked for is none that
/// netlink promises.
fn refusal(payload: &[u8]) -> Fault {
    match read_u32(payload).map(|code| (code as i32).checked_neg()) {
        Some(Some(code)) if code > 0 => Fault::System(Errno::from_raw_os_error(code)),
        _ => Fault::Misshapen(Misshapen("error")),
    }
}

fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES + body.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&(length as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let most = bytes.len() + 1;
            prop_assert!(messages(&bytes).take(most + 1).count() <= most);
            prop_assert!(attributes(&bytes).take(most + 1).count() <= most);
        }
    }

    #[test]
    fn a_request_reads_as_one_message() {
        let bytes = request(20, &[1, 2, 3, 4]);
        let read: Vec<_> = messages(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].kind, read[0].payload), (20, &[1, 2, 3, 4][..]));
    }

    #[test]
    fn a_refusal_is_the_kernels_own_error() {
        let told = refusal(&(-1_i32).to_ne_bytes()).told("rules");
        assert_eq!(told, Unknown::PermissionDenied { what: "rules".into() });
    }
}
