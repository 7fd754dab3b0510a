//! Faults of the network, as data: a cut is a name, what it does stands in one table here, and
//! [`Site::heal`] undoes whatever stands.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context, Result};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::core_services::{Answer, ResolverMode, ServiceMode};
use crate::middlebox::Middlebox;
use crate::portal::Portal;
use crate::relay::{Impairment, Impairments};
use crate::topology::{CORE_ON_INTERNET, Leg, Site};

/// What a lying resolver answers: Internet addresses (RFC 5737, RFC 3849).
const LIE: Answer = Answer {
    v4: Ipv4Addr::new(203, 0, 113, 99),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0x99),
};
/// Where reports go, which is what a box that intercepts TLS stands in front of.
const REPORTS_PORT: u16 = 7443;
/// Squid's port.
const PROXY_PORT: u16 = 3128;
/// What a site may send so that its gateway is found: ARP is no matter of IP, its successor is.
const NEIGHBOUR_DISCOVERY: &str =
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept;";
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
    /// It forwards, and translates addresses.
    Nat,
    /// Its rules translate addresses, and it does not forward.
    NatOnly,
    /// A bridge joins the dedicated port and the one to the Internet, and has the addresses of
    /// both.
    Bridge,
    /// A bridge joins the dedicated port and a container.
    BridgeContainer,
    /// A proxy listens on every address of the machine.
    Proxy,
    /// A tunnel to elsewhere is up.
    Tunnel,
    /// A tunnel is up that carries an address of the agency: another leg of the same network.
    TunnelInside,
    /// A black hole in the core for IPv4 alone.
    CoreV4,
    /// A black hole in the core for IPv6 alone.
    CoreV6,
    /// A box in the path intercepts the TLS of the reports.
    Tls,
    /// The second way leads to a captive portal.
    Portal,
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
        let gateway_device = self.wan_device();
        let done = match cut {
            Cut::Link => self.netns.ip("link set eth0 down\n"),
            Cut::Peer => self.wan.ip(&format!("link set {gateway_device} down\n")),
            Cut::Addr => self.netns.ip("addr flush dev eth0 scope global\n"),
            Cut::Route => self.each_leg(|leg| format!("route del {}\n", leg.dedicated)),
            Cut::Gw => self.drop_in_wan("prerouting", NEIGHBOUR_DISCOVERY, ""),
            Cut::GwArp => self
                .wan
                .ip(&format!("link set {gateway_device} arp off\n"))
                .and_then(|()| self.netns.ip("neigh flush dev eth0\n")),
            Cut::Core => self.impair(Impairments::BLACK_HOLE),
            Cut::CoreUnreach => self.reject_in_wan("add"),
            Cut::Dns => self.resolve(ResolverMode::Stopped).await,
            Cut::DnsLie => self.resolve(ResolverMode::Answers(LIE)).await,
            Cut::Svc => self.serve(ServiceMode::Stopped).await,
            Cut::Svc503 => self.serve(ServiceMode::Answers(StatusCode::SERVICE_UNAVAILABLE)).await,
            Cut::Pmtu => {
                let hole = Impairment { packet_bytes_max: HOLE_BYTES, ..Impairment::default() };
                self.impair(Impairments { to_core: hole, to_site: hole })
            }
            Cut::Slow => self.impair(SLOW),
            Cut::LossBack => self.impair(LOSS_BACK),
            Cut::GwDeaf => {
                self.drop_in_wan("input", NEIGHBOUR_DISCOVERY, "meta l4proto { icmp, ipv6-icmp }")
            }
            Cut::Icmp => self.drop_in_wan(
                "prerouting",
                NEIGHBOUR_DISCOVERY,
                "meta l4proto { icmp, ipv6-icmp }",
            ),
            Cut::Anchor => {
                let Leg { anchors: [_, second], .. } = self.leg();
                let family = self.leg().nft_family();
                self.drop_in_wan("prerouting", "", &format!("{family} daddr {second}"))
            }
            Cut::CoreV4 | Cut::CoreV6 => {
                let legs = self.legs();
                let wanted = legs.iter().find(|leg| leg.gateway.is_ipv4() == (cut == Cut::CoreV4));
                let leg = wanted.context("the site does not speak this family")?;
                let matches = format!("{} daddr {}", leg.nft_family(), leg.core_prefix);
                self.drop_in_wan("prerouting", "", &matches)
            }
            Cut::Lease => {
                let flushed = self.netns.ip("addr flush dev eth0 scope global\n");
                flushed.and_then(|()| {
                    self.each_leg(|leg| Leg { address: leg.other_address, ..*leg }.lines("eth0"))
                })
            }
            Cut::Rename => {
                let renamed = "link set eth0 down\nlink set eth0 name lan0\nlink set lan0 up\n";
                self.netns.ip(renamed).and_then(|()| self.each_leg(|leg| leg.lines("lan0")))
            }
            Cut::Replace => {
                self.netns.ip("link del eth0\n").and_then(|()| self.connect_dedicated())
            }
            Cut::Forward => self.netns.set_sysctl("net/ipv4/ip_forward", "1"),
            Cut::Nat => {
                self.masquerade().and_then(|()| self.netns.set_sysctl("net/ipv4/ip_forward", "1"))
            }
            Cut::NatOnly => self.masquerade(),
            Cut::Bridge => self.bridge(),
            Cut::BridgeContainer => self.bridge_container(),
            Cut::Proxy => {
                let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PROXY_PORT));
                let listening = self.netns.inside(|| TcpListener::bind(any))?;
                self.listener = Some(listening.context("listen as a proxy")?);
                Ok(())
            }
            Cut::Tunnel => self.tunnel("10.8.0.2/24"),
            Cut::TunnelInside => self.tunnel(&self.leg().other_address.to_string()),
            Cut::Tls => self.intercept_tls(),
            Cut::Portal => self.capture(),
        };
        self.cuts.push(cut);
        done
    }

    /// Undoes every cut that stands.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn heal(&mut self) -> Result<()> {
        let gateway_device = self.wan_device();
        for cut in std::mem::take(&mut self.cuts).into_iter().rev() {
            match cut {
                Cut::Link | Cut::Addr | Cut::Route => self.restore_interface()?,
                Cut::Peer => self.wan.ip(&format!("link set {gateway_device} up\n"))?,
                Cut::Gw | Cut::GwDeaf | Cut::Icmp | Cut::Anchor | Cut::CoreV4 | Cut::CoreV6 => {
                    self.wan.nft(&format!("delete table inet cut{gateway_device}\n"))?;
                }
                Cut::GwArp => {
                    self.wan.ip(&format!("link set {gateway_device} arp on\n"))?;
                    self.netns.ip("neigh flush dev eth0\n")?;
                }
                Cut::Core | Cut::Pmtu | Cut::Slow | Cut::LossBack => {
                    self.relay.heal(self.octet());
                }
                Cut::Lease => {
                    self.netns.ip("addr flush dev eth0 scope global\n")?;
                    self.restore_interface()?;
                }
                Cut::Rename => {
                    self.netns.ip("link set lan0 down\nlink set lan0 name eth0\n")?;
                    self.restore_interface()?;
                }
                // What replaced the old interface is as good.
                Cut::Replace => {}
                Cut::Forward => self.netns.set_sysctl("net/ipv4/ip_forward", "0")?,
                Cut::Nat | Cut::NatOnly => {
                    self.netns.set_sysctl("net/ipv4/ip_forward", "0")?;
                    self.netns.nft("delete table ip share\n")?;
                }
                Cut::Bridge | Cut::BridgeContainer => {
                    self.netns.ip("link del br0\n")?;
                    if cut == Cut::BridgeContainer {
                        self.netns.ip("link del veth0\n")?;
                    } else {
                        self.netns.ip(&self.internet_lines("eth1"))?;
                    }
                    self.restore_interface()?;
                }
                Cut::Proxy => self.listener = None,
                Cut::Tunnel | Cut::TunnelInside => self.netns.ip("link del tunnel0\n")?,
                Cut::Tls => {
                    self.wan.nft(&format!("delete table inet tls{gateway_device}\n"))?;
                    self.middlebox = None;
                }
                Cut::Portal => {
                    let device = self.internet_device();
                    self.internet.nft(&format!("delete table ip portal{device}\n"))?;
                    self.portal = None;
                }
                Cut::CoreUnreach => self.reject_in_wan("del")?,
                Cut::Dns | Cut::DnsLie | Cut::Svc | Cut::Svc503 => self.start_services().await?,
            }
        }
        Ok(())
    }

    fn impair(&self, impairments: Impairments) -> Result<()> {
        self.relay.impair(self.octet(), impairments);
        Ok(())
    }

    fn each_leg(&self, lines: impl Fn(&Leg) -> String) -> Result<()> {
        self.legs().iter().try_for_each(|leg| self.netns.ip(&lines(leg)))
    }

    /// The gateway drops what matches of the packets that come from the site, but for what comes
    /// first.
    fn drop_in_wan(&self, hook: &str, but: &str, matches: &str) -> Result<()> {
        let device = self.wan_device();
        let but =
            if but.is_empty() { String::new() } else { format!("iifname \"{device}\" {but}") };
        self.wan.nft(&format!(
            "table inet cut{device} {{ chain in {{ type filter hook {hook} priority -300; \
             {but} iifname \"{device}\" {matches} drop; }}; }}\n"
        ))
    }

    /// The gateway answers that the core's network is unreachable.
    fn reject_in_wan(&self, verb: &str) -> Result<()> {
        self.legs().iter().try_for_each(|Leg { prefix, core_prefix, .. }| {
            let rule =
                format!("rule {verb} from {prefix} to {core_prefix} priority 100 unreachable\n");
            if prefix.addr().is_ipv4() { self.wan.ip(&rule) } else { self.wan.ip6(&rule) }
        })
    }

    fn masquerade(&self) -> Result<()> {
        self.netns.nft(
            "table ip share { chain out { type nat hook postrouting priority 100; \
             masquerade; }; }\n",
        )
    }

    /// As an administrator joins two ports: the bridge takes over what they had.
    fn bridge(&self) -> Result<()> {
        self.netns.ip("link add br0 type bridge\n\
             addr flush dev eth0 scope global\n\
             addr flush dev eth1 scope global\n\
             link set eth0 master br0\n\
             link set eth1 master br0\n\
             link set br0 up\n")?;
        self.each_leg(|leg| leg.lines("br0"))?;
        self.netns.ip(&self.internet_lines("br0"))?;
        // Somebody uses the way to the Internet; what comes of it does not matter.
        let ask = || UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", (CORE_ON_INTERNET, 9));
        self.netns.inside(ask)?.context("send a packet to the Internet")?;
        Ok(())
    }

    /// As a container's network is attached to the office's: its end is a virtual port.
    fn bridge_container(&self) -> Result<()> {
        self.netns.ip("link add br0 type bridge\n\
             addr flush dev eth0 scope global\n\
             link add veth0 type veth peer name veth1\n\
             link set eth0 master br0\n\
             link set veth0 master br0\n\
             link set veth0 up\n\
             link set veth1 up\n\
             link set br0 up\n")?;
        self.each_leg(|leg| leg.lines("br0"))
    }

    /// A VXLAN: the kernel that this was written on has no other tunnel.
    fn tunnel(&self, address: &str) -> Result<()> {
        self.netns.ip(&format!(
            "link add tunnel0 type vxlan id 8 remote {gateway} dstport 4789\n\
             addr add {address} dev tunnel0\n\
             link set tunnel0 up\n",
            gateway = self.internet_gateway(),
        ))
    }

    /// The site's connections to the collector end at a box in the WAN. A zone of their own makes
    /// those that stand already be seen as new ones, and so be ended, as when a box is put in.
    fn intercept_tls(&mut self) -> Result<()> {
        let Leg { anchors: [collector, _], .. } = self.leg();
        let middlebox = Middlebox::start(&self.wan, SocketAddr::new(collector, REPORTS_PORT))?;
        let (device, zone, port) = (self.wan_device(), self.number, middlebox.port);
        self.wan.nft(&format!(
            "table inet tls{device} {{ \
             chain zone_in {{ type filter hook prerouting priority -300; \
             iifname \"{device}\" tcp dport {REPORTS_PORT} ct zone set {zone}; }}; \
             chain zone_out {{ type filter hook output priority -300; \
             oifname \"{device}\" tcp sport {port} ct zone set {zone}; }}; \
             chain in {{ type nat hook prerouting priority -100; \
             iifname \"{device}\" tcp dport {REPORTS_PORT} redirect to :{port}; }}; }}\n"
        ))?;
        self.middlebox = Some(middlebox);
        Ok(())
    }

    /// Whatever the site sends to the Internet is answered by a portal.
    fn capture(&mut self) -> Result<()> {
        let portal = Portal::start(&self.internet, self.internet_gateway())?;
        let (device, port) = (self.internet_device(), portal.port);
        self.internet.nft(&format!(
            "table ip portal{device} {{ chain in {{ type nat hook prerouting priority -100; \
             iifname \"{device}\" meta l4proto {{ tcp, udp }} redirect to :{port}; \
             iifname \"{device}\" ip protocol icmp redirect; }}; }}\n"
        ))?;
        self.portal = Some(portal);
        Ok(())
    }

    /// The interface, its addresses and its routes, whichever of them was lost.
    fn restore_interface(&self) -> Result<()> {
        self.netns.ip("link set eth0 up\n")?;
        self.each_leg(|leg| leg.lines("eth0"))
    }
}
