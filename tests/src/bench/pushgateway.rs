//! The peer: Debian's Prometheus Pushgateway. A push of one agency's group is the like of a
//! report: it replaces the last state of its sender, which the next scrape shows.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::tls::{PEER, TlsFiles};
use crate::collector::free_port;
use crate::exposition::Exposition;
use crate::program::Program;
use crate::wait;
use crate::web::Endpoint;

/// Reading a persisted file of 100,000 groups included.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections that push, each kept alive: fewer than agents have, in the peer's favour.
const PUSHING: usize = 32;
/// Series of one push: the states, flags, quality and age that a report changes.
pub(super) const SERIES_PER_PUSH: usize = 20;

pub(super) struct Pushgateway {
    pub(super) process: Program,
    pub(super) address: SocketAddr,
}

/// How it is started.
pub(super) enum Mode<'a> {
    /// As Debian starts it: every push is checked against everything that is held.
    Checked,
    /// Without that check, which its help calls dangerous.
    Unchecked,
    /// As it is by default, over mTLS.
    Tls(&'a TlsFiles),
}

impl Pushgateway {
    /// Starts it with what it has persisted in the directory.
    pub(super) async fn start(mode: &Mode<'_>, directory: &Path) -> Result<Self> {
        let mut this = Self::spawn(mode, directory)?;
        this.ready().await?;
        Ok(this)
    }

    /// Starts it without waiting.
    pub(super) fn spawn(mode: &Mode<'_>, directory: &Path) -> Result<Self> {
        let address = free_port(PEER)?;
        let mut command = Command::new("prometheus-pushgateway");
        command.arg(format!("--web.listen-address={address}"));
        command.arg(format!("--persistence.file={}", directory.join("groups").display()));
        match mode {
            Mode::Checked => {}
            Mode::Unchecked => {
                command.arg("--push.disable-consistency-check");
            }
            Mode::Tls(files) => {
                let path = |name| format!("{:?}", files.path(name).display().to_string());
                let config = format!(
                    "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  \
                     client_auth_type: RequireAndVerifyClientCert\n  min_version: TLS13\n",
                    path("server.pem"),
                    path("server.key"),
                    path("ca.pem")
                );
                let file = directory.join("web.yml");
                std::fs::write(&file, config).context("write the peer's configuration")?;
                command.arg(format!("--web.config.file={}", file.display()));
            }
        }
        let process = Program::start("pushgateway", &mut command, directory);
        let process = process.context("apt-get install prometheus-pushgateway")?;
        Ok(Self { process, address })
    }

    /// Waits until it listens.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let (address, process) = (self.address, &mut self.process);
        let ready = wait::until("a listening Pushgateway", START_TIMEOUT, || {
            let running = process.check_running().map_err(|error| error.to_string());
            async move {
                running?;
                TcpStream::connect(address).await.map_err(|error| error.to_string())
            }
        });
        ready.await.map(|_| ())
    }

    /// Pushes so often, to one group after the other. Each push has to be accepted.
    pub(super) async fn push(&self, groups: usize, pushes: usize, series: usize) -> Result<()> {
        let body = Bytes::from(body(series)?);
        let mut pushing = JoinSet::new();
        for first in 0..PUSHING.min(pushes) {
            let (body, address) = (body.clone(), self.address);
            pushing.spawn(async move {
                let stream = TcpStream::connect(address).await.context("connect")?;
                stream.set_nodelay(true)?;
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                let exchanges = async {
                    for push in (first..pushes).step_by(PUSHING) {
                        let path = format!("/metrics/job/haidang/agency/{}", push % groups);
                        let request = Request::builder()
                            .method(Method::PUT)
                            .uri(path)
                            .header(header::HOST, "pushgateway")
                            .body(Full::new(body.clone()))?;
                        let answer = sender.send_request(request).await?;
                        let status = answer.status();
                        let said = answer.into_body().collect().await?.to_bytes();
                        let said = String::from_utf8_lossy(&said);
                        ensure!(status.is_success(), "a push was refused: {status} {said}");
                    }
                    anyhow::Ok(())
                };
                tokio::select! {
                    done = exchanges => done,
                    ended = connection => bail!("the peer closed: {ended:?}"),
                }
            });
        }
        while let Some(done) = pushing.join_next().await {
            done.context("a pushing task panicked")??;
        }
        Ok(())
    }

    /// Pushes that it has accepted, and the groups and series that it holds of them.
    pub(super) async fn held(&self) -> Result<Held> {
        let text = Endpoint::here(self.address).text("/metrics").await?;
        let metrics = Exposition::parse(&text)?;
        // 200 with the check; 202 without it, because then it is queued.
        let accepted = ["200", "202"].map(|code| {
            let counted = metrics.find("pushgateway_http_requests_total", &[]);
            let counted = counted.filter(|one| one.labels.get("code").is_some_and(|of| of == code));
            counted.map(|sample| sample.value as usize).sum::<usize>()
        });
        Ok(Held {
            accepted: accepted.iter().sum(),
            groups: metrics.find("push_time_seconds", &[]).count(),
            series: metrics.find("haidang_agency_value", &[]).count(),
        })
    }
}

/// What the peer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) accepted: usize,
    pub(super) groups: usize,
    pub(super) series: usize,
}

fn body(series: usize) -> Result<String> {
    let mut body = String::from("# TYPE haidang_agency_value gauge\n");
    for number in 0..series {
        writeln!(body, "haidang_agency_value{{of=\"state_or_flag_{number:02}\"}} {}", number % 2)?;
    }
    Ok(body)
}
