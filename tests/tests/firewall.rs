//! What the posture check says of a ruleset is what the kernel does with a stranger's packets.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use haidang_agent::posture::listeners::Transport;
use haidang_agent::posture::netfilter::{Family, Reach, Ruleset, parse, record};
use haidang_tests::netns::{Netns, prepare, unique_prefix};

/// Ports at which the machine listens, over both transports and families.
const PORTS: [u16; 5] = [22, 80, 443, 5000, 5001];
const MACHINE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 200, 0, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 1)),
];
/// What gets in does so at once; on a busy machine it may take its time.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// What has not got in by then is refused.
const REFUSED_AFTER: Duration = Duration::from_millis(300);

/// Rulesets of an input chain that refuses what no rule lets in, and how many of the ports each
/// lets in (TCP and UDP, both families: of twenty).
const RULESETS: [(&str, usize); 17] = [
    ("", 0),
    ("tcp dport { 80, 443 } accept", 4),
    ("tcp dport != { 22, 80 } accept", 6),
    ("tcp dport { 80, 4000-5000 } accept", 4),
    ("tcp dport { 5001-65535 } accept", 2),
    ("tcp dport @open accept", 4),
    ("udp dport @ranges accept", 6),
    ("tcp dport @nothing accept", 0),
    ("tcp dport vmap { 22 : accept, 80 : drop, 443 : jump web }", 4),
    ("tcp dport vmap { 0-100 : accept, 101-443 : drop, 444-5000 : goto web, * : accept }", 8),
    (
        "ct state vmap { established : accept, related : accept, invalid : drop }\nth dport 22 accept",
        4,
    ),
    ("meta l4proto { tcp, udp } th dport 80 accept", 4),
    ("meta l4proto . th dport { tcp . 80, udp . 443, udp . 5000-5001 } accept", 8),
    ("meta l4proto . th dport { tcp . 80, udp . 443 } accept", 4),
    ("meta nfproto ipv6 tcp dport { 22, 80 } accept\ncounter name seen", 2),
    ("tcp dport { 80, 443 } reject with tcp reset\nmeta l4proto tcp accept", 6),
    ("iifname { \"lo\" } accept\nudp dport 22 accept", 2),
];

/// Rulesets of which something is not read, and what.
const UNREAD: [(&str, &str); 6] = [
    ("ip saddr . tcp dport { 10.200.0.9 . 80 } accept", "source address"),
    ("ip saddr { 10.200.0.0/30, 10.200.0.9 } tcp dport 80 accept", "set"),
    ("iifname vmap { \"lan\" : accept, \"lo\" : accept }", "map"),
    ("tcp dport 80 limit name \"slow\" accept", "limit"),
    ("tcp dport @slowly accept", "limit in a set"),
    ("iifname { \"lan\", \"lo\" } tcp dport 80 accept", "interface"),
];

struct Machine {
    netns: Netns,
    stranger: Netns,
    streams: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
}

impl Machine {
    fn create() -> Result<Self> {
        prepare()?;
        let prefix = unique_prefix();
        let netns = Netns::create(format!("{prefix}machine"))?;
        let stranger = Netns::create(format!("{prefix}stranger"))?;
        netns.speak_v6()?;
        stranger.speak_v6()?;
        netns.ip(&format!("link add lan type veth peer name lan netns {}", stranger.name()))?;
        for (side, number) in [(&netns, 1), (&stranger, 2)] {
            side.ip(&format!(
                "addr add 10.200.0.{number}/24 dev lan\n\
                 addr add fd00:200::{number}/64 dev lan nodad\nlink set lan up"
            ))?;
        }
        let (streams, datagrams) = netns.inside(|| -> Result<_> {
            let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
            for address in
                MACHINE.iter().flat_map(|ip| PORTS.map(|port| SocketAddr::new(*ip, port)))
            {
                let waiting = || format!("listen at {address}");
                streams.push(TcpListener::bind(address).with_context(waiting)?);
                let socket = UdpSocket::bind(address).with_context(waiting)?;
                socket.set_nonblocking(true)?;
                datagrams.push(socket);
            }
            Ok((streams, datagrams))
        })??;
        ensure!(streams.len() == 10 && datagrams.len() == 10, "not everything listens");
        Ok(Self { netns, stranger, streams, datagrams })
    }

    /// Loads rules, and reads them back as the agent does.
    fn load(&self, rules: &str) -> Result<Ruleset> {
        self.netns.nft(&format!(
            "flush ruleset\ntable inet filter {{\n\
             set open {{ type inet_service; elements = {{ 80, 5001 }} }}\n\
             set ranges {{ type inet_service; flags interval; auto-merge; \
             elements = {{ 22, 5000, 5001 }} }}\n\
             set nothing {{ type inet_service; }}\n\
             set slowly {{ type inet_service; limit rate 1/minute; elements = {{ 80 }} }}\n\
             counter seen {{ }}\n\
             limit slow {{ rate 1/minute }}\n\
             chain web {{ accept\n}}\n\
             chain input {{ type filter hook input priority 0; policy drop;\n\
             meta l4proto ipv6-icmp accept\n\
             {rules}\n}}\n}}"
        ))?;
        let bytes = self.netns.inside(record)?.map_err(|unknown| anyhow::anyhow!("{unknown}"))?;
        parse(&bytes).map_err(|unknown| anyhow::anyhow!("{unknown}"))
    }

    /// Every port in every way, and what the ruleset says of it.
    fn doors(ruleset: &Ruleset) -> Vec<(SocketAddr, Transport, Reach)> {
        let mut doors = Vec::new();
        for (ip, family) in MACHINE.into_iter().zip([Family::V4, Family::V6]) {
            for port in PORTS {
                for transport in [Transport::Tcp, Transport::Udp] {
                    let reach = ruleset.reach(family, transport, port);
                    doors.push((SocketAddr::new(ip, port), transport, reach));
                }
            }
        }
        doors
    }

    /// Whether a stranger gets in within a time.
    fn gets_in(&self, to: SocketAddr, transport: Transport, within: Duration) -> Result<bool> {
        match transport {
            Transport::Tcp => {
                self.stranger.inside(|| match TcpStream::connect_timeout(&to, within) {
                    Ok(_) => Ok(true),
                    Err(error) if error.kind() == ErrorKind::TimedOut => Ok(false),
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
                    Err(error) => Err(error).with_context(|| format!("connect to {to}")),
                })?
            }
            Transport::Udp => self.receives(to, within),
        }
    }

    fn receives(&self, to: SocketAddr, within: Duration) -> Result<bool> {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let from = self.stranger.inside(|| UdpSocket::bind(any))??;
        let is_it = |socket: &&UdpSocket| socket.local_addr().is_ok_and(|own| own == to);
        let socket = self.datagrams.iter().find(is_it).context("no such socket")?;
        let until = Instant::now() + within;
        while Instant::now() < until {
            from.send_to(b"?", to)?;
            thread::sleep(Duration::from_millis(20));
            match socket.recv(&mut [0; 1]) {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

#[test]
fn what_is_said_of_a_port_is_what_the_kernel_does() -> Result<()> {
    let machine = Machine::create()?;
    for (rules, open_expected) in RULESETS {
        let doors = Machine::doors(&machine.load(rules)?);
        let open = doors.iter().filter(|(.., reach)| *reach == Reach::Open).count();
        ensure!(open == open_expected, "{rules}: {open} open of {doors:?}");
        thread::scope(|scope| {
            let knocks: Vec<_> = doors
                .iter()
                .map(|(to, transport, reach)| {
                    let machine = &machine;
                    scope.spawn(move || match reach {
                        Reach::Open => machine.gets_in(*to, *transport, OPEN_WITHIN),
                        Reach::Refused => Ok(!machine.gets_in(*to, *transport, REFUSED_AFTER)?),
                        Reach::Unread(kind) => bail!("depends on {kind}"),
                    })
                })
                .collect();
            for (knock, (to, transport, reach)) in knocks.into_iter().zip(&doors) {
                let is_so = knock.join().expect("a knock does not panic");
                let door = format!("{rules}: {} {to} {reach:?}", transport.as_str());
                ensure!(is_so.with_context(|| door.clone())?, "not so: {door}");
            }
            Ok(())
        })?;
    }
    ensure!(!machine.streams.is_empty());
    Ok(())
}

#[test]
fn what_depends_on_more_than_the_port_is_unknown_and_names_it() -> Result<()> {
    let machine = Machine::create()?;
    for (rules, expected) in UNREAD {
        let ruleset = machine.load(rules)?;
        let reach = ruleset.reach(Family::V4, Transport::Tcp, 80);
        ensure!(reach == Reach::Unread(expected), "{rules}: {reach:?}");
    }
    Ok(())
}
