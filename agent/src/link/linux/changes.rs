//! Kernel events, which only wake: link, address and route changes are read, counted as one, and
//! thrown away unread. The queue is the kernel's socket buffer; when it overflows, that is an
//! event too.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Multicast groups of `include/uapi/linux/rtnetlink.h`, as bits: link, IPv4 address, IPv4 route,
/// IPv6 address, IPv6 route. Neighbour events would wake at every ARP.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Messages thrown away in one go; the rest waits for the next call.
const DISCARDED_MAX: usize = 1_024;

/// A subscription to changes of the kernel's network state.
#[derive(Debug)]
pub struct Changes {
    socket: AsyncFd<OwnedFd>,
}

/// No subscription; cycles then start by the clock alone.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The kernel refused.
    #[error("cannot subscribe to the kernel's network events")]
    Subscribe {
        /// What it said.
        source: io::Error,
    },
    /// The socket broke.
    #[error("cannot wait for the kernel's network events")]
    Wait {
        /// What the kernel or the runtime said.
        source: io::Error,
    },
}

impl Changes {
    /// Subscribes. Must be called on the runtime that will wait.
    ///
    /// # Errors
    /// When the kernel refuses the socket or the groups.
    pub fn subscribe() -> Result<Self, ChangesError> {
        open().map(|socket| Self { socket }).map_err(|source| ChangesError::Subscribe { source })
    }

    /// Waits for the next change; all that are there count as one. Cancel-safe.
    ///
    /// # Errors
    /// When the socket breaks: then subscribe anew, after a pause.
    pub async fn next(&mut self) -> Result<(), ChangesError> {
        loop {
            let guard = self.socket.readable().await;
            let mut guard = guard.map_err(|source| ChangesError::Wait { source })?;
            match discard(self.socket.get_ref()) {
                Ok(Discarded::All(count)) => {
                    guard.clear_ready();
                    if count > 0 {
                        return Ok(());
                    }
                }
                Ok(Discarded::Some) => return Ok(()),
                Err(source) => return Err(ChangesError::Wait { source }),
            }
        }
    }
}

enum Discarded {
    /// This many, and nothing is left.
    All(usize),
    /// More is left.
    Some,
}

fn discard(socket: &OwnedFd) -> io::Result<Discarded> {
    // What does not fit is cut off by the kernel: nobody reads it.
    let mut bytes = [0_u8; 16];
    for count in 0..DISCARDED_MAX {
        match recv(socket, &mut bytes, RecvFlags::DONTWAIT) {
            // ENOBUFS: events were lost, which is news enough.
            Ok(_) | Err(Errno::NOBUFS) => {}
            Err(Errno::AGAIN) => return Ok(Discarded::All(count)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Discarded::Some)
}

fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    register(socket)
}

#[expect(unsafe_code, reason = "tokio offers no safe registration that is not deprecated")]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its descriptor open, and the same, until it is dropped; it is
    // never taken out of the registration.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(Into::into)
}
