//! Recovery: a machine that was switched off past the end of its certificate gets a new one for
//! the key that it still has.
//!
//! Served on a listener of its own without client certificates, always on, because the machine
//! cannot pass any other handshake. Two calls: the first is answered with a nonce, the second
//! proves by a signature over it that the key is here now. Before either is answered: the
//! certificate is of this CA and ended at most 180 days ago, its serial is the identity's current
//! or pending one, nobody withdrew it, its agency is in force, and the source lies inside the
//! agency's prefixes; an agency without prefixes has nowhere to recover from. Attempts are
//! limited per source before anything is computed, and per agent after; what is refused is
//! audited and changes nothing.

mod nonces;
mod proof;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::spiffe::{TrustDomain, Workload};
use haidang_proto::wire;
use haidang_proto::wire::recovery_service_server;
use rustls::pki_types::CertificateDer;
use tonic::Status;

use crate::clock::Clock;
use crate::fleet::Now;
use crate::identity::{Authority, PeerCertificate, Recovery, Register, Serial};
use crate::ingest::store_refusal;
use crate::listen::TlsError;
use crate::live::Live;
use crate::refuse::{refuse, refused};
use crate::roster::Roster;
use crate::store::{AuditAction, AuditEntry, Store};
use crate::token::AttemptLimiter;
use crate::unary::{self, Answer, Call};
use nonces::{NONCE_BYTES, Nonces};
pub(crate) use proof::any_bytes;
use proof::{Proof, Prover, Refused};

/// How certificates are issued here.
#[derive(Debug, Clone)]
pub struct Issue {
    /// Name of the installation.
    pub trust_domain: TrustDomain,
    /// Life of a new certificate.
    pub certificate_lifetime: Duration,
    /// Roots whose certificates are renewed.
    pub roots: Vec<CertificateDer<'static>>,
}

/// The service, and what it needs.
#[derive(Debug)]
pub struct Recover {
    register: Arc<Register>,
    live: Live,
    store: Store,
    authority: Arc<Authority>,
    prover: Prover,
    certificate_lifetime: Duration,
    clock: Clock,
    /// Locked for a look-up, never across a wait.
    attempts: Mutex<AttemptLimiter>,
    /// Likewise.
    nonces: Mutex<Nonces>,
}

impl Recover {
    /// The service.
    ///
    /// # Errors
    /// When the roots cannot be used.
    pub fn new(
        register: Arc<Register>,
        live: Live,
        store: Store,
        authority: Arc<Authority>,
        issue: Issue,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let Issue { trust_domain, certificate_lifetime, roots } = issue;
        Ok(Self {
            register,
            live,
            store,
            authority,
            prover: Prover::new(&roots, trust_domain)?,
            certificate_lifetime,
            clock,
            attempts: Mutex::default(),
            nonces: Mutex::default(),
        })
    }

    /// One call from `source`.
    async fn renew_expired(
        &self,
        request: wire::RenewExpiredRequest,
        source: IpAddr,
        now: Now,
    ) -> Result<wire::RenewExpiredResponse, Status> {
        if !lock(&self.attempts).admits_source(source, now.mono) {
            // Not audited: the audit is what the limit protects.
            return Err(refuse(Refusal::RateLimited));
        }
        let proof =
            self.prover.verify(request).map_err(|why| self.refuse(why, None, source, now))?;
        let agent = proof.certificate.agent;
        if !lock(&self.attempts).admits_subject(&agent.to_string(), now.mono) {
            return Err(refuse(Refusal::RateLimited));
        }
        let admitted = admit(&self.register, &self.live.roster(), &proof.certificate, source, now);
        admitted.map_err(|why| self.refuse(why, Some(&proof.certificate), source, now))?;
        let Some(answer) = &proof.answer else {
            let server_nonce = self.nonce(&proof.certificate, now)?.to_vec();
            return Ok(wire::RenewExpiredResponse {
                server_nonce,
                certificate_chain_der: Vec::new(),
            });
        };
        let proved = lock(&self.nonces).take(agent, &answer.nonce, now.mono)
            && proof.request.has_signed(&answer.nonce, &answer.signature);
        if !proved {
            let why = (
                Refusal::RecoveryRefused,
                "the nonce is not the one that was given or not signed by the certificate's key",
            );
            return Err(self.refuse(why, Some(&proof.certificate), source, now));
        }
        if !self.register.may_renew(agent, now.mono) {
            return Err(refuse(Refusal::RateLimited));
        }
        let certificate = self.issue(&proof, source, now).await?;
        Ok(wire::RenewExpiredResponse {
            server_nonce: Vec::new(),
            certificate_chain_der: vec![certificate],
        })
    }

    fn nonce(&self, certificate: &PeerCertificate, now: Now) -> Result<[u8; NONCE_BYTES], Status> {
        let mut fresh = [0; NONCE_BYTES];
        getrandom::fill(&mut fresh).map_err(|error| unable(&error))?;
        let given = lock(&self.nonces).give(certificate.agent, fresh, now.mono);
        given.ok_or_else(|| refuse(Refusal::Overloaded))
    }

    async fn issue(&self, proof: &Proof, source: IpAddr, now: Now) -> Result<Vec<u8>, Status> {
        let PeerCertificate { agency, agent, serial: presented, not_after: ended, .. } =
            proof.certificate.clone();
        let serial = Serial::draw().map_err(|error| unable(&error))?;
        let term = self.authority.term(self.certificate_lifetime, now.wall);
        let workload = Workload::Agent { agency: agency.clone(), agent };
        let issued = self
            .authority
            .issue_agent(&proof.request, workload, serial, term)
            .map_err(|error| unable(&error))?;
        let audit = AuditEntry {
            at: now.wall,
            action: AuditAction::Recovered,
            subject: agent.to_string(),
            source: source.to_string(),
            detail: format!("agency {agency}, serial {serial} instead of {presented}"),
        };
        let recovery =
            Recovery { agent, presented: (presented, ended), next: (serial, term.not_after) };
        let register = Arc::clone(&self.register);
        let kept = self.store.recovered(recovery, audit, move || register.recovered(&recovery));
        // Durable first: a certificate that a restart has forgotten would lock its agent out.
        kept.await.map_err(|error| store_refusal(&error))?;
        tracing::info!(%agency, %agent, %source, "an expired certificate was renewed");
        Ok(issued.to_vec())
    }

    /// Writes a refused attempt down and makes its answer.
    fn refuse(
        &self,
        (refusal, sentence): Refused,
        of: Option<&PeerCertificate>,
        source: IpAddr,
        now: Now,
    ) -> Status {
        let subject = of.map_or_else(String::new, |certificate| certificate.agent.to_string());
        tracing::warn!(%source, subject, reason = refusal.as_str(), "a recovery was refused");
        if refusal != Refusal::Malformed {
            self.store.post_audit(AuditEntry {
                at: now.wall,
                action: AuditAction::RecoveryRefused,
                subject,
                source: source.to_string(),
                detail: sentence.to_owned(),
            });
        }
        refused(refusal, sentence)
    }
}

/// A panic elsewhere cannot leave these half changed, so a poisoned lock is usable.
fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an expired certificate of ours may be replaced, asked from `source`.
fn admit(
    register: &Register,
    roster: &Roster,
    certificate: &PeerCertificate,
    source: IpAddr,
    now: Now,
) -> Result<(), Refused> {
    register.recoverable(certificate, now.wall).map_err(|refusal| match refusal {
        Refusal::RecoveryRefused if now.wall <= certificate.not_after => {
            (refusal, "the certificate has not expired; check the clock of this machine")
        }
        Refusal::RecoveryRefused => {
            (refusal, "the certificate ended more than 180 days ago; enrol again with a new code")
        }
        Refusal::Revoked => (refusal, "this agent was revoked by an operator"),
        Refusal::Cloned => (refusal, "two machines speak with this identity; ask the operator"),
        Refusal::SerialSuperseded => (refusal, "the certificate was replaced by a newer one"),
        _ => (refusal, "this agent was never enrolled here; enrol it"),
    })?;
    let day = now.day();
    let in_force = |row: &usize| roster.agencies()[*row].validity.holds_on(day);
    let row = roster
        .row(&certificate.agency)
        .filter(in_force)
        .ok_or((Refusal::AgencyNotInRoster, "the agency is not in the roster today"))?;
    if roster.owner_of(source, day) != Some(row) {
        return Err((
            Refusal::SourceOutsidePrefixes,
            "an expired certificate is renewed only from the agency's own network addresses, as \
             the roster names them",
        ));
    }
    Ok(())
}

fn unable(error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error, "cannot issue a certificate for a recovery");
    refuse(Refusal::Overloaded)
}

impl unary::Service for Recover {
    const NAME: &'static str = recovery_service_server::SERVICE_NAME;
    const REQUEST_BYTES_MAX: usize = unary::NEWCOMER_BYTES_MAX;

    async fn answer(&self, call: Call) -> Result<Answer, Status> {
        let source = call.peer().address();
        match call.method() {
            "RenewExpired" => {
                let request = call.message().await?;
                let renewed = self.renew_expired(request, source, self.clock.now()).await;
                renewed.map(|renewed| Answer::of(&renewed))
            }
            _ => Err(call.unimplemented()),
        }
    }
}
