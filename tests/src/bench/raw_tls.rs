//! The floor: a server that does nothing but mTLS and answers each frame with bytes, without
//! HTTP/2, gRPC, authorization or state. It runs as a process of its own
//! (`haidang-bench raw-tls`), on the same runtime as the collector.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::tls::{PEER, TlsFiles};
use crate::binaries;
use crate::collector::free_port;
use crate::program::Program;
use crate::wait;

/// A frame, whatever its length: it is read at once, as a report is.
const FRAME_BYTES_MAX: usize = 1_024;
/// Bytes of an answer to a report, its HTTP/2 frames included.
pub(super) const ANSWER: &[u8] = &[7; 48];
/// A healthy agent's report, its HTTP/2 frames included, once both sides know the headers.
pub(super) const FRAME: &[u8] = &[7; 182];
/// Start of a program without state.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The server, running.
pub(super) struct RawTls {
    pub(super) process: Program,
    pub(super) address: SocketAddr,
}

impl RawTls {
    pub(super) async fn start(files: &TlsFiles, directory: &Path) -> Result<Self> {
        let address = free_port(PEER)?;
        let mut command = Command::new(binaries::program("haidang-bench")?);
        command.arg("raw-tls").arg("--listen").arg(address.to_string());
        command.arg("--certificates").arg(files.path(""));
        let mut process = Program::start("raw-tls", &mut command, directory)?;
        let listens = wait::until("the raw TLS server", START_TIMEOUT, || {
            let running = process.check_running().map_err(|error| error.to_string());
            async move {
                running?;
                TcpStream::connect(address).await.map_err(|error| error.to_string())
            }
        });
        listens.await?;
        Ok(Self { process, address })
    }
}

/// Serves until it is killed.
///
/// # Errors
/// When it cannot listen, or the certificates cannot be read.
pub async fn serve(address: SocketAddr, certificates: &Path) -> Result<()> {
    let tls = TlsAcceptor::from(Arc::new(TlsFiles::at(certificates).server()?));
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("listen on {address}"))?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept a connection")?;
                connections.spawn(answer(tls.clone(), stream));
            }
            // A client that leaves, even in the midst of its handshake, is nobody's fault.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(tls: TlsAcceptor, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = tls.accept(stream).await?;
    loop {
        let mut frame = [0; FRAME_BYTES_MAX];
        if stream.read(&mut frame).await? == 0 {
            return Ok(());
        }
        stream.write_all(ANSWER).await?;
        stream.flush().await?;
    }
}
