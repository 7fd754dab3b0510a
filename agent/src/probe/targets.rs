//! What may be probed: the configuration, checked once, as targets.
//!
//! Nothing outside the pinned prefixes of the dedicated network becomes a target, whatever the
//! configuration or a collector says; gateways may lie inside the agency's own prefixes instead.
//! The Internet canary is the one exception, and off unless configured.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use hickory_proto::rr::Name;
use http::Uri;
use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::echo::EchoTarget;
use super::tcp::Proof;
use super::tls::Expectation;
use super::unbound::Detour;
use super::{dns, http as service_http};
use crate::config::{Anchor, Config, Dedicated, Service, TcpProof};
use crate::evidence::LocalFault;

/// Where resolvers listen.
const DNS_PORT: u16 = 53;
/// Roots read from one PEM file; a bundle of all public CAs has about 150.
const ROOTS_MAX: usize = 1_000;

/// A configuration that cannot be probed.
#[derive(Debug, thiserror::Error)]
pub enum ProberError {
    /// A target outside the pinned prefixes.
    #[error(
        "{what} {address} lies outside dedicated.network_prefixes; nothing else is ever probed: \
         correct the address or the prefixes"
    )]
    Outside {
        /// Which target.
        what: String,
        /// Its address.
        address: IpAddr,
    },
    /// A service URL that is none.
    #[error(
        "service {name}: {url} is not http:// or https:// with an IP literal for a host ({problem})"
    )]
    Url {
        /// The service.
        name: String,
        /// Its URL.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A host name of a service that is none.
    #[error("service {name}: {host} is neither a DNS name nor an address")]
    Host {
        /// The service.
        name: String,
        /// Its host.
        host: String,
    },
    /// Roots of a service that cannot be read.
    #[error("service {name}: cannot read certificates from {}: {problem}", path.display())]
    Roots {
        /// The service.
        name: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Pinned roots that are no certificates.
    #[error("the pinned CA is not a certificate: {problem}")]
    PinnedRoots {
        /// What is wrong with it.
        problem: String,
    },
    /// A probe name that is none.
    #[error("dns.name {name} is not a domain name")]
    DnsName {
        /// The name.
        name: String,
    },
}

/// Everything that is probed.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) gateways: Vec<EchoTarget>,
    pub(super) anchors: Vec<AnchorTarget>,
    pub(super) resolvers: Vec<SocketAddr>,
    /// What every resolver is asked; `None` when there is none.
    pub(super) question: Option<dns::Question>,
    pub(super) services: Vec<ServiceTarget>,
    /// The first anchor, without binding.
    pub(super) detour: Option<Detour>,
    pub(super) canary: Option<SocketAddr>,
}

#[derive(Debug)]
pub(super) struct AnchorTarget {
    pub(super) name: String,
    pub(super) echo: EchoTarget,
    /// `None` without a port, or while the agent has no CA to prove a collector by.
    pub(super) tcp: Option<(SocketAddr, Proof)>,
}

#[derive(Debug)]
pub(super) struct ServiceTarget {
    pub(super) name: String,
    pub(super) is_tls: bool,
    /// A fault while the agent has no CA to know the service by.
    pub(super) question: Result<service_http::Question, LocalFault>,
}

impl Targets {
    pub(super) fn new(config: &Config, roots: &[CertificateDer<'_>]) -> Result<Self, ProberError> {
        let roots = Arc::new(pinned(roots)?);
        let limits = &config.dedicated;
        let anchors = config
            .anchors
            .iter()
            .map(|anchor| AnchorTarget::new(anchor, limits, &roots))
            .collect::<Result<Vec<_>, _>>()?;
        let detour = anchors.first().map(|first| Detour {
            echo: EchoTarget::new(first.echo.address()),
            tcp: first.tcp.clone(),
        });
        let (resolvers, question) = match &config.dns {
            None => (Vec::new(), None),
            Some(dns) => (resolvers(dns, limits)?, Some(question(dns, limits)?)),
        };
        let services =
            config.services.iter().map(|service| ServiceTarget::new(service, limits, &roots));
        Ok(Self {
            gateways: gateways(config)?,
            anchors,
            resolvers,
            question,
            services: services.collect::<Result<_, _>>()?,
            detour,
            canary: config.internet_canary,
        })
    }
}

fn gateways(config: &Config) -> Result<Vec<EchoTarget>, ProberError> {
    let Dedicated { interface: _, local_prefixes, network_prefixes, gateways } = &config.dedicated;
    let is_used = |gateway: &&IpAddr| {
        config.anchors.is_empty()
            || config.anchors.iter().any(|anchor| anchor.address.is_ipv4() == gateway.is_ipv4())
    };
    let target = |gateway: &IpAddr| match inside(local_prefixes, *gateway) {
        true => Ok(EchoTarget::new(*gateway)),
        false => permitted("gateway", *gateway, network_prefixes).map(EchoTarget::new),
    };
    gateways.iter().filter(is_used).map(target).collect()
}

fn resolvers(dns: &crate::config::Dns, limits: &Dedicated) -> Result<Vec<SocketAddr>, ProberError> {
    let address = |resolver: &IpAddr| {
        let resolver = permitted("resolver", *resolver, &limits.network_prefixes)?;
        Ok(SocketAddr::new(resolver, DNS_PORT))
    };
    dns.resolvers.iter().map(address).collect()
}

fn question(dns: &crate::config::Dns, limits: &Dedicated) -> Result<dns::Question, ProberError> {
    let mut name =
        Name::from_utf8(&dns.name).map_err(|_| ProberError::DnsName { name: dns.name.clone() })?;
    name.set_fqdn(true);
    let expected = if dns.expected.is_empty() { &limits.network_prefixes } else { &dns.expected };
    Ok(dns::Question { name, expected: expected.clone() })
}

impl AnchorTarget {
    fn new(
        anchor: &Anchor,
        limits: &Dedicated,
        roots: &Arc<RootCertStore>,
    ) -> Result<Self, ProberError> {
        let Anchor { name, address, tcp_port, tcp_proof } = anchor;
        let address = permitted(&format!("anchor {name}"), *address, &limits.network_prefixes)?;
        let proof = match tcp_proof {
            TcpProof::Haidang if roots.is_empty() => None,
            TcpProof::Haidang => Some(Proof::Collector(Arc::clone(roots))),
            TcpProof::Banner(banner) => Some(Proof::Banner(banner.clone())),
            TcpProof::Handshake => Some(Proof::Handshake),
        };
        let tcp = tcp_port.map(|port| SocketAddr::new(address, port)).zip(proof);
        Ok(Self { name: name.clone(), echo: EchoTarget::new(address), tcp })
    }
}

impl ServiceTarget {
    fn new(
        service: &Service,
        limits: &Dedicated,
        roots: &Arc<RootCertStore>,
    ) -> Result<Self, ProberError> {
        let Service { name, url, host, status, echoes_nonce, ca_file } = service;
        let Url { is_tls, target, path, authority } = read_url(name, url)?;
        permitted(&format!("service {name}"), target.ip(), &limits.network_prefixes)?;
        let security = if is_tls {
            let own = ca_file.as_ref().map(|path| read_roots(name, path)).transpose()?;
            let roots = own.map_or_else(|| Arc::clone(roots), Arc::new);
            let server = host.clone().unwrap_or_else(|| target.ip().to_string());
            let server_name = ServerName::try_from(server.clone())
                .map_err(|_| ProberError::Host { name: name.clone(), host: server })?;
            tls(server_name, roots)
        } else {
            Ok(service_http::Security::Plain)
        };
        let question = security.map(|security| service_http::Question {
            target,
            path,
            host: host.clone().unwrap_or(authority),
            status: *status,
            echoes_nonce: *echoes_nonce,
            security,
        });
        Ok(Self { name: name.clone(), is_tls, question })
    }
}

fn tls(
    name: ServerName<'static>,
    roots: Arc<RootCertStore>,
) -> Result<service_http::Security, LocalFault> {
    if roots.is_empty() {
        let missing = "no CA is known to prove the service by; enrol first, or set ca_file";
        return Err(LocalFault(missing.into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|error| LocalFault(format!("cannot use the service's CA: {error}")))?;
    Ok(service_http::Security::Tls { name, expectation: Expectation::Service(verifier) })
}

/// A service URL, taken apart.
#[derive(Debug)]
struct Url {
    is_tls: bool,
    target: SocketAddr,
    path: String,
    authority: String,
}

fn read_url(name: &str, url: &str) -> Result<Url, ProberError> {
    let bad = |problem: &str| ProberError::Url {
        name: name.into(),
        url: url.into(),
        problem: problem.into(),
    };
    let uri: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(bad("the scheme is another")),
    };
    let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("it carries a user"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = host.parse().map_err(|_| bad("the host is a name"))?;
    let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    Ok(Url {
        is_tls,
        target: SocketAddr::new(address, port),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).into(),
        authority: authority.as_str().into(),
    })
}

fn read_roots(name: &str, path: &PathBuf) -> Result<RootCertStore, ProberError> {
    let bad =
        |problem: String| ProberError::Roots { name: name.into(), path: path.clone(), problem };
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
    let mut store = RootCertStore::empty();
    for certificate in certificates.take(ROOTS_MAX) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        store.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if store.is_empty() { Err(bad("it holds none".into())) } else { Ok(store) }
}

fn pinned(roots: &[CertificateDer<'_>]) -> Result<RootCertStore, ProberError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone().into_owned())
            .map_err(|error| ProberError::PinnedRoots { problem: error.to_string() })?;
    }
    Ok(store)
}

/// An address inside the prefixes that is one host's.
fn permitted(what: &str, address: IpAddr, prefixes: &[IpNet]) -> Result<IpAddr, ProberError> {
    let is_host = !address.is_multicast() && !address.is_unspecified();
    if is_host && inside(prefixes, address) {
        Ok(address)
    } else {
        Err(ProberError::Outside { what: what.into(), address })
    }
}

pub(super) fn inside(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

#[cfg(test)]
mod tests;
