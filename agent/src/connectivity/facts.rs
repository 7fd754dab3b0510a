//! Facts: what may be told of a cycle, from an allow-list, lowest layer first.
//!
//! Names and addresses of the network, counts and closed words; nothing of users, files or
//! traffic. The wire's bounds hold already here: 32 facts of at most 128 bytes a text.

use std::net::IpAddr;

use haidang_proto::model::fact::{FACT_TEXT_BYTES_MAX, FACTS_MAX, Fact, FactKind};

use crate::evidence::{
    Address, Cycle, Dns, Echo, Exchange, Gateway, Interface, Joint, Link, Nat, Neighbour, PathMtu,
    RouteLookup, ServiceAnswer, Surroundings, Tcp, Unbound,
};

/// The facts of a cycle.
pub fn facts(cycle: &Cycle) -> Vec<Fact> {
    let mut list = List(Vec::new());
    link(&mut list, &cycle.link);
    cycle.gateways.iter().for_each(|gateway| gateway_facts(&mut list, gateway));
    for anchor in &cycle.anchors {
        echo(&mut list, FactKind::AnchorEcho, &anchor.name, &anchor.echo);
        if let Some(value) = tcp(&anchor.tcp) {
            list.push(FactKind::AnchorTcp, &anchor.name, value);
        }
    }
    for resolver in &cycle.resolvers {
        list.push(FactKind::Dns, &resolver.address.to_string(), dns(&resolver.answer));
    }
    for service in &cycle.services {
        list.push(FactKind::Service, &service.name, service_answer(&service.answer));
    }
    match &cycle.unbound {
        Some(Unbound::Reached { source, dedicated: true }) => {
            list.push(FactKind::Unbound, &source.to_string(), "by the dedicated network");
        }
        Some(Unbound::Reached { source, dedicated: false }) => {
            list.push(FactKind::Unbound, &source.to_string(), "by another way");
        }
        Some(Unbound::Unreached) => list.push(FactKind::Unbound, "", "unreached"),
        Some(Unbound::Failed(fault)) => {
            list.push(FactKind::Unbound, "", format!("not measured: {}", fault.0));
        }
        None => {}
    }
    if let Some(probe) = &cycle.path_mtu {
        list.push(FactKind::PathMtu, "", path_mtu(probe));
    }
    let lag = format!("timer lag {} ms", cycle.prober_lag_max.as_millis());
    list.push(FactKind::Prober, "", lag);
    list.0
}

/// What else a machine is attached to, and what joins it to the dedicated network. `declared` names
/// the interfaces that the site permits.
pub fn surrounding_facts(surroundings: &Surroundings, declared: &[String]) -> Vec<Fact> {
    let Surroundings { other_routed_interfaces, forwarding, joints, nat, unread: _ } = surroundings;
    let mut list = List(Vec::new());
    for joint in joints {
        let subject = match joint {
            Joint::Bridge { .. } => "bridge",
            Joint::Forwarding { .. } => "forwarding",
            Joint::Tunnel { .. } => "tunnel",
            Joint::Proxy { .. } => "proxy",
        };
        list.push(FactKind::Joint, subject, joint.to_string());
    }
    // Without forwarding, translation joins nothing.
    if (forwarding.v4 || forwarding.v6) && !joints.is_empty() && *nat == Nat::Loaded {
        list.push(FactKind::Joint, "nat", "loaded, rules not readable");
    }
    for interface in other_routed_interfaces {
        let is_declared = declared.contains(interface);
        let value = if is_declared { "declared" } else { "not declared" };
        list.push(FactKind::OtherNetwork, interface, value);
    }
    list.0
}

/// A list that keeps to the wire's bounds.
struct List(Vec<Fact>);

impl List {
    fn push(&mut self, kind: FactKind, subject: &str, value: impl AsRef<str>) {
        if self.0.len() < FACTS_MAX {
            let value = bounded(value.as_ref());
            self.0.push(Fact { kind, subject: bounded(subject), value });
        }
    }
}

/// Text within the wire's bound, without control characters: some of it was sent by strangers.
fn bounded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > FACT_TEXT_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

fn link(list: &mut List, link: &Link) {
    let (name, state) = match &link.interface {
        Interface::Missing => ("", "missing".into()),
        Interface::AdminDown { name } => (name.as_str(), "administratively down".into()),
        Interface::NoCarrier { name } => (name.as_str(), "no carrier".into()),
        Interface::Up { name, .. } => (name.as_str(), "up".into()),
        Interface::Unreadable(fault) => ("", format!("not read: {}", fault.0)),
    };
    list.push(FactKind::Link, name, state);
    let (subject, value) = match &link.address {
        Address::Present(address) => (address.to_string(), "present".into()),
        Address::Absent { others } => (String::new(), absent(others)),
        Address::Unreadable(fault) => (String::new(), format!("not read: {}", fault.0)),
    };
    list.push(FactKind::Address, &subject, value);
    for route in &link.routes {
        let value = match &route.lookup {
            RouteLookup::Dedicated { via: Some(via) } => format!("dedicated via {via}"),
            RouteLookup::Dedicated { via: None } => "dedicated, on-link".into(),
            RouteLookup::Elsewhere { interface } => format!("elsewhere by {interface}"),
            RouteLookup::None => "none".into(),
            RouteLookup::Unreadable(fault) => format!("not read: {}", fault.0),
        };
        list.push(FactKind::Route, &route.target.to_string(), value);
    }
}

fn absent(others: &[IpAddr]) -> String {
    if others.is_empty() {
        return "absent".into();
    }
    let others: Vec<_> = others.iter().map(ToString::to_string).collect();
    format!("absent; outside the prefixes: {}", others.join(" "))
}

fn gateway_facts(list: &mut List, gateway: &Gateway) {
    let subject = gateway.address.to_string();
    let neighbour = match &gateway.neighbour {
        Neighbour::Known => "known".into(),
        Neighbour::Unresolved => "unresolved".into(),
        Neighbour::Absent => "absent".into(),
        Neighbour::Unreadable(fault) => format!("not read: {}", fault.0),
    };
    list.push(FactKind::Neighbour, &subject, neighbour);
    echo(list, FactKind::GatewayEcho, &subject, &gateway.echo);
}

fn echo(list: &mut List, kind: FactKind, subject: &str, echo: &Echo) {
    let value = match echo {
        Echo::Answered(exchange) => {
            let (sent, late) = (exchange.sent(), exchange.late());
            let best = exchange
                .rtts()
                .min()
                .map_or(String::new(), |rtt| format!(", best {:.1} ms", rtt.as_secs_f64() * 1e3));
            let answers = exchange.rtts().count();
            format!("answered {answers} of {sent}, late {late}{best}{}", ignored(exchange))
        }
        Echo::Silent(exchange) => {
            let (sent, late) = (exchange.sent(), exchange.late());
            format!("silent, sent {sent}, late {late}{}", ignored(exchange))
        }
        Echo::Rejected { exchange, by, kind, code } => {
            list.push(FactKind::RejectedBy, &by.to_string(), format!("icmp {kind}/{code}"));
            format!("rejected, sent {}{}", exchange.sent(), ignored(exchange))
        }
        Echo::Unsendable(fault) => format!("not sent: {}", fault.0),
        Echo::Forbidden => "forbidden on this machine".into(),
        Echo::NotTried => return,
    };
    list.push(kind, subject, value);
}

/// Forged replies are worth telling, none are not.
fn ignored(exchange: &Exchange) -> String {
    match exchange.ignored {
        0 => String::new(),
        ignored => format!(", ignored {ignored}"),
    }
}

fn tcp(tcp: &Tcp) -> Option<String> {
    let ms = |connect: &std::time::Duration| format!("{:.1} ms", connect.as_secs_f64() * 1e3);
    Some(match tcp {
        Tcp::Proved { connect } => format!("proved in {}", ms(connect)),
        Tcp::Connected { connect } => format!("connected in {}", ms(connect)),
        Tcp::Impostor { presented } => format!("impostor: {presented}"),
        Tcp::Refused => "refused".into(),
        Tcp::Silent => "silent".into(),
        Tcp::Rejected { error } => format!("rejected: {error}"),
        Tcp::Unsendable(fault) => format!("not sent: {}", fault.0),
        Tcp::NotTried => return None,
    })
}

fn dns(answer: &Dns) -> String {
    match answer {
        Dns::Right { rtt } => format!("right in {:.1} ms", rtt.as_secs_f64() * 1e3),
        Dns::Wrong { answered } => format!("wrong: {answered}"),
        Dns::Refused => "refused".into(),
        Dns::ServerFailure { rcode } => format!("server failure, rcode {rcode}"),
        Dns::Silent => "silent".into(),
        Dns::Unsendable(fault) => format!("not sent: {}", fault.0),
    }
}

fn service_answer(answer: &ServiceAnswer) -> String {
    match answer {
        ServiceAnswer::Right { took, seen_source } => {
            let seen = seen_source.map_or(String::new(), |source| format!(", seen as {source}"));
            format!("right in {:.1} ms{seen}", took.as_secs_f64() * 1e3)
        }
        ServiceAnswer::WrongStatus { status } => format!("status {status}"),
        ServiceAnswer::WrongAnswer { problem } => format!("wrong answer: {problem}"),
        ServiceAnswer::TlsIntercepted { issuer } => format!("certificate issued by {issuer}"),
        ServiceAnswer::Refused => "refused".into(),
        ServiceAnswer::Silent => "silent".into(),
        ServiceAnswer::Unsendable(fault) => format!("not sent: {}", fault.0),
    }
}

fn path_mtu(probe: &PathMtu) -> String {
    match probe {
        PathMtu::Full { bytes } => format!("{bytes} bytes pass"),
        PathMtu::Hole { bytes } => format!("{bytes} bytes vanish"),
        PathMtu::Signalled { mtu } => format!("a router names {mtu} bytes"),
        PathMtu::NotMeasured(fault) => format!("not measured: {}", fault.0),
    }
}
