//! One HTTP exchange with a service, over our own bound connection: connect, TLS where the URL
//! says so, one GET, the whole answer, all within one deadline. A service that answers a byte at
//! a time for ever is silent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use haidang_probe::Binding;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::socket::{ConnectError, connect};
use super::tls::{Expectation, Handshake, handshake, printable};
use crate::evidence::{LocalFault, ServiceAnswer};

/// Carries our nonce, and the service's echo of it.
const NONCE_HEADER: &str = "haidang-nonce";
/// The source address that the service saw.
const SEEN_SOURCE_HEADER: &str = "haidang-seen-source";
/// Bytes of an answer's body: a probe's page is small, and the line is shared with users.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a problem's text.
const PROBLEM_BYTES_MAX: usize = 128;
const NONCE_BYTES: usize = 16;

/// A service, as it is asked.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) target: SocketAddr,
    pub(super) path: String,
    /// The Host header.
    pub(super) host: String,
    pub(super) status: u16,
    pub(super) echoes_nonce: bool,
    pub(super) security: Security,
}

/// How the connection is secured.
#[derive(Debug, Clone)]
pub(super) enum Security {
    Plain,
    Tls { name: ServerName<'static>, expectation: Expectation },
}

/// Asks the service, within `deadline`.
pub(super) async fn probe(
    binding: &Binding,
    service: &Question,
    deadline: Duration,
) -> ServiceAnswer {
    let started = Instant::now();
    let exchange = exchange(binding, service, deadline);
    match timeout_at(started + deadline, exchange).await {
        Err(_elapsed) => ServiceAnswer::Silent,
        Ok(Err(answer)) => answer,
        Ok(Ok(seen_source)) => ServiceAnswer::Right { took: started.elapsed(), seen_source },
    }
}

async fn exchange(
    binding: &Binding,
    service: &Question,
    deadline: Duration,
) -> Result<Option<IpAddr>, ServiceAnswer> {
    let stream = connect(binding, service.target, deadline).await.map_err(unconnected)?;
    match &service.security {
        Security::Plain => ask(stream, service).await,
        Security::Tls { name, expectation } => {
            match handshake(expectation, name.clone(), stream).await {
                Handshake::Proved(stream) => ask(*stream, service).await,
                Handshake::ProvedThenClosed => Err(ServiceAnswer::Refused),
                Handshake::Foreign { issuer } => Err(ServiceAnswer::TlsIntercepted { issuer }),
                Handshake::Unfit { problem } => Err(wrong(&format!("certificate: {problem}"))),
                Handshake::Broken(error) => Err(broken(&error)),
            }
        }
    }
}

async fn ask<S>(stream: S, service: &Question) -> Result<Option<IpAddr>, ServiceAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let nonce = nonce()?;
    let request = Request::get(&service.path)
        .header(HOST, &service.host)
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("haidang-agent/", env!("CARGO_PKG_VERSION")))
        .header(NONCE_HEADER, &nonce)
        .body(Empty::<Bytes>::new())
        .map_err(|error| {
            ServiceAnswer::Unsendable(LocalFault(format!("cannot write the request: {error}")))
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unanswered(&error))?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| unanswered(&error))?;
        let (head, body) = response.into_parts();
        judge_head(head.status, service)?;
        Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
            match error.downcast::<hyper::Error>() {
                Ok(error) => unanswered(&error),
                Err(error) if error.is::<LengthLimitError>() => {
                    wrong(&format!("the answer is longer than {BODY_BYTES_MAX} bytes"))
                }
                Err(error) => wrong(&error.to_string()),
            }
        })?;
        judge_headers(&head.headers, &nonce, service)
    };
    tokio::pin!(answer, connection);
    let mut driven = false;
    // The connection has to be driven for the answer to come; when it ends first, the answer
    // still holds what was read.
    loop {
        tokio::select! {
            outcome = &mut answer => return outcome,
            _ended = &mut connection, if !driven => driven = true,
        }
    }
}

fn judge_head(status: StatusCode, service: &Question) -> Result<(), ServiceAnswer> {
    match status.as_u16() {
        status if status == service.status => Ok(()),
        status => Err(ServiceAnswer::WrongStatus { status }),
    }
}

fn judge_headers(
    headers: &HeaderMap,
    nonce: &str,
    service: &Question,
) -> Result<Option<IpAddr>, ServiceAnswer> {
    if service.echoes_nonce && headers.get(NONCE_HEADER).is_none_or(|echoed| echoed != nonce) {
        return Err(wrong("the nonce did not come back: the answer is not the service's own"));
    }
    let seen_source = headers.get(SEEN_SOURCE_HEADER).and_then(|value| value.to_str().ok());
    Ok(seen_source.and_then(|text| text.trim().parse().ok()))
}

fn nonce() -> Result<String, ServiceAnswer> {
    let mut bytes = [0_u8; NONCE_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        ServiceAnswer::Unsendable(LocalFault(format!("cannot draw random bytes: {error}")))
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn unconnected(error: ConnectError) -> ServiceAnswer {
    match error {
        ConnectError::Unsendable(fault) => ServiceAnswer::Unsendable(fault),
        ConnectError::Refused => ServiceAnswer::Refused,
        ConnectError::Rejected { .. } | ConnectError::Silent => ServiceAnswer::Silent,
    }
}

/// A connection that closed or was reset is refused; anything else that came is no HTTP.
fn unanswered(error: &hyper::Error) -> ServiceAnswer {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return broken(error);
        }
        source = cause.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return ServiceAnswer::Refused;
    }
    wrong(&error.to_string())
}

fn broken(error: &io::Error) -> ServiceAnswer {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ServiceAnswer::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => ServiceAnswer::Silent,
        _ => wrong(&error.to_string()),
    }
}

fn wrong(problem: &str) -> ServiceAnswer {
    ServiceAnswer::WrongAnswer { problem: printable(problem, PROBLEM_BYTES_MAX) }
}

#[cfg(test)]
mod tests;
