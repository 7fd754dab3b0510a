//! The network of the laboratory, all of it in namespaces:
//!
//! ```text
//! site n   eth0 198.18.(10+n).10/24 ── gn .1  wan  tunw 198.18.255.1 ══ relay ══ tunc .2  core
//!          eth1 203.0.113.(4n+2)/30 ── in      internet (NAT) c0 192.0.2.1 ── i1 192.0.2.2 core
//! core     198.18.0.10 collector and anchor · .11 second anchor · 198.18.1.n resolver of site n
//!          198.18.2.n service of site n · 192.0.2.2 its Internet face
//! ```
//!
//! Addresses are those of RFC 2544 and RFC 5737, and no namespace has a link to the host:
//! nothing can leave. The second way (`eth1`) exists only for sites that have Internet; it
//! carries the default route, which is how a dedicated network leaks in practice.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use http::StatusCode;
use ipnet::{IpNet, Ipv4Net};

use crate::core_services::{CoreServer, ResolverMode, ServiceMode};
use crate::fault::Cut;
use crate::netns::{self, Netns};
use crate::relay::{CORE_DEVICE, Relay, WAN_DEVICE};

/// Sites of one laboratory: 203.0.113.0/24 has 64 subnets for their ways to the Internet.
pub const SITES_MAX: u8 = 60;
/// Where the collector listens, and the first anchor.
pub const CORE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
/// The second anchor.
pub const SECOND_ANCHOR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 11);
/// The core as the Internet sees it.
pub const CORE_ON_INTERNET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The whole dedicated network.
pub const DEDICATED: &str = "198.18.0.0/15";
/// The part of it that is the core.
const CORE_PREFIX: &str = "198.18.0.0/22";
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

/// One agency's place in the network.
#[derive(Debug)]
pub struct Site {
    /// From 1.
    pub number: u8,
    /// Whether it has a second way, to the Internet.
    pub internet: bool,
    /// Its namespace.
    pub netns: Arc<Netns>,
    pub(crate) wan: Arc<Netns>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) resolver: CoreServer,
    pub(crate) service: CoreServer,
    /// The cuts that stand.
    pub(crate) cuts: Vec<Cut>,
}

impl Network {
    /// Builds one site for each entry; the entry says whether the site has Internet.
    ///
    /// # Errors
    /// Without root, programs or kernel parts that it needs, in a sentence.
    pub async fn build(sites_with_internet: &[bool]) -> Result<Self> {
        netns::prepare()?;
        ensure!(
            sites_with_internet.len() <= SITES_MAX.into(),
            "a laboratory has at most {SITES_MAX} sites"
        );
        let prefix = netns::unique_prefix();
        let core = Arc::new(Netns::create(format!("{prefix}-core"))?);
        let wan = Arc::new(Netns::create(format!("{prefix}-wan"))?);
        let internet = Arc::new(Netns::create(format!("{prefix}-inet"))?);
        let relay = Arc::new(Relay::start(&wan, &core, RELAY_SEED)?);
        connect_core(&core, &wan, &internet)?;
        let mut sites = Vec::new();
        for (number, has_internet) in (1..).zip(sites_with_internet) {
            let netns = Arc::new(Netns::create(format!("{prefix}-site{number}"))?);
            let mut site = Site {
                number,
                internet: *has_internet,
                netns,
                wan: Arc::clone(&wan),
                relay: Arc::clone(&relay),
                resolver: CoreServer::new(Arc::clone(&core), (resolver(number), 53).into()),
                service: CoreServer::new(Arc::clone(&core), (service(number), 80).into()),
                cuts: Vec::new(),
            };
            site.connect(&internet)?;
            site.start_services().await?;
            sites.push(site);
        }
        Ok(Self { core, sites, _internet: internet })
    }
}

impl Network {
    /// Cuts or mends the core's own line to the WAN, where the collector stands.
    ///
    /// # Errors
    /// When the command fails.
    pub fn core_line(&self, line: Line) -> Result<()> {
        match line {
            Line::Cut => self.core.ip(&format!("link set {CORE_DEVICE} down\n")),
            // What goes down with a device takes its routes along.
            Line::Whole => self.core.ip(&format!(
                "link set {CORE_DEVICE} up\n\
                 route replace {DEDICATED} via 198.18.255.1 dev {CORE_DEVICE} src {CORE}\n"
            )),
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

impl Site {
    /// Its address on the dedicated network.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.octet(), 10)
    }

    /// Its gateway to the dedicated network.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.octet(), 1)
    }

    /// Its prefix.
    pub fn prefix(&self) -> IpNet {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 18, self.octet(), 0), 24))
    }

    /// Its resolver in the core.
    pub fn resolver(&self) -> IpAddr {
        resolver(self.number).into()
    }

    /// Its service in the core.
    pub fn service(&self) -> IpAddr {
        service(self.number).into()
    }

    /// The third octet of its addresses: names its path to the relay.
    pub(crate) fn octet(&self) -> u8 {
        10 + self.number
    }

    /// Its gateway's device in the WAN.
    pub(crate) fn wan_device(&self) -> String {
        format!("g{}", self.number)
    }

    /// Its gateway to the Internet.
    pub(crate) fn internet_gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, 4 * self.number + 1)
    }

    /// Makes resolver and service right.
    pub(crate) async fn start_services(&mut self) -> Result<()> {
        self.resolver.resolve(ResolverMode::Answers(service(self.number))).await?;
        self.service.serve(ServiceMode::Answers(StatusCode::OK)).await
    }

    /// Lays the line to the dedicated network.
    pub(crate) fn connect_dedicated(&self) -> Result<()> {
        let (address, gateway, device) = (self.address(), self.gateway(), self.wan_device());
        self.netns.ip(&format!(
            "link add eth0 type veth peer name {device} netns {wan}\n\
             addr add {address}/24 dev eth0\n\
             link set eth0 up\n",
            wan = self.wan.name(),
        ))?;
        self.wan.ip(&format!("addr add {gateway}/24 dev {device}\nlink set {device} up\n"))?;
        self.netns.ip(&format!("route add {DEDICATED} via {gateway} dev eth0\n"))
    }

    fn connect(&self, internet: &Netns) -> Result<()> {
        self.connect_dedicated()?;
        if self.internet {
            let (gateway, device) = (self.internet_gateway(), format!("i{}", self.number));
            let address = Ipv4Addr::new(203, 0, 113, 4 * self.number + 2);
            self.netns.ip(&format!(
                "link add eth1 type veth peer name {device} netns {internet}\n\
                 addr add {address}/30 dev eth1\n\
                 link set eth1 up\n",
                internet = internet.name(),
            ))?;
            internet.ip(&format!("addr add {gateway}/30 dev {device}\nlink set {device} up\n"))?;
            self.netns.ip(&format!("route add default via {gateway} dev eth1\n"))?;
        }
        Ok(())
    }
}

/// The relay's devices, the core's addresses, and the core's Internet face behind NAT.
fn connect_core(core: &Netns, wan: &Netns, internet: &Netns) -> Result<()> {
    wan.ip(&format!(
        "addr add 198.18.255.1 peer 198.18.255.2 dev {WAN_DEVICE}\n\
         link set {WAN_DEVICE} up\n\
         route add {CORE_PREFIX} via 198.18.255.2 dev {WAN_DEVICE}\n"
    ))?;
    wan.set_sysctl("net/ipv4/ip_forward", "1")?;
    // An address with a prefix on loopback makes the whole prefix local.
    core.ip(&format!(
        "addr add {CORE_PREFIX} dev lo\n\
         addr add {CORE}/32 dev lo\n\
         addr add {SECOND_ANCHOR}/32 dev lo\n\
         addr add 198.18.255.2 peer 198.18.255.1 dev {CORE_DEVICE}\n\
         link set {CORE_DEVICE} up\n\
         route add {DEDICATED} via 198.18.255.1 dev {CORE_DEVICE} src {CORE}\n\
         link add i1 type veth peer name c0 netns {internet}\n\
         addr add {CORE_ON_INTERNET}/30 dev i1\n\
         link set i1 up\n",
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

fn resolver(site: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 1, site)
}

fn service(site: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 2, site)
}
