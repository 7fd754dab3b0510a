//! Peers made by hand: certificates that the collector's own CA signed or that only look so, TLS
//! connections that trust anybody, and gRPC calls by plain HTTP/2. They say what no agent would.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::client::SendRequest;
use haidang_proto::model::enrolment_code::EnrolmentCode;
use haidang_proto::model::flag::Flags;
use haidang_proto::model::quality::Quality;
use haidang_proto::model::refusal::REASON_KEY;
use haidang_proto::model::report::{Connectivity, JournalStatus, Report};
use haidang_proto::model::verdict::Verdict;
use haidang_proto::wire;
use hyper::body::Bytes;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::anybody::Anybody;
use crate::collector::CollectorPlan;

/// Anything that a peer waits for.
const TIMEOUT: Duration = Duration::from_secs(30);
/// HTTP/2 as the collector speaks it.
pub const H2: &[u8] = b"h2";

/// A certificate authority, the collector's own or another.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Its SPIFFE id, or something else.
    pub uri: String,
    /// First moment.
    pub from: SystemTime,
    /// Last moment.
    pub until: SystemTime,
    /// What its key may be used for.
    pub usage: ExtendedKeyUsagePurpose,
}

/// A certificate chain with its key.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Chain and key as PEM files hold them.
    pub fn pem(&self) -> (String, String) {
        let chain = self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
        (chain, pem("PRIVATE KEY", self.key.secret_der()))
    }
}

impl Terms {
    /// An agent's certificate of this moment, for an agent that was never enrolled.
    pub fn of(agency: &str, agent: uuid::Uuid) -> Self {
        let now = SystemTime::now();
        Self {
            uri: format!("spiffe://lab.test/agency/{agency}/agent/{agent}"),
            from: now - Duration::from_secs(3_600),
            until: now + Duration::from_secs(3_600),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        }
    }
}

impl Authority {
    /// The collector's own, from its state directory: what a thief of it could issue.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn of(collector: &CollectorPlan) -> Result<Self> {
        let directory = collector.directory.join("state/ca");
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let key = KeyPair::from_pem(&read("ca.key")?).context("read the key")?;
        let certificate = CertificateDer::from_pem_slice(read("ca.pem")?.as_bytes());
        let certificate = certificate.map_err(|error| anyhow::anyhow!("ca.pem: {error:?}"))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).context("use the CA")?;
        Ok(Self { issuer })
    }

    /// One that nobody trusts, under the name of the collector's.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn foreign() -> Result<Self> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Hai Dang demonstration CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)? })
    }

    /// Certifies a new key.
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue(&self, terms: &Terms) -> Result<Identity> {
        let Terms { uri, from, until, usage } = terms.clone();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.not_before = from.into();
        params.not_after = until.into();
        params.serial_number = Some(SerialNumber::from_slice(&[0x55; 16]));
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(Identity { chain: vec![certificate], key: pkcs8(&key) })
    }
}

/// A machine that enrolled, without an agent's program.
#[derive(Debug)]
pub struct Enrolled {
    /// What it presents.
    pub identity: Identity,
    /// Its agent's id.
    pub agent: String,
    key: KeyPair,
}

impl Enrolled {
    /// Enrols from an address with a code.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn with(code: &str, from: IpAddr) -> Result<Self> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let code: EnrolmentCode = code.parse().context("read the code")?;
        let request = enrol_request(&code.token_id, &*code.secret, &key)?;
        let to = code.endpoint.parse().context("the endpoint is an address")?;
        let mut session = Session::open(from, to, None).await?;
        let told = session.call(ENROL, &request, &[]).await?;
        ensure!(told.status == "0", "the enrolment was refused: {told:?}");
        let answer = wire::EnrolResponse::decode(&*told.message).context("read the answer")?;
        let identity = Identity { chain: chain(answer.certificate_chain_der), key: pkcs8(&key) };
        Ok(Self { identity, agent: answer.agent_id, key })
    }

    /// Renews over a connection of its own, and returns what it presents from now on.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn renewed(&self, session: &mut Session) -> Result<Identity> {
        let request = wire::RenewRequest { csr_der: request_for(&self.key)? };
        let told = session.call(RENEW, &request, &[]).await?;
        ensure!(told.status == "0", "the renewal was refused: {told:?}");
        let answer = wire::RenewResponse::decode(&*told.message).context("read the answer")?;
        Ok(Identity { chain: chain(answer.certificate_chain_der), key: pkcs8(&self.key) })
    }
}

/// Paths of the calls.
pub const REPORT: &str = "/haidang.v1.ReportingService/Report";
/// Of an enrolment.
pub const ENROL: &str = "/haidang.v1.EnrolmentService/Enrol";
/// Of a renewal.
pub const RENEW: &str = "/haidang.v1.ReportingService/Renew";

/// The fingerprint of the machine that [`Enrolled::with`] enrols.
pub const FINGERPRINT: [u8; 32] = [7; 32];

/// A request to enrol a key.
///
/// # Errors
/// When signing fails.
pub fn enrol_request(token_id: &str, secret: &[u8], key: &KeyPair) -> Result<wire::EnrolRequest> {
    Ok(wire::EnrolRequest {
        token_id: token_id.into(),
        token_secret: secret.into(),
        csr_der: request_for(key)?,
        machine_fingerprint: FINGERPRINT.to_vec(),
        hostname: "by-hand".into(),
    })
}

/// A report that says that all is well, as the process with this nonce sends it.
pub fn report(nonce: [u8; 16], sequence: u64) -> wire::ReportRequest {
    let connectivity = Connectivity {
        verdict: Verdict::Connected,
        verdict_age: Duration::from_secs(60),
        flags: Flags::default(),
        quality: Quality::default(),
        evidence: Vec::new(),
        surroundings: Vec::new(),
    };
    wire::ReportRequest::from(Report {
        process_nonce: nonce,
        machine_fingerprint: FINGERPRINT,
        sequence,
        sent_at: SystemTime::now(),
        agent_version: "0.1.0".into(),
        settings_version: 0,
        trust_bundle_version: 0,
        connectivity,
        journal: JournalStatus::default(),
        host: None,
    })
}

/// Opens a TLS connection that trusts anybody.
///
/// # Errors
/// When TCP or TLS fails. A server that refuses the certificate says so only afterwards (RFC 8446,
/// section 4.4).
pub async fn connect(
    from: IpAddr,
    to: SocketAddr,
    identity: Option<&Identity>,
    protocols: &[&[u8]],
) -> Result<TlsStream<TcpStream>> {
    connect_by(aws_lc_rs::default_provider(), from, to, identity, protocols).await
}

/// The same, with the groups and algorithms of a given provider.
///
/// # Errors
/// As [`connect`].
pub async fn connect_by(
    provider: CryptoProvider,
    from: IpAddr,
    to: SocketAddr,
    identity: Option<&Identity>,
    protocols: &[&[u8]],
) -> Result<TlsStream<TcpStream>> {
    let provider = Arc::new(provider);
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(Identity { chain, key }) => {
            config.with_client_auth_cert(chain.clone(), key.clone_key())?
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = tcp(from, to).await?;
    let name = ServerName::IpAddress(to.ip().into());
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let done = tokio::time::timeout(TIMEOUT, handshake).await.context("no handshake in time")?;
    done.with_context(|| format!("the handshake with {to}"))
}

/// Opens a TCP connection from an address of this machine.
///
/// # Errors
/// Those of the connection.
pub async fn tcp(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind((from, 0).into()).with_context(|| format!("bind to {from}"))?;
    let connecting = tokio::time::timeout(TIMEOUT, socket.connect(to));
    connecting.await.context("no connection in time")?.with_context(|| format!("connect to {to}"))
}

/// An HTTP/2 connection for calls. Its driver ends with it.
#[derive(Debug)]
pub struct Session {
    sender: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<()>,
}

/// How a call ended.
#[derive(Debug)]
pub struct Told {
    /// `grpc-status`.
    pub status: String,
    /// The reason of a refusal.
    pub reason: Option<String>,
    /// The message of a success.
    pub message: Vec<u8>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn open(from: IpAddr, to: SocketAddr, identity: Option<&Identity>) -> Result<Self> {
        Self::over(connect(from, to, identity, &[H2]).await?).await
    }

    /// Begins HTTP/2 on a connection.
    ///
    /// # Errors
    /// When the other end does not.
    pub async fn over(stream: TlsStream<TcpStream>) -> Result<Self> {
        let (sender, connection) = h2::client::handshake(stream).await.context("begin HTTP/2")?;
        let driver = tokio::spawn(async move {
            // An end is seen by the calls.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Makes a call.
    ///
    /// # Errors
    /// When it is not answered.
    pub async fn call(
        &mut self,
        path: &str,
        message: &impl Message,
        headers: &[(&'static str, &str)],
    ) -> Result<Told> {
        self.call_raw(path, framed(&message.encode_to_vec()), headers).await
    }

    /// Makes a call with any bytes as its body.
    ///
    /// # Errors
    /// When it is not answered.
    pub async fn call_raw(
        &mut self,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, &str)],
    ) -> Result<Told> {
        let exchange = self.exchange(path, body, headers);
        tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time")?
    }

    async fn exchange(
        &mut self,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, &str)],
    ) -> Result<Told> {
        let mut request = http::Request::post(format!("https://collector{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender = self.sender.clone().ready().await.context("the connection has ended")?;
        let (answer, mut stream) = self.sender.send_request(request.body(())?, false)?;
        // A server that has heard enough resets the stream; its answer says why.
        let _ = stream.send_data(body, true);
        let (head, mut body) = answer.await.context("no answer")?.into_parts();
        let text = |headers: &http::HeaderMap, key: &str| {
            headers.get(key).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let mut message = Vec::new();
        while let Some(part) = body.data().await {
            let part = part.context("the answer breaks off")?;
            body.flow_control().release_capacity(part.len())?;
            message.extend_from_slice(&part);
        }
        let trailers = body.trailers().await.context("no end")?.unwrap_or_default();
        let told = |key| text(&head.headers, key).or_else(|| text(&trailers, key));
        let Some(status) = told("grpc-status") else { bail!("no grpc-status: {}", head.status) };
        let message = message.get(5..).unwrap_or_default().to_vec();
        Ok(Told { status, reason: told(REASON_KEY), message })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A message as gRPC frames it: not compressed, its length, its bytes.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    Bytes::from([&[0], &length[..], message].concat())
}

/// Textual encoding of RFC 7468: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let (mut text, mut left) = (format!("-----BEGIN {label}-----\n"), encoded.as_str());
    while !left.is_empty() {
        let (line, rest) = left.split_at(left.len().min(64));
        text = text + line + "\n";
        left = rest;
    }
    text + &format!("-----END {label}-----\n")
}

fn request_for(key: &KeyPair) -> Result<Vec<u8>> {
    Ok(CertificateParams::default().serialize_request(key)?.der().to_vec())
}

fn pkcs8(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

fn chain(der: Vec<Vec<u8>>) -> Vec<CertificateDer<'static>> {
    der.into_iter().map(CertificateDer::from).collect()
}
