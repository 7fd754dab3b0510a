//! The kernel's view in network namespaces of the tests' own. Needs root and iproute2, and says
//! so.

#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use haidang_agent::clock::Clock;
use haidang_agent::config::{Dedicated, InterfaceSelector};
use haidang_agent::evidence::{
    Address, Forwarding, Interface, Joint, Neighbour, RouteLookup, Surroundings,
};
use haidang_agent::link::{Changes, Kernel};
use haidang_agent::schedule::{EchoTrust, Mode, Outlook, PathMtuDoubt, Schedule};
use haidang_proto::model::settings::Settings;
use nix::sched::{CloneFlags, unshare};

const ANCHOR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 10));
const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 10, 10));
const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 10, 1));

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}

/// eth0 and its peer g0, eth1 and its peer i0, all in one fresh namespace: enough for the
/// kernel's own view.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("network namespaces need root: run as root");
        for command in [
            "ip link set lo up",
            "ip link add eth0 type veth peer name g0",
            "ip link add eth1 type veth peer name i0",
            "ip link set g0 up",
            "ip link set i0 up",
            "ip link set eth0 up",
            "ip addr add 198.18.10.10/24 dev eth0",
            "ip route add 198.18.0.0/15 via 198.18.10.1 dev eth0",
        ] {
            run(command);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    thread.join().unwrap();
}

fn dedicated() -> Dedicated {
    Dedicated {
        interface: InterfaceSelector::Name("eth0".into()),
        local_prefixes: vec!["198.18.10.0/24".parse().unwrap()],
        network_prefixes: vec!["198.18.0.0/15".parse().unwrap()],
        gateways: vec![GATEWAY],
    }
}

async fn look(kernel: &mut Kernel) -> (Interface, Address, RouteLookup, Surroundings) {
    let link = kernel.snapshot(&dedicated(), &[ANCHOR]).await.link;
    let route = link.routes.into_iter().next().unwrap();
    assert_eq!(route.target, ANCHOR);
    (link.interface, link.address, route.lookup, link.surroundings.unwrap())
}

#[test]
fn each_loss_shows_where_it_happened() {
    in_namespace(|| async {
        let mut kernel = Kernel::new();
        let name = || "eth0".to_owned();
        let dedicated = RouteLookup::Dedicated { via: Some(GATEWAY) };
        let (interface, address, route, around) = look(&mut kernel).await;
        assert!(matches!(interface, Interface::Up { .. }), "{interface:?}");
        assert_eq!((address, &route), (Address::Present(OWN), &dedicated));
        assert_eq!((around.joints, around.unread), (vec![], vec![]));
        assert_eq!(around.other_routed_interfaces, [""; 0]);

        // The peer goes: the route stays, marked linkdown.
        run("ip link set g0 down");
        let (interface, address, route, _) = look(&mut kernel).await;
        assert_eq!(interface, Interface::NoCarrier { name: name() });
        assert_eq!((address, &route), (Address::Present(OWN), &dedicated));
        run("ip link set g0 up");

        run("ip route del 198.18.0.0/15");
        assert_eq!(look(&mut kernel).await.2, RouteLookup::None);
        run("ip route add blackhole 198.18.0.0/24");
        assert_eq!(look(&mut kernel).await.2, RouteLookup::None);
        run("ip route del blackhole 198.18.0.0/24");

        run("ip addr add 203.0.113.10/24 dev eth1");
        run("ip link set eth1 up");
        run("ip route add default via 203.0.113.1 dev eth1");
        let (_, _, route, around) = look(&mut kernel).await;
        assert_eq!(route, RouteLookup::Elsewhere { interface: "eth1".into() });
        assert_eq!(around.other_routed_interfaces, ["eth1"]);

        run("ip addr flush dev eth0");
        run("ip addr add 192.0.2.7/24 dev eth0");
        let others = vec![IpAddr::from([192, 0, 2, 7])];
        assert_eq!(look(&mut kernel).await.1, Address::Absent { others });

        run("ip link set eth0 down");
        assert_eq!(look(&mut kernel).await.0, Interface::AdminDown { name: name() });
        run("ip link del eth0");
        assert_eq!(look(&mut kernel).await.0, Interface::Missing);
    });
}

/// What joins the dedicated network to another now.
async fn joints(kernel: &mut Kernel) -> Vec<Joint> {
    let around = look(kernel).await.3;
    assert_eq!(around.unread, []);
    around.joints
}

/// A second way, by eth1.
fn online() {
    run("ip addr add 203.0.113.10/24 dev eth1");
    run("ip link set eth1 up");
    run("ip route add default via 203.0.113.1 dev eth1");
}

#[test]
fn forwarding_joins_in_either_direction_and_family_only_where_there_is_another_network() {
    in_namespace(|| async {
        let mut kernel = Kernel::new();
        let by =
            |v4, v6| Joint::Forwarding { with: "eth1".into(), forwarding: Forwarding { v4, v6 } };
        run("sysctl -qw net.ipv4.conf.eth0.forwarding=1");
        let around = look(&mut kernel).await.3;
        assert_eq!(around.forwarding, Forwarding { v4: true, v6: false });
        assert_eq!(around.joints, [], "eth1 leads nowhere yet");
        online();
        assert_eq!(joints(&mut kernel).await, [by(true, false)]);
        run("sysctl -qw net.ipv4.conf.eth0.forwarding=0");
        assert_eq!(joints(&mut kernel).await, []);
        run("sysctl -qw net.ipv4.conf.eth1.forwarding=1");
        assert_eq!(joints(&mut kernel).await, [by(true, false)]);
        run("sysctl -qw net.ipv4.conf.eth1.forwarding=0");
        run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        assert_eq!(joints(&mut kernel).await, [], "neither side has IPv6");
        run("ip addr add 2001:db8:18::10/64 dev eth0 nodad");
        run("ip addr add 2001:db8:ff::10/64 dev eth1 nodad");
        assert_eq!(joints(&mut kernel).await, [by(false, true)]);
    });
}

#[test]
fn a_shared_bridge_joins_and_a_lone_port_does_not() {
    in_namespace(|| async {
        let mut kernel = Kernel::new();
        run("ip link add br0 type bridge");
        run("ip link set eth0 master br0");
        assert_eq!(joints(&mut kernel).await, []);
        run("ip link set eth1 master br0");
        let joint = Joint::Bridge { bridge: "br0".into(), with: "eth1".into() };
        assert_eq!(joints(&mut kernel).await, [joint]);
    });
}

#[test]
fn a_proxy_on_the_dedicated_side_joins_once_there_is_a_way_out() {
    in_namespace(|| async {
        let mut kernel = Kernel::new();
        let proxy = std::net::TcpListener::bind("0.0.0.0:3128").unwrap();
        let _local = std::net::TcpListener::bind("127.0.0.1:1080").unwrap();
        assert_eq!(joints(&mut kernel).await, []);
        online();
        assert_eq!(joints(&mut kernel).await, [Joint::Proxy { port: 3128 }]);
        drop(proxy);
        // A child of another test holds the socket between its fork and its exec.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !joints(&mut kernel).await.is_empty() {
            assert!(Instant::now() < deadline, "the proxy is gone and still joins");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn tunnels_that_carry_something_join_unless_they_end_in_the_network() {
    in_namespace(|| async {
        let mut kernel = Kernel::new();
        let kinds = [
            ("tun", "ip tuntap add t0 mode tun"),
            ("tap", "ip tuntap add t0 mode tap"),
            ("wireguard", "ip link add t0 type wireguard"),
            ("gre", "ip link add t0 type gre remote 203.0.113.9 local 198.18.10.10"),
            ("ipip", "ip link add t0 type ipip remote 203.0.113.9 local 198.18.10.10"),
            ("sit", "ip link add t0 type sit remote 203.0.113.9 local 198.18.10.10"),
            ("vxlan", "ip link add t0 type vxlan id 7 remote 203.0.113.9 dstport 4789 dev eth0"),
        ];
        for (kind, command) in kinds {
            let mut words = command.split_whitespace();
            let mut add = Command::new(words.next().unwrap());
            if !add.args(words).status().unwrap().success() {
                // This kernel lacks the kind, which the table of the decoder covers.
                assert!(!["tun", "tap"].contains(&kind), "the test needs /dev/net/tun");
                continue;
            }
            run("ip link set t0 up");
            assert_eq!(joints(&mut kernel).await, [], "{kind} carries nothing yet");
            run("ip addr add 10.8.0.2/24 dev t0");
            let joint = Joint::Tunnel { interface: "t0".into() };
            assert_eq!(joints(&mut kernel).await, [joint], "{kind}");
            run("ip link set t0 down");
            assert_eq!(joints(&mut kernel).await, [], "{kind} is down");
            run("ip link del t0");
        }
        let inside = "ip link add t0 type ipip remote 198.18.99.9 local 198.18.10.10";
        if Command::new("sh").args(["-c", inside]).status().unwrap().success() {
            run("ip addr add 10.8.0.2/24 dev t0");
            run("ip link set t0 up");
            assert_eq!(joints(&mut kernel).await, []);
        }
    });
}

#[test]
fn neighbours_are_known_unresolved_or_absent() {
    in_namespace(|| async {
        let mut kernel = Kernel::new();
        let snapshot = kernel.snapshot(&dedicated(), &[ANCHOR]).await;
        let index = snapshot.index.unwrap();
        assert_eq!(kernel.neighbours(index, &[GATEWAY]).await, [Neighbour::Absent]);
        run("ip neigh add 198.18.10.1 lladdr 02:00:00:00:00:01 dev eth0");
        run("ip neigh add 198.18.10.2 dev eth0 nud failed");
        let known = kernel.neighbours(index, &[GATEWAY, [198, 18, 10, 2].into()]).await;
        assert_eq!(known, [Neighbour::Known, Neighbour::Unresolved]);
    });
}

#[test]
fn more_routes_than_allowed_leave_the_surroundings_unknown() {
    in_namespace(|| async {
        let batch: String = (0..10_100)
            .map(|n| format!("route add 10.{}.{}.0/24 via 198.18.10.1\n", n / 256, n % 256))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        run(&format!("ip -batch {}", file.path().display()));
        let link = Kernel::new().snapshot(&dedicated(), &[ANCHOR]).await.link;
        assert!(link.surroundings.is_err());
        assert!(matches!(link.interface, Interface::Up { .. }));
        assert!(matches!(link.routes[0].lookup, RouteLookup::Dedicated { .. }));
    });
}

#[test]
fn changes_wake_and_an_overrun_wakes_too() {
    in_namespace(|| async {
        let mut changes = Changes::subscribe().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(50), changes.next()).await;
        assert!(quiet.is_err(), "nothing has changed");
        for command in
            ["ip link set eth0 down", "ip link set eth0 up", "ip addr add 198.18.10.11/24 dev eth0"]
        {
            run(command);
            tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap();
        }
        let batch: String = (0..4_000)
            .map(|n| format!("route add 10.{}.{}.0/24 dev g0\n", n / 256, n % 256))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        run(&format!("ip -batch {}", file.path().display()));
        tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap();
    });
}

/// The observer's loop around schedule and kernel, with the dump for a cycle.
#[test]
fn an_interface_that_flaps_ten_times_a_second_costs_a_bounded_number_of_cycles() {
    in_namespace(|| async {
        let settings = Settings {
            probe_period: Duration::from_secs(2),
            confirm_period: Duration::from_millis(500),
            ..Settings::default()
        };
        let clock = Clock::new();
        let (mut kernel, mut changes) = (Kernel::new(), Changes::subscribe().unwrap());
        let mut schedule =
            Schedule::new(settings, Duration::from_secs(300), b"an agent", clock.boottime());
        let outlook = Outlook {
            mode: Mode::Confirm,
            echo: EchoTrust::Trusted,
            path_mtu: PathMtuDoubt::Settled,
        };
        let batch: String = (0..15).map(|_| "link set eth0 down\nlink set eth0 up\n").collect();
        let flapper = tokio::task::spawn_blocking(move || {
            for line in batch.lines() {
                run(&format!("ip {line}"));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let (began, mut cycles, mut events) = (clock.boottime(), 0_u32, 0_u32);
        while !flapper.is_finished() {
            let wait = schedule.next().saturating_sub(clock.boottime());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                woken = changes.next() => {
                    woken.unwrap();
                    events += 1;
                    schedule.kernel_event(clock.boottime());
                    continue;
                }
            }
            schedule.begin(clock.boottime());
            look(&mut kernel).await;
            cycles += 1;
            schedule.finish(outlook, clock.boottime(), 0);
        }
        flapper.await.unwrap();
        let periods = (clock.boottime() - began).as_millis() / 500;
        assert!(events >= 30, "only {events} events came");
        assert!(u128::from(cycles) <= periods + 1, "{cycles} cycles in {periods} periods");
        assert!(cycles >= 2, "the changes were looked at");
    });
}
