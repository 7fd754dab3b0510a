//! Echo to one target: L1, L2 and the path MTU.

use std::net::IpAddr;
use std::time::Duration;

use haidang_probe::{Binding, EchoOutcome, EchoPlan, IDENTITY_BYTES, Pinger, Rejection};

use super::socket::fault;
use crate::evidence::{Echo, Exchange, Fate, LocalFault, Packet, PathMtu};

/// How long the first packet of a newly bound target waits for ARP or neighbour discovery.
const WARM_UP: Duration = Duration::from_millis(200);
/// Full-size packets, one after the other: three lost in a row are a hole, one is chance.
const LARGE_PACKETS: u32 = 3;

/// A target and the socket that pings it.
#[derive(Debug)]
pub(super) struct EchoTarget {
    address: IpAddr,
    pinger: Option<Pinger>,
}

impl EchoTarget {
    pub(super) fn new(address: IpAddr) -> Self {
        Self { address, pinger: None }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// New socket, new ICMP identifier.
    pub(super) fn renew(&mut self) {
        if let Some(pinger) = &mut self.pinger {
            pinger.renew();
        }
    }

    /// Runs an exchange through `binding`, or says why there is none.
    pub(super) async fn probe(
        &mut self,
        binding: &Result<Binding, LocalFault>,
        plan: EchoPlan,
    ) -> Echo {
        match binding {
            Ok(binding) => evidence(self.exchange(binding, plan).await),
            Err(fault) => Echo::Unsendable(fault.clone()),
        }
    }

    /// Sends packets of the interface's full size with DF. To be asked only of a target that has
    /// just answered small ones. Takes `deadline` for each lost packet.
    pub(super) async fn path_mtu(
        &mut self,
        binding: &Binding,
        mtu: u32,
        deadline: Duration,
    ) -> PathMtu {
        let header = if self.address.is_ipv4() { 28 } else { 48 };
        let bytes = u16::try_from(mtu).unwrap_or(u16::MAX);
        let Some(payload_bytes) = bytes.checked_sub(header).filter(|size| *size >= IDENTITY_BYTES)
        else {
            return PathMtu::NotMeasured(LocalFault(format!("the interface's MTU is {mtu}")));
        };
        let plan = EchoPlan { deadline, payload_bytes, dont_fragment: true, ..EchoPlan::default() };
        // One after the other: three at once would fill a slow line for most of a second.
        for _ in 0..LARGE_PACKETS {
            match self.exchange(binding, plan).await {
                EchoOutcome::Answered(_) => return PathMtu::Full { bytes },
                EchoOutcome::Silent(_) => {}
                EchoOutcome::Rejected { rejection, .. } => return too_big(rejection),
                EchoOutcome::Unsendable(error) => return PathMtu::NotMeasured(fault(&error)),
                EchoOutcome::Forbidden => {
                    let forbidden = "this machine may not send echo";
                    return PathMtu::NotMeasured(LocalFault(forbidden.into()));
                }
            }
        }
        PathMtu::Hole { bytes }
    }

    /// The socket lives from cycle to cycle, as long as the binding stays the same.
    async fn exchange(&mut self, binding: &Binding, plan: EchoPlan) -> EchoOutcome {
        let bound = self.pinger.take().filter(|pinger| pinger.binding() == binding);
        let warm_up = bound.is_none().then_some(WARM_UP);
        let pinger = bound.unwrap_or_else(|| Pinger::new(self.address, binding.clone()));
        let pinger = self.pinger.insert(pinger);
        pinger.exchange(&EchoPlan { warm_up, ..plan }).await
    }
}

fn too_big(rejection: Rejection) -> PathMtu {
    let Rejection { by, kind, code, next_hop_mtu } = rejection;
    match next_hop_mtu {
        Some(mtu) => PathMtu::Signalled { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) },
        None => PathMtu::NotMeasured(LocalFault(format!("ICMP {kind}/{code} from {by}"))),
    }
}

fn evidence(outcome: EchoOutcome) -> Echo {
    match outcome {
        EchoOutcome::Answered(packets) => Echo::Answered(exchange(packets)),
        EchoOutcome::Silent(packets) => Echo::Silent(exchange(packets)),
        EchoOutcome::Rejected { exchange: packets, rejection } => {
            let Rejection { by, kind, code, next_hop_mtu: _ } = rejection;
            Echo::Rejected { exchange: exchange(packets), by, kind, code }
        }
        EchoOutcome::Unsendable(error) => Echo::Unsendable(fault(&error)),
        EchoOutcome::Forbidden => Echo::Forbidden,
    }
}

fn exchange(seen: haidang_probe::Exchange) -> Exchange {
    let haidang_probe::Exchange { packets, late_before, ignored } = seen;
    let packets = packets.into_iter().map(|haidang_probe::Packet { sent, fate }| Packet {
        sent,
        fate: match fate {
            haidang_probe::Fate::Answered(answer) => Fate::Answered(answer.rtt),
            haidang_probe::Fate::Late => Fate::Late,
            haidang_probe::Fate::Silent => Fate::Lost,
            haidang_probe::Fate::Rejected { .. } => Fate::Rejected,
        },
    });
    Exchange { packets: packets.collect(), late_before, ignored: ignored.total() }
}
