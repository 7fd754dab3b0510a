//! Ids of agencies and agents.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Id of an agency: the official code path of the roster, such as `01-018-00565`,
/// or `01-so-noi-vu` for a department that has no code.
///
/// Lower-case ASCII letters, digits and single hyphens between them, at most 63
/// bytes, so that it is valid as a DNS label, a file name and a metric label.
///
/// Clones share the text: every report, and every machine in every snapshot, carries one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgencyId(Arc<str>);

/// Text that is not an agency id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an agency id is 1 to 63 lower-case letters, digits and single hyphens between them, such as 01-018"
)]
pub struct AgencyIdError;

impl AgencyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgencyId {
    type Err = AgencyIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let well_formed = (1..=63).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--");
        if well_formed { Ok(Self(text.into())) } else { Err(AgencyIdError) }
    }
}

impl fmt::Display for AgencyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for AgencyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for AgencyId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Id of one agent, drawn by the collector at enrolment.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct AgentId(pub uuid::Uuid);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AgentId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_roster_ids_parse() {
        for good in ["01", "01-018", "01-018-00565", "01-so-noi-vu"] {
            assert_eq!(good.parse::<AgencyId>().map(|id| id.to_string()).as_deref(), Ok(good));
        }
        let long = "a".repeat(64);
        for bad in ["", "-01", "01-", "01--018", "01_018", "Sở", "01-018 ", "A", &long] {
            assert_eq!(bad.parse::<AgencyId>(), Err(AgencyIdError), "{bad:?}");
        }
    }
}
