//! Faults of the network, as data: a cut is a name, what it does stands in one table here, and
//! [`Site::heal`] undoes whatever stands.

use std::net::Ipv4Addr;

use anyhow::Result;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::core_services::{ResolverMode, ServiceMode};
use crate::relay::{Impairment, Impairments};
use crate::topology::{DEDICATED, Site};

/// What a lying resolver answers: an Internet address (RFC 5737).
const LIE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// Below the 1500 bytes that the interface promises.
const HOLE_BYTES: usize = 1400;

/// A fault of one site's path or of what it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Cut {
    /// The interface is switched off on the machine.
    Link,
    /// Cable out or the provider's device off: no carrier.
    Peer,
    /// The address is gone, as when a lease is lost.
    Addr,
    /// The route to the dedicated prefixes is gone.
    Route,
    /// The gateway drops every packet.
    Gw,
    /// The gateway does not even answer ARP.
    GwArp,
    /// A black hole between gateway and core.
    Core,
    /// The gateway says "net unreachable" for the core.
    CoreUnreach,
    /// The resolver is stopped.
    Dns,
    /// The resolver answers with an Internet address.
    DnsLie,
    /// The service is stopped.
    Svc,
    /// The service answers 503.
    Svc503,
    /// Packets above 1400 bytes vanish without a word.
    Pmtu,
    /// Delay and jitter above the thresholds, and some loss.
    Slow,
}

/// A long detour over a full line, in one direction; below the shortened echo deadline.
const SLOW: Impairments = Impairments {
    to_core: Impairment {
        delay_ms: 210,
        jitter_ms: 60,
        loss_ratio: 0.04,
        loss_run_mean: 0.0,
        packet_bytes_max: 0,
    },
    to_site: Impairment {
        delay_ms: 0,
        jitter_ms: 0,
        loss_ratio: 0.0,
        loss_run_mean: 0.0,
        packet_bytes_max: 0,
    },
};

impl Site {
    /// Makes the fault.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn cut(&mut self, cut: Cut) -> Result<()> {
        let (gateway_device, prefix) = (self.wan_device(), self.prefix());
        let done = match cut {
            Cut::Link => self.netns.ip("link set eth0 down\n"),
            Cut::Peer => self.wan.ip(&format!("link set {gateway_device} down\n")),
            Cut::Addr => self.netns.ip("addr flush dev eth0\n"),
            Cut::Route => self.netns.ip(&format!("route del {DEDICATED}\n")),
            Cut::Gw => self.wan.nft(&format!(
                "table ip cut{gateway_device} {{ chain in {{ \
                 type filter hook prerouting priority -300; \
                 iifname \"{gateway_device}\" drop; }}; }}\n"
            )),
            Cut::GwArp => self
                .wan
                .ip(&format!("link set {gateway_device} arp off\n"))
                .and_then(|()| self.netns.ip("neigh flush dev eth0\n")),
            Cut::Core => {
                self.relay.impair(self.octet(), Impairments::BLACK_HOLE);
                Ok(())
            }
            Cut::CoreUnreach => self
                .wan
                .ip(&format!("rule add from {prefix} to 198.18.0.0/22 priority 100 unreachable\n")),
            Cut::Dns => self.resolver.resolve(ResolverMode::Stopped).await,
            Cut::DnsLie => self.resolver.resolve(ResolverMode::Answers(LIE)).await,
            Cut::Svc => self.service.serve(ServiceMode::Stopped).await,
            Cut::Svc503 => {
                self.service.serve(ServiceMode::Answers(StatusCode::SERVICE_UNAVAILABLE)).await
            }
            Cut::Pmtu => {
                let hole = Impairment { packet_bytes_max: HOLE_BYTES, ..Impairment::default() };
                self.relay.impair(self.octet(), Impairments { to_core: hole, to_site: hole });
                Ok(())
            }
            Cut::Slow => {
                self.relay.impair(self.octet(), SLOW);
                Ok(())
            }
        };
        self.cuts.push(cut);
        done
    }

    /// Undoes every cut that stands.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn heal(&mut self) -> Result<()> {
        let (gateway_device, prefix) = (self.wan_device(), self.prefix());
        for cut in std::mem::take(&mut self.cuts) {
            match cut {
                Cut::Link | Cut::Addr | Cut::Route => self.restore_interface()?,
                Cut::Peer => self.wan.ip(&format!("link set {gateway_device} up\n"))?,
                Cut::Gw => self.wan.nft(&format!("delete table ip cut{gateway_device}\n"))?,
                Cut::GwArp => {
                    self.wan.ip(&format!("link set {gateway_device} arp on\n"))?;
                    self.netns.ip("neigh flush dev eth0\n")?;
                }
                Cut::Core | Cut::Pmtu | Cut::Slow => self.relay.heal(self.octet()),
                Cut::CoreUnreach => self.wan.ip(&format!(
                    "rule del from {prefix} to 198.18.0.0/22 priority 100 unreachable\n"
                ))?,
                Cut::Dns | Cut::DnsLie | Cut::Svc | Cut::Svc503 => self.start_services().await?,
            }
        }
        Ok(())
    }

    /// The interface, its address and its route, whichever of them was lost.
    fn restore_interface(&self) -> Result<()> {
        let (address, gateway) = (self.address(), self.gateway());
        self.netns.ip(&format!(
            "link set eth0 up\n\
             addr replace {address}/24 dev eth0\n\
             route replace {DEDICATED} via {gateway} dev eth0\n"
        ))
    }
}
