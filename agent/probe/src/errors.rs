//! The error queue of other sockets (TCP, UDP): who rejected, where `connect(2)` and `recv(2)`
//! only tell that something did.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{MsgFlags, recvmsg, setsockopt, sockopt};

use crate::control::{self, ExtendedError, Origin};
use crate::plan::Rejection;

/// Entries read at most: an exchange has a handful of packets.
const ENTRIES_MAX: usize = 16;

/// Switches the error queue on, for a socket that will talk to `target`.
///
/// # Errors
/// When the kernel refuses the option.
pub fn keep_errors(socket: &impl AsFd, target: IpAddr) -> io::Result<()> {
    let set = match target {
        IpAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        IpAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    };
    set.map_err(Into::into)
}

/// Takes the first ICMP error out of the queue whose sender is not `own`, this machine's own
/// address: the kernel reports its own failure to resolve a neighbour in the same form.
pub fn first_rejection(socket: &impl AsRawFd, own: Option<IpAddr>) -> Option<Rejection> {
    (0..ENTRIES_MAX).map_while(|_| next(socket)).find_map(|error| rejection(&error?, own))
}

/// The rejection that an entry tells of, unless it is this machine's.
pub(crate) fn rejection(error: &ExtendedError, own: Option<IpAddr>) -> Option<Rejection> {
    let by = error.offender.filter(|by| Some(*by) != own)?;
    let next_hop_mtu = match (error.origin, error.kind, error.code) {
        (Origin::Other, ..) => return None,
        (Origin::Icmp, 3, 4) | (Origin::Icmp6, 2, _) => Some(error.info),
        (Origin::Icmp | Origin::Icmp6, ..) => None,
    };
    Some(Rejection { by, kind: error.kind, code: error.code, next_hop_mtu })
}

/// The next entry; `None` when the queue is empty, `Some(None)` for one that cannot be read.
#[expect(clippy::option_option, reason = "the outer one ends the queue, the inner one an entry")]
fn next(socket: &impl AsRawFd) -> Option<Option<ExtendedError>> {
    let mut bytes = [0; 1];
    let mut control_bytes = [0; control::BUFFER_BYTES];
    let mut vectors = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    recvmsg::<()>(socket.as_raw_fd(), &mut vectors, Some(&mut control_bytes), flags).ok()?;
    Some(control::read(&control_bytes).error)
}
