//! A new certificate for a machine that was switched off past its certificate's end.
//!
//! The recovery listener asks for no client certificate. Two calls: the first is answered with a
//! nonce, the second proves by a signature over it that the expired certificate's key is here.

use std::net::SocketAddr;
use std::time::Duration;

use haidang_proto::wire;
use haidang_proto::wire::recovery_service_client::RecoveryServiceClient;
use rustls::pki_types::CertificateDer;
use tonic::Request;

use crate::config::Config;
use crate::identity::verifier::CollectorVerifier;
use crate::identity::{Identity, IdentityError, provider};

use super::session::{ANSWER_BYTES_MAX, CallError, chain, within};
use super::{ConnectError, connector};

/// Longest wait for either answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// A nonce is at most so long: what we sign is not the peer's to stretch.
const NONCE_BYTES_MAX: usize = 64;

/// A recovery that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoveryError {
    #[error(
        "the certificate has expired, and no recovery listener is known inside network_prefixes or \
         at a fallback; enrol again with: haidang-agent enroll --replace"
    )]
    NoListener,
    #[error("no recovery listener was reached")]
    Connect(#[source] ConnectError),
    #[error("the recovery listener did not help")]
    Call(#[source] CallError),
    #[error("the recovery listener sent no usable nonce")]
    Nonce,
    #[error("this machine's key cannot be used")]
    Identity(#[source] IdentityError),
}

/// Asks the listeners in turn for a new chain for the key of `identity`.
pub(super) async fn renew_expired(
    config: &Config,
    identity: &Identity,
    listeners: &[SocketAddr],
) -> Result<Vec<CertificateDer<'static>>, RecoveryError> {
    let mut last = RecoveryError::NoListener;
    for address in listeners {
        match ask(config, identity, *address).await {
            Ok(chain) => return Ok(chain),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(
    config: &Config,
    identity: &Identity,
    address: SocketAddr,
) -> Result<Vec<CertificateDer<'static>>, RecoveryError> {
    let roots = identity.root_store().map_err(RecoveryError::Identity)?;
    let verifier = CollectorVerifier::of_roots(roots, identity.trust_domain.clone(), &provider());
    let tls = connector::tls_without_certificate(verifier);
    let dedicated = &config.dedicated;
    let binding = match dedicated.network_prefixes.iter().any(|net| net.contains(&address.ip())) {
        true => {
            let binding = connector::dedicated_binding(dedicated, address.ip()).await;
            Some(binding.map_err(RecoveryError::Connect)?)
        }
        false => None,
    };
    let stream = connector::connect(address, binding.as_ref(), tls).await;
    let stream = stream.map_err(RecoveryError::Connect)?;
    let channel = connector::channel(address, stream).await.map_err(RecoveryError::Connect)?;
    let mut client =
        RecoveryServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut request = wire::RenewExpiredRequest {
        expired_chain_der: identity.chain.iter().map(|der| der.to_vec()).collect(),
        csr_der: identity.request().map_err(RecoveryError::Identity)?,
        server_nonce: Vec::new(),
        nonce_signature: Vec::new(),
    };
    let call = client.renew_expired(Request::new(request.clone()));
    let answer = within(DEADLINE, call).await.map_err(RecoveryError::Call)?;
    let nonce = answer.server_nonce;
    if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX {
        return Err(RecoveryError::Nonce);
    }
    request.nonce_signature = identity.sign(&nonce).map_err(RecoveryError::Identity)?;
    request.server_nonce = nonce;
    let call = client.renew_expired(Request::new(request));
    let answer = within(DEADLINE, call).await.map_err(RecoveryError::Call)?;
    chain(answer.certificate_chain_der).map_err(RecoveryError::Call)
}
