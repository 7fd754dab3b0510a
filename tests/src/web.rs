//! HTTP as the tests ask it: one GET, from the host or from inside a namespace.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use crate::netns::Netns;

/// The metrics of 631 agencies are about 2 MB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// An answer of a program on the same machine.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An HTTP server, and from where it is asked.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    netns: Option<Arc<Netns>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Endpoint {
    /// A server that this process reaches.
    pub fn here(address: SocketAddr) -> Self {
        Self { address, netns: None }
    }

    /// A server inside a namespace.
    pub fn inside(netns: Arc<Netns>, address: SocketAddr) -> Self {
        Self { address, netns: Some(netns) }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn connect(&self) -> Result<TcpStream> {
        match &self.netns {
            Some(netns) => netns.connect(self.address),
            None => TcpStream::connect_timeout(&self.address, TIMEOUT)
                .with_context(|| format!("connect to {}", self.address)),
        }
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// When there is no complete answer in time.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.get_with(path, &[]).await
    }

    /// Asks for a path with more request headers.
    ///
    /// # Errors
    /// When there is no complete answer in time.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let asking = self.ask(path, headers);
        tokio::time::timeout(TIMEOUT, asking)
            .await
            .with_context(|| {
                format!("http://{}{path} did not answer in {TIMEOUT:?}", self.address)
            })?
            .with_context(|| format!("ask http://{}{path}", self.address))
    }

    /// The body of a 200 answer.
    ///
    /// # Errors
    /// When there is no such answer.
    pub async fn text(&self, path: &str) -> Result<String> {
        let Answer { status, body, .. } = self.get(path).await?;
        ensure!(status == StatusCode::OK, "http://{}{path}: {status}: {body}", self.address);
        Ok(body)
    }

    /// The same, as JSON.
    ///
    /// # Errors
    /// When there is no such answer.
    pub async fn json(&self, path: &str) -> Result<serde_json::Value> {
        let body = self.text(path).await?;
        serde_json::from_str(&body).with_context(|| format!("read the answer to {path} as JSON"))
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let stream = self.connect()?;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::get(path).header(header::CONNECTION, "close");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header(header::HOST, self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("read the body: {error}"))?.to_bytes();
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: String::from_utf8(body.into()).context("the body is not UTF-8")?,
            })
        };
        // The connection is driven by this call and ends with it.
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            _ = &mut connection => exchange.await,
        }
    }
}
