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
use crate::plan::{self, Exchange, Fate, Ignored, LATE_GRACE, PACKETS_MAX, Rejection};

/// Packets remembered: this exchange's, its warm-up and the previous exchange's.
const REMEMBERED_MAX: usize = 2 * PACKETS_MAX as usize + 2;

/// All packets of a socket that may still be answered.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    packets: VecDeque<Packet>,
    /// When packets of earlier exchanges were sent that have been answered since.
    late_before: Vec<Duration>,
    ignored: Ignored,
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
    Rejected { rejection: Rejection, after: Duration },
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
            self.ignore_reply();
            return;
        };
        // An answer outweighs an error about the same packet, whichever comes first.
        if !matches!(packet.life, Life::InTheAir | Life::Rejected { .. }) {
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
            if packet.role == Role::Past {
                self.late_before.push(packet.sent.mono);
            }
        }
    }

    /// Takes note of a reply that is none: from somebody else, or not one at all.
    pub(crate) fn ignore_reply(&mut self) {
        self.ignored += Ignored { replies: 1, errors: 0 };
    }

    /// Takes note of an error that quotes no request of ours.
    pub(crate) fn ignore_error(&mut self) {
        self.ignored += Ignored { replies: 0, errors: 1 };
    }

    /// Takes note of an error about one of our packets, as its sender quoted it. An error from
    /// `own`, this machine's address, is the kernel giving up on ARP or neighbour discovery:
    /// nobody rejected anything, so it counts as silence.
    pub(crate) fn error(
        &mut self,
        quoted: Identity,
        error: &ExtendedError,
        own: Option<IpAddr>,
        (arrived, read): (Option<Duration>, Stamp),
    ) {
        let Some(rejection) = rejection(error, own) else { return };
        let quoted = self.packets.iter_mut().find(|packet| {
            packet.sequence == quoted.sequence
                && quoted.nonce.is_none_or(|nonce| nonce == packet.nonce)
        });
        match quoted {
            Some(packet) if packet.life == Life::InTheAir && packet.role != Role::Past => {
                let after = round_trip(packet.sent, arrived, read).rtt;
                packet.life = Life::Rejected { rejection, after };
            }
            Some(_) => {}
            None => self.ignore_error(),
        }
    }

    /// Whether every packet of this role has met its end before its deadline.
    pub(crate) fn is_settled(&self, role: Role) -> bool {
        self.of(role).all(|packet| packet.life != Life::InTheAir)
    }

    /// Ends the exchange: what is in the air can only be late from now on. Returns the packets of
    /// the exchange, and what has come in for earlier ones since the previous end.
    pub(crate) fn end(&mut self, now: Stamp) -> Exchange {
        let packets = self.of(Role::Counted).map(|packet| plan::Packet {
            sent: packet.sent.mono,
            fate: match packet.life {
                Life::InTheAir => Fate::Silent,
                Life::Answered(answer) => Fate::Answered(answer),
                Life::Late => Fate::Late,
                Life::Rejected { rejection, after } => Fate::Rejected { rejection, after },
            },
        });
        let packets = packets.collect();
        self.packets.retain_mut(|packet| {
            packet.role = if packet.role == Role::WarmUp { Role::WarmUp } else { Role::Past };
            let age = now.mono.saturating_sub(packet.sent.mono);
            matches!(packet.life, Life::InTheAir | Life::Rejected { .. })
                && packet.role == Role::Past
                && age <= LATE_GRACE
        });
        Exchange {
            packets,
            late_before: std::mem::take(&mut self.late_before),
            ignored: std::mem::take(&mut self.ignored),
        }
    }

    /// Whether a packet of an ended exchange may still be answered.
    pub(crate) fn awaits_late_answers(&self) -> bool {
        !self.packets.is_empty()
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

    fn fates(exchange: &Exchange) -> Vec<Fate> {
        exchange.packets.iter().map(|packet| packet.fate).collect()
    }

    fn answered(rtt_ms: u64) -> Fate {
        Fate::Answered(Answer { rtt: Duration::from_millis(rtt_ms), timing: Timing::Kernel })
    }

    #[test]
    fn each_packet_has_its_own_fate_in_the_order_of_sending() {
        let mut flight = Flight::default();
        for sequence in 1..=4 {
            let sent = at(u64::from(sequence) * 100);
            flight.sent((sequence, [sequence as u8; 16]), sent, DEADLINE, Role::Counted);
        }
        flight.reply(identity(4), wall(440), at(441));
        flight.reply(identity(1), wall(1_400), at(1_401));
        flight.error(identity(2), &unreachable(ROUTER), Some(OWN), (wall(230), at(231)));
        let exchange = flight.end(at(1_402));
        let rejection = Rejection { by: ROUTER, kind: 3, code: 0, next_hop_mtu: None };
        assert_eq!(
            fates(&exchange),
            [
                Fate::Late,
                Fate::Rejected { rejection, after: Duration::from_millis(30) },
                Fate::Silent,
                answered(40)
            ]
        );
        let sent: Vec<_> = exchange.packets.iter().map(|packet| packet.sent).collect();
        assert_eq!(sent, [100, 200, 300, 400].map(Duration::from_millis));
    }

    #[test]
    fn an_answer_read_late_but_stamped_in_time_is_in_time() {
        let mut flight = one_in_the_air();
        flight.reply(identity(1), wall(40), at(3_000));
        assert_eq!(fates(&flight.end(at(3_000))), [answered(40)]);
    }

    #[test]
    fn an_answer_after_its_deadline_is_late_and_counted_once() {
        let mut flight = one_in_the_air();
        flight.reply(identity(1), wall(1_001), at(1_002));
        flight.reply(identity(1), wall(1_003), at(1_004));
        let exchange = flight.end(at(1_005));
        assert_eq!((fates(&exchange), exchange.late_before), (vec![Fate::Late], vec![]));
    }

    #[test]
    fn an_answer_in_the_next_exchange_is_late_even_within_the_deadline() {
        let mut flight = one_in_the_air();
        assert_eq!(fates(&flight.end(at(500))), [Fate::Silent]);
        flight.sent((2, [2; 16]), at(600), DEADLINE, Role::Counted);
        flight.reply(identity(1), wall(700), at(701));
        let exchange = flight.end(at(1_700));
        assert_eq!(fates(&exchange), [Fate::Silent]);
        assert_eq!(exchange.late_before, [at(0).mono], "the first packet, by its moment");
    }

    #[test]
    fn an_answer_after_the_grace_is_nothing() {
        let mut flight = one_in_the_air();
        flight.end(at(1_000));
        flight.end(at(10_001));
        flight.reply(identity(1), wall(10_002), at(10_003));
        let exchange = flight.end(at(10_004));
        assert_eq!((exchange.packets, exchange.late_before), (vec![], vec![]));
    }

    #[test]
    fn forged_replies_and_errors_are_counted_and_change_nothing() {
        let mut flight = one_in_the_air();
        flight.reply(Identity { sequence: 1, nonce: Some([7; 16]) }, wall(10), at(11));
        flight.reply(Identity { sequence: 1, nonce: None }, wall(10), at(11));
        flight.reply(identity(2), wall(10), at(11));
        flight.error(
            Identity { sequence: 1, nonce: Some([7; 16]) },
            &unreachable(ROUTER),
            Some(OWN),
            (wall(10), at(11)),
        );
        flight.error(
            Identity { sequence: 2, nonce: None },
            &unreachable(ROUTER),
            Some(OWN),
            (wall(10), at(11)),
        );
        assert!(!flight.is_settled(Role::Counted));
        let exchange = flight.end(at(1_000));
        assert_eq!(fates(&exchange), [Fate::Silent]);
        assert_eq!(exchange.ignored, Ignored { replies: 3, errors: 2 });
    }

    #[test]
    fn a_router_rejects_and_this_machine_does_not() {
        let mut flight = one_in_the_air();
        flight.error(identity(1), &unreachable(OWN), Some(OWN), (wall(10), at(11)));
        assert!(!flight.is_settled(Role::Counted));
        flight.error(
            Identity { sequence: 1, nonce: None },
            &unreachable(ROUTER),
            Some(OWN),
            (None, at(11)),
        );
        assert!(flight.is_settled(Role::Counted));
        let rejection = Rejection { by: ROUTER, kind: 3, code: 0, next_hop_mtu: None };
        assert_eq!(
            fates(&flight.end(at(20))),
            [Fate::Rejected { rejection, after: Duration::from_millis(11) }]
        );
    }

    #[test]
    fn an_answer_outweighs_an_error() {
        let mut flight = one_in_the_air();
        flight.error(identity(1), &unreachable(ROUTER), Some(OWN), (wall(5), at(6)));
        flight.reply(identity(1), wall(10), at(11));
        assert_eq!(fates(&flight.end(at(20))), [answered(10)]);
    }

    #[test]
    fn a_warm_up_is_never_counted() {
        let mut flight = Flight::default();
        flight.sent((1, [1; 16]), at(0), DEADLINE, Role::WarmUp);
        flight.reply(identity(1), wall(2_000), at(2_001));
        assert!(flight.is_settled(Role::WarmUp));
        assert_eq!(flight.end(at(2_002)), Exchange::default());
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
