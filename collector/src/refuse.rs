//! Refusals as gRPC statuses: the reason travels as metadata under `haidang-reason`, so that an
//! agent decides on it and not on text. One place counts them all, on their way out, together
//! with those that gRPC makes itself before a request is seen here; these get their reason there.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use haidang_proto::model::refusal::{REASON_KEY, Refusal};
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::metrics::CollectorMetrics;

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
        Refusal::TooLarge => "the message is larger than 4 MiB",
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

/// A service whose refusals are counted.
#[derive(Debug, Clone)]
pub(crate) struct Counted<S> {
    pub(crate) inner: S,
    pub(crate) metrics: CollectorMetrics,
}

impl<S, Request, Body> Service<Request> for Counted<S>
where
    S: Service<Request, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        CountedFuture { inner: self.inner.call(request), metrics: self.metrics.clone() }
    }
}

/// The answer of a counted service.
#[derive(Debug)]
pub(crate) struct CountedFuture<F> {
    inner: F,
    metrics: CollectorMetrics,
}

impl<F, Body> Future for CountedFuture<F>
where
    F: Future<Output = Result<http::Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut polled = Pin::new(&mut self.inner).poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Some(refusal) = refusal_in(response.headers())
        {
            self.metrics.rejected(refusal);
            name(refusal, response.headers_mut());
        }
        polled
    }
}

/// The refusal that the head of an answer carries. gRPC puts the status of a call that never
/// began to answer there.
fn refusal_in(headers: &http::HeaderMap) -> Option<Refusal> {
    let text = |key| headers.get(key).and_then(|value: &http::HeaderValue| value.to_str().ok());
    if let Some(reason) = text(REASON_KEY) {
        return Refusal::from_label(reason);
    }
    match Code::from_bytes(text("grpc-status")?.as_bytes()) {
        Code::Ok => None,
        // tonic's answers to a message over the limit and to one that is no protobuf.
        Code::OutOfRange => Some(Refusal::TooLarge),
        _ => Some(Refusal::Malformed),
    }
}

/// Tells the reason of a refusal that gRPC made itself, as every other refusal tells it.
fn name(refusal: Refusal, headers: &mut http::HeaderMap) {
    headers.insert(REASON_KEY, http::HeaderValue::from_static(refusal.as_str()));
    if refusal == Refusal::TooLarge {
        // tonic says OUT_OF_RANGE.
        headers.insert("grpc-status", http::HeaderValue::from(code(refusal) as i32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_leads_back_from_the_wire() {
        for refusal in Refusal::ALL {
            let response = refuse(*refusal).into_http::<()>();
            assert_eq!(refusal_in(response.headers()), Some(*refusal));
        }
    }

    #[test]
    fn what_grpc_refuses_itself_is_counted_too() {
        let cases = [
            (Status::out_of_range("decoded message length too large"), Some(Refusal::TooLarge)),
            (Status::internal("failed to decode Protobuf message"), Some(Refusal::Malformed)),
            (Status::ok(""), None),
        ];
        for (status, want) in cases {
            let mut response = status.into_http::<()>();
            assert_eq!(refusal_in(response.headers()), want);
            let Some(refusal) = want else { continue };
            name(refusal, response.headers_mut());
            assert_eq!(response.headers()[REASON_KEY], refusal.as_str());
            assert_eq!(refusal_in(response.headers()), want, "and it goes on saying so");
        }
        let mut response =
            Status::out_of_range("decoded message length too large").into_http::<()>();
        name(Refusal::TooLarge, response.headers_mut());
        let told = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(told.code(), Code::ResourceExhausted);
    }
}
