//! Faults of the network, as data: a cut is a name, what it does stands in one table here, and
//! [`Site::heal`] undoes whatever stands.

use std::net::Ipv4Addr;

use anyhow::Result;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::core_services::{ResolverMode, ServiceMode};
use crate::relay::{Impairment, Impairments};
use crate::topology::{DEDICATED, SECOND_ANCHOR, Site};

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
    /// The gateway ignores ICMP; it forwards as before.
    GwDeaf,
    /// ICMP is filtered everywhere on the way; TCP and UDP pass.
    Icmp,
    /// The second anchor is dead.
    Anchor,
    /// Losses in runs on the way back, none on the way out.
    LossBack,
    /// A lease renewed with another address of the agency.
    Lease,
    /// The interface gets another name.
    Rename,
    /// The interface is replaced by another one of the same name, as with a new network card.
    Replace,
    /// The machine forwards between its interfaces.
    Forward,
}

/// A long detour over a full line, in one direction; below the shortened echo deadline.
const SLOW: Impairments = Impairments {
    to_core: Impairment { delay_ms: 210, jitter_ms: 60, loss_ratio: 0.04, ..Impairment::NONE },
    to_site: Impairment::NONE,
};

/// Back from the core one packet in five is lost, in runs.
const LOSS_BACK: Impairments = Impairments {
    to_core: Impairment::NONE,
    to_site: Impairment { loss_ratio: 0.2, loss_run_mean: 2.0, ..Impairment::NONE },
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
            Cut::Gw => self.drop_in_wan("prerouting", ""),
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
            Cut::LossBack => {
                self.relay.impair(self.octet(), LOSS_BACK);
                Ok(())
            }
            Cut::GwDeaf => self.drop_in_wan("input", "ip protocol icmp"),
            Cut::Icmp => self.drop_in_wan("prerouting", "ip protocol icmp"),
            Cut::Anchor => self.drop_in_wan("prerouting", &format!("ip daddr {SECOND_ANCHOR}")),
            Cut::Lease => self.netns.ip(&format!(
                "addr flush dev eth0\naddr add {address} dev eth0\n{route}",
                address = self.other_address(),
                route = self.route_lines("eth0"),
            )),
            Cut::Rename => self.netns.ip(&format!(
                "link set eth0 down\nlink set eth0 name lan0\nlink set lan0 up\n\
                 addr replace {}/24 dev lan0\n{}",
                self.address(),
                self.route_lines("lan0")
            )),
            Cut::Replace => {
                self.netns.ip("link del eth0\n").and_then(|()| self.connect_dedicated())
            }
            Cut::Forward => self.netns.set_sysctl("net/ipv4/ip_forward", "1"),
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
                Cut::Core | Cut::Pmtu | Cut::Slow | Cut::LossBack => {
                    self.relay.heal(self.octet());
                }
                Cut::GwDeaf | Cut::Icmp | Cut::Anchor => {
                    self.wan.nft(&format!("delete table ip cut{gateway_device}\n"))?;
                }
                Cut::Lease => {
                    self.netns.ip("addr flush dev eth0\n")?;
                    self.restore_interface()?;
                }
                Cut::Rename => {
                    self.netns.ip("link set lan0 down\nlink set lan0 name eth0\n")?;
                    self.restore_interface()?;
                }
                // What replaced the old interface is as good.
                Cut::Replace => {}
                Cut::Forward => self.netns.set_sysctl("net/ipv4/ip_forward", "0")?,
                Cut::CoreUnreach => self.wan.ip(&format!(
                    "rule del from {prefix} to 198.18.0.0/22 priority 100 unreachable\n"
                ))?,
                Cut::Dns | Cut::DnsLie | Cut::Svc | Cut::Svc503 => self.start_services().await?,
            }
        }
        Ok(())
    }

    /// The gateway drops what matches of the packets that come from the site.
    fn drop_in_wan(&self, hook: &str, matches: &str) -> Result<()> {
        let device = self.wan_device();
        self.wan.nft(&format!(
            "table ip cut{device} {{ chain in {{ type filter hook {hook} priority -300; \
             iifname \"{device}\" {matches} drop; }}; }}\n"
        ))
    }

    /// The interface, its address and its route, whichever of them was lost.
    fn restore_interface(&self) -> Result<()> {
        let (address, route) = (self.address(), self.route_lines("eth0"));
        self.netns.ip(&format!("link set eth0 up\naddr replace {address}/24 dev eth0\n{route}"))
    }

    fn route_lines(&self, device: &str) -> String {
        format!("route replace {DEDICATED} via {} dev {device}\n", self.gateway())
    }

    /// Another address of the agency, with its prefix length.
    fn other_address(&self) -> String {
        format!("198.18.{}.20/24", self.octet())
    }
}
