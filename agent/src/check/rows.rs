//! One row for each thing that was looked at, from the interface up.
//!
//! A row's outcome is that of its own probe. What a row fails need not fail the whole: the path
//! is proved by any anchor, as the ladder has it.

use std::time::Duration;

use crate::connectivity::ladder::{echo_answered, tcp_answered};
use crate::connectivity::{Bridging, bridging};
use crate::evidence::{
    Address, Canary, Cycle, Dns, Echo, Interface, LocalFault, Nat, Neighbour, PathMtu, RouteLookup,
    ServiceAnswer, Surroundings, Tcp, Unbound,
};
use crate::language::Key;

use super::{Checkup, Enrolment, Outcome};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) layer: Key,
    /// Name or address; empty where there is but one.
    pub(super) subject: String,
    pub(super) outcome: Outcome,
    pub(super) result: Key,
    /// Figures, addresses, a peer's words: the same in each language.
    pub(super) detail: String,
}

type Seen = (Outcome, Key, String);

pub(super) fn rows(checkup: &Checkup<'_>) -> Vec<Row> {
    let cycle = checkup.cycle;
    let mut rows = Vec::new();
    let mut add = |layer, subject: &str, (outcome, result, detail): Seen| {
        let (subject, detail) = (printable(subject), printable(&detail));
        rows.push(Row { layer, subject, outcome, result, detail });
    };
    let (name, seen) = interface(&cycle.link.interface);
    add(Key::LayerInterface, name, seen);
    add(Key::LayerAddress, name, address(&cycle.link.address));
    add(Key::LayerOtherNetworks, "", other_networks(&cycle.link.surroundings));
    for route in &cycle.link.routes {
        add(Key::LayerRoute, &route.target.to_string(), lookup(&route.lookup));
    }
    for gateway in &cycle.gateways {
        let subject = gateway.address.to_string();
        add(Key::LayerNeighbour, &subject, neighbour(&gateway.neighbour));
        add(Key::LayerGateway, &subject, gateway_echo(&gateway.echo, cycle));
    }
    for anchor in &cycle.anchors {
        let subject = format!("{} {}", anchor.name, anchor.address);
        let echo_seen = echo(&anchor.echo);
        add(Key::LayerAnchorEcho, &subject, noted_if(tcp_answered(&anchor.tcp), echo_seen));
        if anchor.tcp != Tcp::NotTried {
            add(Key::LayerAnchorTcp, &subject, tcp(&anchor.tcp));
        }
    }
    for resolver in &cycle.resolvers {
        add(Key::LayerDns, &resolver.address.to_string(), dns(&resolver.answer));
    }
    for one in &cycle.services {
        add(Key::LayerService, &one.name, service(&one.answer));
    }
    if let Some(probe) = &cycle.path_mtu {
        add(Key::LayerPathMtu, "", path_mtu(probe));
    }
    if let Some(probe) = &cycle.unbound {
        add(Key::LayerUnbound, "", unbound(probe));
    }
    if let Some(probe) = &cycle.canary {
        let subject = checkup.config.internet_canary.map(|canary| canary.to_string());
        add(Key::LayerCanary, &subject.unwrap_or_default(), canary(probe));
    }
    let lag_max = checkup.config.verdict.starved_lag;
    add(Key::LayerProber, "", prober(cycle.prober_lag_max, lag_max));
    add(Key::LayerEnrolment, "", enrolment(checkup.enrolment));
    rows
}

/// Text of strangers and of the kernel, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn good(result: Key, detail: impl Into<String>) -> Seen {
    (Outcome::Good, result, detail.into())
}

fn fails(result: Key, detail: impl Into<String>) -> Seen {
    (Outcome::Fails, result, detail.into())
}

fn unknown(result: Key, detail: impl Into<String>) -> Seen {
    (Outcome::Unknown, result, detail.into())
}

/// What fails or cannot be told is only a note when something stronger is proved.
fn noted_if(stronger_is_proved: bool, seen: Seen) -> Seen {
    match seen {
        (Outcome::Fails | Outcome::Unknown, result, detail) if stronger_is_proved => {
            (Outcome::Note, result, detail)
        }
        seen => seen,
    }
}

fn interface(interface: &Interface) -> (&str, Seen) {
    match interface {
        Interface::Missing => ("", fails(Key::NotFound, "")),
        Interface::AdminDown { name } => (name, fails(Key::AdminDown, "")),
        Interface::NoCarrier { name } => (name, fails(Key::NoCarrier, "")),
        Interface::Up { name, .. } => (name, good(Key::Up, "")),
        Interface::Unreadable(fault) => ("", unknown(Key::NotRead, fault.0.as_str())),
    }
}

fn address(address: &Address) -> Seen {
    match address {
        Address::Present(address) => good(Key::Present, address.to_string()),
        Address::Absent { others } if others.is_empty() => fails(Key::Absent, ""),
        Address::Absent { others } => {
            let others: Vec<_> = others.iter().map(ToString::to_string).collect();
            fails(Key::OutsidePrefixes, others.join(" "))
        }
        Address::Unreadable(fault) => unknown(Key::NotRead, fault.0.as_str()),
    }
}

fn lookup(lookup: &RouteLookup) -> Seen {
    match lookup {
        RouteLookup::Dedicated { via: Some(via) } => good(Key::ByDedicated, via.to_string()),
        RouteLookup::Dedicated { via: None } => good(Key::ByDedicated, ""),
        RouteLookup::Elsewhere { interface } => fails(Key::Elsewhere, interface.as_str()),
        RouteLookup::None => fails(Key::Absent, ""),
        RouteLookup::Unreadable(fault) => unknown(Key::NotRead, fault.0.as_str()),
    }
}

fn neighbour(neighbour: &Neighbour) -> Seen {
    match neighbour {
        Neighbour::Known => good(Key::Resolved, ""),
        Neighbour::Unresolved => fails(Key::Unresolved, ""),
        Neighbour::Absent => unknown(Key::Absent, ""),
        Neighbour::Unreadable(fault) => unknown(Key::NotRead, fault.0.as_str()),
    }
}

/// What joins this machine's networks, and what of it cannot be read here.
fn other_networks(surroundings: &Result<Surroundings, LocalFault>) -> Seen {
    let seen = match surroundings {
        Ok(seen) => seen,
        Err(fault) => return unknown(Key::NotRead, fault.0.as_str()),
    };
    // Without forwarding, translation joins nothing.
    let forwards = seen.forwarding.v4 || seen.forwarding.v6;
    let nat = match &seen.nat {
        _ if !forwards => None,
        Nat::Absent => None,
        Nat::Loaded => Some("NAT: loaded, rules not readable".to_owned()),
        Nat::Unreadable(fault) => Some(format!("NAT: {}", fault.0)),
    };
    let unread = seen.unread.iter().map(|fault| fault.0.clone());
    match bridging(seen) {
        Bridging::Joined => fails(Key::Joined, listed(seen.joints.iter().map(ToString::to_string))),
        Bridging::Unknown => unknown(Key::NotRead, listed(unread)),
        Bridging::Apart if !seen.other_routed_interfaces.is_empty() => {
            let others = listed(seen.other_routed_interfaces.iter().cloned());
            (Outcome::Note, Key::Attached, others)
        }
        Bridging::Apart => match nat {
            Some(nat) => unknown(Key::NotRead, nat),
            None => good(Key::Apart, ""),
        },
    }
}

fn listed(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("; ")
}

/// A gateway may be deaf to echo and forward all the same.
fn gateway_echo(gateway: &Echo, cycle: &Cycle) -> Seen {
    let core_answers =
        cycle.anchors.iter().any(|anchor| echo_answered(&anchor.echo) || tcp_answered(&anchor.tcp));
    noted_if(core_answers, echo(gateway))
}

fn echo(echo: &Echo) -> Seen {
    match echo {
        Echo::Answered(exchange) => {
            let best = exchange.rtts().min().map_or(String::new(), |rtt| format!(", {}", ms(rtt)));
            good(Key::Answered, format!("{}/{}{best}", exchange.rtts().count(), exchange.sent()))
        }
        Echo::Silent(exchange) => match exchange.late() {
            0 => fails(Key::Silent, format!("0/{}", exchange.sent())),
            late => good(Key::AnsweredLate, format!("{late}/{}", exchange.sent())),
        },
        Echo::Rejected { by, kind, code, .. } => {
            fails(Key::Rejected, format!("{by}, ICMP {kind}/{code}"))
        }
        Echo::Unsendable(fault) => unknown(Key::NotSent, fault.0.as_str()),
        Echo::Forbidden => unknown(Key::Forbidden, ""),
        Echo::NotTried => unknown(Key::NotTried, ""),
    }
}

fn tcp(tcp: &Tcp) -> Seen {
    match tcp {
        Tcp::Proved { connect } => good(Key::Proved, ms(*connect)),
        Tcp::Connected { connect } => good(Key::ConnectedTcp, ms(*connect)),
        Tcp::Impostor { presented } => fails(Key::Impostor, presented.as_str()),
        Tcp::Refused => fails(Key::Refused, ""),
        Tcp::Silent => fails(Key::Silent, ""),
        Tcp::Rejected { error } => fails(Key::Rejected, error.as_str()),
        Tcp::Unsendable(fault) => unknown(Key::NotSent, fault.0.as_str()),
        Tcp::NotTried => unknown(Key::NotTried, ""),
    }
}

fn dns(answer: &Dns) -> Seen {
    match answer {
        Dns::Right { rtt } => good(Key::Right, ms(*rtt)),
        Dns::Wrong { answered } => fails(Key::Wrong, answered.as_str()),
        Dns::Refused => fails(Key::Refused, ""),
        Dns::ServerFailure { rcode } => fails(Key::ServerFailure, format!("rcode {rcode}")),
        Dns::Silent => fails(Key::Silent, ""),
        Dns::Unsendable(fault) => unknown(Key::NotSent, fault.0.as_str()),
    }
}

fn service(answer: &ServiceAnswer) -> Seen {
    match answer {
        ServiceAnswer::Right { took, seen_source: None } => good(Key::Right, ms(*took)),
        ServiceAnswer::Right { took, seen_source: Some(source) } => {
            good(Key::Right, format!("{}, {source}", ms(*took)))
        }
        ServiceAnswer::WrongStatus { status } => fails(Key::UnexpectedStatus, status.to_string()),
        ServiceAnswer::WrongAnswer { problem } => fails(Key::Wrong, problem.as_str()),
        ServiceAnswer::TlsIntercepted { issuer } => fails(Key::Intercepted, issuer.as_str()),
        ServiceAnswer::Refused => fails(Key::Refused, ""),
        ServiceAnswer::Silent => fails(Key::Silent, ""),
        ServiceAnswer::Unsendable(fault) => unknown(Key::NotSent, fault.0.as_str()),
    }
}

fn path_mtu(probe: &PathMtu) -> Seen {
    match probe {
        PathMtu::Full { bytes } => good(Key::Passes, format!("{bytes} B")),
        PathMtu::Hole { bytes } => fails(Key::Vanishes, format!("{bytes} B")),
        PathMtu::Signalled { mtu } => good(Key::Signalled, format!("{mtu} B")),
        PathMtu::NotMeasured(fault) => (Outcome::Note, Key::NotSent, fault.0.clone()),
    }
}

fn unbound(probe: &Unbound) -> Seen {
    match probe {
        Unbound::Reached { source, dedicated: true } => good(Key::ByDedicated, source.to_string()),
        Unbound::Reached { source, dedicated: false } => fails(Key::Reached, source.to_string()),
        Unbound::Unreached => (Outcome::Note, Key::Unreached, String::new()),
        Unbound::Failed(fault) => (Outcome::Note, Key::NotSent, fault.0.clone()),
    }
}

fn canary(probe: &Canary) -> Seen {
    match probe {
        Canary::Reached => fails(Key::Reached, ""),
        Canary::Unreached => good(Key::Unreached, ""),
        Canary::Failed(fault) => unknown(Key::NotSent, fault.0.as_str()),
    }
}

fn prober(lag: Duration, lag_max: Duration) -> Seen {
    if lag > lag_max { unknown(Key::LagHigh, ms(lag)) } else { good(Key::LagFine, ms(lag)) }
}

fn enrolment(enrolment: &Enrolment) -> Seen {
    match enrolment {
        Enrolment::Enrolled(agency) => good(Key::Enrolled, agency.to_string()),
        Enrolment::NotEnrolled => unknown(Key::NotEnrolled, ""),
        Enrolment::Unreadable(problem) => unknown(Key::NotRead, problem.as_str()),
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
