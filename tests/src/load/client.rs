//! One simulated agent: a connection from its own address, reports as a healthy agent sends them,
//! and records. Sessions are not resumed: every connection pays a full handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use haidang_proto::model::host::HostFacts;
use haidang_proto::model::quality::{Quality, RttHistogram};
use haidang_proto::model::record::Delivery;
use haidang_proto::model::report::{Connectivity, JournalStatus, Report};
use haidang_proto::model::verdict::Verdict;
use haidang_proto::wire;
use haidang_proto::wire::reporting_service_client::ReportingServiceClient;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::fleet::LoadAgent;

/// Connection, handshake and first report, on two processors that the clients share.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// One report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);

/// A connected agent.
#[derive(Debug)]
pub(crate) struct Client {
    service: ReportingServiceClient<Channel>,
    process: Arc<Process>,
    machine_fingerprint: [u8; 32],
}

/// What a process draws when it begins, and how many reports it has made.
#[derive(Debug)]
pub(crate) struct Process {
    nonce: [u8; 16],
    sequence: AtomicU64,
}

impl Process {
    /// Begins one.
    pub(crate) fn begin() -> Self {
        Self { nonce: Uuid::new_v4().into_bytes(), sequence: AtomicU64::new(1) }
    }
}

impl Client {
    /// Connects, and sends a first report with what a collector wants to know of a machine.
    pub(crate) async fn connect(agent: LoadAgent, address: SocketAddr) -> Result<Self> {
        let opening = Self::open(&agent, address, Arc::new(Process::begin()));
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
        let client = opened.context("no connection in time")??;
        let first = tokio::time::timeout(CONNECT_TIMEOUT, client.tell(true)).await;
        first.context("no answer to the first report in time")??;
        Ok(client)
    }

    /// Connects, and says nothing yet.
    pub(crate) async fn open(
        agent: &LoadAgent,
        address: SocketAddr,
        process: Arc<Process>,
    ) -> Result<Self> {
        Self::with_window(agent, address, process, None).await
    }

    /// Connects as somebody who takes the head of an answer and never a byte of what it says: its
    /// streams have no window (RFC 9113, section 6.9).
    pub(crate) async fn open_unreading(agent: &LoadAgent, address: SocketAddr) -> Result<Self> {
        Self::with_window(agent, address, Arc::new(Process::begin()), Some(0)).await
    }

    async fn with_window(
        agent: &LoadAgent,
        address: SocketAddr,
        process: Arc<Process>,
        window_bytes: Option<u32>,
    ) -> Result<Self> {
        let mut tls = agent.tls()?;
        tls.resumption = Resumption::disabled();
        let channel = channel(agent.source, address, tls, window_bytes).await?;
        let service = ReportingServiceClient::new(channel);
        Ok(Self { service, process, machine_fingerprint: agent.machine_fingerprint })
    }

    /// Delivers records; returns up to which they are durable.
    pub(crate) async fn deliver(&self, delivery: Delivery) -> Result<u64, tonic::Status> {
        let mut service = self.service.clone();
        let answer = service.deliver(wire::DeliverRequest::from(delivery)).await?;
        Ok(answer.into_inner().acknowledged_seq)
    }

    /// Sends the next report, and says how long the answer took.
    pub(crate) fn report(&self) -> impl Future<Output = Result<Duration>> + Send + use<> {
        let sending = self.tell(false);
        async move {
            let began = Instant::now();
            let answer = tokio::time::timeout(REPORT_TIMEOUT, sending).await;
            answer.context("no answer in time")??;
            Ok(began.elapsed())
        }
    }

    /// Sends the next report, with the machine's facts or without.
    pub(super) fn tell(
        &self,
        full: bool,
    ) -> impl Future<Output = Result<wire::ReportResponse, tonic::Status>> + Send + use<> {
        let report = Report {
            process_nonce: self.process.nonce,
            machine_fingerprint: self.machine_fingerprint,
            sequence: self.process.sequence.fetch_add(1, Ordering::Relaxed),
            sent_at: SystemTime::now(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            settings_version: 1,
            trust_bundle_version: 1,
            connectivity: connectivity(),
            journal: JournalStatus::default(),
            host: full.then(host),
        };
        let mut service = self.service.clone();
        async move {
            let answer = service.report(wire::ReportRequest::from(report)).await;
            answer.map(tonic::Response::into_inner)
        }
    }
}

async fn channel(
    source: std::net::Ipv4Addr,
    address: SocketAddr,
    tls: rustls::ClientConfig,
    window_bytes: Option<u32>,
) -> Result<Channel> {
    let socket = TcpSocket::new_v4().context("open a socket; see `ulimit -n`")?;
    socket.bind((source, 0).into()).with_context(|| format!("bind to {source}"))?;
    let stream = socket.connect(address).await.with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("the connection has ended")) }
    });
    let endpoint = Endpoint::from_static("http://collector.invalid");
    let endpoint = endpoint.initial_stream_window_size(window_bytes);
    Ok(endpoint.connect_with_connector(once).await?)
}

/// Ten seconds of a good path: five echoes to two anchors.
pub(crate) fn connectivity() -> Connectivity {
    let mut rtt = RttHistogram::default();
    for us in [310, 325, 330, 350, 410] {
        rtt.record(Duration::from_micros(us));
    }
    Connectivity {
        verdict: Verdict::Connected,
        verdict_age: Duration::from_secs(600),
        flags: Default::default(),
        quality: Quality {
            window: Duration::from_secs(10),
            sent: 5,
            received: 5,
            rtt,
            rtt_min: Some(Duration::from_micros(310)),
            ipdv_abs_sum: Duration::from_micros(100),
            ipdv_count: 4,
            ..Quality::default()
        },
        evidence: Vec::new(),
        surroundings: Vec::new(),
    }
}

fn host() -> HostFacts {
    HostFacts {
        hostname: "load".into(),
        os: "Debian GNU/Linux 12".into(),
        kernel: "6.1.0-29-amd64".into(),
        architecture: "x86_64".into(),
        cpus: 4,
        memory_bytes: 8 << 30,
        memory_available_bytes: 4 << 30,
        root_disk_bytes: 256 << 30,
        root_disk_available_bytes: 128 << 30,
        uptime_seconds: 3_600,
    }
}
