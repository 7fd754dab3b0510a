//! `log_forwarding`: a destination in the configuration, and a connection to it.

use std::net::{IpAddr, SocketAddr};

use haidang_proto::model::posture::FailReason;

use crate::posture::Evidence;
use crate::posture::finding::{Finding, Judged, Unknown};
use crate::posture::kernel_tables::established_tcp;
use crate::posture::malformed::assignments;
use crate::posture::reading::{matching, optional, parsed, root_tasks};
use crate::posture::root::{CONFIG_BYTES_MAX, Root};
use crate::posture::rsyslog_conf::{Forward, Transport, forwards};

/// Bytes of one TCP table: some ten thousand connections.
const TCP_TABLE_BYTES_MAX: u64 = 4 << 20;

/// Agents that ship logs, as the kernel names their tasks, with the ports of their servers'
/// documentation. One that runs as another user than root is not seen.
const SHIPPERS: [(&str, &[u16]); 9] = [
    ("syslog-ng", &[514, 601, 6514]),
    ("filebeat", &[5044, 9200, 443]),
    ("auditbeat", &[5044, 9200, 443]),
    ("wazuh-agentd", &[1514]),
    ("ossec-agentd", &[1514]),
    ("splunkd", &[9997]),
    ("fluent-bit", &[24224, 514, 6514, 443]),
    ("nxlog", &[514, 1514, 6514]),
    ("vector", &[6000, 24224, 514, 6514]),
];

/// A configuration without a connection fails, as does a connection nobody configured. Datagrams
/// leave no trace of arriving: what goes by UDP alone is unknown.
pub(super) fn log_forwarding(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let rsyslog = rsyslog_forwards(root)?;
    let upload = journal_upload(root)?;
    let mut programs = vec!["rsyslogd", "systemd-journal"];
    programs.extend(SHIPPERS.iter().map(|(task, _)| task));
    let tasks = root_tasks(root, &programs)?;
    let runs = |name: &str| tasks.iter().any(|(_, task)| task == name);
    let established = established(root)?;
    let mut configured = Vec::new();
    let mut by_datagrams = false;

    for forward in &rsyslog {
        match forward.transport {
            Transport::Tcp => configured.push(("rsyslogd", forward.host.as_str(), forward.port)),
            Transport::Udp => by_datagrams |= runs("rsyslogd"),
        }
    }
    if let Some((host, port)) = &upload {
        configured.push(("systemd-journal", host.as_str(), *port));
    }
    let connected = configured.iter().find(|(task, host, port)| {
        runs(task) && established.iter().any(|remote| is_at(remote, host, *port))
    });
    let shipper = SHIPPERS.iter().find(|(task, ports)| {
        runs(task) && established.iter().any(|remote| ports.contains(&remote.port()))
    });
    match (connected, shipper) {
        (Some((task, _, port)), _) => {
            Ok(Finding::Pass(format!("{task} is connected to its server's port {port}")))
        }
        (None, Some((task, _))) => Ok(Finding::Pass(format!("{task} is connected to its server"))),
        (None, None) if by_datagrams => Err(Unknown::Unsupported(
            "logs are sent by UDP, and nothing shows whether they arrive".into(),
        )),
        (None, None) if configured.is_empty() => {
            Ok(Finding::Fail(FailReason::Absent, "no log leaves this machine".into()))
        }
        (None, None) => Ok(Finding::Fail(
            FailReason::Stale,
            format!("{} destinations configured, none connected", configured.len()),
        )),
    }
}

fn rsyslog_forwards(root: &Root) -> Result<Vec<Forward>, Unknown> {
    let path = "/etc/rsyslog.conf";
    let Some(bytes) = root.bytes(path, CONFIG_BYTES_MAX)? else { return Ok(Vec::new()) };
    forwards(path, &bytes, &mut |pattern| matching(root, pattern))
}

/// `URL=` of an enabled systemd-journal-upload; drop-ins come after the main file.
fn journal_upload(root: &Root) -> Result<Option<(String, u16)>, Unknown> {
    const PORT: u16 = 19532;
    let unit = "/etc/systemd/system/multi-user.target.wants/systemd-journal-upload.service";
    if root.link(unit)?.is_none() {
        return Ok(None);
    }
    let mut assigned =
        optional(root, "/etc/systemd/journal-upload.conf", assignments)?.unwrap_or_default();
    for (path, bytes) in matching(root, "/etc/systemd/journal-upload.conf.d/*.conf")? {
        assigned.extend(parsed(&path, assignments(&bytes))?);
    }
    let url = assigned.iter().rev().find(|(key, _)| key == "URL").map(|(_, url)| url.as_str());
    let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(None) };
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, Some(PORT)),
    };
    let port = port.ok_or_else(|| {
        Unknown::malformed("/etc/systemd/journal-upload.conf", "URL has no valid port")
    })?;
    Ok(Some((host.trim_matches(['[', ']']).to_owned(), port)))
}

fn established(root: &Root) -> Result<Vec<SocketAddr>, Unknown> {
    let mut remotes = Vec::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // Without IPv6 in the kernel there is no second table.
        let Some(bytes) = root.bytes(path, TCP_TABLE_BYTES_MAX)? else { continue };
        remotes.extend(parsed(path, established_tcp(&bytes))?);
    }
    Ok(remotes)
}

/// Whether a connection leads there. A name is not resolved: a check asks no network, so the port
/// has to do, on any address but this machine's own.
fn is_at(remote: &SocketAddr, host: &str, port: u16) -> bool {
    remote.port() == port
        && match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical() == remote.ip(),
            Err(_) => !remote.ip().is_loopback(),
        }
}
