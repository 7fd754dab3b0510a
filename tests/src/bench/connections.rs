//! What an idle connection holds of the server's memory: an agent that has reported once and
//! waits. Beside it raw TLS, and the Pushgateway with an idle HTTP connection over the same mTLS.

use std::time::Duration;

use anyhow::{Context, Result};

use super::pushgateway::{Mode, Pushgateway};
use super::raw_tls::{FRAME, RawTls};
use super::tls::{TlsFiles, hold};
use super::{Figure, Floor, Row};
use crate::cost::{Cost, proportional_bytes};
use crate::load::World;
use crate::target::Target;

/// A server that frees or writes something after its last connection has done so by then.
const SETTLE: Duration = Duration::from_secs(3);

/// Memory for a connection.
#[derive(Debug, Clone, Copy)]
struct PerConnection {
    resident_kib: f64,
    proportional_kib: f64,
}

const TARGET: Target = Target::at_most(32.0)
    .noting(", stretch 24")
    .missed_because("of it 28 are fixed buffers of the HTTP/2 library");

/// Measures at each number of connections.
///
/// # Errors
/// When a connection cannot be made, or a program does not start.
pub async fn run(connections: &[usize]) -> Result<Figure> {
    let mut rows = Vec::new();
    for n in connections {
        let own = product(*n).await?;
        let floor = raw(*n).await?;
        let peer = pushgateway(*n).await?;
        let row = |quantity, of: fn(PerConnection) -> f64| Row {
            quantity,
            n: *n,
            value: of(own),
            target: TARGET,
            floor: Floor::Measured(of(floor), "raw TLS"),
            peer: Some((of(peer), String::new())),
        };
        rows.push(row("RSS KiB / idle connection", |each| each.resident_kib));
        rows.push(row("PSS KiB / idle connection", |each| each.proportional_kib));
    }
    Ok(Figure {
        title: "Memory of idle connections",
        size: "connections",
        peer: "Pushgateway 1.5.1, mTLS",
        notes: "Growth of the server's memory (`VmRSS`, and `Pss` of `smaps_rollup`) from before \
                the first connection to 3 s after the last, divided by the connections. An agent \
                has sent one full report with its host's facts, and its state in fleet and \
                snapshots is in the figure. The raw TLS server holds the TLS session and a buffer \
                of 1 KiB. The peer has answered one request a connection. The kernel's memory of \
                sockets is in none."
            .into(),
        rows,
    })
}

async fn product(n: usize) -> Result<PerConnection> {
    let mut world = World::start(n).await?;
    let pid = world.pid();
    let before = memory(pid)?;
    let clients = world.connect().await?;
    let each = per_connection(pid, before, n).await?;
    drop(clients);
    world.stop().await?.close().context("remove the collector's directory")?;
    Ok(each)
}

async fn raw(n: usize) -> Result<PerConnection> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let files = TlsFiles::make(directory.path())?;
    let server = RawTls::start(&files, directory.path()).await?;
    let pid = server.process.pid();
    let before = memory(pid)?;
    let held = hold(server.address, files.client()?, n, FRAME).await?;
    let each = per_connection(pid, before, n).await;
    drop(held);
    each
}

async fn pushgateway(n: usize) -> Result<PerConnection> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let files = TlsFiles::make(directory.path())?;
    let gateway = Pushgateway::start(&Mode::Tls(&files), directory.path()).await?;
    let pid = gateway.process.pid();
    let before = memory(pid)?;
    let request = b"GET /-/healthy HTTP/1.1\r\nHost: pushgateway\r\n\r\n";
    let held = hold(gateway.address, files.client()?, n, request).await?;
    let each = per_connection(pid, before, n).await;
    drop(held);
    each
}

fn memory(pid: u32) -> Result<(u64, u64)> {
    Ok((Cost::of(pid)?.resident_bytes, proportional_bytes(pid)?))
}

async fn per_connection(pid: u32, before: (u64, u64), n: usize) -> Result<PerConnection> {
    tokio::time::sleep(SETTLE).await;
    let after = memory(pid)?;
    let kib = |before: u64, after: u64| after.saturating_sub(before) as f64 / 1_024.0 / n as f64;
    Ok(PerConnection {
        resident_kib: kib(before.0, after.0),
        proportional_kib: kib(before.1, after.1),
    })
}
