//! The way to a target, hop by hop: echo requests with a growing hop limit, and the ICMP "time
//! exceeded" errors that routers send back. Needs no raw socket: the errors come through the
//! error queue (`ip(7)`, `IP_RECVERR`).
//!
//! Routers answer seldom (Linux: about one error a second to the same address,
//! `net.ipv4.icmp_ratelimit`), so there is one packet in the air at a time, and a hop that was
//! silent is asked again only after a pause. A router that stays silent may forward all the same.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::sleep;

use crate::pinger::Pinger;
use crate::plan::{EchoError, EchoOutcome, EchoPlan, Exchange, Fate};

/// Hop limits beyond this are of no network that we watch.
const HOPS_MAX: u8 = 30;
/// Packets for a hop: one may be lost, and one may fall to the router's rate limit.
const TRIES: u32 = 3;
/// Between two packets for the same hop: what a router's rate limit allows.
const PAUSE: Duration = Duration::from_secs(1);
/// Beyond any terrestrial path.
const DEADLINE: Duration = Duration::from_secs(1);
/// Silent hops in a row after which the rest is silent, too: nobody answers behind a black hole.
const SILENT_MAX: usize = 3;

/// ICMP type 11, code 0 (RFC 792), and ICMPv6 type 3, code 0 (RFC 4443): the hop limit ran out.
const TIME_EXCEEDED: (u8, u8) = (11, 0);
const TIME_EXCEEDED_V6: (u8, u8) = (3, 0);

/// What a trace found.
#[derive(Debug)]
pub enum Trace {
    /// The hops, nearest first, up to the target, to who refused, or to [`SILENT_MAX`] silent ones.
    Hops(Vec<Hop>),
    /// No packet could be sent.
    Unsendable(EchoError),
    /// The process's groups are outside `net.ipv4.ping_group_range`.
    Forbidden,
}

/// What answered at a hop limit; the first has number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// A router passed it on.
    Router {
        /// Its address on our side.
        by: IpAddr,
        /// Until its answer.
        rtt: Duration,
    },
    /// The target itself.
    Target {
        /// Until its answer.
        rtt: Duration,
    },
    /// Somebody refused to pass it on: the way ends there.
    Refused {
        /// Who.
        by: IpAddr,
        /// ICMP or ICMPv6 type.
        kind: u8,
        /// ICMP or ICMPv6 code.
        code: u8,
        /// Until the refusal.
        rtt: Duration,
    },
    /// Nothing came back.
    Silent,
}

/// Follows the way to the pinger's target. Takes 3 × 3 × 2 s on a dead path; on one that works a
/// round trip for each hop.
pub async fn trace(pinger: &mut Pinger) -> Trace {
    let mut hops = Vec::new();
    for ttl in 1..=HOPS_MAX {
        let hop = match ask(pinger, ttl).await {
            Ok(hop) => hop,
            Err(Refusal::Forbidden) => return Trace::Forbidden,
            // The first hops were reached: the failure is an end of the way.
            Err(Refusal::Unsendable(_)) if !hops.is_empty() => break,
            Err(Refusal::Unsendable(error)) => return Trace::Unsendable(error),
        };
        hops.push(hop);
        let is_over = match hop {
            Hop::Target { .. } | Hop::Refused { .. } => true,
            Hop::Router { .. } => false,
            Hop::Silent => {
                hops.iter().rev().take_while(|hop| **hop == Hop::Silent).count() >= SILENT_MAX
            }
        };
        if is_over {
            break;
        }
    }
    Trace::Hops(hops)
}

enum Refusal {
    Forbidden,
    Unsendable(EchoError),
}

async fn ask(pinger: &mut Pinger, ttl: u8) -> Result<Hop, Refusal> {
    let plan = EchoPlan { count: 1, deadline: DEADLINE, ttl: Some(ttl), ..EchoPlan::default() };
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        let exchange = match pinger.exchange(&plan).await {
            EchoOutcome::Answered(exchange)
            | EchoOutcome::Silent(exchange)
            | EchoOutcome::Rejected { exchange, .. } => exchange,
            EchoOutcome::Unsendable(error) => return Err(Refusal::Unsendable(error)),
            EchoOutcome::Forbidden => return Err(Refusal::Forbidden),
        };
        if let Some(hop) = hop(&exchange) {
            return Ok(hop);
        }
    }
    Ok(Hop::Silent)
}

fn hop(exchange: &Exchange) -> Option<Hop> {
    exchange.packets.iter().find_map(|packet| match packet.fate {
        Fate::Answered(answer) => Some(Hop::Target { rtt: answer.rtt }),
        Fate::Rejected { rejection, after } => {
            let (by, kind, code) = (rejection.by, rejection.kind, rejection.code);
            let time_exceeded = if by.is_ipv4() { TIME_EXCEEDED } else { TIME_EXCEEDED_V6 };
            Some(match (kind, code) == time_exceeded {
                true => Hop::Router { by, rtt: after },
                false => Hop::Refused { by, kind, code, rtt: after },
            })
        }
        Fate::Late | Fate::Silent => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Answer, Timing};
    use crate::plan::{Packet, Rejection};

    const MS: Duration = Duration::from_millis(1);

    #[track_caller]
    fn reads(fate: Fate, expected: Option<Hop>) {
        let packets = vec![Packet { sent: Duration::ZERO, fate }];
        assert_eq!(hop(&Exchange { packets, ..Exchange::default() }), expected);
    }

    #[test]
    fn only_an_expired_hop_limit_makes_a_router() {
        for (by, expired, refused) in
            [("198.18.10.1", (11, 0), (3, 13)), ("2001:db8::1", (3, 0), (1, 1))]
        {
            let by = by.parse().unwrap();
            let rejected = |(kind, code)| Fate::Rejected {
                rejection: Rejection { by, kind, code, next_hop_mtu: None },
                after: MS,
            };
            reads(rejected(expired), Some(Hop::Router { by, rtt: MS }));
            let (kind, code) = refused;
            reads(rejected(refused), Some(Hop::Refused { by, kind, code, rtt: MS }));
        }
        let answer = Answer { rtt: MS, timing: Timing::Kernel };
        reads(Fate::Answered(answer), Some(Hop::Target { rtt: MS }));
        reads(Fate::Silent, None);
        reads(Fate::Late, None);
    }
}
