//! Every row of the ladder, and what may not be taken for evidence.

use crate::connectivity::scenes::{
    core_dark, dark, exchange, fault, half_answered, healthy, ip, local_faults, ms, no_address,
    no_carrier, no_route, rejected, silent,
};
use crate::evidence::{Exchange, Fate};

use super::*;

const LAG: Duration = Duration::from_millis(50);

#[track_caller]
fn says(cycle: &Cycle, expected: Verdict) {
    assert_eq!(judge(cycle, LAG).verdict(), expected, "{cycle:#?}");
}

fn changed(mut cycle: Cycle, change: impl FnOnce(&mut Cycle)) -> Cycle {
    change(&mut cycle);
    cycle
}

fn each_anchor(cycle: Cycle, echo: &Echo, tcp: &Tcp) -> Cycle {
    changed(cycle, |cycle| {
        for anchor in &mut cycle.anchors {
            (anchor.echo, anchor.tcp) = (echo.clone(), tcp.clone());
        }
    })
}

#[test]
fn each_cut_of_the_laboratory_has_its_cause() {
    let down = Verdict::Disconnected;
    let interface = |life| changed(dark(), |cycle| cycle.link.interface = life);
    let gateway = |neighbour| changed(dark(), |cycle| cycle.gateways[0].neighbour = neighbour);
    let table = [
        (healthy(), Verdict::Connected),
        (interface(Interface::AdminDown { name: "ded0".into() }), down(DownCause::LinkDown)),
        (interface(Interface::Missing), down(DownCause::LinkDown)),
        (no_carrier(), down(DownCause::LinkDown)),
        (no_address(), down(DownCause::NoAddress)),
        (no_route(), down(DownCause::NoRoute)),
        (gateway(Neighbour::Known), down(DownCause::GatewayUnreachable)),
        (gateway(Neighbour::Unresolved), down(DownCause::GatewayUnreachable)),
        (core_dark(), down(DownCause::CoreUnreachable)),
        (
            each_anchor(core_dark(), &rejected("198.18.99.1"), &Tcp::Silent),
            down(DownCause::CoreUnreachable),
        ),
    ];
    for (cycle, expected) in table {
        says(&cycle, expected);
    }
}

#[test]
fn dns_faults_have_their_causes() {
    let wrong = Dns::Wrong { answered: "203.0.113.1".into() };
    let failure = Dns::ServerFailure { rcode: 2 };
    let table = [
        (Dns::Silent, DnsCause::DnsSilent),
        (Dns::Refused, DnsCause::DnsRefused),
        (failure, DnsCause::DnsServerFailure),
        (wrong, DnsCause::DnsWrongAnswer),
    ];
    for (answer, cause) in table {
        let cycle = changed(healthy(), |cycle| cycle.resolvers[0].answer = answer);
        says(&cycle, Verdict::DnsBroken(cause));
    }
}

#[test]
fn one_resolver_may_be_silent_but_none_may_lie() {
    let with_second = |answer| {
        changed(healthy(), |cycle| {
            cycle.resolvers.push(Resolver { address: ip("198.19.0.53"), answer });
        })
    };
    says(&with_second(Dns::Silent), Verdict::Connected);
    says(&with_second(Dns::Unsendable(fault())), Verdict::Connected);
    let lying = with_second(Dns::Wrong { answered: "203.0.113.1".into() });
    says(&lying, Verdict::DnsBroken(DnsCause::DnsWrongAnswer));
}

#[test]
fn service_faults_have_their_causes_and_stand_behind_dns() {
    let table = [
        (ServiceAnswer::Silent, ServiceCause::ServiceSilent),
        (ServiceAnswer::Refused, ServiceCause::ServiceRefused),
        (ServiceAnswer::WrongStatus { status: 503 }, ServiceCause::ServiceWrongStatus),
        (
            ServiceAnswer::WrongAnswer { problem: "no nonce".into() },
            ServiceCause::ServiceWrongAnswer,
        ),
        (ServiceAnswer::TlsIntercepted { issuer: "Box".into() }, ServiceCause::TlsIntercepted),
    ];
    for (answer, cause) in table {
        let mut cycle = changed(healthy(), |cycle| cycle.services[0].answer = answer);
        says(&cycle, Verdict::ServiceBroken(cause));
        cycle.resolvers[0].answer = Dns::Silent;
        says(&cycle, Verdict::DnsBroken(DnsCause::DnsSilent));
    }
}

#[test]
fn any_anchor_proves_the_path_whatever_lies_below() {
    let one = changed(dark(), |cycle| {
        cycle.anchors[1].echo = half_answered(ms(9));
    });
    says(&one, Verdict::Connected);
    for late in [
        exchange(&[Fate::Lost, Fate::Late]),
        Exchange { late_before: vec![ms(1)], ..exchange(&[Fate::Lost]) },
    ] {
        let late = changed(dark(), |cycle| cycle.anchors[0].echo = Echo::Silent(late));
        says(&late, Verdict::Connected);
    }
    let deaf = changed(healthy(), |cycle| {
        cycle.gateways[0].echo = silent();
        cycle.gateways[0].neighbour = Neighbour::Unresolved;
        cycle.link.interface = Interface::Unreadable(fault());
        cycle.link.address = Address::Unreadable(fault());
    });
    says(&deaf, Verdict::Connected);
}

#[test]
fn tcp_alone_is_enough_where_echo_is_shut_or_filtered() {
    for echo in [Echo::Forbidden, silent(), Echo::NotTried] {
        for tcp in [Tcp::Proved { connect: ms(6) }, Tcp::Connected { connect: ms(6) }] {
            let cycle = each_anchor(healthy(), &echo, &tcp);
            says(&cycle, Verdict::Connected);
            assert!(matches!(judge(&cycle, LAG), Judgement::Good { proof: Proof::Tcp, .. }));
        }
    }
}

#[test]
fn a_bare_rst_and_an_impostor_prove_nothing() {
    let impostor = Tcp::Impostor { presented: "CN=Box".into() };
    for tcp in [Tcp::Refused, impostor, Tcp::Rejected { error: "EHOSTUNREACH".into() }] {
        let cycle = each_anchor(dark(), &silent(), &tcp);
        assert_eq!(
            judge(&cycle, LAG).verdict().family(),
            haidang_proto::model::verdict::Family::Down
        );
        let cycle = each_anchor(dark(), &Echo::Forbidden, &tcp);
        assert_eq!(
            judge(&cycle, LAG).verdict().family(),
            haidang_proto::model::verdict::Family::Down
        );
    }
}

#[test]
fn an_impostor_on_every_anchor_is_interception_when_no_service_proves_otherwise() {
    let impostor = Tcp::Impostor { presented: "CN=Box".into() };
    let echo = half_answered(ms(5));
    let mut cycle = each_anchor(healthy(), &echo, &impostor);
    says(&cycle, Verdict::Connected);
    cycle.services[0].is_tls = false;
    says(&cycle, Verdict::ServiceBroken(ServiceCause::TlsIntercepted));
    cycle.services.clear();
    says(&cycle, Verdict::ServiceBroken(ServiceCause::TlsIntercepted));
    cycle.anchors[1].tcp = Tcp::Proved { connect: ms(5) };
    says(&cycle, Verdict::Connected);
}

#[test]
fn a_failed_arp_that_linux_reports_as_icmp_from_itself_is_no_sign_of_a_router() {
    let cycle = each_anchor(dark(), &rejected("198.18.10.20"), &Tcp::Silent);
    says(&cycle, Verdict::Disconnected(DownCause::GatewayUnreachable));
}

#[test]
fn without_a_known_gateway_the_core_is_named() {
    let cycle = changed(dark(), |cycle| cycle.gateways.clear());
    says(&cycle, Verdict::Disconnected(DownCause::CoreUnreachable));
    let two = changed(core_dark(), |cycle| {
        let mut second = cycle.gateways[0].clone();
        second.echo = silent();
        cycle.gateways.insert(0, second);
    });
    says(&two, Verdict::Disconnected(DownCause::CoreUnreachable));
}

#[test]
fn local_faults_are_not_measured() {
    let not_measured = Verdict::Unknown(UnknownCause::NotMeasured);
    says(&local_faults(), not_measured);
    says(&each_anchor(dark(), &Echo::Forbidden, &Tcp::NotTried), not_measured);
    says(&changed(dark(), |cycle| cycle.anchors.clear()), not_measured);
    says(
        &changed(dark(), |cycle| cycle.link.interface = Interface::Unreadable(fault())),
        not_measured,
    );
    says(&changed(dark(), |cycle| cycle.link.address = Address::Unreadable(fault())), not_measured);
    let routes = changed(local_faults(), |cycle| {
        for route in &mut cycle.link.routes {
            route.lookup = RouteLookup::Unreadable(fault());
        }
    });
    says(&routes, not_measured);
}

#[test]
fn a_route_to_one_anchor_is_a_route() {
    let cycle = changed(no_route(), |cycle| {
        cycle.link.routes[0].lookup = RouteLookup::Dedicated { via: None };
    });
    says(&cycle, Verdict::Disconnected(DownCause::CoreUnreachable));
}

#[test]
fn a_starved_prober_believes_answers_and_the_kernel_but_no_silence() {
    let starved = |cycle| changed(cycle, |cycle: &mut Cycle| cycle.prober_lag_max = ms(51));
    says(&starved(dark()), Verdict::Unknown(UnknownCause::Starved));
    says(&starved(core_dark()), Verdict::Unknown(UnknownCause::Starved));
    says(&starved(healthy()), Verdict::Connected);
    says(&starved(no_carrier()), Verdict::Disconnected(DownCause::LinkDown));
}
