//! A client that delivers records as an agent would, but as fast as they are acknowledged or nearly
//! so, and not always in good order. It remembers every record that it wrote and what was acknowledged.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use haidang_proto::model::record::{Delivery, Event, Moment, Record};
use haidang_proto::model::verdict::DownCause;
use haidang_proto::wire;
use haidang_proto::wire::reporting_service_client::ReportingServiceClient;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::DRAIN_TIMEOUT;
use crate::anybody::Anybody;
use crate::dice::Dice;

/// Records of one delivery at most.
pub(crate) const BATCH_MAX: u64 = 64;
/// Records that may wait for their acknowledgement.
const WAITING_MAX: u64 = 256;
/// As the agent's.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(5);
/// Between attempts while the collector is dead.
const PAUSE: Duration = Duration::from_millis(30);

/// A courier with its own journal, kept in memory: couriers are not killed.
pub(crate) struct Courier {
    client: ReportingServiceClient<Channel>,
    done: Delivered,
    progress: Arc<Progress>,
    rest: Duration,
}

/// How far a courier is, for whoever watches it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The number up to which records are acknowledged.
    pub(crate) acknowledged: AtomicU64,
    /// The longest wait for an acknowledgement that came, in microseconds; whoever reads it may set
    /// it back.
    pub(crate) slowest_us: AtomicU64,
}

/// What a courier delivered.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) journal: Uuid,
    /// The mark of each record; the first has number 1.
    pub(crate) written: Vec<u32>,
    /// Acknowledged and failed.
    pub(crate) deliveries: [u64; 2],
    /// Repeated and ahead of a hole.
    pub(crate) disturbed: [u64; 2],
}

impl Courier {
    pub(crate) fn new(tls: ClientConfig, collector: SocketAddr, journal: Uuid) -> Self {
        let tls = TlsConnector::from(Arc::new(tls));
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(collector).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::IpAddress(collector.ip().into());
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let channel = Endpoint::from_static("http://collector.invalid")
            .connect_with_connector_lazy(connector);
        let done =
            Delivered { journal, written: Vec::new(), deliveries: [0; 2], disturbed: [0; 2] };
        let client = ReportingServiceClient::new(channel);
        Self { client, done, progress: Arc::default(), rest: Duration::ZERO }
    }

    /// Resting for so long after each acknowledgement.
    pub(crate) fn resting(self, rest: Duration) -> Self {
        Self { rest, ..self }
    }

    /// How far it is, as that changes.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Writes and delivers until it is stopped, then delivers the rest.
    pub(crate) async fn run(
        mut self,
        mut dice: Dice,
        stop: CancellationToken,
    ) -> Result<Delivered> {
        while !stop.is_cancelled() {
            while self.waiting() < WAITING_MAX {
                self.done.written.push(u32::try_from(dice.within(1..1 << 31))?);
            }
            let begin = match dice.within(0..8) {
                0 if self.acknowledged() > 0 => {
                    self.done.disturbed[0] += 1;
                    let back = dice.within(1..self.acknowledged().min(2 * BATCH_MAX) + 1);
                    self.acknowledged() + 1 - back
                }
                1 => {
                    self.done.disturbed[1] += 1;
                    self.acknowledged() + 1 + dice.within(1..BATCH_MAX)
                }
                _ => self.acknowledged() + 1,
            };
            let length = dice.within(1..BATCH_MAX + 1);
            self.deliver(begin, length).await?;
        }
        let began = tokio::time::Instant::now();
        while self.waiting() > 0 {
            self.deliver(self.acknowledged() + 1, BATCH_MAX).await?;
            ensure!(began.elapsed() < DRAIN_TIMEOUT, "{} records still wait", self.waiting());
        }
        Ok(self.done)
    }

    fn waiting(&self) -> u64 {
        self.done.written.len() as u64 - self.acknowledged()
    }

    fn acknowledged(&self) -> u64 {
        self.progress.acknowledged.load(Ordering::Relaxed)
    }

    async fn deliver(&mut self, begin: u64, length: u64) -> Result<()> {
        let last = (begin + length - 1).min(self.done.written.len() as u64);
        let records = (begin..=last).map(|seq| record(seq, self.done.written[seq as usize - 1]));
        let delivery =
            Delivery { journal_id: self.done.journal, first_seq: 1, records: records.collect() };
        let request = wire::DeliverRequest::from(delivery);
        let sent = tokio::time::Instant::now();
        let call = tokio::time::timeout(DELIVERY_DEADLINE, self.client.deliver(request));
        let Ok(Ok(answer)) = call.await else {
            self.done.deliveries[1] += 1;
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        };
        self.done.deliveries[0] += 1;
        let took_us = u64::try_from(sent.elapsed().as_micros())?;
        self.progress.slowest_us.fetch_max(took_us, Ordering::Relaxed);
        let seq = answer.into_inner().acknowledged_seq;
        let before = self.progress.acknowledged.swap(seq, Ordering::Relaxed);
        if seq < before {
            bail!("{before} was acknowledged before, and now only {seq}");
        }
        ensure!(seq <= self.done.written.len() as u64, "{seq} was acknowledged, and never sent");
        tokio::time::sleep(self.rest).await;
        Ok(())
    }
}

/// A record that carries a mark: an outage of so many cycles.
pub(crate) fn record(seq: u64, mark: u32) -> Record {
    let at = Moment {
        boot_id: Uuid::nil(),
        boottime: Duration::from_secs(seq),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seq),
    };
    let event = Event::ShortOutage { first_seen: at, bad_cycles: mark, cause: DownCause::LinkDown };
    Record { seq, at, event }
}

/// The identity in a directory, as an agent keeps it.
pub(super) fn tls(identity: &Path) -> Result<ClientConfig> {
    let chain = CertificateDer::pem_file_iter(identity.join("chain.pem"))
        .context("open the certificate")?
        .collect::<Result<Vec<_>, _>>()
        .context("read the certificate")?;
    let key = PrivateKeyDer::from_pem_file(identity.join("key.pem")).context("read the key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
