//! ICMP and ICMPv6 echo, bound to a device and a source address.
//!
//! Shared by the agent (gateways, anchors, path MTU) and the collector (gateways seen from the
//! core). It uses the kernel's datagram ICMP sockets (`ping(7)`, `SOCK_DGRAM`), which need no
//! capability where `net.ipv4.ping_group_range` admits the process's group.
//!
//! `binding` binds and verifies any socket · `plan` says what to send · `packet` and `control`
//! read what the kernel hands over · `clock` turns stamps into round-trip times · `flight` knows
//! what is in the air · `socket` talks to the kernel · `pinger` runs the exchange · `trace` follows
//! the way hop by hop · `errors` reads the error queue of other sockets.
//!
//! `binding`, `socket`, `pinger` and `errors` touch the kernel; the others are pure.

mod binding;
mod clock;
mod control;
mod errors;
mod flight;
mod packet;
#[doc(hidden)]
pub mod parsers;
mod pinger;
mod plan;
mod socket;
mod trace;

pub use binding::{BindError, Binding};
pub use clock::{Answer, Timing};
pub use errors::{first_rejection, keep_errors};
pub use pinger::Pinger;
pub use plan::{
    EchoError, EchoOutcome, EchoPlan, Exchange, Fate, IDENTITY_BYTES, Ignored, LATE_GRACE,
    PACKETS_MAX, Packet, Rejection,
};
pub use trace::{Hop, Trace, trace};
