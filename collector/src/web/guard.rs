//! Who may ask, and how: the checks before every answer.
//!
//! In this order: the host name is one of ours (a page of another site cannot make a browser read
//! us by pointing its own name here), the token is right, the method only reads, there is no body,
//! and the answer begins in time. What asks the store needs room besides: while a disk hangs, those
//! who wait for it hold up nobody whose answer is in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::problem::Problem;

/// Requests that wait for the store at a time: a few API clients, with room. Others are bounded by
/// the connections, each of which asks one thing at a time.
pub(super) const STORE_REQUESTS_MAX: usize = 32;
/// An answer begins within this; the slowest, a long history, takes milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of a token: below 32 it could be guessed, above 512 it is a mistaken file.
const TOKEN_BYTES_MIN: usize = 32;
const TOKEN_BYTES_MAX: usize = 512;

/// Nothing may be loaded but our own style sheet, and nobody may frame us.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// On every answer, refusals included.
const HEADERS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
];

/// What requests are held against. Clones share the room for those that ask the store.
#[derive(Clone)]
pub struct Guard {
    hosts: Arc<[String]>,
    token: Option<BearerToken>,
    room: Arc<Semaphore>,
}

impl Guard {
    /// `hosts` are names or addresses without a port, as `[http] allowed_hosts` lists them.
    pub fn new(hosts: &[String], token: Option<BearerToken>) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { hosts, token, room: Arc::new(Semaphore::new(STORE_REQUESTS_MAX)) }
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        self.check_host(request.headers(), request.uri())?;
        self.check_token(request.headers())?;
        check_method(request.method())?;
        if request.body().size_hint().upper() == Some(0) {
            return Ok(());
        }
        let detail = "requests have no body here; repeat it without one";
        Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
    }

    /// The header and, in a request for a proxy, the target as well.
    fn check_host(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
        let mut named = headers.get_all(HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else {
            let detail = "a request names exactly one host; send one Host header";
            return Err(Problem::bad_query(detail));
        };
        let ours = |host: &str| self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        let header_is_ours = host.to_str().is_ok_and(|host| ours(without_port(host)));
        if header_is_ours && uri.host().is_none_or(ours) {
            return Ok(());
        }
        let detail = "this collector does not answer to that host name; \
                      add it to [http] allowed_hosts in collector.toml";
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        if given.is_some_and(|given| token.matches(given)) {
            return Ok(());
        }
        let detail = "a bearer token is required; send the one of [http] bearer_token_file";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
        Err(problem.with_header(WWW_AUTHENTICATE, "Bearer realm=\"haidang\""))
    }
}

/// The secret that requests bear, kept as its SHA-256: it is compared in constant time, whatever
/// its length, and no memory dump shows it.
#[derive(Clone)]
pub struct BearerToken {
    digest: [u8; 32],
}

/// Text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a bearer token is one line of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters; \
     make one with `openssl rand -hex 32`"
)]
pub struct BearerTokenError;

impl BearerToken {
    /// The content of `bearer_token_file`; white space around it is ignored.
    ///
    /// # Errors
    /// When it is too short, too long, or could not stand in a header.
    pub fn parse(text: &str) -> Result<Self, BearerTokenError> {
        let text = text.trim();
        let length_fits = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len());
        if length_fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self { digest: Sha256::digest(text.as_bytes()).into() })
        } else {
            Err(BearerTokenError)
        }
    }

    fn matches(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.digest.ct_eq(&given).into()
    }
}

/// Puts the checks and the headers around a router.
pub(super) fn guarded(router: Router, guard: Guard) -> Router {
    router.layer(middleware::from_fn_with_state(guard, admit))
}

async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.check(&request) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => timeout(ANSWER_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
            let detail = "no answer could be made in 10 s; ask for less";
            Problem::new(StatusCode::GATEWAY_TIMEOUT, detail).into_response()
        }),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Bounds how many of a router's requests are under way.
pub(super) fn within_room<S>(router: Router<S>, guard: Guard) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    router.route_layer(middleware::from_fn_with_state(guard, enter))
}

async fn enter(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Ok(_place) = guard.room.try_acquire() else {
        let detail = "too many requests wait for the store; try again in a second";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        return problem.with_header(RETRY_AFTER, "1").into_response();
    };
    next.run(request).await
}

fn check_method(method: &Method) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let detail = "this API only reads; use GET, or haidang-collector on the machine itself";
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).with_header(ALLOW, "GET, HEAD"))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port` without the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() =>
        {
            // Inside brackets a colon belongs to the address.
            if name.starts_with('[') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// The credentials of `Bearer …`; the scheme's case does not count (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_part_of_the_name() {
        for (host, name) in [
            ("localhost", "localhost"),
            ("localhost:7080", "localhost"),
            ("127.0.0.1:7080", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:7080", "[::1]"),
            ("::1", ":"),
            ("evil:", "evil"),
            (":80", ":80"),
            ("a:b", "a:b"),
            ("", ""),
        ] {
            assert_eq!(without_port(host), name, "{host}");
        }
    }

    #[test]
    fn a_short_or_unprintable_token_is_refused() {
        for bad in ["", "secret", &"a".repeat(31), &"a".repeat(513), &"ệ".repeat(40)] {
            assert!(BearerToken::parse(bad).is_err(), "{bad}");
        }
        let token = BearerToken::parse(&format!("{}\n", "a".repeat(32))).expect("long enough");
        assert!(token.matches("a".repeat(32).as_bytes()));
        assert!(!token.matches("a".repeat(33).as_bytes()));
        assert!(!token.matches(b""));
    }
}
