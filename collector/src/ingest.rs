//! The reporting service: what enrolled agents say.
//!
//! Who speaks is known from the connection's certificate, and whether it is accepted is asked of
//! the register with every request. A report goes to the fleet and never waits for the store; a
//! delivery waits for the store and never holds up a report.

mod cadence;

use std::sync::Arc;
use std::time::{Duration, Instant};

use haidang_proto::model::agency::AgentId;
use haidang_proto::model::goodbye::Goodbye;
use haidang_proto::model::record::Delivery;
use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::report::{REQUEST_BYTES_MAX, Report};
use haidang_proto::model::settings::Settings;
use haidang_proto::model::spiffe::Workload;
use haidang_proto::wire;
use haidang_proto::wire::reporting_service_server;
use tonic::Status;

use crate::clock::Clock;
use crate::fleet::{Arrival, Listener, Now, ReportOutcome};
use crate::identity::{
    Authority, CertificateRequest, Machine, PeerCertificate, Register, Serial, TrustBundle,
};
use crate::listen::Peer;
use crate::live::Live;
use crate::metrics::{CollectorMetrics, Endpoint};
use crate::posture::Scope;
use crate::refuse::{refuse, refused};
use crate::snapshot::Conflict;
use crate::store::{AuditAction, AuditEntry, Delivered, JournalDelivery, Store, StoreError};
use crate::unary::{self, Answer, Call};
use cadence::next_report_in;

/// The service, and what it needs. One for all reporting listeners.
#[derive(Debug)]
pub struct Ingest {
    /// Who is accepted.
    pub register: Arc<Register>,
    /// Where reports go.
    pub live: Live,
    /// Where records go.
    pub store: Store,
    /// What renews certificates.
    pub authority: Arc<Authority>,
    /// Life of a renewed certificate.
    pub certificate_lifetime: Duration,
    /// What agents are asked to do, before their agency's policy.
    pub settings: Settings,
    /// Whom agents are to trust.
    pub trust_bundle: TrustBundle,
    /// Figures.
    pub metrics: CollectorMetrics,
    /// Time.
    pub clock: Clock,
}

/// A request whose sender is accepted.
struct Caller {
    certificate: PeerCertificate,
    arrival: Arrival,
    now: Now,
}

impl Ingest {
    /// Decides on the sender of a request.
    fn caller(&self, peer: &Peer) -> Result<Caller, Status> {
        let listener = match peer.endpoint {
            Endpoint::Dedicated => Listener::Dedicated,
            Endpoint::Fallback => Listener::Fallback,
            Endpoint::Enrolment | Endpoint::Recovery | Endpoint::Http => {
                return Err(refuse(Refusal::Handshake));
            }
        };
        let certificate = match &peer.certificate {
            Some(Ok(certificate)) => certificate.clone(),
            Some(Err(refusal)) => return Err(refuse(*refusal)),
            None => return Err(refuse(Refusal::Handshake)),
        };
        let now = self.clock.now();
        let accepted = self.register.authorize(&certificate, now.mono, now.wall).map_err(refuse)?;
        let roster = self.live.roster();
        let in_force = roster
            .row(&certificate.agency)
            .is_some_and(|row| roster.agencies()[row].validity.holds_on(now.day()));
        if !in_force {
            return Err(refuse(Refusal::AgencyNotInRoster));
        }
        if let Some(not_after) = accepted.promoted {
            let PeerCertificate { agent, agency, serial, .. } = certificate.clone();
            // Should this not reach the store, both serials stay acceptable there, and the next
            // start promotes again.
            self.store.post_promoted(agent, serial);
            tracing::info!(%agent, "a renewed certificate is in use");
            self.live.enrolled(agent, agency, not_after);
        }
        let arrival = Arrival { listener, source: peer.address() };
        Ok(Caller { certificate, arrival, now })
    }

    /// Compares the reporting machine with the one that enrolled.
    fn check_machine(&self, caller: &Caller, report: &Report) -> Result<(), Status> {
        let (agent, source) = (caller.certificate.agent, caller.arrival.source);
        match self.register.machine(agent, &report.machine_fingerprint, source) {
            Machine::Enrolled => Ok(()),
            Machine::Refused => Err(refuse(Refusal::Cloned)),
            Machine::Foreign { former } => {
                let conflict = Conflict { accepted: former.unwrap_or(source), returned: source };
                self.live.blocked(agent, conflict);
                self.blocked(agent, conflict, caller.now);
                Err(refuse(Refusal::Cloned))
            }
        }
    }

    fn blocked(&self, agent: AgentId, conflict: Conflict, now: Now) {
        let Conflict { accepted, returned } = conflict;
        tracing::warn!(%agent, %accepted, %returned, "two machines speak with one identity");
        self.register.block(agent);
        self.store.post_blocked(agent, conflict, now.wall);
    }

    fn reply(
        &self,
        caller: &Caller,
        told: &Told,
        full_report_wanted: bool,
    ) -> wire::ReportResponse {
        let interval = self.settings.report_interval;
        let next = next_report_in(caller.certificate.agent, interval, caller.now.mono);
        let agency = &caller.certificate.agency;
        let policies = self.live.policies();
        let version = self.settings.version + policies.revision(agency);
        let settings = (told.settings_version != version).then(|| {
            let scope = Scope::Agency(agency.clone());
            let posture = policies.terms(&scope).requirements;
            Settings { version, posture, ..self.settings.clone() }
        });
        wire::ReportResponse {
            server_unix_ms: unix_ms(caller.now.wall),
            next_report_in_ms: u32::try_from(next.as_millis()).unwrap_or(u32::MAX),
            report_interval_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX),
            settings: settings.map(wire::Settings::from),
            trust_bundle: (told.trust_bundle_version != self.trust_bundle.version)
                .then(|| bundle_to_wire(&self.trust_bundle)),
            full_report_wanted,
            reconnect_within_ms: 0,
        }
    }

    async fn renewed(&self, caller: Caller, csr_der: &[u8]) -> Result<Vec<Vec<u8>>, Status> {
        let request = CertificateRequest::parse(csr_der)
            .map_err(|error| refused(Refusal::CsrInvalid, error.to_string()))?;
        let Caller { certificate: PeerCertificate { agent, agency, .. }, arrival, now } = caller;
        if !self.register.may_renew(agent, now.mono) {
            return Err(refuse(Refusal::RateLimited));
        }
        let unable = |error: &(dyn std::error::Error + 'static)| {
            tracing::error!(%agent, error, "cannot renew a certificate");
            refuse(Refusal::Overloaded)
        };
        let serial = Serial::draw().map_err(|error| unable(&error))?;
        let term = self.authority.term(self.certificate_lifetime, now.wall);
        let workload = Workload::Agent { agency, agent };
        let issued = self
            .authority
            .issue_agent(&request, workload, serial, term)
            .map_err(|error| unable(&error))?;
        let audit = AuditEntry {
            at: now.wall,
            action: AuditAction::Renewed,
            subject: agent.to_string(),
            source: arrival.source.to_string(),
            detail: format!("serial {serial}"),
        };
        // Durable first: a certificate that a restart has forgotten would lock its agent out.
        let kept = self.store.renewed(agent, serial, term.not_after, audit).await;
        kept.map_err(|error| store_refusal(&error))?;
        self.register.renewed(agent, serial, term.not_after);
        Ok(vec![issued.to_vec()])
    }
}

/// Versions that an agent says it has.
struct Told {
    settings_version: u64,
    trust_bundle_version: u64,
}

impl Ingest {
    fn report(
        &self,
        peer: &Peer,
        message: wire::ReportRequest,
    ) -> Result<wire::ReportResponse, Status> {
        let began = Instant::now();
        let caller = self.caller(peer)?;
        let report = Report::try_from(message).map_err(malformed)?;
        self.check_machine(&caller, &report)?;
        let agent = caller.certificate.agent;
        let told = Told {
            settings_version: report.settings_version,
            trust_bundle_version: report.trust_bundle_version,
        };
        let full_report_wanted = match self.live.report(agent, report, caller.arrival) {
            ReportOutcome::Accepted { full_report_wanted } => full_report_wanted,
            ReportOutcome::Stale => false,
            ReportOutcome::Cloned(conflict) => {
                self.blocked(agent, conflict, caller.now);
                return Err(refuse(Refusal::Cloned));
            }
            ReportOutcome::AgentUnknown => return Err(refuse(Refusal::IdentityUnknown)),
            ReportOutcome::AgencyNotInRoster => return Err(refuse(Refusal::AgencyNotInRoster)),
        };
        self.metrics.report_accepted(caller.arrival.listener, began.elapsed());
        Ok(self.reply(&caller, &told, full_report_wanted))
    }

    async fn deliver(
        &self,
        peer: &Peer,
        message: wire::DeliverRequest,
    ) -> Result<wire::DeliverResponse, Status> {
        let caller = self.caller(peer)?;
        let delivery = Delivery::try_from(message).map_err(malformed)?;
        let prepared =
            JournalDelivery::prepare(caller.certificate.agent, &delivery, caller.now.wall);
        let prepared = prepared.ok_or_else(|| {
            refused(Refusal::Malformed, "records.seq: is larger than any journal's")
        })?;
        let Delivered { receipt, posture } =
            self.store.deliver(prepared).await.map_err(|error| store_refusal(&error))?;
        if let Some(posture) = posture {
            self.live.posture(caller.certificate.agent, posture);
        }
        Ok(receipt.into())
    }

    async fn renew(
        &self,
        peer: &Peer,
        message: wire::RenewRequest,
    ) -> Result<wire::RenewResponse, Status> {
        let caller = self.caller(peer)?;
        let certificate_chain_der = self.renewed(caller, &message.csr_der).await?;
        Ok(wire::RenewResponse { certificate_chain_der })
    }

    fn goodbye(
        &self,
        peer: &Peer,
        message: wire::GoodbyeRequest,
    ) -> Result<wire::GoodbyeResponse, Status> {
        let caller = self.caller(peer)?;
        let goodbye = Goodbye::try_from(message).map_err(malformed)?;
        let (agent, reason) = (caller.certificate.agent, goodbye.reason.as_str());
        tracing::info!(%agent, reason, "an agent stopped cleanly");
        self.live.goodbye(agent, goodbye);
        Ok(wire::GoodbyeResponse {})
    }
}

impl unary::Service for Ingest {
    const NAME: &'static str = reporting_service_server::SERVICE_NAME;
    const REQUEST_BYTES_MAX: usize = REQUEST_BYTES_MAX;

    async fn answer(&self, call: Call) -> Result<Answer, Status> {
        let peer = call.peer().clone();
        match call.method() {
            "Report" => self.report(&peer, call.message().await?).map(|reply| Answer::of(&reply)),
            // Boxed, because every report's future would keep room for it.
            "Deliver" => {
                let delivered = async { self.deliver(&peer, call.message().await?).await };
                Box::pin(delivered).await.map(|receipt| Answer::of(&receipt))
            }
            "Renew" => {
                let renewed = async { self.renew(&peer, call.message().await?).await };
                Box::pin(renewed).await.map(|renewed| Answer::of(&renewed))
            }
            "Goodbye" => self.goodbye(&peer, call.message().await?).map(|bye| Answer::of(&bye)),
            _ => Err(call.unimplemented()),
        }
    }
}

/// The roots as agents are told them.
pub(crate) fn bundle_to_wire(bundle: &TrustBundle) -> wire::TrustBundle {
    wire::TrustBundle {
        version: bundle.version,
        roots_der: bundle.roots.iter().map(|root| root.to_vec()).collect(),
    }
}

/// A store that failed, as its caller is told. The details are for the collector's own log. That
/// too much waits is counted with the refusals and not logged for each of thousands; a store that
/// hangs is told once by `vitals`.
pub(crate) fn store_refusal(error: &StoreError) -> Status {
    if !matches!(error, StoreError::Overloaded) {
        let error: &dyn std::error::Error = error;
        tracing::warn!(error, "the store cannot take what an agent sent");
    }
    refuse(Refusal::StoreUnavailable)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn malformed(error: haidang_proto::model::WireError) -> Status {
    refused(Refusal::Malformed, error.to_string())
}

fn unix_ms(at: std::time::SystemTime) -> u64 {
    let since = at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
