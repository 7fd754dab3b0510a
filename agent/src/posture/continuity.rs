//! Whether tomorrow can be met: certificates that last, a backup that ran, and an agent that is
//! the one that was installed.

pub mod own_files;

use std::path::Path;
use std::time::{Duration, SystemTime};

use haidang_proto::model::posture::{CheckId, FailReason};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::finding::{Finding, Judged, Unknown};
use super::malformed::Malformed;
use super::policy::Backup;
use super::reading::parsed;
use super::root::{CONFIG_BYTES_MAX, Root};
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::CertificatesExpiring, Tier::T2, certificates_expiring),
        Check::new(CheckId::BackupRecent, Tier::T2, backup_recent),
        Check::new(CheckId::AgentIntegrity, Tier::T1, own_files::agent_integrity),
    ],
    catalogue: include_str!("continuity.toml"),
};

/// The agent's own chain, leaf first, in its state directory.
const AGENT_CHAIN: &str = "identity/chain.pem";

/// Keys whose certificates are looked at; a web server of a hundred sites.
const KEYS_MAX: usize = 200;

const DAY_SECONDS: u64 = 86_400;

/// The agent's certificate, and those of this machine's keys. Certificates of authorities are
/// nobody's here and are left out.
fn certificates_expiring(evidence: &Evidence<'_>) -> Judged {
    let days_min = evidence.threshold(CheckId::CertificatesExpiring, "days_min")?;
    let ends = certificate_ends(&evidence.root, evidence.state_dir)?;
    let Some(first) = ends.iter().min() else {
        return Ok(Finding::NotApplicable("this machine has no certificate of its own".into()));
    };
    let count = ends.len();
    Ok(match first.duration_since(evidence.now) {
        Ok(left) => {
            let days = left.as_secs() / DAY_SECONDS;
            let seen =
                format!("first of {count} certificates ends in {days} days (at least {days_min})");
            if days >= days_min {
                Finding::Pass(seen)
            } else {
                Finding::Fail(FailReason::WeakValue, seen)
            }
        }
        Err(_) => {
            Finding::Fail(FailReason::Stale, format!("one of {count} certificates has ended"))
        }
    })
}

/// Until the first certificate ends, zero when it has; `None` where there is none.
///
/// # Errors
/// When one cannot be read.
pub fn certificate_remaining(
    root: &Root,
    state_dir: &Path,
    now: SystemTime,
) -> Result<Option<Duration>, Unknown> {
    let first = certificate_ends(root, state_dir)?.into_iter().min();
    Ok(first.map(|first| first.duration_since(now).unwrap_or(Duration::ZERO)))
}

fn certificate_ends(root: &Root, state_dir: &Path) -> Result<Vec<SystemTime>, Unknown> {
    let mut ends = Vec::new();
    for path in certificate_paths(root, state_dir)? {
        let Some(bytes) = root.bytes(&path, CONFIG_BYTES_MAX)? else { continue };
        ends.push(parsed(&path, leaf_end(&bytes))?);
    }
    Ok(ends)
}

/// When the first certificate of a PEM file ends.
///
/// # Errors
/// No certificate in it, or a malformed one.
pub fn leaf_end(pem: &[u8]) -> Result<SystemTime, Malformed> {
    let leaf = CertificateDer::pem_slice_iter(pem).next();
    let leaf = leaf.and_then(Result::ok).ok_or(Malformed::Whole("holds no certificate"))?;
    let (_, leaf) = X509Certificate::from_der(&leaf)
        .map_err(|_| Malformed::Whole("holds a malformed certificate"))?;
    let seconds = leaf.validity().not_after.timestamp();
    u64::try_from(seconds)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or(Malformed::Whole("a certificate ends before 1970"))
}

/// The agent's, each that shares its name with a private key in the places of Debian and Red
/// Hat, and each that certbot keeps current.
fn certificate_paths(root: &Root, state_dir: &Path) -> Result<Vec<String>, Unknown> {
    const PAIRS: [(&str, &[&str]); 2] = [
        ("/etc/ssl/private", &["/etc/ssl/certs", "/etc/ssl"]),
        ("/etc/pki/tls/private", &["/etc/pki/tls/certs"]),
    ];
    const CERTBOT: &str = "/etc/letsencrypt/live";
    let mut paths = vec![state_dir.join(AGENT_CHAIN).display().to_string()];
    for (keys, certificates) in PAIRS {
        let names = root.names(keys)?.unwrap_or_default();
        for name in bounded(keys, &names)? {
            let stem = name.strip_suffix(".key").or_else(|| name.strip_suffix(".pem"));
            let Some(stem) = stem else { continue };
            paths.extend(certificates.iter().flat_map(|directory| {
                [format!("{directory}/{stem}.pem"), format!("{directory}/{stem}.crt")]
            }));
        }
    }
    let names = root.names(CERTBOT)?.unwrap_or_default();
    for name in bounded(CERTBOT, &names)? {
        paths.push(format!("{CERTBOT}/{name}/cert.pem"));
    }
    Ok(paths)
}

fn bounded<'a>(directory: &str, names: &'a [String]) -> Result<&'a [String], Unknown> {
    if names.len() > KEYS_MAX {
        return Err(Unknown::malformed(directory, "holds too many keys"));
    }
    Ok(names)
}

/// Every backup that the site declares left a trace recently. Nobody else knows what a backup of
/// this machine would be: without a declaration it is unknown, not unnecessary.
fn backup_recent(evidence: &Evidence<'_>) -> Judged {
    let days_max = evidence.threshold(CheckId::BackupRecent, "days_max")?;
    let backups = &evidence.policy.backups;
    if backups.is_empty() {
        return Err(Unknown::Absent { what: "posture.backups in agent.toml".into() });
    }
    let mut oldest_days = 0;
    for backup in backups {
        let (path, at) = match backup {
            Backup::Stamp(path) => {
                let root = evidence.root.without_symlinks();
                (path, root.metadata(path)?.map(|metadata| metadata.modified))
            }
            Backup::Directory(path) => (path, newest_entry(&evidence.root, path)?),
        };
        let path = path.display();
        let Some(at) = at else {
            return Ok(Finding::Fail(FailReason::Absent, format!("{path}: no trace of a backup")));
        };
        oldest_days = oldest_days.max(evidence.age(&path.to_string(), at)?.as_secs() / DAY_SECONDS);
    }
    let seen = format!(
        "{} backups, the oldest {oldest_days} days ago (at most {days_max})",
        backups.len()
    );
    Ok(if oldest_days <= days_max {
        Finding::Pass(seen)
    } else {
        Finding::Fail(FailReason::Stale, seen)
    })
}

fn newest_entry(root: &Root, directory: &Path) -> Result<Option<SystemTime>, Unknown> {
    let root = root.without_symlinks();
    let mut newest = None;
    for name in root.names(directory)?.unwrap_or_default() {
        let metadata = root.link_metadata(directory.join(name))?;
        newest = newest.max(metadata.map(|metadata| metadata.modified));
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_certificate_is_looked_for_in_the_configured_state_directory() {
        let machine = tempfile::tempdir().unwrap();
        let identity = machine.path().join("srv/agent/identity");
        std::fs::create_dir_all(&identity).unwrap();
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posture");
        let captured = tests.join("certificates_expiring/fail/ended/root/etc/ssl/certs/www.pem");
        std::fs::copy(captured, identity.join("chain.pem")).unwrap();
        let root = Root::open(machine.path()).unwrap();
        let remaining = |state_dir: &str| {
            certificate_remaining(&root, Path::new(state_dir), SystemTime::now()).unwrap()
        };
        assert!(remaining("/srv/agent").is_some());
        assert_eq!(remaining("/var/lib/haidang-agent"), None);
    }
}
