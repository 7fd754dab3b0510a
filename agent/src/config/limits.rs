//! What a configuration file may hold: counts, names, durations, and that everything which is
//! probed or reported to lies inside the prefixes pinned by the file itself.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::posture::policy::Policy;

use super::{Config, Dedicated, InterfaceSelector, Service, TcpProof, Verdict};

/// Anchors: more would multiply the packets of every cycle without proving more.
pub const ANCHORS_MAX: usize = 16;
/// Resolvers.
pub const RESOLVERS_MAX: usize = 8;
/// Services.
pub const SERVICES_MAX: usize = 16;
/// Prefixes, gateways and endpoints, each.
const LIST_MAX: usize = 64;
/// Bytes of a name in reports.
const NAME_BYTES_MAX: usize = 32;
/// Bytes of any other text.
const TEXT_BYTES_MAX: usize = 255;
/// Shortest and longest time for the first posture pass: at once for a single machine, an hour for
/// the largest city.
const FIRST_PASS_WITHIN: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(3_600));
/// Least bytes of the journal: eight segments of a few records.
const JOURNAL_BYTES_MIN: u64 = 256 << 10;
/// Most bytes of the journal: what a small machine can spare.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;

/// A value that breaks a limit.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: Place,
    pub(super) problem: String,
}

/// Where in the file: a table, which of several of that name, and the key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    table: &'static str,
    nth: usize,
    key: &'static str,
}

impl Place {
    const fn top(key: &'static str) -> Self {
        Self { table: "", nth: 0, key }
    }

    const fn key(table: &'static str, key: &'static str) -> Self {
        Self { table, nth: 0, key }
    }

    /// The byte at which the key, or else its table, begins in a file of the usual form.
    pub(super) fn position(&self, text: &str) -> Option<usize> {
        let mut offset = 0;
        let mut tables_left = self.nth;
        let mut inside = self.table.is_empty();
        let mut table_at = None;
        for line in text.split_inclusive('\n') {
            let trimmed = line.trim();
            if trimmed.starts_with('[') {
                let name = trimmed.trim_matches(['[', ']']).trim();
                inside = name == self.table && tables_left == 0;
                if name == self.table {
                    table_at = inside.then_some(offset).or(table_at);
                    tables_left = tables_left.saturating_sub(1);
                }
            } else if inside && trimmed.split('=').next().is_some_and(|key| key.trim() == self.key)
            {
                return Some(offset);
            }
            offset += line.len();
        }
        table_at
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.table.is_empty() {
            f.write_str(self.key)
        } else {
            write!(f, "{}.{}", self.table, self.key)
        }
    }
}

fn fail<T>(at: Place, problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { at, problem: problem.into() })
}

/// Checks the whole file.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    let readers = &config.readers;
    for (place, path) in [
        (Place::top("state_dir"), &config.state_dir),
        (Place::top("status_socket"), &config.status_socket),
        (Place::key("readers", "netfilter_socket"), &readers.netfilter_socket),
        (Place::key("readers", "posture_socket"), &readers.posture_socket),
    ] {
        if !path.is_absolute() {
            return fail(place, "must be an absolute path");
        }
    }
    dedicated(&config.dedicated, config.demo)?;
    let network = &config.dedicated.network_prefixes;
    collector(config)?;
    anchors(config, network)?;
    dns(config, network)?;
    services(config, network)?;
    posture(&config.posture)?;
    if let Some(canary) = config.internet_canary
        && contains(network, canary.ip())
    {
        let at = Place::top("internet_canary");
        return fail(at, "lies inside dedicated.network_prefixes; it must be an Internet address");
    }
    verdict(&config.verdict)?;
    journal(config)
}

fn dedicated(dedicated: &Dedicated, demo: bool) -> Result<(), Problem> {
    let at = |key| Place::key("dedicated", key);
    match &dedicated.interface {
        // IFNAMSIZ is 16 with its final zero (linux/if.h).
        InterfaceSelector::Name(name) => {
            let allowed = |c: char| c.is_ascii_graphic() && c != '/';
            if name.is_empty() || name.len() > 15 || !name.chars().all(allowed) {
                return fail(at("interface"), "names no possible network interface");
            }
        }
        InterfaceSelector::Mac(mac) => {
            let parts: Vec<&str> = mac.split(':').collect();
            let hex = |part: &&str| part.len() == 2 && u8::from_str_radix(part, 16).is_ok();
            if parts.len() != 6 || !parts.iter().all(hex) {
                return fail(at("interface"), "has a mac that is not like 52:54:00:12:34:56");
            }
        }
        InterfaceSelector::Prefix(_) => {}
    }
    for (key, prefixes) in [
        ("local_prefixes", &dedicated.local_prefixes),
        ("network_prefixes", &dedicated.network_prefixes),
    ] {
        if prefixes.is_empty() {
            return fail(at(key), "is empty; at least one prefix is needed");
        }
        bounded(at(key), prefixes.len(), LIST_MAX)?;
        for prefix in prefixes {
            usable(at(key), *prefix, demo)?;
        }
    }
    bounded(at("gateways"), dedicated.gateways.len(), LIST_MAX)?;
    for gateway in &dedicated.gateways {
        if !contains(&dedicated.local_prefixes, *gateway) {
            return fail(at("gateways"), format!("holds {gateway}, outside local_prefixes"));
        }
    }
    Ok(())
}

fn usable(at: Place, prefix: IpNet, demo: bool) -> Result<(), Problem> {
    if prefix.trunc() != prefix {
        let right = prefix.trunc();
        return fail(at, format!("holds {prefix}, whose host bits are not zero; write {right}"));
    }
    if prefix.prefix_len() == 0 {
        return fail(at, format!("holds {prefix}, which is every address there is"));
    }
    if prefix.addr().is_loopback() && !demo {
        return fail(at, format!("holds {prefix}; loopback prefixes need demo = true"));
    }
    Ok(())
}

fn collector(config: &Config) -> Result<(), Problem> {
    let at = |key| Place::key("collector", key);
    bounded(at("endpoints"), config.collector.endpoints.len(), LIST_MAX)?;
    bounded(at("fallback_endpoints"), config.collector.fallback_endpoints.len(), LIST_MAX)?;
    for endpoint in &config.collector.endpoints {
        inside(at("endpoints"), &config.dedicated.network_prefixes, endpoint.ip())?;
    }
    let all = config.collector.endpoints.iter().chain(&config.collector.fallback_endpoints);
    match all.clone().find(|endpoint| endpoint.port() == 0) {
        Some(endpoint) => fail(at("endpoints"), format!("holds {endpoint}, whose port is 0")),
        None => Ok(()),
    }
}

fn anchors(config: &Config, network: &[IpNet]) -> Result<(), Problem> {
    let mut names = HashSet::new();
    bounded(Place::top("anchor"), config.anchors.len(), ANCHORS_MAX)?;
    for (nth, anchor) in config.anchors.iter().enumerate() {
        let at = |key| Place { table: "anchor", nth, key };
        name(at("name"), &anchor.name, &mut names)?;
        inside(at("address"), network, anchor.address)?;
        if anchor.tcp_port == Some(0) {
            return fail(at("tcp_port"), "is 0");
        }
        if let TcpProof::Banner(banner) = &anchor.tcp_proof
            && !(1..=TEXT_BYTES_MAX).contains(&banner.len())
        {
            return fail(at("tcp_proof"), "has a banner that is not 1 to 255 bytes long");
        }
    }
    Ok(())
}

fn posture(posture: &Policy) -> Result<(), Problem> {
    let (least, most) = FIRST_PASS_WITHIN;
    if !(least..=most).contains(&posture.first_pass_within) {
        return fail(Place::key("posture", "first_pass_within"), "must be 1 s to 1 h");
    }
    Ok(())
}

fn dns(config: &Config, network: &[IpNet]) -> Result<(), Problem> {
    let Some(dns) = &config.dns else { return Ok(()) };
    let at = |key| Place::key("dns", key);
    if dns.resolvers.is_empty() {
        return fail(at("resolvers"), "is empty; leave the table out where there is no resolver");
    }
    bounded(at("resolvers"), dns.resolvers.len(), RESOLVERS_MAX)?;
    bounded(at("expected"), dns.expected.len(), LIST_MAX)?;
    for resolver in &dns.resolvers {
        inside(at("resolvers"), network, *resolver)?;
    }
    let labels = dns.name.trim_end_matches('.').split('.');
    let well_formed = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if dns.name.len() > 253 || !labels.clone().all(well_formed) {
        return fail(at("name"), "is not a DNS name");
    }
    Ok(())
}

fn services(config: &Config, network: &[IpNet]) -> Result<(), Problem> {
    let mut names = HashSet::new();
    bounded(Place::top("service"), config.services.len(), SERVICES_MAX)?;
    for (nth, service) in config.services.iter().enumerate() {
        let at = |key| Place { table: "service", nth, key };
        name(at("name"), &service.name, &mut names)?;
        let Some(address) = url_address(service) else {
            let form = "must be http:// or https:// with an IP address, such as \
                        https://198.18.0.20:8443/path";
            return fail(at("url"), form);
        };
        inside(at("url"), network, address)?;
        let host_fits = |host: &String| (1..=TEXT_BYTES_MAX).contains(&host.len());
        if !service.host.as_ref().is_none_or(host_fits) {
            return fail(at("host"), "is not 1 to 255 bytes long");
        }
        if !(100..=599).contains(&service.status) {
            return fail(at("status"), "is not an HTTP status");
        }
    }
    Ok(())
}

/// The address of a service's URL, where it has the one form that is allowed.
fn url_address(service: &Service) -> Option<IpAddr> {
    let url: http::Uri = service.url.parse().ok()?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || service.url.len() > TEXT_BYTES_MAX {
        return None;
    }
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
    authority.host().trim_matches(['[', ']']).parse().ok()
}

fn verdict(verdict: &Verdict) -> Result<(), Problem> {
    let at = |key| Place::key("verdict", key);
    for (key, cycles) in [("bad_cycles", verdict.bad_cycles), ("good_cycles", verdict.good_cycles)]
    {
        if !(1..=100).contains(&cycles) {
            return fail(at(key), "is not 1 to 100");
        }
    }
    let (ms, second) = (Duration::from_millis(1), Duration::from_secs(1));
    for (key, value, least, most) in [
        ("kernel_confirm", verdict.kernel_confirm, Duration::ZERO, 60 * second),
        ("recovering", verdict.recovering, Duration::ZERO, 3600 * second),
        ("quality_window", verdict.quality_window, 10 * second, 3600 * second),
        ("starved_lag", verdict.starved_lag, 5 * ms, 5 * second),
        ("warm_up", verdict.warm_up, Duration::ZERO, 600 * second),
        // Full-size packets are dear on a 64 kbit/s line; a hole must be found within the hour.
        ("path_mtu_period", verdict.path_mtu_period, 5 * second, 3600 * second),
    ] {
        if !(least..=most).contains(&value) {
            return fail(at(key), format!("is not {least:?} to {most:?}"));
        }
    }
    Ok(())
}

fn journal(config: &Config) -> Result<(), Problem> {
    let at = |key| Place::key("journal", key);
    if !(JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&config.journal.bytes_max) {
        let problem = format!("is not {JOURNAL_BYTES_MIN} to {JOURNAL_BYTES_MAX}");
        return fail(at("bytes_max"), problem);
    }
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    if !(hour..=3660 * day).contains(&config.journal.age_max) {
        return fail(at("age_max"), "is not 1 hour to 10 years");
    }
    Ok(())
}

fn bounded(at: Place, count: usize, most: usize) -> Result<(), Problem> {
    if count > most { fail(at, format!("has {count} entries; {most} are allowed")) } else { Ok(()) }
}

fn name<'a>(at: Place, name: &'a str, seen: &mut HashSet<&'a str>) -> Result<(), Problem> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(allowed) {
        return fail(at, format!("{name:?} is not 1 to {NAME_BYTES_MAX} of a-z 0-9 -"));
    }
    if seen.insert(name) { Ok(()) } else { fail(at, format!("{name:?} is used twice")) }
}

fn inside(at: Place, network: &[IpNet], address: IpAddr) -> Result<(), Problem> {
    if contains(network, address) {
        return Ok(());
    }
    fail(at, format!("holds {address}, outside dedicated.network_prefixes"))
}

fn contains(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}
