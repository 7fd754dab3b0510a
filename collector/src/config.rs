//! The collector's configuration: `/etc/haidang/collector.toml`. One struct tree, its defaults
//! here and nowhere else; the commented sample in `deploy/` is tested to equal them.
//!
//! An unknown key, a value of the wrong type and a combination that cannot work are refused
//! with file, line and key: a collector never starts on half of what its operator meant.

mod check;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use haidang_proto::model::settings::Settings;
use haidang_proto::model::spiffe::TrustDomain;
use ipnet::IpNet;
use serde::Deserialize;

/// Bytes of a configuration file that are read at all: a hundred times the sample.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the CA, the store and the admin socket live. Only the service may read it.
    pub state_dir: PathBuf,
    /// The roster that is imported at the first start, and again when it has changed.
    pub roster: PathBuf,
    /// Prefixes of agencies with validity dates of their own.
    pub prefixes: Option<PathBuf>,
    /// Hours and holidays outside which nobody is alerted about silence. Without one every moment
    /// is a working one.
    pub calendar: Option<PathBuf>,
    /// Name of this installation inside certificates: lower-case letters, digits, dots, hyphens
    /// and underscores. Cannot be changed once agents are enrolled.
    pub trust_domain: TrustDomain,
    /// A demonstration on one machine: prefixes inside 127.0.0.0/8 are accepted, and the CA is
    /// marked so that no real installation takes it over.
    pub demo: bool,
    /// Addresses that are listened on.
    pub listen: Listen,
    /// Addresses that agents are told, where they differ from those listened on.
    pub advertise: Advertise,
    /// Page, API and metrics.
    pub http: Http,
    /// What agents are asked to do.
    pub report: Report,
    /// Certificates.
    pub identity: Identity,
    /// Echo requests from the core to the agencies' gateways.
    pub core_check: CoreCheck,
    /// Goals.
    pub goals: Goals,
    /// Metrics.
    pub metrics: Metrics,
    /// Bounds.
    pub limits: Limits,
}

/// Addresses that are listened on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Reports over the dedicated network. Bind them to the dedicated address itself: what
    /// arrives here counts as having come over that network.
    pub dedicated: Vec<SocketAddr>,
    /// Reports over a permitted second path. None unless configured.
    pub fallback: Vec<SocketAddr>,
    /// Enrolment; absent when the roll-out is over.
    pub enrolment: Option<SocketAddr>,
    /// Renewal of expired certificates.
    pub recovery: Option<SocketAddr>,
    /// Page, API and metrics.
    pub http: SocketAddr,
}

/// Addresses that agents are told, as `host:port`. An empty list means those listened on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Advertise {
    /// For reports over the dedicated network, in order of preference.
    pub dedicated: Vec<String>,
    /// For reports over a permitted second path.
    pub fallback: Vec<String>,
    /// For enrolment: the one that the code carries.
    pub enrolment: Option<String>,
    /// For renewal of expired certificates.
    pub recovery: Vec<String>,
}

/// Page, API and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Host names that requests may carry; others are refused, so that a browser cannot be
    /// talked into reading this collector for a foreign page. A port is not compared.
    pub allowed_hosts: Vec<String>,
    /// File with the token that requests must bear. Needed unless `listen.http` is a loopback
    /// address.
    pub bearer_token_file: Option<PathBuf>,
}

/// What agents are asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// Time between reports. Three missed ones make an agency silent.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Time between probe cycles while all is well.
    #[serde(with = "humantime_serde")]
    pub probe_period: Duration,
    /// Time between probe cycles while a change is being confirmed.
    #[serde(with = "humantime_serde")]
    pub confirm_period: Duration,
}

/// Certificates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Life of an agent's and of the collector's certificate. Renewed at half of it.
    #[serde(with = "humantime_serde")]
    pub certificate_lifetime: Duration,
    /// PEM certificate of a given CA, instead of one made at the first start.
    pub ca_certificate_file: Option<PathBuf>,
    /// Its PEM key (PKCS#8), readable by its owner alone.
    pub ca_key_file: Option<PathBuf>,
}

/// Echo requests from the core to the agencies' gateways.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoreCheck {
    /// Whether they are sent at all.
    pub enabled: bool,
    /// The interface that leads to the dedicated network.
    pub device: Option<String>,
    /// Prefixes of the whole dedicated network: no gateway outside them is asked.
    pub network_prefixes: Vec<IpNet>,
    /// Ceiling over all gateways together.
    pub packets_per_second: u32,
    /// Hosts in the core, at different sites, that the collector asks once a second. While none
    /// of them answers, it suspects itself and accuses no agency.
    pub anchors: Vec<IpAddr>,
}

/// Goals.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Goals {
    /// Share of the roster that has to be connected, 0 to 1.
    pub dedicated_network_target_ratio: f64,
    /// Share of the roster that has to be in good security order, 0 to 1.
    pub information_security_target_ratio: f64,
}

/// Metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Whether every machine has a series of its own.
    pub machines: bool,
}

/// Bounds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of one listener that are open at a time. Each takes an open file.
    pub connections_max: usize,
    /// TLS handshakes of one listener that are under way at a time; further ones wait.
    pub handshakes_concurrent_max: usize,
    /// How long a handshake may take.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long records and transitions are kept.
    #[serde(with = "humantime_serde")]
    pub history_age_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/haidang-collector".into(),
            roster: "/etc/haidang/roster.csv".into(),
            prefixes: None,
            calendar: None,
            trust_domain: "haidang.internal".parse().expect("the default is well formed"),
            demo: false,
            listen: Listen::default(),
            advertise: Advertise::default(),
            http: Http::default(),
            report: Report::default(),
            identity: Identity::default(),
            core_check: CoreCheck::default(),
            goals: Goals::default(),
            metrics: Metrics::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            dedicated: vec![SocketAddr::from(([127, 0, 0, 1], 7443))],
            fallback: Vec::new(),
            enrolment: None,
            recovery: None,
            http: SocketAddr::from(([127, 0, 0, 1], 7080)),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec(),
            bearer_token_file: None,
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        let Settings { report_interval, probe_period, confirm_period, .. } = Settings::default();
        Self { interval: report_interval, probe_period, confirm_period }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            certificate_lifetime: Duration::from_secs(90 * 86_400),
            ca_certificate_file: None,
            ca_key_file: None,
        }
    }
}

impl Default for CoreCheck {
    fn default() -> Self {
        Self {
            enabled: false,
            device: None,
            network_prefixes: Vec::new(),
            packets_per_second: 50,
            anchors: Vec::new(),
        }
    }
}

impl Default for Goals {
    fn default() -> Self {
        Self { dedicated_network_target_ratio: 1.0, information_security_target_ratio: 0.8 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 30_000,
            handshakes_concurrent_max: 64,
            handshake_timeout: Duration::from_secs(10),
            history_age_max: Duration::from_secs(730 * 86_400),
        }
    }
}

/// A configuration that is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}; name another with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is longer than any configuration.
    #[error("{path} is larger than 1 MiB and no configuration")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, holds an unknown key, or a value of the wrong type.
    #[error("{path}, line {line}: {problem}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// A value that cannot work.
    #[error("{path}: {key}: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong and what to write.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read as _;
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        Self::parse(&text, path)
    }

    /// Parses and checks the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            problem: error.message().to_owned(),
        })?;
        check::check(&config).map_err(|(key, problem)| ConfigError::Value {
            path: path.to_owned(),
            key,
            problem,
        })?;
        Ok(config)
    }

    /// `host:port` of each endpoint that agents are told.
    pub fn endpoints(&self) -> Endpoints {
        let told = |told: &[String], listened: &[SocketAddr]| {
            if told.is_empty() {
                listened.iter().map(SocketAddr::to_string).collect()
            } else {
                told.to_vec()
            }
        };
        let enrolment = self.advertise.enrolment.clone();
        Endpoints {
            dedicated: told(&self.advertise.dedicated, &self.listen.dedicated),
            fallback: told(&self.advertise.fallback, &self.listen.fallback),
            enrolment: enrolment.or(self.listen.enrolment.map(|address| address.to_string())),
            recovery: told(&self.advertise.recovery, self.listen.recovery.as_slice()),
        }
    }
}

/// `host:port` of each endpoint that agents are told, in order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// For reports over the dedicated network.
    pub dedicated: Vec<String>,
    /// For reports over a permitted second path.
    pub fallback: Vec<String>,
    /// For enrolment, while it is open.
    pub enrolment: Option<String>,
    /// For renewal of expired certificates.
    pub recovery: Vec<String>,
}

impl Endpoints {
    /// The host part of each, without duplicates: the names of the server certificate.
    pub fn hosts(&self) -> Vec<&str> {
        let all = self.dedicated.iter().chain(&self.fallback).chain(&self.enrolment);
        let mut hosts: Vec<&str> =
            all.chain(&self.recovery).filter_map(|endpoint| host_of(endpoint)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host_of(endpoint: &str) -> Option<&str> {
    let (host, port) = endpoint.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.is_empty()).then_some(host)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
