//! One question to one resolver, straight from our own bound socket: no stub resolver, no cache.
//!
//! Only a message with our id and our question counts; others are ignored until the deadline. The
//! question is sent again within it, so that a lost packet is no broken resolver.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use haidang_probe::Binding;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::socket::{ConnectError, connect_udp};
use super::tls::printable;
use crate::evidence::{Dns, LocalFault};

/// Bytes of an answer in evidence.
const ANSWERED_BYTES_MAX: usize = 128;
/// Bytes of a message without EDNS (RFC 1035, 4.2.1).
const MESSAGE_BYTES_MAX: usize = 512;
/// Times that the question is sent.
const ATTEMPTS: u32 = 3;
/// Messages that are not ours before the socket counts as flooded.
const STRANGERS_MAX: usize = 256;

/// What is asked, and what the answer must be.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) name: Name,
    /// All addresses of the answer must lie inside these.
    pub(super) expected: Vec<IpNet>,
}

impl Question {
    /// IPv6 addresses are asked for only where nothing else is expected.
    fn record_type(&self) -> RecordType {
        let only_v6 = self.expected.iter().all(|net| matches!(net, IpNet::V6(_)));
        if only_v6 && !self.expected.is_empty() { RecordType::AAAA } else { RecordType::A }
    }

    fn message(&self, id: u16) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.record_type()));
        message
    }

    /// What a packet says to this question; `None` when it is not an answer to it.
    fn read(&self, id: u16, bytes: &[u8], rtt: Duration) -> Option<Dns> {
        // An id alone is guessed easily; who knows the question as well has seen it.
        let message = Message::from_vec(bytes).ok()?;
        let asked = message.queries.first()?;
        let ours = message.metadata.id == id
            && message.metadata.message_type == MessageType::Response
            && asked.query_type() == self.record_type()
            && asked.name().to_lowercase() == self.name.to_lowercase();
        ours.then(|| self.judge(&message, rtt))
    }

    fn judge(&self, message: &Message, rtt: Duration) -> Dns {
        match message.metadata.response_code {
            ResponseCode::NoError => {}
            ResponseCode::NXDomain => return Dns::Wrong { answered: "NXDOMAIN".into() },
            ResponseCode::Refused => return Dns::Refused,
            other => return Dns::ServerFailure { rcode: other.into() },
        }
        let addresses: Vec<IpAddr> = message
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
            .collect();
        let is_expected = |address: &IpAddr| self.expected.iter().any(|net| net.contains(address));
        if !addresses.is_empty() && addresses.iter().all(is_expected) {
            return Dns::Right { rtt };
        }
        let answered = match addresses.as_slice() {
            [] => "no address".into(),
            some => some.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
        };
        Dns::Wrong { answered: printable(&answered, ANSWERED_BYTES_MAX) }
    }
}

/// Asks `resolver`, within `deadline`.
pub(super) async fn probe(
    binding: &Binding,
    resolver: SocketAddr,
    question: &Question,
    deadline: Duration,
) -> Dns {
    let mut id = [0; 2];
    if let Err(error) = getrandom::fill(&mut id) {
        return Dns::Unsendable(LocalFault(format!("cannot draw random bytes: {error}")));
    }
    let id = u16::from_ne_bytes(id);
    let message = match question.message(id).to_vec() {
        Ok(message) => message,
        Err(error) => {
            return Dns::Unsendable(LocalFault(format!("cannot write the question: {error}")));
        }
    };
    let socket = match connect_udp(binding, resolver) {
        Ok(socket) => socket,
        Err(error) => return failure(error),
    };
    let started = Instant::now();
    for attempt in 1..=ATTEMPTS {
        if let Err(error) = socket.send(&message).await {
            let rejection = haidang_probe::first_rejection(&socket, binding.source);
            return match (super::socket::failed(&error, rejection), attempt) {
                (_, 1) => {
                    Dns::Unsendable(LocalFault(format!("cannot send to {resolver}: {error}")))
                }
                (error, _) => failure(error),
            };
        }
        let sent = Instant::now();
        let until = started + deadline * attempt / ATTEMPTS;
        let answer = receive(&socket, question, id, sent);
        match timeout_at(until, answer).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Dns::Refused;
            }
            // An ICMP error on the way: the next attempt may pass.
            Ok(Err(_)) => tokio::time::sleep_until(until).await,
            Err(_elapsed) => {}
        }
    }
    Dns::Silent
}

async fn receive(
    socket: &UdpSocket,
    question: &Question,
    id: u16,
    sent: Instant,
) -> std::io::Result<Dns> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    for _ in 0..STRANGERS_MAX {
        let length = socket.recv(&mut bytes).await?;
        if let Some(answer) = question.read(id, &bytes[..length], sent.elapsed()) {
            return Ok(answer);
        }
    }
    Err(std::io::Error::other("only foreign messages arrive"))
}

fn failure(error: ConnectError) -> Dns {
    match error {
        ConnectError::Unsendable(fault) => Dns::Unsendable(fault),
        ConnectError::Refused => Dns::Refused,
        ConnectError::Rejected { .. } | ConnectError::Silent => Dns::Silent,
    }
}

/// Reads bytes as an answer to a question of each kind, for [`crate::parsers`].
pub(crate) fn any_bytes(bytes: &[u8]) {
    for expected in ["198.18.0.0/15", "fd00::/8"] {
        let question = Question {
            name: Name::from_ascii("svc.tslcd.test.").expect("a name"),
            expected: vec![expected.parse().expect("a prefix")],
        };
        let id = bytes.first_chunk().copied().map_or(0, u16::from_be_bytes);
        if let Some(Dns::Wrong { answered }) = question.read(id, bytes, Duration::ZERO) {
            assert!(answered.len() <= ANSWERED_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
