//! Packets in the air, and what became of them. Pure: stamps are passed in.
//!
//! A packet is lost only when its own deadline has passed without an answer. An answer after that
//! is late, up to [`LATE_GRACE`]; a later one, a second one, and one without our nonce is nothing.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::{Answer, Stamp, round_trip};
use crate::control::ExtendedError;
use crate::errors::rejection;
use crate::packet::{Identity, Nonce};
use crate::plan::{LATE_GRACE, PACKETS_MAX, Rejection};

/// Packets remembered: this exchange's, its warm-up and the previous exchange's.
const REMEMBERED_MAX: usize = 2 * PACKETS_MAX as usize + 2;

/// All packets of a socket that may still be answered.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    packets: VecDeque<Packet>,
    late: u32,
}

#[derive(Debug)]
struct Packet {
    sequence: u16,
    nonce: Nonce,
    sent: Stamp,
    deadline: Duration,
    role: Role,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Counted,
    WarmUp,
    /// Of an exchange that has ended: only lateness is of interest.
    Past,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    InTheAir,
    Answered(Answer),
    Late,
    Rejected(Rejection),
}

impl Flight {
    /// Takes note of a packet that was sent.
    pub(crate) fn sent(
        &mut self,
        (sequence, nonce): (u16, Nonce),
        sent: Stamp,
        deadline: Duration,
        role: Role,
    ) {
        while self.packets.len() >= REMEMBERED_MAX {
            self.packets.pop_front();
        }
        self.packets.push_back(Packet {
            sequence,
            nonce,
            sent,
            deadline,
            role,
            life: Life::InTheAir,
        });
    }

    /// Takes note of a reply.
    pub(crate) fn reply(&mut self, identity: Identity, arrived: Option<Duration>, read: Stamp) {
        let Some(packet) = self.packets.iter_mut().find(|packet| {
            packet.sequence == identity.sequence && identity.nonce == Some(packet.nonce)
        }) else {
            return;
        };
        // An answer outweighs an error about the same packet, whichever comes first.
        if !matches!(packet.life, Life::InTheAir | Life::Rejected(_)) {
            return;
        }
        let answer = round_trip(packet.sent, arrived, read);
        if answer.rtt > LATE_GRACE {
            return;
        }
        if packet.role != Role::Past && answer.rtt <= packet.deadline {
            packet.life = Life::Answered(answer);
        } else {
            packet.life = Life::Late;
            self.late += u32::from(packet.role != Role::WarmUp);
        }
    }

    /// Takes note of an error about one of our packets, as its sender quoted it. An error from
    /// `own`, this machine's address, is the kernel giving up on ARP or neighbour discovery:
    /// nobody rejected anything, so it counts as silence.
    pub(crate) fn error(&mut self, quoted: Identity, error: &ExtendedError, own: Option<IpAddr>) {
        let Some(rejection) = rejection(error, own) else { return };
        let rejected = self.packets.iter_mut().find(|packet| {
            packet.sequence == quoted.sequence
                && quoted.nonce.is_none_or(|nonce| nonce == packet.nonce)
                && packet.life == Life::InTheAir
                && packet.role != Role::Past
        });
        if let Some(packet) = rejected {
            packet.life = Life::Rejected(rejection);
        }
    }

    /// Whether every packet of this role has met its end before its deadline.
    pub(crate) fn is_settled(&self, role: Role) -> bool {
        self.of(role).all(|packet| packet.life != Life::InTheAir)
    }

    /// The answers to this exchange, in the order of sending.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.of(Role::Counted)
            .filter_map(|packet| match packet.life {
                Life::Answered(answer) => Some(answer),
                _ => None,
            })
            .collect()
    }

    /// The first rejection in this exchange.
    pub(crate) fn rejection(&self) -> Option<Rejection> {
        self.of(Role::Counted).find_map(|packet| match packet.life {
            Life::Rejected(rejection) => Some(rejection),
            _ => None,
        })
    }

    /// Ends the exchange: what is in the air can only be late from now on. Returns the late
    /// answers since the previous end.
    pub(crate) fn end(&mut self, now: Stamp) -> u32 {
        self.packets.retain_mut(|packet| {
            packet.role = if packet.role == Role::WarmUp { Role::WarmUp } else { Role::Past };
            let age = now.mono.saturating_sub(packet.sent.mono);
            matches!(packet.life, Life::InTheAir | Life::Rejected(_))
                && packet.role == Role::Past
                && age <= LATE_GRACE
        });
        std::mem::take(&mut self.late)
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(move |packet| packet.role == role)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::clock::Timing;
    use crate::control::Origin;

    const DEADLINE: Duration = Duration::from_secs(1);
    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 10, 10));
    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 10, 1));

    fn at(ms: u64) -> Stamp {
        Stamp { mono: Duration::from_millis(ms), wall: Duration::from_millis(1_000_000 + ms) }
    }

    fn wall(ms: u64) -> Option<Duration> {
        Some(at(ms).wall)
    }

    fn identity(sequence: u16) -> Identity {
        Identity { sequence, nonce: Some([sequence as u8; 16]) }
    }

    fn one_in_the_air() -> Flight {
        let mut flight = Flight::default();
        flight.sent((1, [1; 16]), at(0), DEADLINE, Role::Counted);
        flight
    }

    fn unreachable(by: IpAddr) -> ExtendedError {
        ExtendedError { origin: Origin::Icmp, kind: 3, code: 0, info: 0, offender: Some(by) }
    }

    #[test]
    fn an_answer_read_late_but_stamped_in_time_is_in_time() {
        let mut flight = one_in_the_air();
        flight.reply(identity(1), wall(40), at(3_000));
        let rtt = Duration::from_millis(40);
        assert_eq!(flight.answers(), [Answer { rtt, timing: Timing::Kernel }]);
        assert_eq!(flight.end(at(3_000)), 0);
    }

    #[test]
    fn an_answer_after_its_deadline_is_late_and_counted_once() {
        let mut flight = one_in_the_air();
        flight.reply(identity(1), wall(1_001), at(1_002));
        flight.reply(identity(1), wall(1_003), at(1_004));
        assert!(flight.answers().is_empty());
        assert_eq!(flight.end(at(1_005)), 1);
    }

    #[test]
    fn an_answer_in_the_next_exchange_is_late_even_within_the_deadline() {
        let mut flight = one_in_the_air();
        assert_eq!(flight.end(at(500)), 0);
        flight.sent((2, [2; 16]), at(600), DEADLINE, Role::Counted);
        flight.reply(identity(1), wall(700), at(701));
        assert!(flight.answers().is_empty());
        assert_eq!(flight.end(at(1_700)), 1);
    }

    #[test]
    fn an_answer_after_the_grace_is_nothing() {
        let mut flight = one_in_the_air();
        assert_eq!(flight.end(at(1_000)), 0);
        assert_eq!(flight.end(at(10_001)), 0);
        flight.reply(identity(1), wall(10_002), at(10_003));
        assert_eq!(flight.end(at(10_004)), 0);
    }

    #[test]
    fn a_forged_reply_is_nothing() {
        let mut flight = one_in_the_air();
        flight.reply(Identity { sequence: 1, nonce: Some([7; 16]) }, wall(10), at(11));
        flight.reply(Identity { sequence: 1, nonce: None }, wall(10), at(11));
        assert!(flight.answers().is_empty());
        assert!(!flight.is_settled(Role::Counted));
    }

    #[test]
    fn a_router_rejects_and_this_machine_does_not() {
        let mut flight = one_in_the_air();
        flight.error(identity(1), &unreachable(OWN), Some(OWN));
        assert_eq!(flight.rejection(), None);
        flight.error(Identity { sequence: 1, nonce: None }, &unreachable(ROUTER), Some(OWN));
        let rejection = Rejection { by: ROUTER, kind: 3, code: 0, next_hop_mtu: None };
        assert_eq!(flight.rejection(), Some(rejection));
        assert!(flight.is_settled(Role::Counted));
    }

    #[test]
    fn an_answer_outweighs_an_error() {
        let mut flight = one_in_the_air();
        flight.error(identity(1), &unreachable(ROUTER), Some(OWN));
        flight.reply(identity(1), wall(10), at(11));
        assert_eq!(flight.answers().len(), 1);
        assert_eq!(flight.rejection(), None);
    }

    #[test]
    fn a_warm_up_is_never_counted() {
        let mut flight = Flight::default();
        flight.sent((1, [1; 16]), at(0), DEADLINE, Role::WarmUp);
        flight.reply(identity(1), wall(2_000), at(2_001));
        assert!(flight.is_settled(Role::WarmUp));
        assert!(flight.answers().is_empty());
        assert_eq!(flight.end(at(2_002)), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut flight = Flight::default();
        for sequence in 0..1_000 {
            flight.sent((sequence, [0; 16]), at(0), DEADLINE, Role::Counted);
        }
        assert_eq!(flight.packets.len(), REMEMBERED_MAX);
    }
}
