//! TCP to an anchor, with proof that the anchor answered and nobody in its place: a certificate
//! of the collector's CA, or the banner of a known service. A bare RST proves nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use haidang_probe::Binding;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::socket::{ConnectError, connect};
use super::tls::{Expectation, Handshake, handshake, printable};
use crate::evidence::Tcp;

/// Bytes of what an impostor presented.
const PRESENTED_BYTES_MAX: usize = 128;

/// What the target has to present.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    Collector(Arc<RootCertStore>),
    Banner(String),
    Handshake,
}

/// Connects and asks for proof, all within `deadline`. The second value is the source address
/// that the connection had.
pub(super) async fn probe(
    binding: &Binding,
    target: SocketAddr,
    proof: &Proof,
    deadline: Duration,
) -> (Tcp, Option<SocketAddr>) {
    let started = Instant::now();
    let stream = match connect(binding, target, deadline).await {
        Ok(stream) => stream,
        Err(error) => return (failure(error), None),
    };
    let took = started.elapsed();
    let source = stream.local_addr().ok();
    let until = started + deadline;
    let outcome = match proof {
        Proof::Handshake => Tcp::Connected { connect: took },
        Proof::Banner(expected) => match timeout_at(until, banner(stream, expected)).await {
            Ok(Ok(())) => Tcp::Proved { connect: took },
            Ok(Err(outcome)) => outcome,
            Err(_elapsed) => Tcp::Silent,
        },
        Proof::Collector(roots) => {
            let expectation = Expectation::Collector(Arc::clone(roots));
            let name = ServerName::IpAddress(target.ip().into());
            match timeout_at(until, handshake(&expectation, name, stream)).await {
                Ok(handshake) => identity(handshake, took),
                Err(_elapsed) => Tcp::Silent,
            }
        }
    };
    (outcome, source)
}

/// Reads until the banner is complete, or cannot become it any more.
async fn banner(mut stream: TcpStream, expected: &str) -> Result<(), Tcp> {
    let mut bytes = vec![0; expected.len()];
    let mut length = 0;
    while length < bytes.len() {
        match stream.read(&mut bytes[length..]).await {
            Ok(0) if length == 0 => {
                return Err(Tcp::Impostor { presented: "it closed without a banner".into() });
            }
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) => return Err(broken(&error)),
        }
        if !expected.as_bytes().starts_with(&bytes[..length]) {
            break;
        }
    }
    let presented = &bytes[..length];
    if presented == expected.as_bytes() {
        Ok(())
    } else {
        let presented = String::from_utf8_lossy(presented);
        Err(Tcp::Impostor { presented: printable(&presented, PRESENTED_BYTES_MAX) })
    }
}

fn identity(handshake: Handshake, took: Duration) -> Tcp {
    let presented = |text: String| printable(&text, PRESENTED_BYTES_MAX);
    match handshake {
        Handshake::Proved(_) | Handshake::ProvedThenClosed => Tcp::Proved { connect: took },
        Handshake::Foreign { issuer } => Tcp::Impostor { presented: presented(issuer) },
        Handshake::Unfit { problem } => Tcp::Impostor { presented: presented(problem) },
        Handshake::Broken(error) => broken(&error),
    }
}

/// A connection that was cut tells as little as a refused one: a collector that sheds load does
/// it, and a firewall. Bytes that are no TLS are somebody else's.
fn broken(error: &io::Error) -> Tcp {
    match error.kind() {
        io::ErrorKind::InvalidData => Tcp::Impostor {
            presented: printable(&format!("not our TLS: {error}"), PRESENTED_BYTES_MAX),
        },
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Tcp::Silent,
        _ => Tcp::Refused,
    }
}

fn failure(error: ConnectError) -> Tcp {
    match error {
        ConnectError::Unsendable(fault) => Tcp::Unsendable(fault),
        ConnectError::Refused => Tcp::Refused,
        ConnectError::Rejected { error } => Tcp::Rejected { error },
        ConnectError::Silent => Tcp::Silent,
    }
}

#[cfg(test)]
mod tests;
