//! The agent's configuration: `/etc/haidang/agent.toml`. One struct tree, its defaults here and
//! nowhere else; the commented sample in `deploy/` is tested to equal them.
//!
//! The file is also the set of local limits that no collector can lift: what may be probed and
//! where may be reported to is pinned here. `limits` says what a file may hold.

mod error;
mod limits;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use crate::posture::policy::Policy;
use crate::posture::readers;

pub use self::error::ConfigError;
pub use self::limits::{ANCHORS_MAX, RESOLVERS_MAX, SERVICES_MAX};

/// Where the file is looked for unless the command line names another.
pub const DEFAULT_PATH: &str = "/etc/haidang/agent.toml";
/// Bytes of a file that are read at all: sixteen services with their comments fit many times.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where identity, journal and last-known-good settings live.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Unix socket for `haidang-agent status`.
    #[serde(default = "default_status_socket")]
    pub status_socket: PathBuf,
    /// Whether prefixes in 127.0.0.0/8 may stand for the dedicated network: on one machine, to
    /// show the product.
    #[serde(default)]
    pub demo: bool,
    /// Who is reported to.
    #[serde(default)]
    pub collector: Collector,
    /// The dedicated network, as it is at this agency. Pins what may be probed.
    pub dedicated: Dedicated,
    /// Hosts at different sites of the core that prove the path, by IP literal. At least one;
    /// two or more are recommended.
    #[serde(rename = "anchor", default)]
    pub anchors: Vec<Anchor>,
    /// The dedicated network's resolvers.
    #[serde(default)]
    pub dns: Option<Dns>,
    /// Services that users need.
    #[serde(rename = "service", default)]
    pub services: Vec<Service>,
    /// An Internet address that must not answer; off unless configured.
    #[serde(default)]
    pub internet_canary: Option<SocketAddr>,
    /// Thresholds of the verdict.
    #[serde(default)]
    pub verdict: Verdict,
    /// The journal's bounds.
    #[serde(default)]
    pub journal: Journal,
    /// Where what needs a privilege is read.
    #[serde(default)]
    pub readers: Readers,
    /// What the site asks of the machine's security order.
    #[serde(default)]
    pub posture: Policy,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML of this form, or breaks a limit. The message names
    /// file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let file = std::fs::File::open(path).map_err(read)?;
        let mut text = String::new();
        let bytes = std::io::Read::read_to_string(
            &mut std::io::Read::take(file, FILE_BYTES_MAX + 1),
            &mut text,
        )
        .map_err(read)?;
        if bytes as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.into(), bytes_max: FILE_BYTES_MAX });
        }
        Self::parse(&text, path)
    }

    /// Reads the text of a file. `path` is named in messages only.
    ///
    /// # Errors
    /// When it is not TOML of this form, or breaks a limit.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::form(path, text, &error))?;
        limits::check(&config).map_err(|problem| ConfigError::limit(path, text, problem))?;
        Ok(config)
    }
}

/// Collectors.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Collector {
    /// Dedicated listeners, in order of preference. Empty: those that enrolment told.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// Listeners that may be reached over a permitted second way. Empty: no fallback, whatever
    /// enrolment told.
    #[serde(default)]
    pub fallback_endpoints: Vec<SocketAddr>,
}

/// The dedicated network at this agency.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dedicated {
    /// Which interface leads to it.
    pub interface: InterfaceSelector,
    /// Prefixes of this agency: probes are sent only from an address inside them.
    pub local_prefixes: Vec<IpNet>,
    /// Prefixes of the whole dedicated network: nothing outside them is ever probed, whatever a
    /// collector says.
    pub network_prefixes: Vec<IpNet>,
    /// The agency's gateways. May be empty.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
}

/// How the dedicated interface is found, each time anew.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum InterfaceSelector {
    /// By name: `interface = { name = "eth0" }`.
    Name(String),
    /// By hardware address: `interface = { mac = "52:54:00:12:34:56" }`.
    Mac(String),
    /// Whichever has an address inside the prefix: `interface = { prefix = "198.18.10.0/24" }`.
    Prefix(IpNet),
}

/// An anchor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// Its name in reports, 1 to 32 of a-z 0-9 -.
    pub name: String,
    /// Its address, inside the network prefixes.
    pub address: IpAddr,
    /// A TCP port for machines and paths where echo is filtered.
    #[serde(default)]
    pub tcp_port: Option<u16>,
    /// How the TCP target proves to be itself.
    #[serde(default)]
    pub tcp_proof: TcpProof,
}

/// What a TCP target has to present.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TcpProof {
    /// A certificate of the collector's own CA (default).
    #[default]
    Haidang,
    /// Bytes that it sends first, such as `SSH-2.0-`.
    Banner(String),
    /// Nothing: the handshake must do. Weaker.
    Handshake,
}

/// Resolvers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Their addresses, inside the network prefixes.
    pub resolvers: Vec<IpAddr>,
    /// The name that is asked for.
    pub name: String,
    /// The answer must lie inside these; empty: inside the network prefixes.
    #[serde(default)]
    pub expected: Vec<IpNet>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name in reports, 1 to 32 of a-z 0-9 -.
    pub name: String,
    /// `http://` or `https://` with an IP literal inside the network prefixes.
    pub url: String,
    /// The Host header and TLS name, when they are not the address.
    #[serde(default)]
    pub host: Option<String>,
    /// The expected status.
    #[serde(default = "default_status")]
    pub status: u16,
    /// Whether the service echoes the nonce of the `haidang-nonce` request header in a header of
    /// the same name (ours do; others cannot).
    #[serde(default)]
    pub echoes_nonce: bool,
    /// PEM file of the roots of an `https` service; without it the collector's CA.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Thresholds of the verdict. Ours, not a regulation's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verdict {
    /// Bad cycles in a row before a path is called down.
    pub bad_cycles: u32,
    /// Good cycles in a row before it is called up again.
    pub good_cycles: u32,
    /// How long a kernel-visible loss of link, address or route must stand.
    #[serde(with = "humantime_serde")]
    pub kernel_confirm: Duration,
    /// How long a path stays `degraded (recovering)`.
    #[serde(with = "humantime_serde")]
    pub recovering: Duration,
    /// Length of the quality window.
    #[serde(with = "humantime_serde")]
    pub quality_window: Duration,
    /// Timer lag of the prober, the worst of a cycle, beyond which it cannot tell.
    #[serde(with = "humantime_serde")]
    pub starved_lag: Duration,
    /// Time after the start during which nothing is said.
    #[serde(with = "humantime_serde")]
    pub warm_up: Duration,
    /// Time between probes of the path's MTU; a suspicion is looked at again after a tenth of it.
    #[serde(with = "humantime_serde")]
    pub path_mtu_period: Duration,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            bad_cycles: 4,
            good_cycles: 3,
            kernel_confirm: Duration::from_secs(3),
            recovering: Duration::from_secs(60),
            quality_window: Duration::from_secs(300),
            starved_lag: Duration::from_millis(50),
            warm_up: Duration::from_secs(30),
            path_mtu_period: Duration::from_secs(300),
        }
    }
}

/// The journal's bounds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Bytes on disk, temporary files included.
    pub bytes_max: u64,
    /// Records older than this are dropped.
    #[serde(with = "humantime_serde")]
    pub age_max: Duration,
}

impl Default for Journal {
    fn default() -> Self {
        Self { bytes_max: 8 << 20, age_max: Duration::from_secs(90 * 86_400) }
    }
}

/// Sockets of the readers, which have the privileges that the agent lacks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Readers {
    /// Of the packet filter.
    pub netfilter_socket: PathBuf,
    /// Of the whole security order; asked by an agent that runs confined.
    pub posture_socket: PathBuf,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            netfilter_socket: readers::netfilter::DEFAULT_SOCKET.into(),
            posture_socket: readers::whole::DEFAULT_SOCKET.into(),
        }
    }
}

/// Where the state is kept unless the file says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/haidang-agent";

fn default_state_dir() -> PathBuf {
    DEFAULT_STATE_DIR.into()
}

fn default_status_socket() -> PathBuf {
    "/run/haidang-agent/status.sock".into()
}

fn default_status() -> u16 {
    200
}

#[cfg(test)]
mod tests;
