//! A collector in the hands of an attacker: it has the real CA's key, agents trust it, and it asks
//! of them whatever the wire can say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use haidang_proto::wire;
use haidang_proto::wire::reporting_service_server::{ReportingService, ReportingServiceServer};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use crate::netns::Netns;
use crate::peer::{Authority, H2, Identity, Terms};

/// What it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orders {
    /// Nothing: it takes reports.
    None,
    /// Settings of this version, with the shortest periods that the wire can carry; and it takes no
    /// report that was made under them.
    Silencing(u64),
}

/// A running one; it ends when dropped.
#[derive(Debug)]
pub struct Captured {
    state: Shared,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct State {
    orders: Orders,
    taken: u64,
}

type Shared = Arc<Mutex<State>>;

impl Captured {
    /// Listens inside a namespace, under a certificate that the CA's key has made.
    ///
    /// # Errors
    /// When it cannot listen or make its certificate.
    pub fn start(
        netns: &Netns,
        at: SocketAddr,
        authority: &Authority,
        orders: Orders,
    ) -> Result<Self> {
        let listener = netns.inside(|| std::net::TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("listen on {at}"))?;
        listener.set_nonblocking(true).context("set a socket to non-blocking")?;
        let listener = TcpListener::from_std(listener).context("register a socket")?;
        let acceptor = TlsAcceptor::from(Arc::new(tls(authority)?));
        let state = Arc::new(Mutex::new(State { orders, taken: 0 }));
        let service = ReportingServiceServer::new(Service(Arc::clone(&state)));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, service) = (acceptor.clone(), service.clone());
                tokio::spawn(async move {
                    // Agents' probes want no more than the certificate.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let service = TowerToHyperService::new(service);
                    // How a connection ends is the agent's matter.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { state, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Asks for something else from now on.
    pub fn order(&self, orders: Orders) {
        lock(&self.state).orders = orders;
    }

    /// Reports that it has taken.
    pub fn taken(&self) -> u64 {
        lock(&self.state).taken
    }
}

fn lock(state: &Shared) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls(authority: &Authority) -> Result<ServerConfig> {
    let now = SystemTime::now();
    let Identity { chain, key } = authority.issue(&Terms {
        uri: "spiffe://lab.test/collector".into(),
        from: now - Duration::from_secs(3_600),
        until: now + Duration::from_secs(86_400),
        usage: ExtendedKeyUsagePurpose::ServerAuth,
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(config)
}

#[derive(Debug, Clone)]
struct Service(Shared);

#[tonic::async_trait]
impl ReportingService for Service {
    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        let report = request.into_inner();
        let mut state = lock(&self.0);
        let settings = match state.orders {
            Orders::None => None,
            Orders::Silencing(version) if report.settings_version == version => {
                return Err(Status::internal("never"));
            }
            Orders::Silencing(version) => Some(wire::Settings {
                version,
                report_interval_ms: 1,
                probe_period_ms: 1,
                confirm_period_ms: 1,
                posture: None,
            }),
        };
        state.taken += 1;
        Ok(Response::new(wire::ReportResponse {
            server_unix_ms: 1,
            next_report_in_ms: 1,
            report_interval_ms: 1,
            settings,
            trust_bundle: Some(wire::TrustBundle {
                version: u64::MAX,
                roots_der: vec![b"no certificate".to_vec()],
            }),
            full_report_wanted: true,
            reconnect_within_ms: 1,
        }))
    }

    /// Claims that every record is another one.
    async fn deliver(
        &self,
        request: Request<wire::DeliverRequest>,
    ) -> Result<Response<wire::DeliverResponse>, Status> {
        let conflicting_seq = request.into_inner().first_seq;
        Ok(Response::new(wire::DeliverResponse { acknowledged_seq: 0, conflicting_seq }))
    }

    async fn renew(
        &self,
        _request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewResponse>, Status> {
        let certificate_chain_der = vec![b"no certificate".to_vec()];
        Ok(Response::new(wire::RenewResponse { certificate_chain_der }))
    }

    async fn goodbye(
        &self,
        _request: Request<wire::GoodbyeRequest>,
    ) -> Result<Response<wire::GoodbyeResponse>, Status> {
        Ok(Response::new(wire::GoodbyeResponse {}))
    }
}
