//! Echo requests from the core to the agencies' gateways: what tells a cut-off agency from one
//! whose machines are switched off.
//!
//! Only gateways that the roster names, inside the configured prefixes, through the configured
//! interface, under a ceiling of packets a second. The payload carries a random identity, so
//! that no stranger's answer counts (`haidang-probe`). What could not be sent is told to nobody:
//! it says something about the collector and nothing about a gateway.

mod anchors;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use haidang_probe::{Binding, EchoOutcome, EchoPlan, Pinger};
use ipnet::IpNet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use anchors::watch as watch_anchors;

use crate::config::CoreCheck;
use crate::fleet::GatewayCheck;
use crate::live::Live;

/// Time between looking for gateways that are due.
const ROUND: Duration = Duration::from_secs(1);
/// Packets of one check: a single lost one must not count as silence.
const PACKETS: u32 = 2;
/// Checks under way at a time; each has a socket.
const CHECKS_MAX: usize = 64;

/// Checks until the stop signal.
pub async fn run(config: CoreCheck, live: Live, stop: CancellationToken) {
    let Some(device) = config.device else { return stop.cancelled().await };
    let per_round = usize::try_from(config.packets_per_second / PACKETS).unwrap_or(1).max(1);
    let mut round = tokio::time::interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks = FuturesUnordered::new();
    let mut under_way: Vec<GatewayCheck> = Vec::new();
    let mut sendable = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some((check, answered)) = checks.next(), if !checks.is_empty() => {
                under_way.retain(|one| *one != check);
                match answered {
                    Some(answered) => {
                        sendable = true;
                        live.gateway_checked(&check, answered);
                    }
                    None if sendable => {
                        sendable = false;
                        tracing::warn!(device, gateway = %check.address, "cannot ask gateways");
                    }
                    None => {}
                }
            }
            _ = round.tick() => {
                let new = live
                    .gateways_to_check()
                    .into_iter()
                    .filter(|check| is_inside(&config.network_prefixes, check.address))
                    .filter(|check| !under_way.contains(check));
                let room = per_round.min(CHECKS_MAX.saturating_sub(checks.len()));
                for check in new.take(room).collect::<Vec<_>>() {
                    under_way.push(check.clone());
                    let binding = Binding { device: Some(device.clone()), source: None };
                    checks.push(async move {
                        let answered = echo(check.address, binding).await;
                        (check, answered)
                    });
                }
            }
        }
    }
}

fn is_inside(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

/// Whether a gateway answered; `None` when it could not be asked.
async fn echo(gateway: IpAddr, binding: Binding) -> Option<bool> {
    let plan = EchoPlan { count: PACKETS, ..EchoPlan::default() };
    match Pinger::new(gateway, binding).exchange(&plan).await {
        EchoOutcome::Answered { .. } => Some(true),
        EchoOutcome::Silent { .. } | EchoOutcome::Rejected { .. } => Some(false),
        EchoOutcome::Unsendable(error) => {
            tracing::debug!(%gateway, %error, "an echo request could not be sent");
            None
        }
        EchoOutcome::Forbidden => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_networks_prefixes_is_asked() {
        let prefixes = ["198.18.0.0/15".parse().expect("a prefix")];
        for (address, inside) in [("198.18.7.1", true), ("198.20.0.1", false), ("::1", false)] {
            assert_eq!(is_inside(&prefixes, address.parse().expect("an address")), inside);
        }
    }
}
