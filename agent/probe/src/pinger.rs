//! Exchanges of echo packets with one target.
//!
//! The socket lives on from exchange to exchange, so that late answers are seen, until
//! [`Pinger::renew`]: then a new socket brings a new ICMP identifier, and with it a new session
//! in every firewall on the way.

use std::collections::VecDeque;
use std::net::IpAddr;

use tokio::time::{Instant, timeout_at};

use crate::binding::Binding;
use crate::clock::Stamp;
use crate::flight::Role;
use crate::plan::{EchoError, EchoOutcome, EchoPlan, Exchange, IDENTITY_BYTES, PACKETS_MAX};
use crate::socket::{EchoSocket, Refusal};

/// Sockets that wait for late answers: a renewal each second, for as long as an answer can be late
/// ([`crate::LATE_GRACE`]).
const RETIRED_MAX: usize = 11;

/// One target, pinged over one binding.
///
/// The binding is checked when a socket is opened; whoever sees that the address has moved makes
/// a new `Pinger`.
#[derive(Debug)]
pub struct Pinger {
    target: IpAddr,
    binding: Binding,
    socket: Option<EchoSocket>,
    /// Sockets before the last renewals, as long as a late answer may come in by them.
    retired: VecDeque<EchoSocket>,
}

impl Pinger {
    /// Nothing is opened before the first exchange.
    pub fn new(target: IpAddr, binding: Binding) -> Self {
        Self { target, binding, socket: None, retired: VecDeque::new() }
    }

    /// Whom it pings.
    pub fn target(&self) -> IpAddr {
        self.target
    }

    /// How it is bound.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Opens a new socket for the next exchange.
    pub fn renew(&mut self) {
        if let Some(socket) = self.socket.take() {
            while self.retired.len() >= RETIRED_MAX {
                self.retired.pop_front();
            }
            self.retired.push_back(socket);
        }
    }

    /// Runs one exchange; [`EchoPlan`] says how long it can take. Must run on a tokio runtime
    /// with I/O and time. Dropping the future is safe: what was sent counts as the past.
    pub async fn exchange(&mut self, plan: &EchoPlan) -> EchoOutcome {
        let past = self.read_past();
        let socket = match &mut self.socket {
            Some(socket) => socket,
            closed @ None => match EchoSocket::open(self.target, &self.binding) {
                Ok(socket) => closed.insert(socket),
                Err(Refusal::Forbidden) => return EchoOutcome::Forbidden,
                Err(Refusal::Failed(error)) => return EchoOutcome::Unsendable(error),
            },
        };
        match exchange(socket, plan, past).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // Whatever made the socket unusable (a device that was renamed, an address that
                // went) may be mended: the next exchange opens a new one.
                self.socket = None;
                EchoOutcome::Unsendable(error)
            }
        }
    }

    /// What has come in for earlier exchanges since.
    fn read_past(&mut self) -> Exchange {
        let mut past = Exchange::default();
        self.retired.retain_mut(|socket| {
            read_past(socket, &mut past);
            socket.flight.awaits_late_answers()
        });
        if let Some(socket) = &mut self.socket {
            read_past(socket, &mut past);
        }
        past
    }
}

fn read_past(socket: &mut EchoSocket, past: &mut Exchange) {
    // Ends an exchange whose future was dropped: nobody heard of its packets.
    let cut_short = socket.flight.end(Stamp::now());
    socket.read();
    for Exchange { packets: _, late_before, ignored } in
        [cut_short, socket.flight.end(Stamp::now())]
    {
        past.late_before.extend(late_before);
        past.ignored += ignored;
    }
}

async fn exchange(
    socket: &mut EchoSocket,
    plan: &EchoPlan,
    past: Exchange,
) -> Result<EchoOutcome, EchoError> {
    let payload_bytes = plan.payload_bytes.max(IDENTITY_BYTES);
    socket.configure(plan)?;
    if let Some(wait) = plan.warm_up {
        socket.send(Role::WarmUp, payload_bytes, wait)?;
        settle(socket, Role::WarmUp, Instant::now() + wait).await?;
    }
    let (mut sent, mut failure) = (0, None);
    let mut last_sent = Instant::now();
    let count = plan.count.clamp(1, PACKETS_MAX);
    for number in 0..count {
        last_sent = Instant::now();
        match socket.send(Role::Counted, payload_bytes, plan.deadline) {
            Ok(()) => sent += 1,
            Err(error) => failure = Some(error),
        }
        if number + 1 < count {
            read_until(socket, last_sent + plan.spacing).await?;
        }
    }
    if let Some(error) = failure.filter(|_| sent == 0) {
        return Err(error);
    }
    settle(socket, Role::Counted, last_sent + plan.deadline).await?;
    let Exchange { packets, late_before, ignored } = socket.flight.end(Stamp::now());
    let mut exchange = Exchange { packets, ..past };
    exchange.late_before.extend(late_before);
    exchange.ignored += ignored;
    Ok(exchange.outcome())
}

/// Reads until every packet of a role has met its end, or `until`.
async fn settle(socket: &mut EchoSocket, role: Role, until: Instant) -> Result<(), EchoError> {
    loop {
        socket.read();
        if socket.flight.is_settled(role) {
            return Ok(());
        }
        let Ok(ready) = timeout_at(until, socket.readable()).await else {
            // The kernel may have stamped an answer in time that we are late to read.
            socket.read();
            return Ok(());
        };
        ready?;
    }
}

/// Reads until `until`, so that answers get their stamps and errors are seen between packets.
async fn read_until(socket: &mut EchoSocket, until: Instant) -> Result<(), EchoError> {
    while let Ok(ready) = timeout_at(until, socket.readable()).await {
        ready?;
        socket.read();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    /// Where the machine forbids echo (`ping_group_range` is closed by default), the outcome must
    /// say so; where it allows it, loopback must answer. Both are right, nothing else is.
    #[tokio::test]
    async fn loopback_answers_or_the_kernel_forbids() {
        let binding =
            Binding { device: Some("lo".into()), source: Some(Ipv4Addr::new(127, 0, 0, 9).into()) };
        let mut pinger = Pinger::new(Ipv4Addr::new(127, 0, 0, 1).into(), binding);
        let plan = EchoPlan {
            count: 3,
            spacing: Duration::from_millis(5),
            dont_fragment: true,
            warm_up: Some(Duration::from_millis(100)),
            ..EchoPlan::default()
        };
        for _ in 0..2 {
            match pinger.exchange(&plan).await {
                EchoOutcome::Forbidden => {}
                EchoOutcome::Answered(exchange) => {
                    assert_eq!((exchange.packets.len(), exchange.answers().count()), (3, 3));
                    assert_eq!(exchange.late_before, []);
                }
                other => panic!("{other:?}"),
            }
            pinger.renew();
        }
    }
}
