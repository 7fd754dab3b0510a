//! The certificate authority: one ECDSA P-256 key that signs agents and collectors of this
//! installation, and nothing else.
//!
//! On disk: `state_dir/ca/ca.key` (PKCS#8 PEM, 0600), `ca.pem` and, for a demonstration,
//! `demo`. The CA is made at the first start, or given by its operator as a pair of files. Every
//! certificate is backdated a day, because unsynchronised PCs are the rule; an agent's is good
//! for clients alone and the collector's for servers alone, so that no agent can pose as the
//! collector. The collector's own key lives in memory only and is new at every start.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::spiffe::{SpiffeId, TrustDomain, Workload};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::secret_file::{make_private_dir, read_private, read_public, write_private};
use super::{CertificateRequest, SecretFileError, Serial, spki_pin};
use crate::config::Config;

/// How far certificates reach back.
pub(crate) const BACKDATE: Duration = Duration::from_secs(86_400);
/// Life of a CA that is made here: longer than the machines that trust it.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pin: [u8; 32],
    not_after: SystemTime,
    trust_domain: TrustDomain,
}

/// Term of a certificate that is to be issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateTerm {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

/// The collector's own certificate with its key, for each kind of listener.
#[derive(Debug, Clone)]
pub struct CertifiedServer {
    /// With the CA behind the leaf, for listeners whose peers know only the CA's pin.
    pub with_root: Arc<CertifiedKey>,
    /// The leaf alone, for peers that hold the root.
    pub leaf_only: Arc<CertifiedKey>,
    /// End of its term.
    pub not_after: SystemTime,
}

/// A CA that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of it cannot be used.
    #[error("cannot use the CA's files")]
    File(#[from] SecretFileError),
    /// The certificate is no certificate.
    #[error("{path} holds no PEM certificate that can be read")]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is not a CA's.
    #[error("the certificate in {path} may not sign others (no CA:true with keyCertSign)")]
    NotCa {
        /// The file.
        path: PathBuf,
    },
    /// The key is no key.
    #[error("{path} holds no PKCS#8 key that can be read")]
    Key {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        source: rcgen::Error,
    },
    /// They do not belong together.
    #[error("the key in {key} is not the one of the certificate in {certificate}")]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The CA's term is over.
    #[error("the CA in {path} has expired; install another one")]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// A demonstration's CA in a real installation.
    #[error(
        "{dir} holds the CA of a demonstration, which must never serve a real installation; use \
         another state_dir"
    )]
    DemoCa {
        /// Its directory.
        dir: PathBuf,
    },
    /// A real CA in a demonstration.
    #[error("{dir} holds the CA of a real installation; a demonstration needs its own state_dir")]
    RealCa {
        /// Its directory.
        dir: PathBuf,
    },
    /// No random bytes.
    #[error("the kernel gives no random bytes")]
    Random(#[from] getrandom::Error),
    /// Signing failed.
    #[error("cannot sign a certificate")]
    Sign(#[from] rcgen::Error),
    /// The key that was made is not usable for TLS.
    #[error("cannot use the collector's own key for TLS")]
    Tls(#[from] rustls::Error),
}

impl Authority {
    /// Takes the given CA, the one in the state directory, or makes one.
    ///
    /// # Errors
    /// When files are missing, exposed, damaged, mismatched, expired, or of the other kind of
    /// installation.
    pub fn open(config: &Config, now: SystemTime) -> Result<Self, AuthorityError> {
        let dir = config.state_dir.join("ca");
        make_private_dir(&dir)?;
        let demo_mark = dir.join("demo");
        let given =
            config.identity.ca_certificate_file.as_ref().zip(config.identity.ca_key_file.as_ref());
        if let Some((certificate, key)) = given {
            return Self::read(certificate, key, config.trust_domain.clone(), now);
        }
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        match (config.demo, demo_mark.exists()) {
            (false, true) => return Err(AuthorityError::DemoCa { dir }),
            (true, false) if certificate.exists() => return Err(AuthorityError::RealCa { dir }),
            _ => {}
        }
        // The certificate is written last: with it, the pair is complete.
        if !certificate.exists() {
            if config.demo {
                write_private(&demo_mark, b"the CA of a demonstration\n")?;
            }
            make(&certificate, &key, config, now)?;
        }
        Self::read(&certificate, &key, config.trust_domain.clone(), now)
    }

    fn read(
        certificate_path: &Path,
        key_path: &Path,
        trust_domain: TrustDomain,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let pem = read_public(certificate_path)?;
        let unreadable = || AuthorityError::Certificate { path: certificate_path.to_owned() };
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unreadable())?;
        let (_, read) = X509Certificate::from_der(&certificate).map_err(|_| unreadable())?;
        let may_sign = matches!(read.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
        if !(read.is_ca() && may_sign) {
            return Err(AuthorityError::NotCa { path: certificate_path.to_owned() });
        }
        let not_after = u64::try_from(read.validity().not_after.timestamp())
            .map_or(SystemTime::UNIX_EPOCH, |seconds| {
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
            });
        if not_after <= now {
            return Err(AuthorityError::Expired { path: certificate_path.to_owned() });
        }
        let spki = read.public_key().raw.to_vec();
        let key = KeyPair::from_pem(&read_private(key_path)?)
            .map_err(|source| AuthorityError::Key { path: key_path.to_owned(), source })?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != spki {
            return Err(AuthorityError::Mismatch {
                key: key_path.to_owned(),
                certificate: certificate_path.to_owned(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, pin: spki_pin(&spki), not_after, trust_domain })
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the CA's public key: what an enrolment code carries.
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// End of the CA's term.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// A term from a day ago until `lifetime` from now, and never beyond the CA's own.
    pub fn term(&self, lifetime: Duration, now: SystemTime) -> CertificateTerm {
        let whole_second = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
        };
        CertificateTerm {
            not_before: whole_second(now.checked_sub(BACKDATE).unwrap_or(now)),
            not_after: whole_second((now + lifetime).min(self.not_after)),
        }
    }

    /// Certifies the key of a request for one agent. Nothing else of the request is used.
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue_agent(
        &self,
        request: &CertificateRequest,
        workload: Workload,
        serial: Serial,
        term: CertificateTerm,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let id = SpiffeId { trust_domain: self.trust_domain.clone(), workload };
        let params = leaf(&id, serial, term, ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(params.signed_by(&request.key, &self.issuer)?.der().clone())
    }

    /// Makes a key and a certificate for the collector's own listeners.
    ///
    /// # Errors
    /// When there are no random bytes, or signing fails.
    pub fn issue_server(
        &self,
        hosts: &[&str],
        term: CertificateTerm,
    ) -> Result<CertifiedServer, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let id =
            SpiffeId { trust_domain: self.trust_domain.clone(), workload: Workload::Collector };
        let mut params = leaf(&id, Serial::draw()?, term, ExtendedKeyUsagePurpose::ServerAuth)?;
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*host).try_into()?),
            });
        }
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        let root = self.certificate.clone();
        Ok(CertifiedServer {
            with_root: Arc::new(CertifiedKey::new(vec![leaf.clone(), root], Arc::clone(&key))),
            leaf_only: Arc::new(CertifiedKey::new(vec![leaf], key)),
            not_after: term.not_after,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn leaf(
    id: &SpiffeId,
    serial: Serial,
    term: CertificateTerm,
    usage: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = term.not_before.into();
    params.not_after = term.not_after.into();
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    params.distinguished_name = DistinguishedName::new();
    // Some inspection tools show nothing without a subject; nothing reads it.
    params.distinguished_name.push(
        DnType::CommonName,
        match &id.workload {
            Workload::Collector => "Hai Dang collector",
            Workload::Agent { .. } => "Hai Dang agent",
        },
    );
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn make(
    certificate_path: &Path,
    key_path: &Path,
    config: &Config,
    now: SystemTime,
) -> Result<(), AuthorityError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.not_before = now.checked_sub(BACKDATE).unwrap_or(now).into();
    params.not_after = (now + CA_LIFETIME).into();
    params.serial_number = Some(SerialNumber::from_slice(&Serial::draw()?.0));
    params.distinguished_name = DistinguishedName::new();
    let name = if config.demo { "Hai Dang demonstration CA" } else { "Hai Dang CA" };
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, config.trust_domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    let pem = zeroize::Zeroizing::new(key.serialize_pem());
    write_private(key_path, pem.as_bytes())?;
    write_private(certificate_path, certificate.pem().as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests;
