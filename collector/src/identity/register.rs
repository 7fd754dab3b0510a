//! The register: which identities are accepted now. Asked once for every request, because a
//! connection and a session ticket outlive a revocation, a renewal and a certificate's end.
//!
//! An identity is bound to its current serial and, after a renewal, to the pending next one,
//! which becomes current with its first use; and to the fingerprint of the machine that
//! enrolled. A foreign fingerprint, like the returning process that the fleet notices, means
//! two machines with one identity: then neither is accepted until an operator decides, because
//! taking the first or the last would favour whoever is awake at night.
//!
//! The register is what the store holds, in memory. Who changes it writes to the store first,
//! except for blocking a clone, which cannot wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::refusal::Refusal;

use super::{PeerCertificate, Serial};

/// Requests that an agent may send at once: a first report, its backlog and a renewal.
const REQUESTS_BURST: f64 = 200.0;
/// Requests a second in the long run: reports at their shortest interval and a backlog.
const REQUESTS_PER_SECOND: f64 = 20.0;
/// How long after its end a certificate can be renewed: a school year and its holidays. A
/// machine that was off for longer is enrolled again by a person.
pub const RECOVERY_AGE_MAX: Duration = Duration::from_secs(180 * 86_400);
/// Time between two renewals of one identity.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// An enrolled agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The agent.
    pub agent: AgentId,
    /// Its agency.
    pub agency: AgencyId,
    /// Whether it is accepted.
    pub state: IdentityState,
    /// Serial in use.
    pub current: Serial,
    /// End of that certificate.
    pub not_after: SystemTime,
    /// A renewed certificate that was not used yet, with its end.
    pub next: Option<(Serial, SystemTime)>,
    /// SHA-256 over machine id and instance id.
    pub machine_fingerprint: [u8; 32],
    /// An operator decided that this machine keeps the identity: another one is refused and
    /// blocks it no more.
    pub pinned: bool,
}

/// Whether an identity is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityState {
    /// It is.
    Active,
    /// An operator withdrew it.
    Revoked,
    /// Its machine was enrolled anew.
    Superseded,
    /// Two machines speak with it, and an operator has to decide.
    Blocked,
}

impl IdentityState {
    /// The label in the store and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Superseded => "superseded",
            Self::Blocked => "blocked",
        }
    }

    /// The state that a label stands for.
    pub fn from_label(label: &str) -> Option<Self> {
        [Self::Active, Self::Revoked, Self::Superseded, Self::Blocked]
            .into_iter()
            .find(|state| state.as_str() == label)
    }
}

impl Identity {
    /// Whether a certificate with this serial may speak for it.
    fn accepts(&self, serial: Serial) -> Result<(), Refusal> {
        match self.state {
            IdentityState::Active => {}
            IdentityState::Revoked => return Err(Refusal::Revoked),
            IdentityState::Superseded => return Err(Refusal::SerialSuperseded),
            IdentityState::Blocked => return Err(Refusal::Cloned),
        }
        let is_next = self.next.is_some_and(|(next, _)| next == serial);
        if serial == self.current || is_next { Ok(()) } else { Err(Refusal::SerialSuperseded) }
    }
}

/// An expired certificate that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// The agent.
    pub agent: AgentId,
    /// The expired certificate that it holds, with its end. It stays acceptable for another
    /// recovery until the new one is used, because the answer may be lost.
    pub presented: (Serial, SystemTime),
    /// The new one, with its end.
    pub next: (Serial, SystemTime),
}

/// What an accepted request means for its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The pending certificate was used for the first time and is current from now on; so says
    /// its end.
    pub promoted: Option<SystemTime>,
}

/// Whether a report comes from the machine that enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// It does.
    Enrolled,
    /// It does not, and an operator has decided already: refuse it alone.
    Refused,
    /// It does not: from now on the identity is blocked.
    Foreign {
        /// Where the enrolled machine reported from, if it did since the collector started.
        former: Option<IpAddr>,
    },
}

/// Identities by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegisterCounts {
    /// Accepted.
    pub active: usize,
    /// Waiting for an operator.
    pub blocked: usize,
}

/// All identities. Shared by the listeners' requests and the admin socket: each locks it for a
/// look-up and a few assignments, never across a wait.
#[derive(Debug, Default)]
pub struct Register {
    entries: Mutex<HashMap<AgentId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    heard: Option<Duration>,
    source: Option<IpAddr>,
    allowance: f64,
    allowance_at: Duration,
    renewed_at: Option<Duration>,
}

impl Register {
    /// A register of what the store holds.
    pub fn new(identities: impl IntoIterator<Item = Identity>) -> Self {
        let register = Self::default();
        for identity in identities {
            register.put(identity);
        }
        register
    }

    /// Adds an identity, or replaces what is known of it.
    pub fn put(&self, identity: Identity) {
        let entry = Entry {
            heard: None,
            source: None,
            allowance: REQUESTS_BURST,
            allowance_at: Duration::ZERO,
            renewed_at: None,
            identity,
        };
        self.lock().insert(entry.identity.agent, entry);
    }

    /// Decides on one request of a peer.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn authorize(
        &self,
        peer: &PeerCertificate,
        mono: Duration,
        wall: SystemTime,
    ) -> Result<Accepted, Refusal> {
        if wall > peer.not_after {
            return Err(Refusal::CertificateExpired);
        }
        if wall < peer.not_before {
            return Err(Refusal::CertificateNotYetValid);
        }
        let mut entries = self.lock();
        let entry = entries.get_mut(&peer.agent).ok_or(Refusal::IdentityUnknown)?;
        let identity = &mut entry.identity;
        if identity.agency != peer.agency {
            return Err(Refusal::IdentityUnknown);
        }
        identity.accepts(peer.serial)?;
        let promoted = match identity.next {
            Some((next, not_after)) if next == peer.serial => {
                (identity.current, identity.not_after, identity.next) = (next, not_after, None);
                Some(not_after)
            }
            Some(_) | None => None,
        };
        entry.spend(mono)?;
        entry.heard = Some(mono);
        Ok(Accepted { promoted })
    }

    /// Compares the machine that reports with the one that enrolled.
    pub fn machine(
        &self,
        agent: AgentId,
        machine_fingerprint: &[u8; 32],
        source: IpAddr,
    ) -> Machine {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&agent) else { return Machine::Refused };
        let identity = &mut entry.identity;
        if identity.machine_fingerprint == *machine_fingerprint {
            entry.source = Some(source);
            return Machine::Enrolled;
        }
        if identity.pinned {
            return Machine::Refused;
        }
        identity.state = IdentityState::Blocked;
        Machine::Foreign { former: entry.source }
    }

    /// Decides on the expired certificate of a peer that has proved to hold its key.
    ///
    /// # Errors
    /// Why it is not renewed.
    pub fn recoverable(&self, peer: &PeerCertificate, wall: SystemTime) -> Result<(), Refusal> {
        let ended = wall.duration_since(peer.not_after).ok().filter(|since| !since.is_zero());
        if ended.is_none_or(|since| since > RECOVERY_AGE_MAX) {
            return Err(Refusal::RecoveryRefused);
        }
        let entries = self.lock();
        let known = entries.get(&peer.agent).map(|entry| &entry.identity);
        let identity =
            known.filter(|one| one.agency == peer.agency).ok_or(Refusal::IdentityUnknown)?;
        identity.accepts(peer.serial)
    }

    /// A certificate that replaces an expired one was made durable: it is accepted beside the
    /// one that was presented.
    pub fn recovered(&self, recovery: &Recovery) {
        if let Some(entry) = self.lock().get_mut(&recovery.agent) {
            let Recovery { agent: _, presented, next } = *recovery;
            (entry.identity.current, entry.identity.not_after) = presented;
            entry.identity.next = Some(next);
        }
    }

    /// Whether a renewal may be issued now; if so, the next one has to wait.
    pub fn may_renew(&self, agent: AgentId, mono: Duration) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&agent) else { return false };
        if entry.renewed_at.is_some_and(|at| mono.saturating_sub(at) < RENEWAL_PAUSE) {
            return false;
        }
        entry.renewed_at = Some(mono);
        true
    }

    /// A renewed certificate was made durable: it is accepted beside the current one.
    pub fn renewed(&self, agent: AgentId, serial: Serial, not_after: SystemTime) {
        if let Some(entry) = self.lock().get_mut(&agent) {
            entry.identity.next = Some((serial, not_after));
        }
    }

    /// Puts an identity into another state, if it is known.
    pub fn set_state(&self, agent: AgentId, state: IdentityState) {
        if let Some(entry) = self.lock().get_mut(&agent) {
            entry.identity.state = state;
        }
    }

    /// Two machines speak with an identity: it is blocked, unless an operator withdrew it.
    pub fn block(&self, agent: AgentId) {
        if let Some(entry) = self.lock().get_mut(&agent)
            && entry.identity.state == IdentityState::Active
        {
            entry.identity.state = IdentityState::Blocked;
        }
    }

    /// What is known of an agent.
    pub fn identity(&self, agent: AgentId) -> Option<Identity> {
        self.lock().get(&agent).map(|entry| entry.identity.clone())
    }

    /// Identities of an agency that a new enrolment of the same machine replaces: active and not heard
    /// within `fresh_for`.
    pub fn superseded_by(
        &self,
        agency: &AgencyId,
        machine_fingerprint: &[u8; 32],
        fresh_for: Duration,
        mono: Duration,
    ) -> Vec<AgentId> {
        let fresh = |entry: &Entry| {
            entry.heard.is_some_and(|heard| mono.saturating_sub(heard) <= fresh_for)
        };
        self.lock()
            .values()
            .filter(|entry| {
                entry.identity.state == IdentityState::Active
                    && entry.identity.agency == *agency
                    && entry.identity.machine_fingerprint == *machine_fingerprint
                    && !fresh(entry)
            })
            .map(|entry| entry.identity.agent)
            .collect()
    }

    /// How many identities there are.
    pub fn counts(&self) -> RegisterCounts {
        let mut counts = RegisterCounts::default();
        for entry in self.lock().values() {
            match entry.identity.state {
                IdentityState::Active => counts.active += 1,
                IdentityState::Blocked => counts.blocked += 1,
                IdentityState::Revoked | IdentityState::Superseded => {}
            }
        }
        counts
    }

    /// A panic elsewhere cannot leave an entry half changed, so a poisoned lock is usable.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AgentId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn spend(&mut self, mono: Duration) -> Result<(), Refusal> {
        let elapsed = mono.saturating_sub(self.allowance_at).as_secs_f64();
        self.allowance_at = mono;
        self.allowance = (self.allowance + elapsed * REQUESTS_PER_SECOND).min(REQUESTS_BURST);
        if self.allowance < 1.0 {
            return Err(Refusal::RateLimited);
        }
        self.allowance -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
