//! Agents that a collector knows before it starts: the shipped roster with a prefix of 127/8 for
//! every agency, and identities that the product's authority signs and its store keeps.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use haidang_collector::config::Config;
use haidang_collector::identity::{Authority, CertificateRequest, Identity, IdentityState, Serial};
use haidang_collector::store::{Enrolment, Opened, Store};
use haidang_collector::token::{NewToken, TokenTerms};
use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::spiffe::Workload;
use ipnet::{IpNet, Ipv4Net};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::binaries::repository;
use crate::prefixes::{self, Participant, RosterFiles, SHIPPED_ROSTER};

/// Addresses of one agency's prefix, the first and the last left out.
const AGENTS_PER_AGENCY_MAX: usize = 254;
/// Enrolments that wait for the store together: it commits them in groups.
const ENROLLING_MAX: usize = 256;
/// Life of the tokens.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// An enrolled agent.
pub(crate) struct LoadAgent {
    /// Its own address.
    pub(crate) source: Ipv4Addr,
    /// The machine, as it enrolled.
    pub(super) machine_fingerprint: [u8; 32],
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    /// Whom it trusts.
    roots: Arc<RootCertStore>,
}

impl LoadAgent {
    /// Its TLS, as an agent's.
    pub(crate) fn tls(&self) -> Result<ClientConfig> {
        let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key().into())?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(tls)
    }
}

/// Writes the roster in which every agency has a prefix.
pub(super) fn roster(directory: &Path) -> Result<RosterFiles> {
    let participants = agencies()?.into_iter().enumerate().map(|(number, agency)| {
        let prefix = IpNet::V4(Ipv4Net::new(network(number)?, 24)?);
        Ok(Participant {
            agency,
            name: String::new(),
            prefixes: vec![prefix],
            gateways: Vec::new(),
        })
    });
    prefixes::write(&participants.collect::<Result<Vec<_>>>()?, directory)
}

/// Enrols so many agents, spread over all agencies, into the store that the configuration names.
pub(super) async fn enrol(config_path: &Path, count: usize) -> Result<Vec<LoadAgent>> {
    let agencies = agencies()?;
    let most = agencies.len() * AGENTS_PER_AGENCY_MAX;
    ensure!(count <= most, "the roster has room for {most} agents, not for {count}");
    let config = Config::read(config_path).context("read the collector's configuration")?;
    let made = fs::DirBuilder::new().mode(0o700).create(&config.state_dir);
    made.with_context(|| format!("make {}", config.state_dir.display()))?;
    let now = SystemTime::now();
    let authority = Authority::open(&config, now)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let roots = Arc::new(roots);
    let Opened { store, writer, reader } = Store::open(&config.state_dir.join("collector.db"))?;
    let threads = [thread::spawn(|| writer.run()), thread::spawn(|| reader.run())];

    let mut tokens = Vec::new();
    let mut agents = Vec::with_capacity(count);
    let mut enrolling = JoinSet::new();
    for number in 0..count {
        let (row, of_agency) = (number % agencies.len(), number / agencies.len());
        let agency: AgencyId = agencies[row].parse().context("the roster's ids are well formed")?;
        if of_agency == 0 {
            let uses = u32::try_from(count.div_ceil(agencies.len()))?;
            let terms = TokenTerms {
                agency: agency.clone(),
                uses,
                expires: now + TOKEN_LIFETIME,
                note: "load".into(),
            };
            let NewToken { token, secret } = NewToken::draw(terms, now)?;
            let id = token.id.clone();
            store.insert_token(token).await?;
            tokens.push((id, secret));
        }
        let (token, secret) = &tokens[row];
        let (agent, identity) = signed(&authority, &config, agency, &roots, now)?;
        let host = u32::try_from(of_agency + 1)?;
        let source = Ipv4Addr::from_bits(network(row)?.to_bits() + host);
        let enrolment = Enrolment {
            identity,
            hostname: format!("load-{number}"),
            source: source.into(),
            token: token.clone(),
            secret: secret.to_vec().into(),
            supersedes: Vec::new(),
            at: now,
        };
        agents.push(LoadAgent { source, ..agent });
        if enrolling.len() == ENROLLING_MAX {
            enrolled(enrolling.join_next().await)?;
        }
        let store = store.clone();
        enrolling.spawn(async move { store.enrol(enrolment, || {}).await });
    }
    while let Some(one) = enrolling.join_next().await {
        enrolled(Some(one))?;
    }
    // The loops end with the last handle; the collector finds the file whole and closed.
    drop(store);
    for thread in threads {
        ensure!(thread.join().is_ok(), "a thread of the store panicked");
    }
    Ok(agents)
}

type Enrolling = Result<
    Result<
        Result<(), haidang_proto::model::refusal::Refusal>,
        haidang_collector::store::StoreError,
    >,
    tokio::task::JoinError,
>;

fn enrolled(one: Option<Enrolling>) -> Result<()> {
    let Some(one) = one else { return Ok(()) };
    let admitted = one.context("an enrolling task panicked")??;
    admitted.map_err(|refusal| anyhow::anyhow!("the store refused: {}", refusal.as_str()))
}

/// An agent with a key of its own and the authority's certificate for it.
fn signed(
    authority: &Authority,
    config: &Config,
    agency: AgencyId,
    roots: &Arc<RootCertStore>,
    now: SystemTime,
) -> Result<(LoadAgent, Identity)> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let request = CertificateRequest::parse(csr.der())?;
    let agent = AgentId(Uuid::new_v4());
    let serial = Serial::draw()?;
    let term = authority.term(config.identity.certificate_lifetime, now);
    let workload = Workload::Agent { agency: agency.clone(), agent };
    let certificate = authority.issue_agent(&request, workload, serial, term)?;
    let mut machine_fingerprint = [0; 32];
    machine_fingerprint[..16].copy_from_slice(agent.0.as_bytes());
    let identity = Identity {
        agent,
        agency,
        state: IdentityState::Active,
        current: serial,
        not_after: term.not_after,
        next: None,
        machine_fingerprint,
        pinned: false,
    };
    let agent = LoadAgent {
        source: Ipv4Addr::UNSPECIFIED,
        machine_fingerprint,
        certificate,
        key: key.serialize_der().into(),
        roots: Arc::clone(roots),
    };
    Ok((agent, identity))
}

/// The network of the agency with this number: 127.32.0.0/24, 127.32.1.0/24 and so on.
fn network(number: usize) -> Result<Ipv4Addr> {
    let first = Ipv4Addr::new(127, 32, 0, 0).to_bits();
    Ok(Ipv4Addr::from_bits(first + (u32::try_from(number)? << 8)))
}

/// Ids of the shipped roster, in its order.
pub(crate) fn agencies() -> Result<Vec<String>> {
    let path = repository(SHIPPED_ROSTER);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let ids = text.lines().skip(1).filter_map(|row| row.split(',').next());
    Ok(ids.map(str::to_owned).collect())
}
