//! Enrolment: one pasted code becomes an identity, or one sentence says why not.
//!
//! The code names a listener and pins the certificate authority by the SHA-256 of its key. The
//! machine makes its key, sends a request that carries nothing but the public half, and keeps
//! what comes back only if it is whole: a certificate for that key, of an agent, signed by the
//! pinned authority. Until then nothing is written.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use haidang_proto::model::WireError;
use haidang_proto::model::enrolment_code::EnrolmentCode;
use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::report::TrustBundle;
use haidang_proto::wire;
use haidang_proto::wire::enrolment_service_client::EnrolmentServiceClient;
use rustls::pki_types::CertificateDer;
use tonic::Request;
use tonic::transport::Channel;

use crate::config::Dedicated;
use crate::identity::certificate::ca_pin;
use crate::identity::verifier::CollectorVerifier;
use crate::identity::{
    Contacts, Identity, IdentityError, Instance, Key, NewIdentity, NotTheCollector, Replace, Store,
    provider,
};
use crate::uplink::session::{ANSWER_BYTES_MAX, chain, within};
use crate::uplink::{CallError, ConnectError, connector};

/// Longest wait for the answer: a collector syncs its store before it gives an identity away.
const ENROL_DEADLINE: Duration = Duration::from_secs(20);
/// Longest wait for a name to be looked up.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Endpoints of each kind that are kept.
const ENDPOINTS_MAX: usize = 16;
/// Bytes of the agency's name.
const NAME_BYTES_MAX: usize = 256;

/// Why a machine could not be enrolled, in a sentence for the person who pasted the code.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// An identity is there, or cannot be kept.
    #[error("{0}")]
    Identity(#[source] IdentityError),
    /// The listener's name leads nowhere.
    #[error("cannot find the address of {endpoint}; ask whoever runs the collector")]
    Lookup {
        /// The name.
        endpoint: String,
        /// What the system said.
        source: io::Error,
    },
    /// No connection.
    #[error(
        "cannot reach the collector at {endpoint}; check the connection, and ask whether \
         enrolment is open"
    )]
    Connect {
        /// The listener.
        endpoint: String,
        /// What failed.
        source: ConnectError,
    },
    /// Somebody else answers, or somebody in between.
    #[error(
        "what answers at {endpoint} is not the collector that the code is for; the connection \
         may be intercepted: tell whoever sent the code"
    )]
    NotTheCollector {
        /// The listener.
        endpoint: String,
        /// What failed.
        source: ConnectError,
    },
    /// A certificate outside its dates.
    #[error(
        "the collector's certificate is not valid at this machine's date; set the machine's \
         clock right and try again"
    )]
    Clock(#[source] ConnectError),
    /// The collector said no.
    #[error("{}", sentence(*.0))]
    Refused(Refusal),
    /// The call failed otherwise.
    #[error("the collector did not answer the enrolment; try again later")]
    Call(#[source] CallError),
    /// An answer that breaks the contract.
    #[error("the collector's answer cannot be used; its version may not fit this agent's")]
    Answer(#[source] WireError),
    /// An endpoint that is no address.
    #[error(
        "the collector advertises {0:?}, which is not an IP address and port; have its \
         [advertise] settings corrected"
    )]
    Endpoint(String),
}

/// What is sent beside the code.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The instance id, kept when the machine is enrolled.
    pub instance: Instance,
    /// The machine id; empty where there is none.
    pub machine_id: Vec<u8>,
    /// Its own name, for people.
    pub hostname: String,
}

/// Enrols this machine. `dedicated` binds the connection if the listener lies in the dedicated
/// network, so that the collector sees an address of the agency.
///
/// # Errors
/// When anything is not as it must be; the store is then as it was.
pub async fn enrol(
    code: &EnrolmentCode,
    machine: Machine,
    store: &Store,
    replace: Replace,
    dedicated: Option<&Dedicated>,
) -> Result<Identity, EnrolError> {
    if store.exists() && replace == Replace::No {
        return Err(EnrolError::Identity(IdentityError::Exists));
    }
    let key = Key::generate().map_err(EnrolError::Identity)?;
    let csr_der = key.request().map_err(EnrolError::Identity)?;
    let channel = connect(code, dedicated).await?;
    let request = Request::new(wire::EnrolRequest {
        token_id: code.token_id.clone(),
        token_secret: code.secret.to_vec(),
        csr_der,
        machine_fingerprint: machine.instance.fingerprint(&machine.machine_id).to_vec(),
        hostname: machine.hostname,
    });
    let mut client =
        EnrolmentServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let answer =
        within(ENROL_DEADLINE, client.enrol(request)).await.map_err(|error| match error {
            CallError::Refused(refusal) => EnrolError::Refused(refusal),
            error => EnrolError::Call(error),
        })?;
    let identity = read(answer, key, code)?;
    identity.check(SystemTime::now()).map_err(EnrolError::Identity)?;
    store.keep_instance(&machine.instance).map_err(EnrolError::Identity)?;
    store.install(identity, replace, SystemTime::now()).map_err(EnrolError::Identity)
}

/// Reads the answer: what stands on disk afterwards is checked once more when it is kept.
fn read(
    answer: wire::EnrolResponse,
    key: Key,
    code: &EnrolmentCode,
) -> Result<NewIdentity, EnrolError> {
    let wire::EnrolResponse {
        certificate_chain_der,
        trust_bundle,
        // The certificate says both.
        agency_id: _,
        agent_id: _,
        agency_name,
        report_endpoints,
        fallback_endpoints,
        recovery_endpoints,
    } = answer;
    let malformed = |field, problem| EnrolError::Answer(WireError { field, problem });
    let chain = chain(certificate_chain_der).map_err(|error| match error {
        CallError::Malformed(error) => EnrolError::Answer(error),
        error => EnrolError::Call(error),
    })?;
    let bundle: TrustBundle = trust_bundle
        .ok_or(malformed("trust_bundle", "is missing"))?
        .try_into()
        .map_err(EnrolError::Answer)?;
    let roots: Vec<CertificateDer<'static>> =
        bundle.roots_der.into_iter().map(CertificateDer::from).collect();
    if !roots.iter().any(|root| ca_pin(root) == Some(code.ca_pin)) {
        return Err(malformed("trust_bundle", "does not hold the pinned authority"));
    }
    if agency_name.len() > NAME_BYTES_MAX || agency_name.chars().any(char::is_control) {
        return Err(malformed("agency_name", "is too long or holds control characters"));
    }
    let contacts = Contacts {
        agency_name,
        report_endpoints: addresses(&report_endpoints)?,
        fallback_endpoints: addresses(&fallback_endpoints)?,
        recovery_endpoints: addresses(&recovery_endpoints)?,
        trust_bundle_version: bundle.version,
    };
    Ok(NewIdentity { key, chain, roots, contacts })
}

fn addresses(endpoints: &[String]) -> Result<Vec<SocketAddr>, EnrolError> {
    if endpoints.len() > ENDPOINTS_MAX {
        let (field, problem) = ("report_endpoints", "has more than 16 entries");
        return Err(EnrolError::Answer(WireError { field, problem }));
    }
    let address = |text: &String| {
        text.parse().map_err(|_| EnrolError::Endpoint(text.chars().take(64).collect()))
    };
    endpoints.iter().map(address).collect()
}

async fn connect(
    code: &EnrolmentCode,
    dedicated: Option<&Dedicated>,
) -> Result<Channel, EnrolError> {
    let endpoint = &code.endpoint;
    let lookup = tokio::time::timeout(LOOKUP_DEADLINE, tokio::net::lookup_host(endpoint)).await;
    let found = match lookup {
        Ok(found) => found,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    let lookup_failed = |source| EnrolError::Lookup { endpoint: endpoint.clone(), source };
    let mut last = lookup_failed(io::ErrorKind::NotFound.into());
    for address in found.map_err(lookup_failed)?.take(ADDRESSES_MAX) {
        match connect_to(address, code, dedicated).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = explain(endpoint, error),
        }
    }
    Err(last)
}

async fn connect_to(
    address: SocketAddr,
    code: &EnrolmentCode,
    dedicated: Option<&Dedicated>,
) -> Result<Channel, ConnectError> {
    let is_inside = |dedicated: &&Dedicated| {
        dedicated.network_prefixes.iter().any(|net| net.contains(&address.ip()))
    };
    let binding = match dedicated.filter(is_inside) {
        Some(dedicated) => Some(connector::dedicated_binding(dedicated, address.ip()).await?),
        None => None,
    };
    let verifier = CollectorVerifier::of_pin(code.ca_pin, &provider());
    let tls = connector::tls_without_certificate(verifier);
    let stream = connector::connect(address, binding.as_ref(), tls).await?;
    connector::channel(address, stream).await
}

/// Tells an impostor from a wrong clock from a path that does not work.
fn explain(endpoint: &str, error: ConnectError) -> EnrolError {
    let endpoint = endpoint.to_owned();
    let inner = match &error {
        ConnectError::Clock { .. } => return EnrolError::Clock(error),
        ConnectError::Tls { source, .. } => source.get_ref(),
        _ => None,
    };
    let is_impostor =
        inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<NotTheCollector>);
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            EnrolError::NotTheCollector { endpoint, source: error }
        }
        _ if is_impostor => EnrolError::NotTheCollector { endpoint, source: error },
        _ => EnrolError::Connect { endpoint, source: error },
    }
}

/// One sentence for each reason.
const fn sentence(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::TokenWrong => "the collector does not know this enrolment code; ask for a new one",
        Refusal::TokenExpired => "this enrolment code has expired; ask for a new one",
        Refusal::TokenUsedUp => {
            "this enrolment code has been used as often as it may be; ask for a new one"
        }
        Refusal::TokenRevoked => "this enrolment code was withdrawn; ask for a new one",
        Refusal::SourceOutsidePrefixes => {
            "this machine's address does not belong to the agency of the code; enrol it from the \
             agency's own network"
        }
        Refusal::AgencyNotInRoster => {
            "the agency of this code is not in the collector's roster today; tell whoever sent it"
        }
        Refusal::RateLimited | Refusal::Overloaded => {
            "the collector is busy or has seen too many attempts; wait some minutes and try again"
        }
        Refusal::StoreUnavailable => {
            "the collector cannot keep new identities at the moment; try again later"
        }
        Refusal::CsrInvalid => {
            "the collector did not accept this machine's certificate request; its version may not \
             fit this agent's"
        }
        Refusal::Malformed | Refusal::TooLarge => {
            "the collector did not understand the enrolment; its version may not fit this agent's"
        }
        Refusal::Handshake
        | Refusal::HandshakeTimeout
        | Refusal::PeerClock
        | Refusal::Http2
        | Refusal::NoCertificate
        | Refusal::CertificateExpired
        | Refusal::CertificateNotYetValid
        | Refusal::IdentityMalformed
        | Refusal::IdentityUnknown
        | Refusal::Revoked
        | Refusal::SerialSuperseded
        | Refusal::Cloned
        | Refusal::RecoveryRefused => {
            "the collector refused the enrolment for a reason that belongs to enrolled machines; \
             the address in the code may not be that of its enrolment listener"
        }
    }
}

#[cfg(test)]
mod tests;
