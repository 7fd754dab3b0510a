//! TCP and UDP sockets bound to the dedicated interface and its address.
//!
//! `connect` is taken apart, because the difference is evidence: an error at once comes from this
//! machine (no route, no address), an error later comes from the way or the target.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use haidang_probe::{Binding, Rejection, first_rejection, keep_errors};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::evidence::LocalFault;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// This machine had no way to send.
    Unsendable(LocalFault),
    /// RST, or ICMP port unreachable.
    Refused,
    /// Somebody on the way sent an ICMP error.
    Rejected {
        /// What it says.
        error: String,
    },
    /// Nothing came back in time.
    Silent,
}

/// Opens a TCP connection through `binding`.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    binding: &Binding,
    target: SocketAddr,
    deadline: Duration,
) -> Result<TcpStream, ConnectError> {
    let socket = open(binding, target, Type::STREAM, Protocol::TCP)?;
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if is_in_progress(&error) => {}
        // Over loopback the RST is there before the call returns.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(ConnectError::Refused);
        }
        Err(error) => {
            return Err(unsendable(&format!("cannot send to {target}"), &error));
        }
    }
    let stream = TcpStream::from_std(socket.into())
        .map_err(|error| unsendable("cannot wait for a TCP socket", &error))?;
    match timeout(deadline, stream.writable()).await {
        Err(_elapsed) => return Err(ConnectError::Silent),
        Ok(ready) => ready.map_err(|error| unsendable("cannot wait for a TCP socket", &error))?,
    }
    match stream.take_error() {
        Ok(None) => Ok(stream),
        Ok(Some(error)) => Err(failed(&error, first_rejection(&stream, binding.source))),
        Err(error) => Err(unsendable("cannot read a TCP socket's state", &error)),
    }
}

/// Opens a UDP socket through `binding` that talks to `target` alone.
pub(super) fn connect_udp(
    binding: &Binding,
    target: SocketAddr,
) -> Result<UdpSocket, ConnectError> {
    let socket = open(binding, target, Type::DGRAM, Protocol::UDP)?;
    let connected = socket.connect(&target.into());
    connected.map_err(|error| unsendable(&format!("cannot send to {target}"), &error))?;
    UdpSocket::from_std(socket.into())
        .map_err(|error| unsendable("cannot wait for a UDP socket", &error))
}

fn open(
    binding: &Binding,
    target: SocketAddr,
    kind: Type,
    protocol: Protocol,
) -> Result<Socket, ConnectError> {
    let socket = Socket::new(Domain::for_address(target), kind, Some(protocol))
        .map_err(|error| unsendable("cannot open a socket", &error))?;
    socket
        .set_nonblocking(true)
        .and_then(|()| keep_errors(&socket, target.ip()))
        .map_err(|error| unsendable("cannot prepare a socket", &error))?;
    binding.apply(&socket).map_err(|error| ConnectError::Unsendable(fault(&error)))?;
    Ok(socket)
}

fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error())
}

/// What an error that came back from the network means. An unreachable host without an ICMP
/// error from somebody else is the kernel's own failure to resolve a neighbour: silence.
pub(super) fn failed(error: &io::Error, rejection: Option<Rejection>) -> ConnectError {
    match (error.kind(), rejection) {
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _) => {
            ConnectError::Refused
        }
        (_, Some(rejection)) => ConnectError::Rejected { error: describe(&rejection) },
        (_, None) => ConnectError::Silent,
    }
}

fn describe(rejection: &Rejection) -> String {
    let Rejection { by, kind, code, next_hop_mtu: _ } = rejection;
    format!("ICMP {kind}/{code} from {by}")
}

fn unsendable(what: &str, error: &io::Error) -> ConnectError {
    ConnectError::Unsendable(LocalFault(format!("{what}: {error}")))
}

/// A failure of this machine, with its causes, in one line.
pub(super) fn fault(error: &dyn std::error::Error) -> LocalFault {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    LocalFault(text)
}

/// The source address that the kernel would choose for a target, without sending anything.
pub(super) fn chosen_source(target: IpAddr) -> Option<IpAddr> {
    // Any port does: nothing is sent.
    let socket = connect_udp(&Binding::default(), SocketAddr::new(target, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}
