//! What a stranger on the dedicated network can reach on this machine.

use std::fmt::Write;

use haidang_proto::model::posture::{CheckId, FailReason};

use super::finding::{Finding, Judged, Unknown};
use super::listeners::{Listener, Transport};
use super::netfilter::{Family, Inbound, Reach};
use super::root::{CONFIG_BYTES_MAX, Root};
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::HostFirewallActive, Tier::T0, host_firewall_active),
        Check::new(CheckId::ExposedServices, Tier::T0, exposed_services),
        Check::new(CheckId::LegacyProtocols, Tier::T1, legacy_protocols),
    ],
    catalogue: include_str!("firewall.toml"),
};

/// Ports of a machine's own DHCP clients (RFC 2131, RFC 8415), which wait for their server.
const CLIENT_PORTS: [u16; 2] = [68, 546];
/// First port of clients, where the kernel gives none: `net.ipv4.ip_local_port_range`.
const EPHEMERAL_FIRST: u16 = 32_768;
/// Ports named in what was seen.
const NAMED_MAX: usize = 6;

/// Services that send passwords in the clear or trust addresses: telnet, tftp, rexec, rlogin and
/// rsh; SMBv1's NetBIOS; LLMNR, which answers for names that are not its own.
const LEGACY: [(Transport, u16, &str); 10] = [
    (Transport::Tcp, 23, "telnet"),
    (Transport::Udp, 69, "tftp"),
    (Transport::Tcp, 512, "rexec"),
    (Transport::Tcp, 513, "rlogin"),
    (Transport::Tcp, 514, "rsh"),
    (Transport::Udp, 137, "netbios-ns"),
    (Transport::Udp, 138, "netbios-dgm"),
    (Transport::Tcp, 139, "netbios-ssn"),
    (Transport::Udp, 5355, "llmnr"),
    (Transport::Tcp, 5355, "llmnr"),
];

/// The kernel's effective policy for packets that come in and that no rule allows, in each family
/// that the machine uses.
fn host_firewall_active(evidence: &Evidence<'_>) -> Judged {
    let ruleset = evidence.kernel.netfilter.as_ref().map_err(Unknown::clone)?;
    let mut families = vec![(Family::V4, "ipv4")];
    if uses_ipv6(&evidence.root)? {
        families.push((Family::V6, "ipv6"));
    }
    let (mut seen, mut is_open) = (String::new(), false);
    for (family, name) in families {
        let inbound = ruleset.inbound(family);
        is_open |= !matches!(inbound, Inbound::Refused(_));
        let separator = if seen.is_empty() { "" } else { "; " };
        let (policy, chain) = match inbound {
            Inbound::Refused(chain) => ("refused by ", chain),
            Inbound::Allowed(chain) => ("let in by ", chain),
            Inbound::Unseen => ("no input chain", String::new()),
        };
        let _ = write!(seen, "{separator}{name} {policy}{chain}");
    }
    if !is_open {
        return Ok(Finding::Pass(seen));
    }
    if uses_legacy_tables(&evidence.root)? {
        return Err(legacy_tables());
    }
    let reason = if ruleset.is_empty() { FailReason::Absent } else { FailReason::WeakValue };
    Ok(Finding::Fail(reason, seen))
}

/// `/proc/net/if_inet6` lists every IPv6 address; without IPv6 in the kernel it is not there.
fn uses_ipv6(root: &Root) -> Result<bool, Unknown> {
    if let Some(addresses) = root.text("/proc/net/if_inet6", CONFIG_BYTES_MAX)? {
        return Ok(addresses.lines().any(|line| line.split_whitespace().last() != Some("lo")));
    }
    // That its file is absent means something only where the other family's is there.
    root.required_text("/proc/net/route", CONFIG_BYTES_MAX).map(|_| false)
}

/// `/proc/net/{ip,ip6}_tables_names` list the tables of iptables-legacy that are loaded.
fn uses_legacy_tables(root: &Root) -> Result<bool, Unknown> {
    let mut any = false;
    for file in ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"] {
        let names = root.text(file, CONFIG_BYTES_MAX)?.unwrap_or_default();
        any |= names.lines().any(|table| table == "filter");
    }
    Ok(any)
}

/// Listeners that strangers could reach, against the ports that the site allows. Behind a firewall
/// they are reached where its rules let a new connection in.
fn exposed_services(evidence: &Evidence<'_>) -> Judged {
    let listeners = evidence.kernel.listeners.as_ref().map_err(Unknown::clone)?;
    let allowed = &evidence.policy.allowed_ports;
    let waiting: Vec<&Listener> =
        listeners.iter().filter(|listener| is_exposed(listener, evidence)).collect();
    let unexpected: Vec<&Listener> =
        waiting.iter().copied().filter(|one| !allowed.contains(&one.port)).collect();
    if unexpected.is_empty() {
        return Ok(Finding::Pass(format!("{} listening, all allowed", waiting.len())));
    }
    let ruleset = evidence.kernel.netfilter.as_ref().map_err(Unknown::clone)?;
    let (mut open, mut unread) = (Vec::new(), None);
    for listener in unexpected {
        for family in families(listener, &evidence.root)? {
            match ruleset.reach(family, listener.transport, listener.port) {
                Reach::Refused => {}
                Reach::Open => open.push(listener),
                Reach::Unread(kind) => unread = unread.or(Some((listener, kind))),
            }
        }
    }
    if !open.is_empty() {
        if uses_legacy_tables(&evidence.root)? {
            return Err(legacy_tables());
        }
        return Ok(Finding::Fail(FailReason::WeakValue, named(&open)));
    }
    if let Some((listener, kind)) = unread {
        let (transport, port) = (listener.transport.as_str(), listener.port);
        let problem = format!("{transport}/{port} depends on a rule's {kind}, which is not read");
        return Err(Unknown::Unsupported(problem));
    }
    Ok(Finding::Pass(format!("{} listening, the rest refused by the firewall", waiting.len())))
}

/// Families in which a socket is reached. One that waits everywhere in IPv6 waits in IPv4 too,
/// unless it was told not to, which is not read.
fn families(listener: &Listener, root: &Root) -> Result<Vec<Family>, Unknown> {
    let mut families = Vec::new();
    if listener.address.is_ipv4() || listener.address.is_unspecified() {
        families.push(Family::V4);
    }
    if listener.address.is_ipv6() && uses_ipv6(root)? {
        families.push(Family::V6);
    }
    Ok(families)
}

fn legacy_tables() -> Unknown {
    let problem = "the filter is in iptables-legacy tables, which are not read; use iptables-nft";
    Unknown::Unsupported(problem.into())
}

/// Whether a socket waits where the dedicated network could come in: everywhere, or at one of the
/// agency's addresses. On a machine whose dedicated network is not configured, anywhere but on
/// loopback.
fn is_exposed(listener: &Listener, evidence: &Evidence<'_>) -> bool {
    let is_client = listener.transport == Transport::Udp
        && (CLIENT_PORTS.contains(&listener.port) || listener.port >= EPHEMERAL_FIRST);
    let address = listener.address;
    let is_elsewhere = evidence.dedicated_prefixes.is_some_and(|prefixes| {
        !address.is_unspecified() && !prefixes.iter().any(|prefix| prefix.contains(&address))
    });
    !is_client && !address.is_loopback() && !is_elsewhere
}

/// Listeners of protocols that nobody should offer any more, wherever they wait but on loopback.
fn legacy_protocols(evidence: &Evidence<'_>) -> Judged {
    let listeners = evidence.kernel.listeners.as_ref().map_err(Unknown::clone)?;
    let mut found: Vec<&str> = LEGACY
        .iter()
        .filter(|(transport, port, _)| {
            listeners.iter().any(|listener| {
                listener.transport == *transport
                    && listener.port == *port
                    && !listener.address.is_loopback()
            })
        })
        .map(|(_, _, name)| *name)
        .collect();
    found.dedup();
    Ok(if found.is_empty() {
        Finding::Pass(format!("none among {} listening sockets", listeners.len()))
    } else {
        Finding::Fail(FailReason::WeakValue, format!("listening: {}", found.join(",")))
    })
}

fn named(listeners: &[&Listener]) -> String {
    let mut ports: Vec<String> = listeners
        .iter()
        .map(|listener| format!("{}/{}", listener.transport.as_str(), listener.port))
        .collect();
    ports.dedup();
    let count = ports.len();
    ports.truncate(NAMED_MAX);
    format!("{} ({count})", ports.join(" "))
}
