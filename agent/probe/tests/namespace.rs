//! Echo against real kernels: each test is a thread in a network namespace of its own, with a
//! router in a second one. Needs root and iproute2, and says so.

#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use haidang_probe::{
    Binding, EchoOutcome, EchoPlan, Fate, Hop, Ignored, LATE_GRACE, Packet, Pinger, Rejection,
    Timing, Trace, trace,
};
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Protocol, Socket, Type};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 10, 10));
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 10, 1));
const UNROUTED: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1));
const BLACK_HOLE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 2, 1));
const NARROW: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 3, 1));
const NO_NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 10, 99));

/// The second namespace; it goes when the test does.
struct Router(String);

impl Drop for Router {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}

/// Runs `test` in a fresh namespace, on a thread that dies with it.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("network namespaces need root: run as root");
        run("ip link set lo up");
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    thread.join().unwrap();
}

/// eth0 198.18.10.10 here, a router 198.18.10.1 behind it.
fn router(name: &str) -> Router {
    let name = format!("hdprobe-{name}-{}", std::process::id());
    run(&format!("ip netns add {name}"));
    let router = Router(name.clone());
    run(&format!("ip link add eth0 type veth peer name g0 netns {name}"));
    run("ip addr add 198.18.10.10/24 dev eth0");
    run("ip link set eth0 up");
    run("ip route add 198.18.0.0/16 via 198.18.10.1");
    for command in [
        "addr add 198.18.10.1/24 dev g0",
        "link set g0 up",
        "link set lo up",
        "route add blackhole 198.18.2.0/24",
        "link add d0 mtu 1400 type veth peer name d1",
        "link set d0 up",
        "link set d1 up",
        "route add 198.18.3.0/24 dev d0",
    ] {
        run(&format!("ip -n {name} {command}"));
    }
    run(&format!("ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1"));
    router
}

fn pinger(target: IpAddr) -> Pinger {
    Pinger::new(target, Binding { device: Some("eth0".into()), source: Some(OWN) })
}

fn plan() -> EchoPlan {
    EchoPlan {
        count: 3,
        spacing: Duration::from_millis(20),
        deadline: Duration::from_millis(300),
        ..EchoPlan::default()
    }
}

#[test]
fn a_closed_group_range_forbids() {
    in_namespace(|| async {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "1 0").unwrap();
        let loopback = Binding { device: Some("lo".into()), source: None };
        let mut pinger = Pinger::new(Ipv4Addr::LOCALHOST.into(), loopback);
        assert!(matches!(pinger.exchange(&plan()).await, EchoOutcome::Forbidden));
    });
}

#[test]
fn a_router_answers_with_kernel_stamps_on_old_and_new_sockets() {
    in_namespace(|| async {
        let _router = router("answers");
        let mut pinger = pinger(ROUTER);
        let plan = EchoPlan { warm_up: Some(Duration::from_millis(300)), ttl: Some(1), ..plan() };
        for _ in 0..3 {
            let outcome = pinger.exchange(&plan).await;
            let EchoOutcome::Answered(exchange) = outcome else { panic!("{outcome:?}") };
            assert_eq!((exchange.packets.len(), exchange.late_before.len()), (3, 0));
            let answers: Vec<_> = exchange.answers().collect();
            assert_eq!(answers.len(), 3);
            assert!(answers.iter().all(|answer| answer.timing == Timing::Kernel), "{answers:?}");
            assert!(answers.iter().all(|answer| answer.rtt <= plan.deadline));
            pinger.renew();
        }
    });
}

#[test]
fn loopback_answers_in_both_families() {
    in_namespace(|| async {
        for address in ["127.0.0.9", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let binding = Binding { device: Some("lo".into()), source: Some(address) };
            let mut pinger = Pinger::new(address, binding);
            let plan = EchoPlan { payload_bytes: 1_400, dont_fragment: true, ..plan() };
            let outcome = pinger.exchange(&plan).await;
            let EchoOutcome::Answered(exchange) = outcome else { panic!("{outcome:?}") };
            assert_eq!(exchange.answers().count(), 3);
        }
    });
}

#[test]
fn a_router_that_has_no_route_rejects_by_name() {
    in_namespace(|| async {
        let _router = router("rejects");
        let outcome = pinger(UNROUTED).exchange(&plan()).await;
        let EchoOutcome::Rejected { rejection, .. } = outcome else { panic!("{outcome:?}") };
        let expected = Rejection { by: ROUTER, kind: 3, code: 0, next_hop_mtu: None };
        assert_eq!(rejection, expected);
    });
}

#[test]
fn a_black_hole_is_silent() {
    in_namespace(|| async {
        let _router = router("silent");
        let outcome = pinger(BLACK_HOLE).exchange(&plan()).await;
        let EchoOutcome::Silent(exchange) = outcome else { panic!("{outcome:?}") };
        assert!(exchange.packets.iter().all(|packet| packet.fate == Fate::Silent), "{exchange:?}");
        assert_eq!((exchange.packets.len(), exchange.late_before.len()), (3, 0));
    });
}

#[test]
fn a_narrow_hop_signals_its_mtu() {
    in_namespace(|| async {
        let _router = router("narrow");
        let plan = EchoPlan { payload_bytes: 1_472, dont_fragment: true, ..plan() };
        let outcome = pinger(NARROW).exchange(&plan).await;
        let EchoOutcome::Rejected { rejection, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((rejection.by, rejection.next_hop_mtu), (ROUTER, Some(1_400)));
    });
}

/// The kernel reports its own failure to resolve a neighbour as ICMP 3/1 from this machine, three
/// seconds later: nobody rejected anything.
#[test]
fn an_absent_neighbour_is_silent() {
    in_namespace(|| async {
        let _router = router("neighbour");
        let mut pinger = pinger(NO_NEIGHBOUR);
        let plan = EchoPlan { deadline: Duration::from_secs(4), ..plan() };
        for _ in 0..2 {
            let outcome = pinger.exchange(&plan).await;
            assert!(matches!(outcome, EchoOutcome::Silent { .. }), "{outcome:?}");
        }
    });
}

#[test]
fn an_answer_to_the_previous_exchange_is_late() {
    in_namespace(|| async {
        let router = router("late");
        let mut pinger = pinger(ROUTER);
        let name = &router.0;
        // Packets wait in the kernel's neighbour queue until the router's address is known.
        run("ip neigh flush dev eth0");
        run(&format!("ip -n {name} link set g0 arp off"));
        let short = EchoPlan { count: 1, deadline: Duration::from_millis(100), ..plan() };
        let outcome = pinger.exchange(&short).await;
        let EchoOutcome::Silent(exchange) = outcome else { panic!("{outcome:?}") };
        let [Packet { sent, fate: Fate::Silent }] = exchange.packets[..] else {
            panic!("{exchange:?}")
        };
        run(&format!("ip -n {name} link set g0 arp on"));
        pinger.renew();
        let mut late = Vec::new();
        let give_up = tokio::time::Instant::now() + LATE_GRACE / 2;
        while !late.contains(&sent) && tokio::time::Instant::now() < give_up {
            match pinger.exchange(&plan()).await {
                EchoOutcome::Answered(exchange) | EchoOutcome::Silent(exchange) => {
                    late.extend(exchange.late_before);
                }
                other => panic!("{other:?}"),
            }
        }
        // Those of later exchanges may have waited for the same address.
        assert!(late.contains(&sent), "{late:?}");
    });
}

#[test]
fn an_interface_that_is_down_cannot_send() {
    in_namespace(|| async {
        let _router = router("down");
        let mut pinger = pinger(ROUTER);
        assert!(matches!(pinger.exchange(&plan()).await, EchoOutcome::Answered { .. }));
        run("ip link set eth0 down");
        assert!(matches!(pinger.exchange(&plan()).await, EchoOutcome::Unsendable(_)));
        run("ip link set eth0 up");
        run("ip addr flush dev eth0");
        assert!(matches!(pinger.exchange(&plan()).await, EchoOutcome::Unsendable(_)));
    });
}

/// eth0 here, two routers, and the target behind the second, in both families.
fn two_routers(name: &str) -> [Router; 2] {
    let names = ["a", "b"].map(|end| format!("hdway-{name}-{end}-{}", std::process::id()));
    let routers = names.clone().map(|name| {
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        for switch in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            run(&format!("ip netns exec {name} sysctl -qw {switch}=1"));
        }
        Router(name)
    });
    let [a, b] = &names;
    run(&format!("ip link add eth0 type veth peer name g0 netns {a}"));
    run(&format!("ip -n {a} link add c0 type veth peer name g0 netns {b}"));
    run("ip link set eth0 up");
    run(&format!("ip -n {a} link set g0 up"));
    run(&format!("ip -n {a} link set c0 up"));
    run(&format!("ip -n {b} link set g0 up"));
    for (own, first, between, second, target, network) in [
        (
            "198.18.10.10/24",
            "198.18.10.1/24",
            "198.18.99.1/24",
            "198.18.99.2/24",
            "198.18.0.10/32",
            "198.18.0.0/15",
        ),
        (
            "2001:db8:10::10/64",
            "2001:db8:10::1/64",
            "2001:db8:99::1/64",
            "2001:db8:99::2/64",
            "2001:db8::10/128",
            "2001:db8::/32",
        ),
    ] {
        let plain = |net: &str| net.split('/').next().unwrap().to_owned();
        let nodad = if own.contains(':') { "nodad" } else { "" };
        run(&format!("ip addr add {own} dev eth0 {nodad}"));
        run(&format!("ip -n {a} addr add {first} dev g0 {nodad}"));
        run(&format!("ip -n {a} addr add {between} dev c0 {nodad}"));
        run(&format!("ip -n {b} addr add {second} dev g0 {nodad}"));
        run(&format!("ip -n {b} addr add {target} dev lo"));
        run(&format!("ip route add {network} via {}", plain(first)));
        run(&format!("ip -n {a} route add {target} via {}", plain(second)));
        run(&format!("ip -n {b} route add {network} via {}", plain(between)));
    }
    routers
}

async fn way(target: &str, own: &str) -> Vec<Hop> {
    let binding = Binding { device: Some("eth0".into()), source: Some(own.parse().unwrap()) };
    match trace(&mut Pinger::new(target.parse().unwrap(), binding)).await {
        Trace::Hops(hops) => hops,
        other => panic!("{other:?}"),
    }
}

fn who(hops: &[Hop]) -> Vec<String> {
    let text = |hop: &Hop| match hop {
        Hop::Router { by, .. } => by.to_string(),
        Hop::Target { .. } => "target".into(),
        Hop::Refused { by, kind, code, .. } => format!("{by} refuses by {kind}/{code}"),
        Hop::Silent => "silent".into(),
    };
    hops.iter().map(text).collect()
}

#[test]
fn a_way_is_followed_hop_by_hop_in_both_families_until_its_end() {
    in_namespace(|| async {
        let [first, second] = &two_routers("ends");
        for (target, own, router) in [
            ("198.18.0.10", "198.18.10.10", "198.18.10.1"),
            ("2001:db8::10", "2001:db8:10::10", "2001:db8:10::1"),
        ] {
            let hops = way(target, own).await;
            assert_eq!(who(&hops), [router, "target"]);
            let is_timed = |hop: &Hop| match hop {
                Hop::Router { rtt, .. } | Hop::Target { rtt } => *rtt < Duration::from_secs(1),
                _ => false,
            };
            assert!(hops.iter().all(is_timed), "{hops:?}");
        }
        run(&format!("ip -n {} addr del 198.18.0.10/32 dev lo", second.0));
        run(&format!("ip -n {} route add prohibit 198.18.0.10/32", second.0));
        let refused = who(&way("198.18.0.10", "198.18.10.10").await);
        assert_eq!(refused, ["198.18.10.1", "198.18.99.2 refuses by 3/13"]);
        run(&format!("ip -n {} route replace blackhole 198.18.0.10/32", first.0));
        let silent = who(&way("198.18.0.10", "198.18.10.10").await);
        assert_eq!(silent.last().map(String::as_str), Some("silent"));
        assert!(silent.len() <= 4, "{silent:?}");
    });
}

/// Sits in the router, sees each request, and answers it wrongly in every way that a datagram
/// socket may see: another payload, another source, an error that quotes what was never sent, and
/// another identifier, which the kernel keeps to itself.
fn forge(router: &Router, requests: usize) {
    let namespace = std::fs::File::open(format!("/run/netns/{}", router.0)).unwrap();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    let raw = || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let (mut router, stranger) = (raw(), raw());
    stranger.bind(&SocketAddr::from(([198, 18, 99, 1], 0)).into()).unwrap();
    let agent = SocketAddr::new(OWN, 0).into();
    let mut seen = 0;
    while seen < requests {
        let mut bytes = [0; 256];
        let length = router.read(&mut bytes).unwrap();
        // Behind an IPv4 header of 20 bytes; what is not an echo request is our own forgery.
        let request = &bytes[20..length];
        if request[0] != 8 {
            continue;
        }
        seen += 1;
        let reply = |change: fn(&mut Vec<u8>)| {
            let mut packet = request.to_vec();
            packet[0] = 0;
            change(&mut packet);
            with_checksum(packet)
        };
        router.send_to(&reply(|packet| packet[9] ^= 1), &agent).unwrap();
        router.send_to(&reply(|packet| packet[7] ^= 0x80), &agent).unwrap();
        router.send_to(&reply(|packet| packet[5] ^= 1), &agent).unwrap();
        stranger.send_to(&reply(|_| {}), &agent).unwrap();
        let mut error = vec![3, 0, 0, 0, 0, 0, 0, 0];
        error.extend_from_slice(&bytes[..length]);
        // The quoted request has another nonce.
        error[8 + 20 + 8] ^= 1;
        router.send_to(&with_checksum(error), &agent).unwrap();
    }
}

/// RFC 1071, over an ICMP packet.
fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    packet[2..4].fill(0);
    let words = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

#[test]
fn forged_replies_and_errors_prove_nothing_and_are_counted() {
    in_namespace(|| async {
        let router = router("forged");
        run(&format!("ip -n {} addr add 198.18.99.1/32 dev lo", router.0));
        run(&format!("ip netns exec {} sysctl -qw net.ipv4.icmp_echo_ignore_all=1", router.0));
        let name = router.0.clone();
        let forger = std::thread::spawn(move || {
            // Ends with its thread; the namespace is the test's to delete.
            forge(&std::mem::ManuallyDrop::new(Router(name)), 3);
        });
        let mut pinger = pinger(ROUTER);
        // The forger may not listen yet: what it never saw, it forged nothing about.
        let mut ignored = Ignored::default();
        let give_up = tokio::time::Instant::now() + Duration::from_secs(10);
        while !forger.is_finished() && tokio::time::Instant::now() < give_up {
            let outcome = pinger.exchange(&plan()).await;
            let EchoOutcome::Silent(exchange) = outcome else { panic!("{outcome:?}") };
            assert!(exchange.packets.iter().all(|packet| packet.fate == Fate::Silent));
            assert_eq!(exchange.late_before, []);
            ignored += exchange.ignored;
        }
        forger.join().unwrap();
        // Another payload, another sequence number, another source; and the errors.
        assert_eq!(ignored, Ignored { replies: 9, errors: 3 });
        run(&format!("ip netns exec {} sysctl -qw net.ipv4.icmp_echo_ignore_all=0", router.0));
        assert!(matches!(pinger.exchange(&plan()).await, EchoOutcome::Answered(_)));
    });
}
