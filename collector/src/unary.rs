//! gRPC's unary calls, as a server answers them over HTTP/2 (`doc/PROTOCOL-HTTP2.md` of gRPC).
//!
//! Every method of ours takes one message and gives one. tonic serves that as streams both ways,
//! in boxed futures of 2 KiB and with buffers of their own, which took an eighth of a report's
//! instructions. Here the message is decoded where it arrived and answered in the request's own
//! future. A call is refused before more than its limit is held, and every refusal is counted by
//! its reason.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt as _, stream};
use haidang_proto::model::refusal::{REASON_KEY, Refusal};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::listen::Peer;
use crate::metrics::CollectorMetrics;
use crate::refuse::{refusal_of, refused};

/// One request's work, waits for the store included.
const REQUEST_WAIT: Duration = Duration::from_secs(35);
/// Bytes of an enrolment or a recovery: each takes 2 KiB, and nobody there has proved anything yet.
pub(crate) const NEWCOMER_BYTES_MAX: usize = 16 << 10;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// Before a message: whether it is compressed, and its length, big endian.
const PREFIX_BYTES: usize = 5;

/// A service of the contract.
pub(crate) trait Service: Send + Sync + 'static {
    /// Its full name there.
    const NAME: &'static str;
    /// Bytes of a request's message.
    const REQUEST_BYTES_MAX: usize;

    /// Answers a call of one of its methods.
    fn answer(&self, call: Call) -> impl Future<Output = Result<Answer, Status>> + Send;
}

/// A call whose message is still to come.
pub(crate) struct Call {
    uri: Uri,
    /// Where the method's name begins in the path; behind its end where there is none.
    method_at: usize,
    peer: Peer,
    body: Incoming,
    bytes_max: usize,
}

/// A message that goes out, then the status of a call that went well.
pub(crate) struct Answer(Left);

/// What is still to be sent.
#[derive(Default)]
enum Left {
    Message(Bytes),
    Status,
    /// Also of a refusal, which the head of the answer says.
    #[default]
    Nothing,
}

/// Answers one request of a connection.
pub(crate) async fn respond<S: Service>(
    service: Arc<S>,
    metrics: CollectorMetrics,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Answer> {
    if !is_grpc(&request) {
        metrics.rejected(Refusal::Malformed);
        return not_grpc();
    }
    let answering = service.answer(Call::of::<S>(request, peer));
    let answered = tokio::time::timeout(REQUEST_WAIT, answering).await;
    match answered.unwrap_or_else(|_| Err(took_too_long())) {
        Ok(answer) => answer.into_response(),
        Err(status) => {
            if let Some(refusal) = refusal_of(&status) {
                metrics.rejected(refusal);
            }
            status.into_http()
        }
    }
}

/// Whether a request is a call at all; what else it may be is not looked at.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    let is_ours = kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
    is_ours && request.method() == Method::POST
}

fn not_grpc() -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

fn took_too_long() -> Status {
    Status::deadline_exceeded("the request took too long")
}

impl Call {
    fn of<S: Service>(request: Request<Incoming>, peer: Peer) -> Self {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let service = path.strip_prefix('/').and_then(|rest| rest.strip_prefix(S::NAME));
        let method = service.and_then(|rest| rest.strip_prefix('/'));
        let method_at = path.len() - method.map_or(0, str::len);
        Self { uri: head.uri, method_at, peer, body, bytes_max: S::REQUEST_BYTES_MAX }
    }

    /// The method's name; empty for one of no service of this listener.
    pub(crate) fn method(&self) -> &str {
        &self.uri.path()[self.method_at..]
    }

    /// Who calls.
    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Waits for the message.
    ///
    /// # Errors
    /// When it is longer than the service allows, compressed, cut off, not alone, or no such
    /// message.
    pub(crate) async fn message<M: Message + Default>(self) -> Result<M, Status> {
        let bytes = message_of(self.body, self.bytes_max).await?;
        // The code that gRPC lists for this (its `doc/statuscodes.md`).
        let unreadable = |error| Status::internal(format!("the message cannot be read: {error}"));
        M::decode(bytes).map_err(|error| reasoned(unreadable(error)))
    }

    /// What to say of a method that there is not.
    pub(crate) fn unimplemented(&self) -> Status {
        reasoned(Status::unimplemented(format!("there is no {:?} here", self.uri.path())))
    }
}

/// The one message of a request's body, however it is cut into frames.
async fn message_of<B>(mut body: B, bytes_max: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes> + Unpin,
{
    // A report comes in one frame, which is not copied.
    let (mut first, mut joined) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        // Its sender has taken it back or is gone: nobody is refused.
        let frame = frame.map_err(|_| Status::cancelled("the request broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.is_empty() {
            first = data;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&data);
        }
        check(if joined.is_empty() { &first } else { &joined }, bytes_max)?;
    }
    let mut whole = if joined.is_empty() { first } else { joined.into() };
    match declared(&whole) {
        Some(length) if whole.len() == PREFIX_BYTES + length => Ok(whole.split_off(PREFIX_BYTES)),
        Some(_) => Err(malformed("the message is cut off")),
        None => Err(malformed("there is no message")),
    }
}

/// Whether a message that begins so may go on.
fn check(arrived: &[u8], bytes_max: usize) -> Result<(), Status> {
    match arrived.first() {
        None | Some(0) => {}
        Some(1) => return Err(compressed()),
        Some(_) => return Err(malformed("the message does not begin as gRPC frames it")),
    }
    let Some(length) = declared(arrived) else { return Ok(()) };
    if length > bytes_max {
        let sentence = format!("the message has {length} bytes; {bytes_max} are allowed");
        return Err(refused(Refusal::TooLarge, sentence));
    }
    if arrived.len() > PREFIX_BYTES + length {
        return Err(malformed("one message is expected, and more came"));
    }
    Ok(())
}

/// The length that a message's prefix says, once the prefix is there.
fn declared(arrived: &[u8]) -> Option<usize> {
    let (prefix, _) = arrived.split_first_chunk::<PREFIX_BYTES>()?;
    let [_, length @ ..] = *prefix;
    usize::try_from(u32::from_be_bytes(length)).ok()
}

fn malformed(sentence: impl Into<String>) -> Status {
    refused(Refusal::Malformed, sentence)
}

fn compressed() -> Status {
    let mut status = reasoned(Status::unimplemented("messages are taken uncompressed only"));
    let accepted = MetadataValue::from_static("identity");
    status.metadata_mut().insert("grpc-accept-encoding", accepted);
    status
}

/// With the reason by which it is counted, beside a code that gRPC asks for.
fn reasoned(mut status: Status) -> Status {
    let reason = MetadataValue::from_static(Refusal::Malformed.as_str());
    status.metadata_mut().insert(REASON_KEY, reason);
    status
}

/// Reads bytes as the frames of a request's body, each behind its length, for
/// [`crate::parsers`].
pub(crate) fn any_bytes(mut bytes: &[u8]) {
    const BYTES_MAX: usize = 1_000;
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        frames.push(Bytes::copy_from_slice(frame));
        bytes = rest;
    }
    let read = |frames: Vec<Bytes>| {
        let frames = frames.into_iter().map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        let body = StreamBody::new(stream::iter(frames));
        message_of(body, BYTES_MAX).now_or_never().expect("all frames are there")
    };
    let whole = Bytes::from(frames.concat());
    let uncut = read(vec![whole.clone()]);
    match read(frames) {
        Ok(message) => {
            assert!(message.len() <= BYTES_MAX);
            assert_eq!(message, whole[PREFIX_BYTES..]);
            assert_eq!(message, uncut.expect("how it is cut does not matter"));
        }
        Err(status) => {
            assert!(refusal_of(&status).is_some(), "{status}");
            assert!(uncut.is_err(), "how it is cut does not matter");
        }
    }
}

impl Answer {
    /// Of a method that went well.
    pub(crate) fn of(message: &impl Message) -> Self {
        let length = message.encoded_len();
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
        bytes.push(0);
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        // It fails only where there is no room, and a vector makes room.
        message.encode(&mut bytes).unwrap_or_default();
        Self(Left::Message(bytes.into()))
    }

    fn into_response(self) -> Response<Self> {
        let mut response = Response::new(self);
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        response
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self(Left::Nothing)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, left) = match std::mem::take(&mut self.0) {
            Left::Message(bytes) => (Frame::data(bytes), Left::Status),
            Left::Status => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from(Code::Ok as i32));
                (Frame::trailers(trailers), Left::Nothing)
            }
            Left::Nothing => return Poll::Ready(None),
        };
        self.0 = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Left::Nothing)
    }
}

#[cfg(test)]
mod tests;
