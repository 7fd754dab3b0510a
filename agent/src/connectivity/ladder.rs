//! The ladder: what one cycle says by itself.
//!
//! It is climbed from the core down: an anchor that answered proves all that lies below it, so
//! an ICMP-deaf gateway or an unreadable link never fails a path that works. Only then the
//! kernel's facts are asked, and last the gateway, for the deepest cause that is right.
//!
//! Good needs positive evidence: an echo answered by any anchor (late counts: the path carries
//! packets), or TCP that was proved or at least connected. A bare RST proves nothing, firewalls
//! send them; an impostor proves that somebody sits in between. What failed for a local reason
//! is evidence of nothing.

use std::time::Duration;

use haidang_proto::model::verdict::{DnsCause, DownCause, ServiceCause, UnknownCause, Verdict};

use crate::evidence::{
    Address, Anchor, Cycle, Dns, Echo, Interface, Link, Neighbour, Resolver, RouteLookup, Service,
    ServiceAnswer, Tcp,
};

/// What one cycle says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// The path carries packets.
    Good {
        /// What proved it.
        proof: Proof,
        /// What stands above the path.
        upper: Upper,
    },
    /// The path carries none.
    Bad {
        /// The deepest cause that is right.
        cause: DownCause,
        /// Whether a second protocol was asked.
        tcp: TcpTried,
    },
    /// The cycle proves neither.
    Unclear(UnknownCause),
}

/// What proved a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// An echo came back.
    Echo,
    /// TCP alone: echo is forbidden, filtered, or was lost.
    Tcp,
}

/// Whether TCP was tried on any anchor. Echo alone never calls a path down at the usual count:
/// one firewall rule, or one stuck session, silences it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpTried {
    /// It was, and failed.
    Yes,
    /// It was not.
    No,
}

/// What DNS and services say, above a path that is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Upper {
    /// The cycle did not climb so far, or only met local faults.
    NotTried,
    /// Everything that was asked answered right.
    Fine,
    /// The resolvers fail.
    Dns(DnsCause),
    /// Names resolve, a service fails.
    Service(ServiceCause),
}

impl Judgement {
    /// The verdict of somebody who has seen this one cycle only.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Good { upper, .. } => match upper.fault() {
                Some(fault) => fault,
                None => Verdict::Connected,
            },
            Self::Bad { cause, .. } => Verdict::Disconnected(cause),
            Self::Unclear(cause) => Verdict::Unknown(cause),
        }
    }
}

impl Upper {
    /// What is broken, as a verdict.
    pub const fn fault(self) -> Option<Verdict> {
        match self {
            Self::NotTried | Self::Fine => None,
            Self::Dns(cause) => Some(Verdict::DnsBroken(cause)),
            Self::Service(cause) => Some(Verdict::ServiceBroken(cause)),
        }
    }
}

/// Judges one cycle. Beyond `starved_lag` the prober's silence proves nothing; what the kernel
/// says and what was answered stands.
pub fn judge(cycle: &Cycle, starved_lag: Duration) -> Judgement {
    if let Some(proof) = proof(&cycle.anchors) {
        return Judgement::Good { proof, upper: upper(cycle) };
    }
    let tcp = match cycle.anchors.iter().any(|anchor| tcp_was_tried(&anchor.tcp)) {
        true => TcpTried::Yes,
        false => TcpTried::No,
    };
    if let Some(cause) = kernel_cause(&cycle.link) {
        return Judgement::Bad { cause, tcp };
    }
    if cycle.prober_lag_max > starved_lag {
        return Judgement::Unclear(UnknownCause::Starved);
    }
    // Silence is evidence only if the probes could leave by the right interface.
    let link_is_known = matches!(cycle.link.interface, Interface::Up { .. })
        && matches!(cycle.link.address, Address::Present(_));
    if !link_is_known || !cycle.anchors.iter().any(was_tried) {
        return Judgement::Unclear(UnknownCause::NotMeasured);
    }
    Judgement::Bad { cause: silence_cause(cycle), tcp }
}

/// Whether the kernel alone shows this cause: no packet's fate is needed for it.
pub(crate) const fn is_kernel_visible(cause: DownCause) -> bool {
    match cause {
        DownCause::LinkDown | DownCause::NoAddress | DownCause::NoRoute => true,
        DownCause::GatewayUnreachable | DownCause::CoreUnreachable => false,
    }
}

/// Whether an echo came back, in time or late.
pub(crate) fn echo_answered(echo: &Echo) -> bool {
    match echo {
        Echo::Answered(_) => true,
        Echo::Silent(exchange) | Echo::Rejected { exchange, .. } => exchange.late() > 0,
        Echo::Unsendable(_) | Echo::Forbidden | Echo::NotTried => false,
    }
}

/// Whether TCP proved the anchor.
pub(crate) const fn tcp_answered(tcp: &Tcp) -> bool {
    match tcp {
        Tcp::Proved { .. } | Tcp::Connected { .. } => true,
        Tcp::Impostor { .. }
        | Tcp::Refused
        | Tcp::Silent
        | Tcp::Rejected { .. }
        | Tcp::Unsendable(_)
        | Tcp::NotTried => false,
    }
}

/// Whether a TCP probe left this machine.
pub(crate) const fn tcp_was_tried(tcp: &Tcp) -> bool {
    !matches!(tcp, Tcp::NotTried | Tcp::Unsendable(_))
}

/// Whether an echo request left this machine.
pub(crate) const fn echo_was_tried(echo: &Echo) -> bool {
    match echo {
        Echo::Answered(_) | Echo::Silent(_) | Echo::Rejected { .. } => true,
        Echo::Unsendable(_) | Echo::Forbidden | Echo::NotTried => false,
    }
}

/// Whether anything that was sent could tell this anchor's life.
pub(crate) const fn was_tried(anchor: &Anchor) -> bool {
    echo_was_tried(&anchor.echo) || tcp_was_tried(&anchor.tcp)
}

fn proof(anchors: &[Anchor]) -> Option<Proof> {
    if anchors.iter().any(|anchor| echo_answered(&anchor.echo)) {
        Some(Proof::Echo)
    } else if anchors.iter().any(|anchor| tcp_answered(&anchor.tcp)) {
        Some(Proof::Tcp)
    } else {
        None
    }
}

fn kernel_cause(link: &Link) -> Option<DownCause> {
    match &link.interface {
        Interface::Missing | Interface::AdminDown { .. } | Interface::NoCarrier { .. } => {
            return Some(DownCause::LinkDown);
        }
        Interface::Up { .. } | Interface::Unreadable(_) => {}
    }
    match &link.address {
        Address::Absent { .. } => return Some(DownCause::NoAddress),
        Address::Present(_) | Address::Unreadable(_) => {}
    }
    let leads_away = |lookup: &RouteLookup| match lookup {
        RouteLookup::Elsewhere { .. } | RouteLookup::None => true,
        RouteLookup::Dedicated { .. } | RouteLookup::Unreadable(_) => false,
    };
    let none_leads_there =
        !link.routes.is_empty() && link.routes.iter().all(|route| leads_away(&route.lookup));
    none_leads_there.then_some(DownCause::NoRoute)
}

/// The cause of silence beyond a link that is fine.
fn silence_cause(cycle: &Cycle) -> DownCause {
    let own = match &cycle.link.address {
        Address::Present(address) => Some(*address),
        Address::Absent { .. } | Address::Unreadable(_) => None,
    };
    // Linux reports a failed ARP as an ICMP error from the machine itself.
    let from_afar = |echo: &Echo| matches!(echo, Echo::Rejected { by, .. } if Some(*by) != own);
    let something_answers = |anchor: &Anchor| {
        from_afar(&anchor.echo) || matches!(anchor.tcp, Tcp::Refused | Tcp::Impostor { .. })
    };
    let gateway_lives = |echo: &Echo| echo_answered(echo) || from_afar(echo);
    if cycle.anchors.iter().any(something_answers)
        || cycle.gateways.iter().any(|gateway| gateway_lives(&gateway.echo))
    {
        return DownCause::CoreUnreachable;
    }
    // A gateway that answers ARP but no echo forwards nothing that we can see: it is the deepest
    // thing that fails. One that was not asked is judged by its neighbour entry alone.
    let gateway_is_dead = |gateway: &crate::evidence::Gateway| {
        echo_was_tried(&gateway.echo) || gateway.neighbour == Neighbour::Unresolved
    };
    if !cycle.gateways.is_empty() && cycle.gateways.iter().all(gateway_is_dead) {
        DownCause::GatewayUnreachable
    } else {
        DownCause::CoreUnreachable
    }
}

fn upper(cycle: &Cycle) -> Upper {
    let dns = dns_fault(&cycle.resolvers);
    let service = service_fault(&cycle.services, &cycle.anchors);
    let asked = cycle.resolvers.iter().any(|one| !matches!(one.answer, Dns::Unsendable(_)))
        || cycle.services.iter().any(|one| !matches!(one.answer, ServiceAnswer::Unsendable(_)));
    match (dns, service) {
        (Some(cause), _) => Upper::Dns(cause),
        (None, Some(cause)) => Upper::Service(cause),
        (None, None) if asked => Upper::Fine,
        (None, None) => Upper::NotTried,
    }
}

/// DNS is broken when no resolver is right, or when one lies: clients that ask that one are led
/// astray. Of several faults the one that says most is named.
fn dns_fault(resolvers: &[Resolver]) -> Option<DnsCause> {
    let cause = |answer: &Dns| match answer {
        Dns::Wrong { .. } => Some(DnsCause::DnsWrongAnswer),
        Dns::ServerFailure { .. } => Some(DnsCause::DnsServerFailure),
        Dns::Refused => Some(DnsCause::DnsRefused),
        Dns::Silent => Some(DnsCause::DnsSilent),
        Dns::Right { .. } | Dns::Unsendable(_) => None,
    };
    let worst = resolvers.iter().filter_map(|resolver| cause(&resolver.answer)).max()?;
    let one_is_right = resolvers.iter().any(|one| matches!(one.answer, Dns::Right { .. }));
    (worst == DnsCause::DnsWrongAnswer || !one_is_right).then_some(worst)
}

/// Each configured service is needed, so one that fails is a fault. A certificate by somebody
/// else on every anchor is one too, unless a service's own TLS proves the contrary; one that is
/// asked without TLS proves nothing of it.
fn service_fault(services: &[Service], anchors: &[Anchor]) -> Option<ServiceCause> {
    let cause = |answer: &ServiceAnswer| match answer {
        ServiceAnswer::Right { .. } | ServiceAnswer::Unsendable(_) => None,
        ServiceAnswer::WrongStatus { .. } => Some(ServiceCause::ServiceWrongStatus),
        ServiceAnswer::WrongAnswer { .. } => Some(ServiceCause::ServiceWrongAnswer),
        ServiceAnswer::TlsIntercepted { .. } => Some(ServiceCause::TlsIntercepted),
        ServiceAnswer::Refused => Some(ServiceCause::ServiceRefused),
        ServiceAnswer::Silent => Some(ServiceCause::ServiceSilent),
    };
    let worst = services.iter().filter_map(|service| cause(&service.answer)).max();
    let tls_is_right = services
        .iter()
        .any(|service| service.is_tls && matches!(service.answer, ServiceAnswer::Right { .. }));
    let mut tried = anchors.iter().filter(|anchor| tcp_was_tried(&anchor.tcp)).peekable();
    let only_impostors = tried.peek().is_some()
        && tried.all(|anchor| matches!(anchor.tcp, Tcp::Impostor { .. }))
        && !tls_is_right;
    worst.or(only_impostors.then_some(ServiceCause::TlsIntercepted))
}

#[cfg(test)]
mod tests;
