//! Whether this machine carries packets from one network to another, or lets strangers tell it
//! where to send its own.

use haidang_proto::model::posture::{CheckId, FailReason};

use super::finding::{Finding, Judged, Unknown};
use super::root::Root;
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[Check::new(CheckId::IpForwarding, Tier::T0, ip_forwarding)],
    catalogue: include_str!("forwarding.toml"),
};

/// Bytes of a switch below `/proc/sys`.
const SWITCH_BYTES_MAX: u64 = 32;
/// Interfaces that are named in what was seen.
const NAMED_MAX: usize = 4;

/// `/proc/sys/net/{ipv4,ipv6}/conf/*/forwarding` (Documentation/networking/ip-sysctl.rst): the
/// kernel decides by the switch of the interface that a packet comes in by.
fn ip_forwarding(evidence: &Evidence<'_>) -> Judged {
    let mut forwarding = forwarding_interfaces(&evidence.root, "ipv4")?
        .ok_or_else(|| Unknown::absent("/proc/sys/net/ipv4/conf"))?;
    // Without IPv6 in the kernel nothing forwards it.
    forwarding.extend(forwarding_interfaces(&evidence.root, "ipv6")?.unwrap_or_default());
    forwarding.sort_unstable();
    forwarding.dedup();
    Ok(match forwarding.as_slice() {
        [] => Finding::Pass("forwarding=0".into()),
        names => {
            let named = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>();
            let kind = if names.iter().any(|name| is_container_bridge(name)) {
                " container_bridge"
            } else {
                ""
            };
            Finding::Fail(
                FailReason::WeakValue,
                format!("forwarding=1 on {} ({}){kind}", named.join(","), names.len()),
            )
        }
    })
}

/// Interfaces with the switch on; `None` where the kernel has no such family.
fn forwarding_interfaces(root: &Root, family: &str) -> Result<Option<Vec<String>>, Unknown> {
    let directory = format!("/proc/sys/net/{family}/conf");
    let Some(interfaces) = root.names(&directory)? else { return Ok(None) };
    let mut on = Vec::new();
    for interface in interfaces {
        // `default` is for interfaces to come, and nothing comes in by `lo` from elsewhere.
        if interface == "default" || interface == "lo" {
            continue;
        }
        if switch(root, &format!("{directory}/{interface}/forwarding"))?.is_some_and(|on| on != 0) {
            on.push(interface);
        }
    }
    Ok(Some(on))
}

/// A number below `/proc/sys`; `None` where there is none.
fn switch(root: &Root, path: &str) -> Result<Option<i64>, Unknown> {
    let Some(text) = root.text(path, SWITCH_BYTES_MAX)? else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| Unknown::malformed(path, "is not a number"))
}

/// Bridges that Docker, podman, libvirt and LXD make.
fn is_container_bridge(interface: &str) -> bool {
    ["docker", "br-", "cni", "podman", "virbr", "lxdbr", "lxcbr"]
        .iter()
        .any(|prefix| interface.starts_with(prefix))
}
