//! What stands in the core beside the collector: for each site a resolver and an HTTP service of
//! its own, so that sites in one laboratory can lose theirs apart.
//!
//! The resolver answers every A query with one address and everything else with an empty
//! answer. The service answers 200, echoes the `haidang-nonce` request header and tells in
//! `haidang-seen-source` which address it was asked from.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
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
    /// Answers with this address.
    Answers(Ipv4Addr),
    /// Its port is closed.
    Stopped,
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

async fn resolve(socket: tokio::net::UdpSocket, answer: Ipv4Addr) {
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
fn respond(query: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    /// Pointer to the name in the question, type A, class IN, TTL 0, four bytes follow.
    const RECORD: [u8; 12] = [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4];
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
    let asks_for_a = question[end + 1..] == [0, 1, 0, 1];
    let mut response = Vec::with_capacity(QUERY_BYTES_MAX);
    response.extend_from_slice(&header[..2]);
    // QR, AA and the asker's RD; RA; no error; one question, at most one answer.
    response.extend_from_slice(&[0x84 | (header[2] & 1), 0x80, 0, 1, 0, asks_for_a.into()]);
    response.extend_from_slice(&[0; 4]);
    response.extend_from_slice(question);
    if asks_for_a {
        response.extend_from_slice(&RECORD);
        response.extend_from_slice(&answer.octets());
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `svc.test`, type A, id 7, as a stub resolver sends it.
    const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03svc\x04test\0\0\x01\0\x01";

    #[test]
    fn an_a_query_gets_the_address_and_another_an_empty_answer() {
        let address = Ipv4Addr::new(198, 18, 2, 1);
        let response = respond(QUERY, address).expect("a query");
        assert_eq!(response[..8], [0, 7, 0x85, 0x80, 0, 1, 0, 1]);
        assert!(response.ends_with(&address.octets()));
        let mut aaaa = QUERY.to_vec();
        aaaa[QUERY.len() - 3] = 28;
        let response = respond(&aaaa, address).expect("a query");
        assert_eq!(response[6..8], [0, 0]);
        assert_eq!(response[12..], aaaa[12..]);
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        for end in 0..QUERY.len() {
            assert_eq!(respond(&QUERY[..end], Ipv4Addr::LOCALHOST), None, "cut at {end}");
        }
        let mut response = QUERY.to_vec();
        response[2] |= 0x80;
        assert_eq!(respond(&response, Ipv4Addr::LOCALHOST), None);
    }
}
