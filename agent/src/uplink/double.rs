//! A collector's double for tests: real TLS with client certificates, real gRPC, scripted answers.

use std::sync::{Arc, Mutex};

use haidang_proto::model::goodbye::Goodbye;
use haidang_proto::model::record::{Delivery, Receipt, Record};
use haidang_proto::model::refusal::{REASON_KEY, Refusal};
use haidang_proto::model::report::{Reply, Report, TrustBundle};
use haidang_proto::model::settings::Settings;
use haidang_proto::wire;
use haidang_proto::wire::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use haidang_proto::wire::recovery_service_server::{RecoveryService, RecoveryServiceServer};
use haidang_proto::wire::reporting_service_server::{ReportingService, ReportingServiceServer};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use super::*;
use crate::identity::provider;
use crate::identity::tests::{AGENT, Authority};

/// What arrived, and what to answer.
pub(crate) struct State {
    pub(crate) authority: Arc<Authority>,
    pub(crate) reports: Vec<Report>,
    pub(crate) records: Vec<Record>,
    pub(crate) goodbyes: Vec<Goodbye>,
    pub(crate) enrolments: Vec<wire::EnrolRequest>,
    pub(crate) renewals: u32,
    pub(crate) recoveries: u32,
    pub(crate) refusal: Option<Refusal>,
    /// Calls that are never answered, as on a path that became a black hole.
    pub(crate) unanswered: Unanswered,
    pub(crate) swallowed: u32,
    /// TLS connections that were accepted.
    pub(crate) connections: u32,
    pub(crate) settings: Option<Settings>,
    pub(crate) trust_bundle: Option<TrustBundle>,
    /// Whom certificates are made out to.
    pub(crate) agent: String,
    /// Instead of the certificate that the request asks for.
    pub(crate) foreign_chain: Option<Vec<Vec<u8>>>,
    pub(crate) endpoint: String,
}

/// Which calls are never answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Unanswered {
    #[default]
    None,
    Deliveries,
    All,
}

/// A listener with its connections; dropped, it is gone.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    pub(crate) state: Shared,
    _connections: JoinSet<()>,
}

pub(crate) type Shared = Arc<Mutex<State>>;

/// Which service a listener serves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Serves {
    Reporting,
    Enrolment,
    Recovery,
}

pub(crate) fn state(authority: &Arc<Authority>) -> Shared {
    Arc::new(Mutex::new(State {
        authority: Arc::clone(authority),
        reports: Vec::new(),
        records: Vec::new(),
        goodbyes: Vec::new(),
        enrolments: Vec::new(),
        renewals: 0,
        recoveries: 0,
        refusal: None,
        unanswered: Unanswered::None,
        swallowed: 0,
        connections: 0,
        settings: None,
        trust_bundle: None,
        agent: AGENT.into(),
        foreign_chain: None,
        endpoint: "127.0.0.1:7443".into(),
    }))
}

impl Double {
    /// Listens on a port of its own, under the name `id`.
    pub(crate) async fn start(serves: Serves, state: &Shared, id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, serves, state, id)
    }

    pub(crate) fn serve(listener: TcpListener, serves: Serves, state: &Shared, id: &str) -> Self {
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls(serves, &state.lock().unwrap(), id)));
        let service = Service(Arc::clone(state));
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, service) = (acceptor.clone(), service.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    service.0.lock().unwrap().connections += 1;
                    let io = TokioIo::new(stream);
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    // How a connection ends is the other side's matter.
                    let _ = match serves {
                        Serves::Reporting => {
                            let service = ReportingServiceServer::new(service);
                            http.serve_connection(io, TowerToHyperService::new(service)).await
                        }
                        Serves::Enrolment => {
                            let service = EnrolmentServiceServer::new(service);
                            http.serve_connection(io, TowerToHyperService::new(service)).await
                        }
                        Serves::Recovery => {
                            let service = RecoveryServiceServer::new(service);
                            http.serve_connection(io, TowerToHyperService::new(service)).await
                        }
                    };
                });
            }
        });
        Self { address, state: Arc::clone(state), _connections: connections }
    }
}

fn tls(serves: Serves, state: &State, id: &str) -> ServerConfig {
    let (certificate, key) = state.authority.server(id);
    let chain = vec![certificate, state.authority.root.clone()];
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let builder = match serves {
        Serves::Reporting => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(state.authority.root.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::new(provider()));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        Serves::Enrolment | Serves::Recovery => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Clone)]
struct Service(Shared);

impl Service {
    fn check(&self) -> Result<(), Status> {
        match self.0.lock().unwrap().refusal {
            None => Ok(()),
            Some(refusal) => {
                let mut status = Status::permission_denied("refused");
                let reason = refusal.as_str().parse().unwrap();
                status.metadata_mut().insert(REASON_KEY, reason);
                Err(status)
            }
        }
    }
}

impl Service {
    /// Goes on unless such calls are not answered.
    async fn answers(&self, unanswered: &[Unanswered]) {
        let now = self.0.lock().unwrap().unanswered;
        if unanswered.contains(&now) {
            self.0.lock().unwrap().swallowed += 1;
            std::future::pending::<()>().await;
        }
    }
}

impl State {
    fn chain(&self, csr: &[u8]) -> Vec<Vec<u8>> {
        let signed = || vec![self.authority.sign(csr, &self.agent).to_vec()];
        self.foreign_chain.clone().unwrap_or_else(signed)
    }
}

#[tonic::async_trait]
impl ReportingService for Service {
    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        let report = Report::try_from(request.into_inner()).unwrap();
        self.answers(&[Unanswered::All]).await;
        self.check()?;
        let mut state = self.0.lock().unwrap();
        let differs = |settings: &Settings| settings.version != report.settings_version;
        let stale = |bundle: &TrustBundle| bundle.version != report.trust_bundle_version;
        let reply = Reply {
            server_time: SystemTime::now(),
            next_report_in: Duration::from_millis(500),
            report_interval: Duration::from_millis(500),
            settings: state.settings.clone().filter(differs),
            trust_bundle: state.trust_bundle.clone().filter(stale),
            full_report_wanted: false,
            reconnect_within: None,
        };
        state.reports.push(report);
        Ok(Response::new(reply.into()))
    }

    async fn deliver(
        &self,
        request: Request<wire::DeliverRequest>,
    ) -> Result<Response<wire::DeliverResponse>, Status> {
        self.answers(&[Unanswered::All, Unanswered::Deliveries]).await;
        self.check()?;
        let delivery = Delivery::try_from(request.into_inner()).unwrap();
        let acknowledged_seq = delivery.records.last().map_or(0, |record| record.seq);
        self.0.lock().unwrap().records.extend(delivery.records);
        Ok(Response::new(Receipt { acknowledged_seq, conflicting_seq: None }.into()))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewResponse>, Status> {
        self.check()?;
        let mut state = self.0.lock().unwrap();
        state.renewals += 1;
        let certificate_chain_der = state.chain(&request.into_inner().csr_der);
        Ok(Response::new(wire::RenewResponse { certificate_chain_der }))
    }

    async fn goodbye(
        &self,
        request: Request<wire::GoodbyeRequest>,
    ) -> Result<Response<wire::GoodbyeResponse>, Status> {
        let goodbye = Goodbye::try_from(request.into_inner()).unwrap();
        self.0.lock().unwrap().goodbyes.push(goodbye);
        Ok(Response::new(wire::GoodbyeResponse {}))
    }
}

#[tonic::async_trait]
impl EnrolmentService for Service {
    async fn enrol(
        &self,
        request: Request<wire::EnrolRequest>,
    ) -> Result<Response<wire::EnrolResponse>, Status> {
        self.check()?;
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let answer = wire::EnrolResponse {
            certificate_chain_der: state.chain(&request.csr_der),
            trust_bundle: Some(wire::TrustBundle {
                version: 1,
                roots_der: vec![state.authority.root.to_vec()],
            }),
            agency_id: "01-018".into(),
            agency_name: "Sở Nội vụ".into(),
            agent_id: String::new(),
            report_endpoints: vec![state.endpoint.clone()],
            fallback_endpoints: Vec::new(),
            recovery_endpoints: Vec::new(),
        };
        state.enrolments.push(request);
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl RecoveryService for Service {
    async fn renew_expired(
        &self,
        request: Request<wire::RenewExpiredRequest>,
    ) -> Result<Response<wire::RenewExpiredResponse>, Status> {
        self.check()?;
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let mut answer = wire::RenewExpiredResponse {
            server_nonce: b"once".to_vec(),
            certificate_chain_der: Vec::new(),
        };
        if request.server_nonce == b"once" {
            assert!(!request.nonce_signature.is_empty());
            state.recoveries += 1;
            answer.certificate_chain_der = state.chain(&request.csr_der);
        }
        Ok(Response::new(answer))
    }
}
