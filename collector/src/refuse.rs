//! Refusals as gRPC statuses: the reason travels as metadata under `haidang-reason`, so that an
//! agent decides on it and not on text. `unary` counts them all, on their way out.

use std::time::Duration;

use haidang_proto::model::refusal::{REASON_KEY, Refusal};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// gRPC's own key for "come back after so many milliseconds".
const PUSHBACK_KEY: &str = "grpc-retry-pushback-ms";
/// When an overloaded part may be asked again.
const PUSHBACK: Duration = Duration::from_secs(5);

/// A refusal with the sentence that a person reads.
pub(crate) fn refused(refusal: Refusal, sentence: impl Into<String>) -> Status {
    let mut status = Status::new(code(refusal), sentence);
    status.metadata_mut().insert(REASON_KEY, MetadataValue::from_static(refusal.as_str()));
    if matches!(refusal, Refusal::Overloaded | Refusal::RateLimited | Refusal::StoreUnavailable) {
        status
            .metadata_mut()
            .insert(PUSHBACK_KEY, MetadataValue::from(PUSHBACK.as_millis() as u64));
    }
    status
}

/// A refusal with the sentence that it usually has.
pub(crate) fn refuse(refusal: Refusal) -> Status {
    refused(refusal, sentence(refusal))
}

const fn code(refusal: Refusal) -> Code {
    match refusal {
        Refusal::Handshake
        | Refusal::HandshakeTimeout
        | Refusal::PeerClock
        | Refusal::Http2
        | Refusal::NoCertificate
        | Refusal::CertificateExpired
        | Refusal::CertificateNotYetValid
        | Refusal::IdentityMalformed
        | Refusal::IdentityUnknown
        | Refusal::SerialSuperseded => Code::Unauthenticated,
        Refusal::Revoked
        | Refusal::Cloned
        | Refusal::AgencyNotInRoster
        | Refusal::TokenWrong
        | Refusal::TokenExpired
        | Refusal::TokenUsedUp
        | Refusal::TokenRevoked
        | Refusal::SourceOutsidePrefixes
        | Refusal::RecoveryRefused => Code::PermissionDenied,
        Refusal::Malformed | Refusal::CsrInvalid => Code::InvalidArgument,
        // As gRPC's own implementations say it.
        Refusal::TooLarge | Refusal::Overloaded | Refusal::RateLimited => Code::ResourceExhausted,
        Refusal::StoreUnavailable => Code::Unavailable,
    }
}

const fn sentence(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Handshake => "the connection has no agent's certificate",
        Refusal::HandshakeTimeout => "the handshake took too long",
        Refusal::PeerClock => "by the peer's clock this collector's certificate is over",
        Refusal::Http2 => "the connection does not keep to HTTP/2",
        Refusal::NoCertificate => "the peer showed no certificate",
        Refusal::Overloaded => "the collector is overloaded; come back later",
        Refusal::CertificateExpired => "the certificate has expired; renew it by recovery",
        Refusal::CertificateNotYetValid => {
            "the certificate is not valid yet; check the clocks of both machines"
        }
        Refusal::IdentityMalformed => "the certificate names no agent of this installation",
        Refusal::IdentityUnknown => "this agent was never enrolled here; enrol it again",
        Refusal::Revoked => {
            "this agent was revoked by an operator; enrol it again if it should go on"
        }
        Refusal::SerialSuperseded => {
            "the certificate was replaced by a newer one of the same machine"
        }
        Refusal::Cloned => {
            "two machines speak with this identity; an operator has to decide with \
             haidang-collector agent decide"
        }
        Refusal::AgencyNotInRoster => "the agency of this agent is not in the roster today",
        Refusal::Malformed => "the message breaks the contract",
        Refusal::TooLarge => "the message is larger than it may be",
        Refusal::StoreUnavailable => "the store cannot take anything now; keep it and come back",
        Refusal::RateLimited => "too many requests; come back later",
        Refusal::TokenWrong => {
            "the enrolment code is not known here; ask the operator for a new one"
        }
        Refusal::TokenExpired => "the enrolment code has expired; ask the operator for a new one",
        Refusal::TokenUsedUp => {
            "the enrolment code has been used as often as it may; ask the operator for a new one"
        }
        Refusal::TokenRevoked => "the enrolment code was withdrawn; ask the operator for a new one",
        Refusal::SourceOutsidePrefixes => {
            "enrolment is only possible from the agency's own network addresses"
        }
        Refusal::CsrInvalid => "the certificate request is not valid",
        Refusal::RecoveryRefused => "the expired certificate cannot be renewed; enrol again",
    }
}

/// The reason that a status carries; `None` where nobody is refused.
pub(crate) fn refusal_of(status: &Status) -> Option<Refusal> {
    Refusal::from_label(status.metadata().get(REASON_KEY)?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_leads_back_from_its_status() {
        for refusal in Refusal::ALL {
            assert_eq!(refusal_of(&refuse(*refusal)), Some(*refusal));
        }
        assert_eq!(refusal_of(&Status::cancelled("the request broke off")), None);
    }
}
