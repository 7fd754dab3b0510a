//! The readers: what needs a privilege is read by programs that do nothing else.
//!
//! Two socket units start `haidang-agent read …` for each connection, with the connection as
//! standard input, as the user `haidang-reader` of the group `haidang-agent`:
//!
//! | reader | capability | asked with | answers |
//! |---|---|---|---|
//! | [`netfilter`] | CAP_NET_ADMIN | nothing: it reads no byte of its peer | the kernel's dump of its packet filter, raw |
//! | [`whole`] | CAP_DAC_READ_SEARCH | names of checks | their answers, and the figures beside them |
//!
//! The agent, which speaks with the network, has no capability. An answer is one frame: its length
//! in four bytes, big-endian, then its content. What is cut, too long, late or none is unknown.

pub mod netfilter;
pub mod whole;

mod lock;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::finding::Unknown;

/// A reader that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Standard input is not what a socket unit hands over.
    #[error("standard input is no connection; this command is started by its socket unit")]
    NoConnection(#[source] io::Error),
    /// A stranger.
    #[error("user {uid} of group {gid} may not ask; only root and the group {own_gid} may")]
    Stranger {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The group that may.
        own_gid: u32,
    },
    /// The filter of system calls.
    #[error("cannot give up system calls")]
    Lock(#[source] seccompiler::Error),
    /// A processor for which there is no filter of system calls.
    #[error("no filter of system calls for this processor")]
    Processor(#[source] seccompiler::BackendError),
    /// The peer asked for what is none.
    #[error("the question cannot be understood: {0}")]
    Question(Unknown),
    /// The peer does not take the answer.
    #[error("cannot hand the answer over")]
    Answer(#[source] io::Error),
}

/// The connection that the socket unit handed over, of a peer that may ask: root, or one of this
/// process's own group. The socket's mode says the same; this holds where that was changed.
///
/// # Errors
/// When there is none, or its peer may not ask.
pub(super) fn accepted() -> Result<UnixStream, ServeError> {
    let stdin = io::stdin();
    let peer = getsockopt(&stdin.as_fd(), PeerCredentials)
        .map_err(|errno| ServeError::NoConnection(errno.into()))?;
    let own_gid = rustix::process::getegid().as_raw();
    if peer.uid() != 0 && peer.gid() != own_gid {
        return Err(ServeError::Stranger { uid: peer.uid(), gid: peer.gid(), own_gid });
    }
    let connection = stdin.as_fd().try_clone_to_owned().map_err(ServeError::NoConnection)?;
    Ok(connection.into())
}

/// Connects to a reader's socket without waiting.
///
/// # Errors
/// [`Unknown::PermissionDenied`] where there is no reader, or not for us.
pub(super) fn connect(path: &Path, what: &str) -> Result<UnixStream, Unknown> {
    let attempt = || -> io::Result<UnixStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(stream)
    };
    attempt().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::PermissionDenied => {
            Unknown::PermissionDenied { what: format!("{what} (reader {})", path.display()) }
        }
        _ => Unknown::Unreadable { what: format!("{what} (reader)"), problem: error.to_string() },
    })
}

/// A connection all of whose reads, or writes, together have a deadline.
struct Timed<'a> {
    stream: &'a UnixStream,
    ends: Instant,
}

impl<'a> Timed<'a> {
    fn new(stream: &'a UnixStream, budget: Duration) -> Self {
        Self { stream, ends: Instant::now() + budget }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        match self.ends.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        (&mut &*self.stream).read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        (&mut &*self.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends a frame.
///
/// # Errors
/// When the peer is gone, or has not taken it in time.
pub(super) fn send(stream: &UnixStream, content: &[u8], budget: Duration) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    let mut timed = Timed::new(stream, budget);
    timed.write_all(&length.to_be_bytes())?;
    timed.write_all(content)
}

/// Receives a frame whole.
///
/// # Errors
/// When it is late, cut, or longer than `bytes_max`.
pub(super) fn receive(
    stream: &UnixStream,
    bytes_max: usize,
    budget: Duration,
    what: &str,
) -> Result<Vec<u8>, Unknown> {
    let what = || format!("{what} (reader)");
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Unknown::TimedOut(budget),
        io::ErrorKind::UnexpectedEof => cut(what()),
        _ => Unknown::Unreadable { what: what(), problem: error.to_string() },
    };
    let mut timed = Timed::new(stream, budget);
    let mut length = [0; 4];
    timed.read_exact(&mut length).map_err(|error| failed(&error))?;
    let length = u32::from_be_bytes(length) as usize;
    if length > bytes_max {
        return Err(Unknown::TooLarge { what: what(), bytes_max: bytes_max as u64 });
    }
    let mut content = Vec::new();
    let mut bounded = timed.take(length as u64);
    bounded.read_to_end(&mut content).map_err(|error| failed(&error))?;
    if content.len() < length {
        return Err(cut(what()));
    }
    Ok(content)
}

fn cut(what: String) -> Unknown {
    Unknown::Malformed { what, problem: "the answer is cut off".into() }
}

#[cfg(test)]
mod tests;
