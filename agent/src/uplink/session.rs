//! One connection to a collector, and the calls on it. Wire types are named here and in `enrol`
//! and `recovery` only. Each call has a deadline, and each failure one of four meanings.

use std::time::Duration;

use haidang_proto::model::WireError;
use haidang_proto::model::goodbye::Goodbye;
use haidang_proto::model::record::{Delivery, Receipt};
use haidang_proto::model::refusal::{REASON_KEY, Refusal};
use haidang_proto::model::report::{Reply, Report};
use haidang_proto::wire;
use haidang_proto::wire::reporting_service_client::ReportingServiceClient;
use rustls::pki_types::CertificateDer;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::choice::Target;

/// Bytes of an answer: a trust bundle of eight roots of 16 KiB, and change.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Certificates of a chain, and bytes of each.
const CHAIN_MAX: usize = 8;
const CERTIFICATE_BYTES_MAX: usize = 16 << 10;
/// Bytes of an error text that are kept.
const TEXT_BYTES_MAX: usize = 200;
/// A goodbye is a courtesy.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(2);

/// A connection that carries calls. A clone is another hand on the same connection.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) index: usize,
    pub(super) target: Target,
    client: ReportingServiceClient<Channel>,
}

/// A call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The collector turned it away, and says why.
    #[error("the collector refused: {}", .0.as_str())]
    Refused(Refusal),
    /// The collector is busy.
    #[error("the collector is busy")]
    Busy,
    /// No answer, or none that this version knows.
    #[error("the call failed: {0}")]
    Failed(String),
    /// An answer that breaks the contract.
    #[error("the collector's answer cannot be used")]
    Malformed(#[source] WireError),
}

impl CallError {
    /// Whether the connection is of no further use.
    pub(super) fn ends_session(&self) -> bool {
        match self {
            Self::Refused(
                Refusal::RateLimited | Refusal::StoreUnavailable | Refusal::Overloaded,
            )
            | Self::Busy => false,
            Self::Refused(_) | Self::Failed(_) | Self::Malformed(_) => true,
        }
    }
}

impl Session {
    pub(super) fn new(index: usize, target: Target, channel: Channel) -> Self {
        let client =
            ReportingServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Self { index, target, client }
    }

    pub(super) async fn report(
        &mut self,
        report: Report,
        deadline: Duration,
    ) -> Result<Reply, CallError> {
        let request = Request::new(wire::ReportRequest::from(report));
        let answer = within(deadline, self.client.report(request)).await?;
        answer.try_into().map_err(CallError::Malformed)
    }

    pub(super) async fn deliver(
        &mut self,
        delivery: Delivery,
        deadline: Duration,
    ) -> Result<Receipt, CallError> {
        let request = Request::new(wire::DeliverRequest::from(delivery));
        let answer = within(deadline, self.client.deliver(request)).await?;
        Ok(answer.into())
    }

    /// Answers a new chain for the key of the request.
    pub(super) async fn renew(
        &mut self,
        csr_der: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, CallError> {
        let request = Request::new(wire::RenewRequest { csr_der });
        let answer = within(deadline, self.client.renew(request)).await?;
        let wire::RenewResponse { certificate_chain_der } = answer;
        chain(certificate_chain_der)
    }

    pub(super) async fn goodbye(&mut self, goodbye: Goodbye) -> Result<(), CallError> {
        let request = Request::new(wire::GoodbyeRequest::from(goodbye));
        let wire::GoodbyeResponse {} =
            within(GOODBYE_DEADLINE, self.client.goodbye(request)).await?;
        Ok(())
    }
}

/// Certificates from the wire, within bounds; what they say is judged where they are kept.
pub(crate) fn chain(der: Vec<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, CallError> {
    let fits = |one: &Vec<u8>| !one.is_empty() && one.len() <= CERTIFICATE_BYTES_MAX;
    if der.is_empty() || der.len() > CHAIN_MAX || !der.iter().all(fits) {
        let (field, problem) = ("certificate_chain_der", "has not 1 to 8 certificates");
        return Err(CallError::Malformed(WireError { field, problem }));
    }
    Ok(der.into_iter().map(CertificateDer::from).collect())
}

/// Awaits an answer for so long.
pub(crate) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refusal(&status)),
        Err(_) => Err(CallError::Failed(format!("no answer within {} s", deadline.as_secs()))),
    }
}

fn refusal(status: &Status) -> CallError {
    let label = status.metadata().get(REASON_KEY).and_then(|value| value.to_str().ok());
    match (label.and_then(Refusal::from_label), status.code()) {
        (Some(refusal), _) => CallError::Refused(refusal),
        (None, Code::ResourceExhausted) => CallError::Busy,
        (None, code) => {
            let clean = |c: char| if c.is_control() { ' ' } else { c };
            let text: String = status.message().chars().map(clean).collect();
            let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev();
            let end = end.into_iter().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            CallError::Failed(format!("{code}: {}", &text[..end]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn meaning(code: Code, label: Option<&'static str>, expected: &CallError) {
        let mut status = Status::new(code, "text\u{7}");
        if let Some(label) = label {
            status.metadata_mut().insert(REASON_KEY, label.parse().unwrap());
        }
        assert_eq!(refusal(&status), *expected);
    }

    #[test]
    fn reasons_are_read_from_metadata_and_never_from_text() {
        let denied = Code::PermissionDenied;
        meaning(denied, Some("revoked"), &CallError::Refused(Refusal::Revoked));
        meaning(denied, Some("cloned"), &CallError::Refused(Refusal::Cloned));
        let text = "The caller does not have permission to execute the specified operation: text ";
        meaning(denied, Some("no_such"), &CallError::Failed(text.into()));
        meaning(denied, None, &CallError::Failed(text.into()));
        meaning(Code::ResourceExhausted, None, &CallError::Busy);
    }

    #[test]
    fn only_a_busy_collector_keeps_its_connection() {
        for refusal in Refusal::ALL {
            let busy = matches!(
                refusal,
                Refusal::RateLimited | Refusal::StoreUnavailable | Refusal::Overloaded
            );
            assert_eq!(CallError::Refused(*refusal).ends_session(), !busy, "{refusal:?}");
        }
        assert!(CallError::Failed(String::new()).ends_session());
    }
}
