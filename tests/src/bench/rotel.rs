//! A second peer: rotel, an OpenTelemetry collector in Rust, by the same gRPC library as ours. An
//! export of one agency's gauges is the like of a report. It speaks plain text, folds nothing and
//! drops what it has decoded.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use http::uri::PathAndQuery;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::otlp::{self, Answer, Export};
use super::tls::PEER;
use crate::collector::free_port;
use crate::program::Program;
use crate::{python, wait};

/// As it is pinned in `tests/python`.
pub(super) const VERSION: &str = "0.0.1a15";
/// Start of a program without state.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are made at a time.
const CONNECTING_MAX: usize = 48;
/// One connection or one export, on two processors that the clients share.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) struct Rotel {
    pub(super) process: Program,
    address: SocketAddr,
}

/// A sender with a connection of its own.
#[derive(Clone)]
pub(super) struct Exporter {
    service: Grpc<Channel>,
    agency: usize,
}

impl Rotel {
    pub(super) async fn start(directory: &Path) -> Result<Self> {
        let address = free_port(PEER)?;
        let mut command = Command::new(python::package("rotel/rotel-agent")?);
        command.arg("start").arg("--otlp-grpc-endpoint").arg(address.to_string());
        // It always listens for HTTP too.
        command.arg("--otlp-http-endpoint").arg(free_port(PEER)?.to_string());
        command.args(["--otlp-receiver-traces-disabled", "--otlp-receiver-logs-disabled"]);
        command.args(["--exporter", "blackhole"]);
        let mut process = Program::start("rotel", &mut command, directory)?;
        let listens = wait::until("rotel", START_TIMEOUT, || {
            // It is linked with that library.
            let running = process.check_running().context("apt-get install libpython3.11");
            let running = running.map_err(|error| format!("{error:#}"));
            async move {
                running?;
                TcpStream::connect(address).await.map_err(|error| error.to_string())
            }
        });
        listens.await?;
        Ok(Self { process, address })
    }

    /// So many connections, each with an export that was answered.
    pub(super) async fn connect(&self, connections: usize) -> Result<Vec<Exporter>> {
        let mut exporters = Vec::with_capacity(connections);
        let mut connecting = JoinSet::new();
        for agency in 0..connections {
            if connecting.len() >= CONNECTING_MAX
                && let Some(connected) = connecting.join_next().await
            {
                exporters.push(connected.context("a connecting task panicked")??);
            }
            connecting.spawn(Exporter::connect(self.address, agency));
        }
        while let Some(connected) = connecting.join_next().await {
            exporters.push(connected.context("a connecting task panicked")??);
        }
        Ok(exporters)
    }
}

impl Exporter {
    async fn connect(address: SocketAddr, agency: usize) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let endpoint = endpoint.connect_timeout(ANSWER_TIMEOUT).tcp_nodelay(true);
        let channel = endpoint.connect().await.with_context(|| format!("connect to {address}"))?;
        let exporter = Self { service: Grpc::new(channel), agency };
        exporter.clone().export().await?;
        Ok(exporter)
    }

    /// Sends all gauges of its agency, which have to be taken whole.
    pub(super) async fn export(mut self) -> Result<()> {
        let export = otlp::gauges(self.agency, SystemTime::now());
        let exchange = async {
            self.service.ready().await?;
            let codec = ProstCodec::<Export, Answer>::default();
            let path = PathAndQuery::from_static(otlp::EXPORT_PATH);
            let answer = self.service.unary(tonic::Request::new(export), path, codec).await?;
            let rejected = answer.get_ref().rejected();
            ensure!(rejected == 0, "rotel rejected {rejected} points");
            anyhow::Ok(())
        };
        tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.context("no answer in time")?
    }
}

/// Bytes of one export.
pub(super) fn export_bytes() -> usize {
    otlp::gauges(0, SystemTime::now()).encoded_len()
}
