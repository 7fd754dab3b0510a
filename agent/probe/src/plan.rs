//! What an exchange sends, and the lives it can have.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::binding::BindError;
use crate::clock::Answer;

/// Bytes at the start of each payload that make a packet ours. Shorter payloads are lengthened.
pub const IDENTITY_BYTES: u16 = 16;

/// Packets of one exchange at most: more would be a flood, and the sequence numbers in flight
/// have to stay few.
pub const PACKETS_MAX: u32 = 64;

/// How long after its sending a packet's answer can still count as late; then it is forgotten.
/// Nothing waits for it: late answers are found when the next exchange begins.
pub const LATE_GRACE: Duration = Duration::from_secs(10);

/// One exchange. It ends when every packet has met its end, at the latest
/// `warm_up + spacing × (count − 1) + deadline` after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoPlan {
    /// Packets, 1 to [`PACKETS_MAX`].
    pub count: u32,
    /// Time between them.
    pub spacing: Duration,
    /// How long each may take, measured by the kernel's receive stamp.
    pub deadline: Duration,
    /// ICMP payload, at least [`IDENTITY_BYTES`]. The IP packet is 28 bytes longer (IPv4), or 48
    /// (IPv6).
    pub payload_bytes: u16,
    /// Sets DF and ignores what the kernel believes of the path MTU (`IP_PMTUDISC_PROBE`).
    pub dont_fragment: bool,
    /// Hop limit; `None` leaves the system's default.
    pub ttl: Option<u8>,
    /// First sends one packet that is not counted, and waits this long for its answer, so that
    /// no counted packet pays for ARP or neighbour discovery.
    pub warm_up: Option<Duration>,
}

impl Default for EchoPlan {
    fn default() -> Self {
        Self {
            count: 1,
            spacing: Duration::from_millis(200),
            deadline: Duration::from_secs(1),
            payload_bytes: 32,
            dont_fragment: false,
            ttl: None,
            warm_up: None,
        }
    }
}

/// Life of an exchange.
#[derive(Debug)]
pub enum EchoOutcome {
    /// At least one answer in time.
    Answered(Exchange),
    /// No answer in time, and no error.
    Silent(Exchange),
    /// No answer in time, and somebody on the way sent an ICMP error about one of the packets.
    Rejected {
        /// The packets.
        exchange: Exchange,
        /// The first error.
        rejection: Rejection,
    },
    /// No packet could be sent.
    Unsendable(EchoError),
    /// The process's groups are outside `net.ipv4.ping_group_range`.
    Forbidden,
}

/// What became of each packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exchange {
    /// The packets of this exchange, in the order of sending.
    pub packets: Vec<Packet>,
    /// When those packets of earlier exchanges were sent, on CLOCK_MONOTONIC, whose answers have
    /// come in since: what was silent then is late now.
    pub late_before: Vec<Duration>,
    /// What was received and is not believed.
    pub ignored: Ignored,
}

/// One echo request and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// When it was sent, on CLOCK_MONOTONIC. No two packets of a target share it, so that it
    /// names the packet.
    pub sent: Duration,
    /// Its fate when the exchange ended.
    pub fate: Fate,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Answered within its own deadline.
    Answered(Answer),
    /// Answered after it.
    Late,
    /// Not answered so far. A later exchange may still find it late ([`Exchange::late_before`]),
    /// until [`LATE_GRACE`] has passed.
    Silent,
    /// Somebody on the way sent an ICMP error about it. It may still turn out late, too.
    Rejected {
        /// Who, and why.
        rejection: Rejection,
        /// How long after the sending.
        after: Duration,
    },
}

/// Packets that the kernel handed over and that prove nothing, since the previous exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignored {
    /// Replies from somebody else, without our random bytes, or to no request of ours.
    pub replies: u32,
    /// ICMP errors about no packet of ours.
    pub errors: u32,
}

impl Ignored {
    /// All of them.
    pub fn total(self) -> u32 {
        self.replies.saturating_add(self.errors)
    }
}

impl std::ops::AddAssign for Ignored {
    fn add_assign(&mut self, Self { replies, errors }: Self) {
        self.replies = self.replies.saturating_add(replies);
        self.errors = self.errors.saturating_add(errors);
    }
}

impl Exchange {
    /// The answers in time, in the order of sending.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        self.packets.iter().filter_map(|packet| match packet.fate {
            Fate::Answered(answer) => Some(answer),
            Fate::Late | Fate::Silent | Fate::Rejected { .. } => None,
        })
    }

    /// The outcome that these packets make.
    pub(crate) fn outcome(self) -> EchoOutcome {
        let rejection = self.packets.iter().find_map(|packet| match packet.fate {
            Fate::Rejected { rejection, .. } => Some(rejection),
            Fate::Answered(_) | Fate::Late | Fate::Silent => None,
        });
        let is_answered = self.answers().next().is_some();
        match rejection {
            _ if is_answered => EchoOutcome::Answered(self),
            Some(rejection) => EchoOutcome::Rejected { exchange: self, rejection },
            None => EchoOutcome::Silent(self),
        }
    }
}

/// An ICMP or ICMPv6 error about a packet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Who sent it.
    pub by: IpAddr,
    /// ICMP or ICMPv6 type.
    pub kind: u8,
    /// ICMP or ICMPv6 code.
    pub code: u8,
    /// The MTU of the next hop, in "fragmentation needed" and "packet too big".
    pub next_hop_mtu: Option<u32>,
}

/// Why nothing could be sent.
#[derive(Debug, thiserror::Error)]
pub enum EchoError {
    /// No socket.
    #[error("cannot open an ICMP socket")]
    Open {
        /// What the kernel said.
        source: io::Error,
    },
    /// No binding.
    #[error("cannot bind the ICMP socket")]
    Bind {
        /// Which part of it.
        source: BindError,
    },
    /// An option was refused.
    #[error("cannot set {option} on the ICMP socket")]
    Option {
        /// Its name in the manual pages.
        option: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No random bytes for the payload.
    #[error("cannot draw random bytes")]
    Random {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel had no way to send.
    #[error("cannot send an echo request to {target}")]
    Send {
        /// Its target.
        target: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket cannot be waited on.
    #[error("cannot wait for the ICMP socket")]
    Wait {
        /// What the runtime said.
        source: io::Error,
    },
}
