//! The programs beside the agent: how each is started, and asked for what it knows. They are
//! Debian's packages with Debian's defaults, but for the directories and addresses.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;

use crate::laboratory::REPORTS;
use crate::netns::{self, Netns};
use crate::program::Program;
use crate::topology::Site;
use crate::wait;
use crate::web::Endpoint;

use super::Meter;
use super::traffic::Wire;

/// The agent's own period while all is well.
pub(super) const PROBE_PERIOD: Duration = Duration::from_secs(4);
/// Of the agent's cycles, TCP, DNS and services are asked in one of so many.
const CYCLES_PER_CLIMB: u32 = 5;
/// netdata asks the machine who it is and opens its database first.
const START_TIMEOUT: Duration = Duration::from_secs(240);
/// An answer of Zabbix's agent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// What Zabbix's Linux template asks most of, by key.
const ZABBIX_KEYS: [&str; 6] = [
    "agent.ping",
    "system.uptime",
    "system.cpu.load[all,avg1]",
    "vm.memory.size[available]",
    "vfs.fs.size[/,pused]",
    "net.if.in[lo]",
];

/// A program to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Prometheus' exporter of the machine's figures.
    Node,
    /// Prometheus' prober.
    Blackbox,
    /// Zabbix's agent of the second generation.
    Zabbix,
    /// netdata, which keeps and shows what it measures.
    Netdata,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Node, Self::Blackbox, Self::Zabbix, Self::Netdata];

    const fn package(self) -> &'static str {
        match self {
            Self::Node => "prometheus-node-exporter",
            Self::Blackbox => "prometheus-blackbox-exporter",
            Self::Zabbix => "zabbix-agent2",
            Self::Netdata => "netdata",
        }
    }

    fn program(self) -> PathBuf {
        PathBuf::from(match self {
            Self::Node => "/usr/bin/prometheus-node-exporter",
            Self::Blackbox => "/usr/bin/prometheus-blackbox-exporter",
            Self::Zabbix => "/usr/sbin/zabbix_agent2",
            Self::Netdata => "/usr/sbin/netdata",
        })
    }

    const fn port(self) -> u16 {
        match self {
            Self::Node => 9100,
            Self::Blackbox => 9115,
            Self::Zabbix => 10_050,
            Self::Netdata => 19_999,
        }
    }

    /// Whether the package is installed.
    pub fn is_installed(self) -> bool {
        self.program().is_file()
    }

    /// Installs the packages that are missing, without starting Debian's own services.
    ///
    /// # Errors
    /// What apt says.
    pub fn install(peers: &[Self]) -> Result<()> {
        let missing = peers.iter().filter(|peer| !peer.is_installed());
        let missing: Vec<_> = missing.map(|peer| peer.package()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            command.env("RUNLEVEL", "1").env("DEBIAN_FRONTEND", "noninteractive");
            netns::run(command.arg("-qq").args(arguments))
        };
        apt(&["update"])?;
        apt(&[["install", "-y", "--no-install-recommends"].as_slice(), &missing].concat())
    }

    /// The package's version.
    fn version(self) -> Result<String> {
        let query = ["--showformat=${Version}", "--show", self.package()];
        let output = Command::new("dpkg-query").args(query).output().context("start dpkg-query")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A peer that runs.
#[derive(Debug)]
pub(super) struct Running {
    peer: Peer,
    pub(super) name: String,
    pub(super) meter: Meter,
    netns: Arc<Netns>,
    endpoint: Endpoint,
    cycles: u32,
    /// Held: the addresses that it probes.
    site: Option<Site>,
    process: Program,
}

impl Running {
    /// Starts it, in the namespace of `site` where it has one, and waits until it answers.
    pub(super) async fn start(peer: Peer, site: Option<Site>, directory: &Path) -> Result<Self> {
        ensure!(peer.is_installed(), "apt-get install {}", peer.package());
        let netns = match &site {
            Some(site) => Arc::clone(&site.netns),
            None => {
                let prefix = netns::unique_prefix();
                Arc::new(Netns::create(format!("{prefix}-{}", peer.port()))?)
            }
        };
        let directory = directory.join(peer.package());
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, peer.port()));
        let mut command = command(peer, &netns, address, &directory)?;
        let process = Program::start(peer.package(), &mut command, &directory)?;
        let wire = if site.is_some() { Wire::Line } else { Wire::Loopback };
        let meter = Meter::new(&peer.program(), process.pid(), Arc::clone(&netns), wire)?;
        let endpoint = Endpoint::inside(Arc::clone(&netns), address);
        let name = format!("{} {}", peer.package(), peer.version()?);
        let mut running = Self { peer, name, meter, netns, endpoint, cycles: 0, site, process };
        running.ready().await?;
        Ok(running)
    }

    async fn ready(&mut self) -> Result<()> {
        let awaited = format!("an answer of {}", self.peer.package());
        let Self { peer, endpoint, process, .. } = self;
        let ready = wait::until(&awaited, START_TIMEOUT, || {
            let running = process.check_running().map_err(|error| format!("{error:#}"));
            let (peer, endpoint) = (*peer, endpoint.clone());
            async move {
                running?;
                ask(peer, &endpoint).await.map_err(|error| format!("{error:#}"))
            }
        });
        ready.await?;
        Ok(())
    }

    /// Ends it, with what it started.
    pub(super) async fn stop(self) -> Result<()> {
        self.process.stop().await?;
        Ok(())
    }

    /// Asks it for what it knows, as its server does.
    pub(super) async fn ask(&mut self) -> Result<()> {
        ask(self.peer, &self.endpoint).await
    }

    /// Has it make what the agent makes in one cycle, if it probes.
    pub(super) async fn probe(&mut self) -> Result<()> {
        let Some(site) = &self.site else { return Ok(()) };
        let leg = site.leg();
        let [first, second] = leg.anchors;
        let mut probes: Vec<(&str, String)> = vec![("icmp", leg.gateway.to_string())];
        for anchor in [first, first, second, second] {
            probes.push(("icmp", anchor.to_string()));
        }
        if self.cycles.is_multiple_of(CYCLES_PER_CLIMB) {
            probes.push(("tcp_tls", REPORTS.to_string()));
            probes.push(("dns", leg.resolver.to_string()));
            probes.push(("http_2xx", format!("http://{}/", leg.service)));
        }
        self.cycles += 1;
        for (module, target) in probes {
            let path = format!("/probe?module={module}&target={target}");
            let told = self.endpoint.text(&path).await?;
            ensure!(
                told.lines().any(|line| line == "probe_success 1"),
                "the probe {path} in {} failed:\n{told}",
                self.netns.name()
            );
        }
        Ok(())
    }
}

async fn ask(peer: Peer, endpoint: &Endpoint) -> Result<()> {
    let path = match peer {
        Peer::Node | Peer::Blackbox => "/metrics",
        Peer::Netdata => "/api/v1/allmetrics?format=prometheus",
        Peer::Zabbix => {
            return ZABBIX_KEYS.iter().try_for_each(|key| ask_zabbix(endpoint, key));
        }
    };
    let answer = endpoint.get(path).await?;
    ensure!(answer.status == StatusCode::OK, "{path}: {}", answer.status);
    Ok(())
}

/// Zabbix's protocol: `ZBXD`, 1, the length in eight bytes, the key; and so the answer.
fn ask_zabbix(endpoint: &Endpoint, key: &str) -> Result<()> {
    let mut stream = endpoint.connect()?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let length = (key.len() as u64).to_le_bytes();
    stream.write_all(&[b"ZBXD\x01".as_slice(), &length, key.as_bytes()].concat())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let told = answer.get(13..).unwrap_or_default();
    ensure!(!told.is_empty(), "the Zabbix agent gave no answer to {key}");
    ensure!(!told.starts_with(b"ZBX_NOTSUPPORTED"), "the Zabbix agent does not know {key}");
    Ok(())
}

fn command(peer: Peer, netns: &Netns, at: SocketAddr, directory: &Path) -> Result<Command> {
    let program = peer.program();
    let mut command = netns.command("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(&program);
    let write = |name: &str, text: String| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    };
    match peer {
        Peer::Node => {
            command.arg(format!("--web.listen-address={at}"));
        }
        Peer::Blackbox => {
            let config = write("blackbox.yml", BLACKBOX.into())?;
            command.arg(format!("--web.listen-address={at}"));
            command.arg(format!("--config.file={}", config.display()));
        }
        Peer::Zabbix => {
            let path = |name: &str| directory.join(name).display().to_string();
            let config = format!(
                "LogType=console\nServer=127.0.0.1\nListenIP={}\nListenPort={}\nHostname=beside\n\
                 PidFile={}\nControlSocket={}\nPluginSocket={}\n",
                at.ip(),
                at.port(),
                path("pid"),
                path("control.sock"),
                path("plugin.sock"),
            );
            command.arg("-f").arg("-c").arg(write("zabbix_agent2.conf", config)?);
        }
        Peer::Netdata => {
            let mut config =
                format!("[global]\n run as user = root\n[web]\n bind to = {at}\n[directories]\n");
            for kind in ["cache", "lib", "log"] {
                let path = directory.join(kind);
                fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
                config += &format!(" {kind} = {}\n", path.display());
            }
            command.arg("-D").arg("-c").arg(write("netdata.conf", config)?);
            command.arg("-P").arg(directory.join("pid"));
        }
    }
    Ok(command)
}

/// What the agent does: an echo; a TLS handshake with whoever is there; an address for a name; a
/// page.
const BLACKBOX: &str = "modules:
  icmp: {prober: icmp, timeout: 2s, icmp: {preferred_ip_protocol: ip4}}
  tcp_tls: {prober: tcp, timeout: 2s, tcp: {tls: true, tls_config: {insecure_skip_verify: true}}}
  dns: {prober: dns, timeout: 2s, dns: {query_name: svc.tslcd.test, query_type: A, preferred_ip_protocol: ip4}}
  http_2xx: {prober: http, timeout: 2s, http: {preferred_ip_protocol: ip4}}
";
