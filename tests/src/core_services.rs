//! What stands in the core beside the collector: for each site a resolver and an HTTP service of
//! its own, so that sites in one laboratory can lose theirs apart.
//!
//! The resolver answers every A query with one address, every AAAA query with another, and
//! everything else with an empty answer. The service answers 200, echoes the `haidang-nonce` request header and tells in
//! `haidang-seen-source` which address it was asked from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::task::JoinHandle;

use crate::netns::Netns;
use crate::wait;

/// The request header whose value the service gives back.
const NONCE: HeaderName = HeaderName::from_static("haidang-nonce");
/// The response header with the source address that the service saw.
const SEEN_SOURCE: HeaderName = HeaderName::from_static("haidang-seen-source");
/// A query of a stub resolver fits (RFC 1035, 4.2.1).
const QUERY_BYTES_MAX: usize = 512;
const DNS_HEADER_BYTES: usize = 12;
/// How long a port may stay taken after its server was stopped.
const PORT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the resolver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolverMode {
    /// Answers so.
    Answers(Answer),
    /// Its port is closed.
    Stopped,
}

/// The addresses of every name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// For A.
    pub v4: Ipv4Addr,
    /// For AAAA.
    pub v6: Ipv6Addr,
}

impl Answer {
    /// Both addresses.
    ///
    /// # Errors
    /// When they are not one of each family.
    pub fn new(v4: IpAddr, v6: IpAddr) -> Result<Self> {
        match (v4, v6) {
            (IpAddr::V4(v4), IpAddr::V6(v6)) => Ok(Self { v4, v6 }),
            _ => bail!("{v4} and {v6} are not one of each family"),
        }
    }
}

/// What the service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceMode {
    /// Answers with this status.
    Answers(StatusCode),
    /// Its port is closed.
    Stopped,
}

/// A server on one address of the core, which can be stopped and started anew.
#[derive(Debug)]
pub struct CoreServer {
    core: Arc<Netns>,
    address: SocketAddr,
    running: Option<JoinHandle<()>>,
}

impl CoreServer {
    /// A server that does not run yet.
    pub fn new(core: Arc<Netns>, address: SocketAddr) -> Self {
        Self { core, address, running: None }
    }

    /// Makes it resolve names so.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub async fn resolve(&mut self, mode: ResolverMode) -> Result<()> {
        self.stop().await;
        if let ResolverMode::Answers(answer) = mode {
            let socket = self.open(UdpSocket::bind).await?;
            socket.set_nonblocking(true).context("set the resolver's socket to non-blocking")?;
            let socket = tokio::net::UdpSocket::from_std(socket).context("register a socket")?;
            self.running = Some(tokio::spawn(resolve(socket, answer)));
        }
        Ok(())
    }

    /// Makes it serve HTTP so.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub async fn serve(&mut self, mode: ServiceMode) -> Result<()> {
        self.stop().await;
        if let ServiceMode::Answers(status) = mode {
            let listener = self.open(TcpListener::bind).await?;
            listener.set_nonblocking(true).context("set the service's socket to non-blocking")?;
            let listener =
                tokio::net::TcpListener::from_std(listener).context("register a socket")?;
            let app = Router::new().fallback(move |peer, headers| answer(status, peer, headers));
            let app = app.into_make_service_with_connect_info::<SocketAddr>();
            self.running = Some(tokio::spawn(async move {
                // Ends only when it is stopped.
                let _ = axum::serve(listener, app).await;
            }));
        }
        Ok(())
    }

    /// Opens a socket in the core. A program that is just being started holds a copy of every
    /// socket of ours until it is executed, so a port may be taken for a moment after it closed.
    async fn open<T: Send>(&self, bind: impl Fn(SocketAddr) -> io::Result<T> + Sync) -> Result<T> {
        let awaited = format!("a free port at {}", self.address);
        let (socket, _) = wait::until(&awaited, PORT_TIMEOUT, || {
            let bound = self.core.inside(|| bind(self.address));
            std::future::ready(match bound {
                Ok(Ok(socket)) => Ok(socket),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(format!("{error:#}")),
            })
        })
        .await?;
        Ok(socket)
    }

    /// Ends it and waits until its port is closed.
    async fn stop(&mut self) {
        if let Some(task) = self.running.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for CoreServer {
    fn drop(&mut self) {
        if let Some(task) = &self.running {
            task.abort();
        }
    }
}

async fn answer(
    status: StatusCode,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: HeaderMap,
) -> impl IntoResponse {
    let mut headers = HeaderMap::new();
    // A kept connection would outlive the listener, and with it the service's stop.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(nonce) = request.get(&NONCE) {
        headers.insert(NONCE, nonce.clone());
    }
    if let Ok(source) = HeaderValue::from_str(&peer.ip().to_string()) {
        headers.insert(SEEN_SOURCE, source);
    }
    (status, headers, "Mạng truyền số liệu chuyên dùng\n")
}

pub(crate) async fn resolve(socket: tokio::net::UdpSocket, answer: Answer) {
    let mut query = [0; QUERY_BYTES_MAX];
    loop {
        // An error here is an ICMP error for an earlier answer: the asker is gone, others stay.
        let Ok((length, peer)) = socket.recv_from(&mut query).await else { continue };
        if let Some(response) = respond(&query[..length], answer) {
            let _ = socket.send_to(&response, peer).await;
        }
    }
}

/// The answer to a query with one question (RFC 1035, 4.1), or nothing to what is no such query.
fn respond(query: &[u8], answer: Answer) -> Option<Vec<u8>> {
    /// Pointer to the name in the question, type A, class IN, TTL 0, four bytes follow.
    const RECORD_A: [u8; 12] = [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4];
    /// The same of type AAAA (RFC 3596), and sixteen bytes.
    const RECORD_AAAA: [u8; 12] = [0xc0, 0x0c, 0, 28, 0, 1, 0, 0, 0, 0, 0, 16];
    let (header, question) = query.split_at_checked(DNS_HEADER_BYTES)?;
    let is_query = header[2] & 0x80 == 0 && header[4..6] == [0, 1];
    let mut end = 0;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let question = question.get(..end + 5)?;
    if !is_query {
        return None;
    }
    let record = match question[end + 1..] {
        [0, 1, 0, 1] => [&RECORD_A[..], &answer.v4.octets()].concat(),
        [0, 28, 0, 1] => [&RECORD_AAAA[..], &answer.v6.octets()].concat(),
        _ => Vec::new(),
    };
    let mut response = Vec::with_capacity(QUERY_BYTES_MAX);
    response.extend_from_slice(&header[..2]);
    // QR, AA and the asker's RD; RA; no error; one question, at most one answer.
    response.extend_from_slice(&[
        0x84 | (header[2] & 1),
        0x80,
        0,
        1,
        0,
        (!record.is_empty()).into(),
    ]);
    response.extend_from_slice(&[0; 4]);
    response.extend_from_slice(question);
    response.extend_from_slice(&record);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `svc.test`, type A, id 7, as a stub resolver sends it.
    const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03svc\x04test\0\0\x01\0\x01";

    const ANSWER: Answer = Answer {
        v4: Ipv4Addr::new(198, 18, 2, 1),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0x18, 2, 0, 0, 0, 1),
    };

    #[test]
    fn each_type_of_address_gets_its_address_and_another_type_an_empty_answer() {
        let asked_for = |kind: u8| {
            let mut query = QUERY.to_vec();
            query[QUERY.len() - 3] = kind;
            let response = respond(&query, ANSWER).expect("a query");
            assert_eq!(response[12..query.len()], query[12..]);
            response
        };
        let a = asked_for(1);
        assert_eq!(a[..8], [0, 7, 0x85, 0x80, 0, 1, 0, 1]);
        assert!(a.ends_with(&ANSWER.v4.octets()));
        let aaaa = asked_for(28);
        assert_eq!(aaaa[6..8], [0, 1]);
        assert!(aaaa.ends_with(&ANSWER.v6.octets()));
        let text = asked_for(16);
        assert_eq!((&text[6..8], text.len()), (&[0, 0][..], QUERY.len()));
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        for end in 0..QUERY.len() {
            assert_eq!(respond(&QUERY[..end], ANSWER), None, "cut at {end}");
        }
        let mut response = QUERY.to_vec();
        response[2] |= 0x80;
        assert_eq!(respond(&response, ANSWER), None);
    }
}
