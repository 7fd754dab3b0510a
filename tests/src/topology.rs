//! The network of the laboratory, all of it in namespaces:
//!
//! ```text
//! site n   eth0 198.18.(10+n).10/24 ── gn .1  wan  tunw 198.18.255.1 ══ relay ══ tunc .2  core
//!          eth1 203.0.113.(4n+2)/30 ── in      internet (NAT) c0 192.0.2.1 ── i1 192.0.2.2 core
//! core     198.18.0.10 collector and anchor · .11 second anchor · 198.18.1.n resolver of site n
//!          198.18.2.n service of site n · 192.0.2.2 its Internet face
//! ```
//!
//! A site's dedicated network is IPv4, IPv6 or both ([`Families`]); in IPv6 the same places are
//! `2001:db8:18:<third octet in hexadecimal>::<fourth octet in hexadecimal>`. The second way is
//! IPv4 always, as most of the Internet's offices are.
//!
//! Addresses are those of RFC 2544, RFC 3849 and RFC 5737, and no namespace has a link to the
//! host: nothing can leave. The second way (`eth1`) exists only for sites that have Internet; it
//! carries the default route, which is how a dedicated network leaks in practice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use http::StatusCode;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::core_services::{Answer, CoreServer, ResolverMode, ServiceMode};
use crate::fault::Cut;
use crate::middlebox::Middlebox;
use crate::netns::{self, Netns};
use crate::portal::Portal;
use crate::relay::{CORE_DEVICE, Relay, WAN_DEVICE};

/// Sites of one laboratory: 203.0.113.0/24 has 64 subnets for their ways to the Internet.
pub const SITES_MAX: u8 = 60;
/// Where the collector listens, and the first anchor.
pub const CORE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
/// The same in IPv6.
pub const CORE_V6: Ipv6Addr = place_v6(0, 0x10);
/// The second anchor.
pub const SECOND_ANCHOR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 11);
/// The same in IPv6.
pub const SECOND_ANCHOR_V6: Ipv6Addr = place_v6(0, 0x11);
/// The core as the Internet sees it.
pub const CORE_ON_INTERNET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The whole dedicated network.
pub const DEDICATED: &str = "198.18.0.0/15";
/// The same in IPv6.
pub const DEDICATED_V6: &str = "2001:db8:18::/48";
/// The part of it that is the core.
pub(crate) const CORE_PREFIX: &str = "198.18.0.0/22";
/// The same in IPv6.
pub(crate) const CORE_PREFIX_V6: &str = "2001:db8:18::/62";
/// The same losses and jitter in every run.
const RELAY_SEED: u64 = 0x4861_6944;

/// The built network.
#[derive(Debug)]
pub struct Network {
    /// The core's namespace.
    pub core: Arc<Netns>,
    /// The sites, in order.
    pub sites: Vec<Site>,
    /// The namespace between the sites and the core's Internet face. Held, so that it lives.
    _internet: Arc<Netns>,
}

/// What a site has.
#[derive(Debug, Clone, Copy, Default)]
pub struct SitePlan {
    /// Whether it has a second way, to the Internet.
    pub internet: bool,
    /// What its dedicated network speaks.
    pub families: Families,
}

/// The address families of a site's dedicated network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// IPv6 alone.
    Ipv6,
    /// Both.
    Dual,
}

/// One family's half of a site.
#[derive(Debug, Clone, Copy)]
pub struct Leg {
    /// The machine's address, with its subnet's length.
    pub address: IpNet,
    /// Another address of the agency.
    pub other_address: IpNet,
    /// The gateway.
    pub gateway: IpAddr,
    /// The agency's prefix.
    pub prefix: IpNet,
    /// The prefix of the whole dedicated network.
    pub dedicated: &'static str,
    /// The prefix of the core.
    pub(crate) core_prefix: &'static str,
    /// The collector, which is the first anchor, and the second anchor.
    pub anchors: [IpAddr; 2],
    /// The site's resolver in the core.
    pub resolver: IpAddr,
    /// The site's service in the core.
    pub service: IpAddr,
}

/// One agency's place in the network.
#[derive(Debug)]
pub struct Site {
    /// From 1.
    pub number: u8,
    /// What it has.
    pub plan: SitePlan,
    /// Its namespace.
    pub netns: Arc<Netns>,
    pub(crate) wan: Arc<Netns>,
    pub(crate) internet: Arc<Netns>,
    pub(crate) relay: Arc<Relay>,
    /// One for each leg, as the services are.
    pub(crate) resolvers: Vec<CoreServer>,
    pub(crate) services: Vec<CoreServer>,
    /// A box in the path that intercepts TLS, while it does.
    pub(crate) middlebox: Option<Middlebox>,
    /// A captive portal on the second way, while there is one.
    pub(crate) portal: Option<Portal>,
    /// A program that listens on the machine, while it does.
    pub(crate) listener: Option<std::net::TcpListener>,
    /// The cuts that stand.
    pub(crate) cuts: Vec<Cut>,
}

impl Network {
    /// Builds one site for each plan.
    ///
    /// # Errors
    /// Without root, programs or kernel parts that it needs, in a sentence.
    pub async fn build(plans: &[SitePlan]) -> Result<Self> {
        netns::prepare()?;
        ensure!(plans.len() <= SITES_MAX.into(), "a laboratory has at most {SITES_MAX} sites");
        let prefix = netns::unique_prefix();
        let core = Arc::new(Netns::create(format!("{prefix}-core"))?);
        let wan = Arc::new(Netns::create(format!("{prefix}-wan"))?);
        let internet = Arc::new(Netns::create(format!("{prefix}-inet"))?);
        for netns in [&core, &wan] {
            netns.speak_v6()?;
        }
        let relay = Arc::new(Relay::start(&wan, &core, RELAY_SEED)?);
        connect_core(&core, &wan, &internet)?;
        let mut sites = Vec::new();
        for (number, plan) in (1..).zip(plans) {
            let netns = Arc::new(Netns::create(format!("{prefix}-site{number}"))?);
            let legs = plan.families.legs(number);
            let server = |at: IpAddr, port| CoreServer::new(Arc::clone(&core), (at, port).into());
            let mut site = Site {
                number,
                plan: *plan,
                netns,
                wan: Arc::clone(&wan),
                internet: Arc::clone(&internet),
                relay: Arc::clone(&relay),
                resolvers: legs.iter().map(|leg| server(leg.resolver, 53)).collect(),
                services: legs.iter().map(|leg| server(leg.service, 80)).collect(),
                middlebox: None,
                portal: None,
                listener: None,
                cuts: Vec::new(),
            };
            site.connect(&core)?;
            site.start_services().await?;
            sites.push(site);
        }
        Ok(Self { core, sites, _internet: internet })
    }

    /// Cuts or mends the core's own line to the WAN, where the collector stands.
    ///
    /// # Errors
    /// When the command fails.
    pub fn core_line(&self, line: Line) -> Result<()> {
        match line {
            Line::Cut => self.core.ip(&format!("link set {CORE_DEVICE} down\n")),
            // What goes down with a device takes its routes along.
            Line::Whole => {
                self.core.ip(&format!("link set {CORE_DEVICE} up\n{}", core_addresses("replace")))
            }
        }
    }
}

/// A line that may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Nothing passes.
    Cut,
    /// As it should be.
    Whole,
}

impl Families {
    /// The halves of the site with this number, IPv4 first.
    pub fn legs(self, number: u8) -> Vec<Leg> {
        match self {
            Self::Ipv4 => vec![Leg::v4(number)],
            Self::Ipv6 => vec![Leg::v6(number)],
            Self::Dual => vec![Leg::v4(number), Leg::v6(number)],
        }
    }

    fn speak_v6(self) -> bool {
        self != Self::Ipv4
    }
}

impl Leg {
    fn v4(number: u8) -> Self {
        let at = |host| Ipv4Addr::new(198, 18, octet(number), host);
        let net = |host| IpNet::V4(Ipv4Net::new_assert(at(host), 24));
        Self {
            address: net(10),
            other_address: net(20),
            gateway: at(1).into(),
            prefix: net(0),
            dedicated: DEDICATED,
            core_prefix: CORE_PREFIX,
            anchors: [CORE.into(), SECOND_ANCHOR.into()],
            resolver: Ipv4Addr::new(198, 18, 1, number).into(),
            service: Ipv4Addr::new(198, 18, 2, number).into(),
        }
    }

    fn v6(number: u8) -> Self {
        let at = |host| place_v6(octet(number).into(), host);
        let net = |host| IpNet::V6(Ipv6Net::new_assert(at(host), 64));
        Self {
            address: net(0x10),
            other_address: net(0x20),
            gateway: at(1).into(),
            prefix: net(0),
            dedicated: DEDICATED_V6,
            core_prefix: CORE_PREFIX_V6,
            anchors: [CORE_V6.into(), SECOND_ANCHOR_V6.into()],
            resolver: place_v6(1, number.into()).into(),
            service: place_v6(2, number.into()).into(),
        }
    }

    /// The word for its tables in nftables.
    pub(crate) fn nft_family(&self) -> &'static str {
        if self.gateway.is_ipv4() { "ip" } else { "ip6" }
    }

    /// Lines of `ip` for address and route on a device. No duplicate is looked for: nobody else
    /// could have the address, and the wait would be a cut.
    pub(crate) fn lines(&self, device: &str) -> String {
        let nodad = if self.gateway.is_ipv4() { "" } else { " nodad" };
        format!(
            "addr replace {} dev {device}{nodad}\nroute replace {} via {} dev {device}\n",
            self.address, self.dedicated, self.gateway
        )
    }
}

impl Site {
    /// Its halves, IPv4 first.
    pub fn legs(&self) -> Vec<Leg> {
        self.plan.families.legs(self.number)
    }

    /// The first half: the only one, unless it is a site of both families.
    pub fn leg(&self) -> Leg {
        match self.plan.families {
            Families::Ipv4 | Families::Dual => Leg::v4(self.number),
            Families::Ipv6 => Leg::v6(self.number),
        }
    }

    /// The third octet of its addresses: names its path to the relay.
    pub(crate) fn octet(&self) -> u8 {
        octet(self.number)
    }

    /// Its gateway's device in the WAN.
    pub(crate) fn wan_device(&self) -> String {
        format!("g{}", self.number)
    }

    /// Its device in the Internet.
    pub(crate) fn internet_device(&self) -> String {
        format!("i{}", self.number)
    }

    /// Its gateway to the Internet.
    pub(crate) fn internet_gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, 4 * self.number + 1)
    }

    /// Lines of `ip` for its address and its default route on the second way.
    pub(crate) fn internet_lines(&self, device: &str) -> String {
        let address = Ipv4Addr::new(203, 0, 113, 4 * self.number + 2);
        let gateway = self.internet_gateway();
        format!(
            "addr replace {address}/30 dev {device}\n\
             route replace default via {gateway} dev {device}\n"
        )
    }

    /// Makes resolvers and services right.
    pub(crate) async fn start_services(&mut self) -> Result<()> {
        let (v4, v6) = (Leg::v4(self.number), Leg::v6(self.number));
        let right = Answer::new(v4.service, v6.service)?;
        self.resolve(ResolverMode::Answers(right)).await?;
        self.serve(ServiceMode::Answers(StatusCode::OK)).await
    }

    pub(crate) async fn resolve(&mut self, mode: ResolverMode) -> Result<()> {
        for resolver in &mut self.resolvers {
            resolver.resolve(mode).await?;
        }
        Ok(())
    }

    pub(crate) async fn serve(&mut self, mode: ServiceMode) -> Result<()> {
        for service in &mut self.services {
            service.serve(mode).await?;
        }
        Ok(())
    }

    /// Lays the line to the dedicated network.
    pub(crate) fn connect_dedicated(&self) -> Result<()> {
        let device = self.wan_device();
        if self.plan.families.speak_v6() {
            self.netns.speak_v6()?;
        }
        let wan = self.wan.name();
        self.netns.ip(&format!(
            "link add eth0 type veth peer name {device} netns {wan}\nlink set eth0 up\n"
        ))?;
        let mut gateways = format!("link set {device} up\n");
        for leg in self.legs() {
            let nodad = if leg.gateway.is_ipv4() { "" } else { " nodad" };
            let length = leg.prefix.prefix_len();
            gateways += &format!("addr add {}/{length} dev {device}{nodad}\n", leg.gateway);
        }
        self.wan.ip(&gateways)?;
        self.legs().iter().try_for_each(|leg| self.netns.ip(&leg.lines("eth0")))
    }

    fn connect(&self, core: &Netns) -> Result<()> {
        self.connect_dedicated()?;
        if self.plan.families.speak_v6() {
            let Leg { resolver, service, .. } = Leg::v6(self.number);
            core.ip(&format!(
                "addr add {resolver}/128 dev lo nodad\naddr add {service}/128 dev lo nodad\n"
            ))?;
        }
        if self.plan.internet {
            let (gateway, device) = (self.internet_gateway(), self.internet_device());
            let internet = self.internet.name();
            self.netns.ip(&format!(
                "link add eth1 type veth peer name {device} netns {internet}\nlink set eth1 up\n"
            ))?;
            let there = format!("addr add {gateway}/30 dev {device}\nlink set {device} up\n");
            self.internet.ip(&there)?;
            self.netns.ip(&self.internet_lines("eth1"))?;
        }
        Ok(())
    }
}

/// The relay's devices, the core's addresses, and the core's Internet face behind NAT.
fn connect_core(core: &Netns, wan: &Netns, internet: &Netns) -> Result<()> {
    wan.ip(&format!(
        "addr add 198.18.255.1 peer 198.18.255.2 dev {WAN_DEVICE}\n\
         addr add 2001:db8:18:ff::1/64 dev {WAN_DEVICE} nodad\n\
         link set {WAN_DEVICE} up\n\
         route add {CORE_PREFIX} via 198.18.255.2 dev {WAN_DEVICE}\n\
         route add {CORE_PREFIX_V6} via 2001:db8:18:ff::2 dev {WAN_DEVICE}\n"
    ))?;
    wan.set_sysctl("net/ipv4/ip_forward", "1")?;
    wan.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    // An address with a prefix on loopback makes the whole prefix local, in IPv4.
    core.ip(&format!(
        "addr add {CORE_PREFIX} dev lo\n\
         addr add {CORE}/32 dev lo\n\
         addr add {SECOND_ANCHOR}/32 dev lo\n\
         addr add {CORE_V6}/128 dev lo nodad\n\
         addr add {SECOND_ANCHOR_V6}/128 dev lo nodad\n\
         link set {CORE_DEVICE} up\n\
         {line}\
         link add i1 type veth peer name c0 netns {internet}\n\
         addr add {CORE_ON_INTERNET}/30 dev i1\n\
         link set i1 up\n",
        line = core_addresses("add"),
        internet = internet.name(),
    ))?;
    internet.ip(&format!(
        "addr add 192.0.2.1/30 dev c0\n\
         link set c0 up\n\
         route add {CORE_PREFIX} via {CORE_ON_INTERNET} dev c0\n"
    ))?;
    internet.set_sysctl("net/ipv4/ip_forward", "1")?;
    internet.nft(
        "table ip detour { chain out { \
         type nat hook postrouting priority 100; oifname \"c0\" masquerade; }; }\n",
    )
}

/// Lines of `ip` for the core's end of the line to the WAN; what goes down with a device takes
/// its routes along, and in IPv6 its addresses too.
fn core_addresses(verb: &str) -> String {
    format!(
        "addr {verb} 198.18.255.2 peer 198.18.255.1 dev {CORE_DEVICE}\n\
         addr {verb} 2001:db8:18:ff::2/64 dev {CORE_DEVICE} nodad\n\
         route {verb} {DEDICATED} via 198.18.255.1 dev {CORE_DEVICE} src {CORE}\n\
         route {verb} {DEDICATED_V6} via 2001:db8:18:ff::1 dev {CORE_DEVICE} src {CORE_V6}\n"
    )
}

const fn place_v6(third: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x18, third, 0, 0, 0, host)
}

/// The third octet of a site's addresses.
const fn octet(number: u8) -> u8 {
    10 + number
}
