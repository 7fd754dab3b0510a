//! The peer of durable records: Debian's Redis with an append-only file that is synced before
//! every answer, which also syncs once for whatever waits together.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::tls::PEER;
use crate::collector::free_port;
use crate::cost::Cost;
use crate::program::Program;
use crate::wait;

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// From an acknowledgement to the next record of the client that has one at a time.
const LONE_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Redis {
    process: Program,
    address: SocketAddr,
}

/// What it acknowledged.
pub(super) struct Appended {
    pub(super) records: usize,
    pub(super) elapsed: Duration,
    /// Of each batch, shortest first.
    pub(super) latencies: Vec<Duration>,
    /// Of each record of the client that has one at a time, shortest first.
    pub(super) lone: Vec<Duration>,
    /// Its processor time.
    pub(super) cpu: Duration,
}

impl Appended {
    pub(super) fn per_second(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }
}

impl Redis {
    pub(super) async fn start(directory: &Path) -> Result<Self> {
        let address = free_port(PEER)?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .args(["--auto-aof-rewrite-percentage", "0", "--dir"])
            .arg(directory);
        let process = Program::start("redis", &mut command, directory);
        let mut process = process.context("apt-get install redis-server")?;
        let listens = wait::until("a listening Redis", START_TIMEOUT, || {
            let running = process.check_running().map_err(|error| error.to_string());
            async move {
                running?;
                TcpStream::connect(address).await.map_err(|error| error.to_string())
            }
        });
        listens.await?;
        Ok(Self { process, address })
    }

    /// Appends batches on as many connections, each after the one before was acknowledged, and on
    /// one more connection a record now and then.
    pub(super) async fn append(
        &self,
        clients: usize,
        batch: usize,
        record: &[u8],
        duration: Duration,
    ) -> Result<Appended> {
        let before = Cost::of(self.process.pid())?;
        let mut appending = JoinSet::new();
        let began = Instant::now();
        for client in 0..clients {
            let request = request(client, batch, record);
            appending.spawn(append(self.address, request, batch, Duration::ZERO, began + duration));
        }
        let lone = request(clients, 1, record);
        let lone = append(self.address, lone, 1, LONE_PAUSE, began + duration);
        let lone = tokio::spawn(lone);
        let mut latencies = Vec::new();
        while let Some(client) = appending.join_next().await {
            latencies.extend(client.context("an appending task panicked")??);
        }
        let elapsed = began.elapsed();
        let mut lone = lone.await.context("an appending task panicked")??;
        let cpu = Cost::of(self.process.pid())?.cpu - before.cpu;
        latencies.sort_unstable();
        lone.sort_unstable();
        let records = latencies.len() * batch;
        let acknowledged = records + lone.len();
        let held = self.held(clients + 1).await?;
        ensure!(held == acknowledged, "{acknowledged} were acknowledged and {held} are held");
        Ok(Appended { records, elapsed, latencies, lone, cpu })
    }

    async fn held(&self, clients: usize) -> Result<usize> {
        let mut stream = TcpStream::connect(self.address).await.context("connect")?;
        let mut held = 0;
        for client in 0..clients {
            stream.write_all(&command(&[b"XLEN", key(client).as_bytes()])).await?;
            let mut answer = [0; 64];
            let length = stream.read(&mut answer).await?;
            let text = str::from_utf8(&answer[..length])?.trim().trim_start_matches(':');
            held += text.parse::<usize>().with_context(|| format!("XLEN answered {text:?}"))?;
        }
        Ok(held)
    }
}

/// Appends, each request so long after the one before was acknowledged. Answers how long each
/// acknowledgement took.
async fn append(
    address: SocketAddr,
    request: Vec<u8>,
    batch: usize,
    pause: Duration,
    end: Instant,
) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let sent = Instant::now();
        stream.write_all(&request).await?;
        answers(&mut stream, batch).await?;
        latencies.push(sent.elapsed());
        tokio::time::sleep(pause).await;
    }
    Ok(latencies)
}

fn key(client: usize) -> String {
    format!("journal:{client}")
}

fn request(client: usize, batch: usize, record: &[u8]) -> Vec<u8> {
    let key = key(client);
    let one = command(&[b"XADD", key.as_bytes(), b"*", b"record", record]);
    one.repeat(batch)
}

/// A command in the protocol of Redis (RESP).
fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        text.extend_from_slice(word);
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// Reads an answer of two lines for each record: length and id.
async fn answers(stream: &mut TcpStream, batch: usize) -> Result<()> {
    let mut lines = 0;
    let mut buffer = [0; 16 << 10];
    while lines < 2 * batch {
        let length = stream.read(&mut buffer).await?;
        ensure!(length > 0, "Redis closed the connection");
        let answer = &buffer[..length];
        ensure!(!answer.starts_with(b"-"), "{}", String::from_utf8_lossy(answer));
        lines += answer.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(())
}
