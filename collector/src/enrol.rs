//! Enrolment: a token and a certificate request become an identity.
//!
//! Served on a listener of its own, without client certificates, which can be closed when a
//! roll-out is over. The checks stand in the order in which they cost and tell: limits, form,
//! token, request, roster, prefixes; the use of the token is counted in the transaction that
//! makes the identity, so that no crash yields more identities than uses. Every attempt that is
//! not merely malformed is audited.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haidang_proto::model::agency::AgentId;
use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::spiffe::Workload;
use haidang_proto::wire;
use haidang_proto::wire::enrolment_service_server;
use prost::Message as _;
use tonic::Status;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::Endpoints;
use crate::fleet::Now;
use crate::identity::{
    Authority, CertificateRequest, Identity, IdentityState, Register, Serial, TrustBundle,
};
use crate::ingest::{bundle_to_wire, store_refusal};
use crate::live::Live;
use crate::refuse::{refuse, refused};
use crate::roster::{Agency, Roster};
use crate::store::{AuditAction, AuditEntry, Enrolment, Store};
use crate::token::{AttemptLimiter, Token};
use crate::unary::{self, Answer, Call};

/// Bytes of a host name (RFC 1035 §2.3.4).
const HOSTNAME_BYTES_MAX: usize = 255;
/// Bytes of a token's id.
const TOKEN_ID_BYTES_MAX: usize = 32;

/// The service, and what it needs.
#[derive(Debug)]
pub struct Enrol {
    /// Who is accepted.
    pub register: Arc<Register>,
    /// Where new agents are told.
    pub live: Live,
    /// Where tokens and identities are kept.
    pub store: Store,
    /// What issues certificates.
    pub authority: Arc<Authority>,
    /// Life of a certificate.
    pub certificate_lifetime: Duration,
    /// Whom agents are to trust.
    pub trust_bundle: TrustBundle,
    /// Where agents are to report.
    pub endpoints: Endpoints,
    /// An identity that was heard within this is not superseded.
    pub fresh_for: Duration,
    /// Attempts; locked for a look-up.
    pub attempts: Mutex<AttemptLimiter>,
    /// Time.
    pub clock: Clock,
}

/// A request whose form is right.
struct Attempt {
    source: IpAddr,
    token_id: String,
    secret: Zeroizing<Vec<u8>>,
    key: CertificateRequest,
    machine_fingerprint: [u8; 32],
    hostname: String,
}

impl Attempt {
    fn parse(request: wire::EnrolRequest, source: IpAddr) -> Result<Self, Status> {
        let wire::EnrolRequest { token_id, token_secret, csr_der, machine_fingerprint, hostname } =
            request;
        let secret = Zeroizing::new(token_secret);
        let plain = |text: &str, max| text.len() <= max && !text.chars().any(char::is_control);
        if !plain(&token_id, TOKEN_ID_BYTES_MAX) || secret.len() != 32 {
            return Err(refuse(Refusal::TokenWrong));
        }
        if !plain(&hostname, HOSTNAME_BYTES_MAX) {
            return Err(refused(Refusal::Malformed, "hostname: is too long or not plain text"));
        }
        let machine_fingerprint = machine_fingerprint.as_slice().try_into().map_err(|_| {
            refused(Refusal::Malformed, "machine_fingerprint: has the wrong length")
        })?;
        let key = CertificateRequest::parse(&csr_der)
            .map_err(|error| refused(Refusal::CsrInvalid, error.to_string()))?;
        Ok(Self { source, token_id, secret, key, machine_fingerprint, hostname })
    }
}

/// Reads bytes as a request, for [`crate::parsers`].
pub(crate) fn any_bytes(bytes: &[u8]) {
    let Ok(request) = wire::EnrolRequest::decode(bytes) else { return };
    if let Ok(attempt) = Attempt::parse(request, IpAddr::V4(Ipv4Addr::LOCALHOST)) {
        assert_eq!(attempt.secret.len(), 32);
    }
}

impl Enrol {
    async fn admit(&self, attempt: &Attempt, now: Now) -> Result<Token, Status> {
        let found = self.store.token(attempt.token_id.clone()).await;
        let token = found
            .map_err(|error| store_refusal(&error))?
            .ok_or_else(|| refuse(Refusal::TokenWrong))?;
        token.admit(&attempt.secret, now.wall).map_err(refuse)?;
        let roster = self.live.roster();
        let agency = place(&roster, &token, attempt.source, now).map_err(refuse)?;
        tracing::debug!(agency = %agency.id, "an enrolment is admitted");
        Ok(token)
    }

    async fn issue(&self, attempt: Attempt, token: Token, now: Now) -> Result<Issued, Status> {
        let unable = |error: &(dyn std::error::Error + 'static)| {
            tracing::error!(error, "cannot issue a certificate");
            refuse(Refusal::Overloaded)
        };
        let agent = AgentId(Uuid::new_v4());
        let serial = Serial::draw().map_err(|error| unable(&error))?;
        let term = self.authority.term(self.certificate_lifetime, now.wall);
        let workload = Workload::Agent { agency: token.agency.clone(), agent };
        let certificate = self
            .authority
            .issue_agent(&attempt.key, workload, serial, term)
            .map_err(|error| unable(&error))?;
        let identity = Identity {
            agent,
            agency: token.agency.clone(),
            state: IdentityState::Active,
            current: serial,
            not_after: term.not_after,
            next: None,
            machine_fingerprint: attempt.machine_fingerprint,
            pinned: false,
        };
        let supersedes = self.register.superseded_by(
            &token.agency,
            &attempt.machine_fingerprint,
            self.fresh_for,
            now.mono,
        );
        let enrolment = Enrolment {
            identity: identity.clone(),
            hostname: attempt.hostname,
            source: attempt.source,
            token: attempt.token_id,
            secret: attempt.secret,
            supersedes: supersedes.clone(),
            at: now.wall,
        };
        let (register, former) = (Arc::clone(&self.register), supersedes.clone());
        let registered = move || {
            for agent in former {
                register.set_state(agent, IdentityState::Superseded);
            }
            register.put(identity);
        };
        let kept = self.store.enrol(enrolment, registered).await;
        kept.map_err(|error| store_refusal(&error))?.map_err(refuse)?;
        for former in supersedes {
            self.live.retired(former);
        }
        let agency = token.agency;
        tracing::info!(%agency, %agent, source = %attempt.source, "an agent was enrolled");
        self.live.enrolled(agent, agency.clone(), term.not_after);
        let roster = self.live.roster();
        let agency_name =
            roster.row(&agency).map_or_else(String::new, |row| roster.agencies()[row].full_name());
        Ok(Issued {
            agent,
            agency: agency.to_string(),
            agency_name,
            certificate: certificate.to_vec(),
        })
    }

    /// Writes a refused attempt down. Nothing of a secret is in it.
    fn audit(&self, source: IpAddr, token_id: &str, status: &Status, now: Now) {
        let detail = status.message().to_owned();
        tracing::warn!(%source, token_id, detail, "an enrolment was refused");
        self.store.post_audit(AuditEntry {
            at: now.wall,
            action: AuditAction::EnrolmentRefused,
            subject: token_id.to_owned(),
            source: source.to_string(),
            detail,
        });
    }
}

/// What an enrolment yields.
struct Issued {
    agent: AgentId,
    agency: String,
    agency_name: String,
    certificate: Vec<u8>,
}

/// Whether the token's agency is in force, and the source is one of its addresses where these
/// are known.
fn place<'a>(
    roster: &'a Roster,
    token: &Token,
    source: IpAddr,
    now: Now,
) -> Result<&'a Agency, Refusal> {
    let day = now.day();
    let row = roster.row(&token.agency).ok_or(Refusal::AgencyNotInRoster)?;
    let agency = &roster.agencies()[row];
    if !agency.validity.holds_on(day) {
        return Err(Refusal::AgencyNotInRoster);
    }
    if roster.has_prefixes(row, day) && roster.owner_of(source, day) != Some(row) {
        return Err(Refusal::SourceOutsidePrefixes);
    }
    Ok(agency)
}

impl Enrol {
    async fn enrol(
        &self,
        request: wire::EnrolRequest,
        source: IpAddr,
    ) -> Result<wire::EnrolResponse, Status> {
        let now = self.clock.now();
        let admitted = {
            let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            attempts.admits(source, &request.token_id, now.mono)
        };
        if !admitted {
            // Not audited: the audit is what the limit protects.
            return Err(refuse(Refusal::RateLimited));
        }
        let attempt = Attempt::parse(request, source)?;
        let token_id = attempt.token_id.clone();
        let issued = match self.admit(&attempt, now).await {
            Ok(token) => self.issue(attempt, token, now).await,
            Err(status) => Err(status),
        };
        let issued = issued.inspect_err(|status| self.audit(source, &token_id, status, now))?;
        let Endpoints { dedicated, fallback, enrolment: _, recovery } = self.endpoints.clone();
        Ok(wire::EnrolResponse {
            certificate_chain_der: vec![issued.certificate],
            trust_bundle: Some(bundle_to_wire(&self.trust_bundle)),
            agency_id: issued.agency,
            agency_name: issued.agency_name,
            agent_id: issued.agent.to_string(),
            report_endpoints: dedicated,
            fallback_endpoints: fallback,
            recovery_endpoints: recovery,
        })
    }
}

impl unary::Service for Enrol {
    const NAME: &'static str = enrolment_service_server::SERVICE_NAME;
    const REQUEST_BYTES_MAX: usize = unary::NEWCOMER_BYTES_MAX;

    async fn answer(&self, call: Call) -> Result<Answer, Status> {
        let source = call.peer().address();
        match call.method() {
            "Enrol" => self.enrol(call.message().await?, source).await.map(|one| Answer::of(&one)),
            _ => Err(call.unimplemented()),
        }
    }
}
