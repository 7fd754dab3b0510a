//! Names inside certificates: SPIFFE ids (SPIFFE-ID specification, URI SAN).
//!
//! `spiffe://<trust-domain>/agency/<agency-id>/agent/<uuid>` for an agent,
//! `spiffe://<trust-domain>/collector` for a collector. Nothing else is accepted.

use std::fmt;
use std::str::FromStr;

use super::agency::{AgencyId, AgentId};

/// Who a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// Lower-case DNS-like name of the installation.
    pub trust_domain: TrustDomain,
    /// The workload within it.
    pub workload: Workload,
}

/// The two kinds of party on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Workload {
    /// A collector of the installation.
    Collector,
    /// One agent of one agency.
    Agent {
        /// The agency that it speaks for.
        agency: AgencyId,
        /// The agent itself.
        agent: AgentId,
    },
}

/// Trust domain: 1 to 255 lower-case letters, digits, dots, hyphens, underscores.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text that is not an id of this installation's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Not `spiffe://…`.
    #[error("it does not begin with spiffe://")]
    Scheme,
    /// The trust domain is empty, too long or holds other characters.
    #[error("its trust domain is not 1 to 255 of a-z 0-9 . - _")]
    TrustDomain,
    /// The path is neither a collector's nor an agent's.
    #[error("its path is neither /collector nor /agency/<agency-id>/agent/<uuid>")]
    Path,
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(SpiffeIdError::TrustDomain)
        }
    }
}

impl<'de> serde::Deserialize<'de> for TrustDomain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let (trust_domain, path) = rest.split_once('/').ok_or(SpiffeIdError::Path)?;
        let trust_domain = trust_domain.parse()?;
        let segments: Vec<&str> = path.split('/').collect();
        let workload = match segments.as_slice() {
            ["collector"] => Workload::Collector,
            ["agency", agency, "agent", agent] => {
                let agent_id: AgentId = agent.parse().map_err(|_| SpiffeIdError::Path)?;
                // One spelling per identity: no upper case, braces or missing hyphens.
                if agent_id.to_string() != *agent {
                    return Err(SpiffeIdError::Path);
                }
                Workload::Agent {
                    agency: agency.parse().map_err(|_| SpiffeIdError::Path)?,
                    agent: agent_id,
                }
            }
            _ => return Err(SpiffeIdError::Path),
        };
        Ok(Self { trust_domain, workload })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain.as_str())?;
        match &self.workload {
            Workload::Collector => f.write_str("/collector"),
            Workload::Agent { agency, agent } => write!(f, "/agency/{agency}/agent/{agent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip_and_have_one_spelling() {
        for text in [
            "spiffe://hanoi.example/collector",
            "spiffe://hanoi.example/agency/01-018/agent/5f0c1de2-8a35-4a3c-9d4e-0a1b2c3d4e5f",
        ] {
            assert_eq!(text.parse::<SpiffeId>().map(|id| id.to_string()).as_deref(), Ok(text));
        }
        for bad in [
            "https://hanoi.example/collector",
            "spiffe:///collector",
            "spiffe://hanoi.example",
            "spiffe://Hanoi.example/collector",
            "spiffe://hanoi.example/collector/",
            "spiffe://hanoi.example/agency/01-018",
            "spiffe://hanoi.example/agency/01 018/agent/5f0c1de2-8a35-4a3c-9d4e-0a1b2c3d4e5f",
            "spiffe://hanoi.example/agency/01-018/agent/5F0C1DE2-8A35-4A3C-9D4E-0A1B2C3D4E5F",
            "spiffe://hanoi.example/agency/01-018/agent/5f0c1de28a354a3c9d4e0a1b2c3d4e5f",
            "spiffe://hanoi.example/agency/01-018/agent/x",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }
}
