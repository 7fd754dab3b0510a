//! Whether this machine carries packets from one network to another, or lets strangers tell it
//! where to send its own.

use haidang_proto::model::posture::{CheckId, FailReason};

use crate::connectivity::{Bridging, bridging, undeclared};

use super::finding::{Finding, Judged, Unknown};
use super::root::Root;
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::DualHomedBridge, Tier::T0, dual_homed_bridge),
        Check::new(CheckId::IpForwarding, Tier::T0, ip_forwarding),
        Check::new(CheckId::Ipv6RouterAdvert, Tier::T0, ipv6_router_advert),
    ],
    catalogue: include_str!("forwarding.toml"),
};

/// Bytes of a switch below `/proc/sys`.
const SWITCH_BYTES_MAX: u64 = 32;
/// Interfaces that are named in what was seen.
const NAMED_MAX: usize = 4;

/// What the flags `dual_homed` and `bridging` say, by the same functions: another interface leads
/// elsewhere, or this machine joins the two networks. A second interface that the site permits is
/// no fault; joining always is.
fn dual_homed_bridge(evidence: &Evidence<'_>) -> Judged {
    let surroundings = evidence.kernel.surroundings.as_ref().map_err(Unknown::clone)?;
    let others = &surroundings.other_routed_interfaces;
    let mut foreign = undeclared(surroundings, &evidence.policy.permitted_interfaces);
    foreign.truncate(NAMED_MAX);
    let bridging = bridging(surroundings);
    Ok(if bridging == Bridging::Joined {
        let joints = surroundings.joints.iter().take(NAMED_MAX).map(ToString::to_string);
        let seen = format!("joined by {}", joints.collect::<Vec<_>>().join(", "));
        Finding::Fail(FailReason::WeakValue, seen)
    } else if !foreign.is_empty() {
        Finding::Fail(FailReason::WeakValue, format!("also routed: {}", foreign.join(",")))
    } else if bridging == Bridging::Unknown {
        let what = "what may join the networks".into();
        let problem = surroundings.unread.iter().map(|fault| fault.0.as_str());
        return Err(Unknown::Unreadable { what, problem: problem.collect::<Vec<_>>().join(", ") });
    } else if others.is_empty() {
        Finding::Pass("no other routed interface".into())
    } else {
        Finding::Pass(format!("permitted: {}", others.join(",")))
    })
}

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

/// Whether a stranger's router advertisement can become, or has become, this machine's IPv6
/// default route: `accept_ra` and `disable_ipv6` (ip-sysctl.rst), and the routes themselves,
/// because NetworkManager takes advertisements in without the kernel.
fn ipv6_router_advert(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let directory = "/proc/sys/net/ipv6/conf";
    let Some(interfaces) = root.names(directory)? else {
        // That the kernel has no IPv6 is told by IPv4's directory being there.
        root.names("/proc/sys/net/ipv4/conf")?.ok_or_else(|| Unknown::absent(directory))?;
        return Ok(Finding::NotApplicable("no IPv6 in the kernel".into()));
    };
    let (mut with_ipv6, mut accepting) = (0, Vec::new());
    for interface in interfaces {
        if ["all", "default", "lo"].contains(&interface.as_str()) {
            continue;
        }
        let read = |name: &str| {
            let path = format!("{directory}/{interface}/{name}");
            switch(root, &path)?.ok_or_else(|| Unknown::absent(path))
        };
        if read("disable_ipv6")? != 0 {
            continue;
        }
        with_ipv6 += 1;
        // A router takes advertisements in only at 2.
        let (accept, forwards) = (read("accept_ra")?, read("forwarding")? != 0);
        if accept >= 2 || (accept == 1 && !forwards) {
            accepting.push(interface);
        }
    }
    if with_ipv6 == 0 {
        return Ok(Finding::NotApplicable("IPv6 is off on every interface".into()));
    }
    let routed = evidence.kernel.advertised_routes.as_ref().map_err(Unknown::clone)?.len();
    if routed > 0 {
        let seen = format!("{routed} default route(s) from advertisements");
        return Ok(Finding::Fail(FailReason::WeakValue, seen));
    }
    Ok(if accepting.is_empty() {
        Finding::Pass(format!("accept_ra=0 on {with_ipv6} interface(s)"))
    } else {
        accepting.truncate(NAMED_MAX);
        Finding::Fail(FailReason::WeakValue, format!("accept_ra on {}", accepting.join(",")))
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
