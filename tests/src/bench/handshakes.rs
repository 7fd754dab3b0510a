//! Handshakes for a processor second of the server: full ones, and resumed ones by a ticket. A
//! handshake is over when its ticket has come; then the client leaves. What the server does to
//! accept, begin HTTP/2 and close is in the figure.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use super::pushgateway::{Mode, Pushgateway};
use super::raw_tls::RawTls;
use super::tls::{TlsFiles, source};
use super::{Figure, Floor, Row};
use crate::cost::Cost;
use crate::load::World;
use crate::target::Target;

/// Clients that make one handshake after the other.
const CLIENTS: usize = 8;
/// Full and resumed: 300 and 150 µs.
const TARGETS: [Target; 2] = {
    let why = "most of it is TLS itself, see the floor";
    [Target::at_least(3_300.0).missed_because(why), Target::at_least(6_600.0).missed_because(why)]
};
/// One step of a handshake on a busy machine.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// Tickets that a client keeps.
const TICKETS_MAX: usize = 8;

/// One client.
#[derive(Clone)]
struct Visitor {
    source: Ipv4Addr,
    tls: ClientConfig,
}

/// Measures at each number of handshakes.
///
/// # Errors
/// When a handshake fails, or is not of its kind, or a program does not start.
pub async fn run(handshakes: &[usize]) -> Result<Figure> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let files = TlsFiles::make(directory.path())?;
    let (strangers, of_http) = (visitors(&files, None)?, visitors(&files, Some("http/1.1"))?);
    let mut rows = Vec::new();
    for n in handshakes {
        let mut world = World::start(CLIENTS).await?;
        let agents = std::mem::take(&mut world.agents);
        let agents =
            agents.iter().map(|agent| Ok(Visitor { source: agent.source, tls: agent.tls()? }));
        let agents: Vec<_> = agents.collect::<Result<_>>()?;
        let own = both(world.address(), world.pid(), &agents, *n)?;
        world.stop().await?;
        let raw = RawTls::start(&files, directory.path()).await?;
        let floor = both(raw.address, raw.process.pid(), &strangers, *n)?;
        drop(raw);
        let gateway = Pushgateway::start(&Mode::Tls(&files), directory.path()).await?;
        let peer = both(gateway.address, gateway.process.pid(), &of_http, *n)?;
        drop(gateway);
        for (kind, quantity) in
            ["full handshakes / CPU-s", "resumed handshakes / CPU-s"].into_iter().enumerate()
        {
            rows.push(Row {
                quantity,
                n: *n,
                value: own[kind],
                target: TARGETS[kind],
                floor: Floor::Measured(floor[kind], "raw TLS, the most"),
                peer: Some((peer[kind], String::new())),
            });
        }
    }
    Ok(Figure {
        title: "Handshakes",
        size: "handshakes",
        peer: "Pushgateway 1.5.1, mTLS of Go 1.19",
        notes: format!(
            "Mutual TLS 1.3 with P-256 certificates; every handshake was checked to be full or \
             resumed. {CLIENTS} clients, one handshake after the other each, over as soon as its \
             ticket has come; accept, HTTP/2's beginning and close are in the figure. The design \
             asks for no number; what it measured without them is 208 µs full (232 with \
             X25519MLKEM768, which product and raw server agree on here; Go 1.19 has only X25519) \
             and 96–121 µs resumed, and the target stands at a quarter over that. More is better."
        ),
        rows,
    })
}

/// Clients of the peers, with the protocol that they ask for.
fn visitors(files: &TlsFiles, protocol: Option<&str>) -> Result<Vec<Visitor>> {
    let mut tls = files.client()?;
    tls.alpn_protocols = protocol.into_iter().map(|name| name.as_bytes().to_vec()).collect();
    (0..CLIENTS).map(|at| Ok(Visitor { source: source(at)?, tls: tls.clone() })).collect()
}

/// Full and resumed handshakes for a processor second of the process.
fn both(address: SocketAddr, pid: u32, visitors: &[Visitor], n: usize) -> Result<[f64; 2]> {
    let mut figures = [0.0; 2];
    for (figure, expected) in figures.iter_mut().zip([HandshakeKind::Full, HandshakeKind::Resumed])
    {
        let mut visitors = visitors.to_vec();
        for visitor in &mut visitors {
            match expected {
                HandshakeKind::Resumed => {
                    visitor.tls.resumption = Resumption::in_memory_sessions(TICKETS_MAX);
                    handshake(visitor, &Arc::new(visitor.tls.clone()), address)?;
                }
                _ => visitor.tls.resumption = Resumption::disabled(),
            }
        }
        let before = Cost::of(pid)?.cpu;
        let clients: Vec<_> = (0..n.min(visitors.len()))
            .map(|first| {
                let (visitor, turns) =
                    (visitors[first].clone(), (first..n).step_by(visitors.len()));
                thread::spawn(move || {
                    let tls = Arc::new(visitor.tls.clone());
                    for _ in turns {
                        let kind = handshake(&visitor, &tls, address)?;
                        let is_expected = (kind == HandshakeKind::Resumed)
                            == (expected == HandshakeKind::Resumed);
                        ensure!(is_expected, "a handshake was {kind:?} and not {expected:?}");
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for client in clients {
            let Ok(done) = client.join() else { bail!("a client panicked") };
            done?;
        }
        let cpu = Cost::of(pid)?.cpu.saturating_sub(before);
        ensure!(!cpu.is_zero(), "{n} handshakes are too few to be measured; ask for more");
        *figure = n as f64 / cpu.as_secs_f64();
    }
    Ok(figures)
}

/// One handshake, until its ticket has come.
fn handshake(
    visitor: &Visitor,
    tls: &Arc<ClientConfig>,
    address: SocketAddr,
) -> Result<HandshakeKind> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((visitor.source, 0)).into())?;
    socket.connect(&address.into()).with_context(|| format!("connect to {address}"))?;
    let mut socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(STEP_TIMEOUT))?;
    let name = ServerName::IpAddress(address.ip().into());
    let mut session = ClientConnection::new(Arc::clone(tls), name)?;
    while session.is_handshaking() {
        session.complete_io(&mut socket).context("shake hands")?;
    }
    while session.tls13_tickets_received() == 0 {
        ensure!(session.read_tls(&mut socket)? > 0, "the server closed without a ticket");
        session.process_new_packets()?;
    }
    session.handshake_kind().context("a handshake that is over has a kind")
}
