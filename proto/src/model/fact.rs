//! Facts: the evidence behind a verdict, from an allow-list of kinds. Free text stands
//! only here and in the journal, never in a label.

use crate::wire;

use super::{WireError, clean, text};

/// Facts that one report or record may carry.
pub const FACTS_MAX: usize = 32;
/// Bytes of a fact's subject or value.
pub const FACT_TEXT_BYTES_MAX: usize = 128;

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// What sort of fact.
    pub kind: FactKind,
    /// What it is about: an interface, an address, an anchor's name.
    pub subject: String,
    /// What was seen.
    pub value: String,
}

/// Sorts of facts, from the lowest layer up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    /// An interface's administrative and operational state.
    Link,
    /// An address inside the agency's prefixes, or its absence.
    Address,
    /// What the FIB answers for a target.
    Route,
    /// The gateway's neighbour state.
    Neighbour,
    /// Echo to the gateway.
    GatewayEcho,
    /// Echo to an anchor.
    AnchorEcho,
    /// TCP to an anchor.
    AnchorTcp,
    /// A resolver's answer.
    Dns,
    /// A service's answer.
    Service,
    /// What an unbound probe reached.
    Unbound,
    /// The largest packet that passed.
    PathMtu,
    /// Who sent an ICMP error, and which.
    RejectedBy,
    /// What the prober knows of itself.
    Prober,
    /// What joins the dedicated network to another: a bridge, forwarding, a tunnel, a proxy.
    Joint,
    /// An interface that leads to another network, and whether the site has declared it.
    OtherNetwork,
}

impl FactKind {
    const fn to_wire(self) -> wire::FactKind {
        match self {
            Self::Link => wire::FactKind::Link,
            Self::Address => wire::FactKind::Address,
            Self::Route => wire::FactKind::Route,
            Self::Neighbour => wire::FactKind::Neighbour,
            Self::GatewayEcho => wire::FactKind::GatewayEcho,
            Self::AnchorEcho => wire::FactKind::AnchorEcho,
            Self::AnchorTcp => wire::FactKind::AnchorTcp,
            Self::Dns => wire::FactKind::Dns,
            Self::Service => wire::FactKind::Service,
            Self::Unbound => wire::FactKind::Unbound,
            Self::PathMtu => wire::FactKind::PathMtu,
            Self::RejectedBy => wire::FactKind::RejectedBy,
            Self::Prober => wire::FactKind::Prober,
            Self::Joint => wire::FactKind::Joint,
            Self::OtherNetwork => wire::FactKind::OtherNetwork,
        }
    }

    fn from_wire(kind: i32) -> Result<Self, WireError> {
        let unknown = WireError::new("fact.kind", "is not known");
        Ok(match wire::FactKind::try_from(kind).map_err(|_| unknown.clone())? {
            wire::FactKind::Unspecified => return Err(unknown),
            wire::FactKind::Link => Self::Link,
            wire::FactKind::Address => Self::Address,
            wire::FactKind::Route => Self::Route,
            wire::FactKind::Neighbour => Self::Neighbour,
            wire::FactKind::GatewayEcho => Self::GatewayEcho,
            wire::FactKind::AnchorEcho => Self::AnchorEcho,
            wire::FactKind::AnchorTcp => Self::AnchorTcp,
            wire::FactKind::Dns => Self::Dns,
            wire::FactKind::Service => Self::Service,
            wire::FactKind::Unbound => Self::Unbound,
            wire::FactKind::PathMtu => Self::PathMtu,
            wire::FactKind::RejectedBy => Self::RejectedBy,
            wire::FactKind::Prober => Self::Prober,
            wire::FactKind::Joint => Self::Joint,
            wire::FactKind::OtherNetwork => Self::OtherNetwork,
        })
    }
}

impl TryFrom<wire::Fact> for Fact {
    type Error = WireError;

    fn try_from(wire::Fact { kind, subject, value }: wire::Fact) -> Result<Self, WireError> {
        Ok(Self {
            kind: FactKind::from_wire(kind)?,
            subject: text(subject, FACT_TEXT_BYTES_MAX, "fact.subject")?,
            value: text(value, FACT_TEXT_BYTES_MAX, "fact.value")?,
        })
    }
}

impl From<Fact> for wire::Fact {
    fn from(Fact { kind, subject, value }: Fact) -> Self {
        Self { kind: kind.to_wire() as i32, subject, value }
    }
}

/// A bounded list of facts.
pub(crate) fn facts_from_wire(facts: Vec<wire::Fact>) -> Result<Vec<Fact>, WireError> {
    if facts.len() > FACTS_MAX {
        return Err(WireError::new("facts", "are more than 32"));
    }
    facts.into_iter().map(Fact::try_from).collect()
}

/// Facts as they are sent: cut to the limits, so that an honest agent is never refused for being
/// thorough.
pub(crate) fn facts_to_wire(facts: &[Fact]) -> Vec<wire::Fact> {
    facts
        .iter()
        .take(FACTS_MAX)
        .map(|fact| wire::Fact {
            kind: fact.kind.to_wire() as i32,
            subject: clean(&fact.subject, FACT_TEXT_BYTES_MAX),
            value: clean(&fact.value, FACT_TEXT_BYTES_MAX),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_honest_agent_sends_is_accepted() {
        let fact =
            Fact { kind: FactKind::Link, subject: "eth0\n".repeat(40), value: "á".repeat(100) };
        let sent = facts_to_wire(&vec![fact; 40]);
        assert_eq!(facts_from_wire(sent).map(|facts| facts.len()), Ok(FACTS_MAX));
    }

    #[test]
    fn control_characters_and_unknown_kinds_are_refused() {
        let wire =
            |kind, value: &str| wire::Fact { kind, subject: String::new(), value: value.into() };
        assert!(Fact::try_from(wire(1, "up\u{1b}[31m")).is_err());
        assert!(Fact::try_from(wire(0, "up")).is_err());
        assert!(Fact::try_from(wire(99, "up")).is_err());
        assert!(Fact::try_from(wire(1, &"x".repeat(129))).is_err());
    }
}
