//! Requirements: what an agency's machines are asked for where it is not what the catalogue asks.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::wire;

use super::Threshold;
use super::threshold::by_label;
use crate::model::WireError;

/// Ports that a list may name: a server's dozen, several times.
pub const PORTS_MAX: usize = 64;

/// Level of an information system, 1 to 5 (TCVN 14423).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Level(u8);

impl Level {
    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Days for which records are kept: TCVN 14423 x.8.2.1 asks for none, 1, 3, 6 and 12 months
    /// (our reading, for legal review).
    const fn log_days(self) -> u32 {
        match self.0 {
            1 => 0,
            2 => 30,
            3 => 90,
            4 => 180,
            _ => 365,
        }
    }
}

/// A number that is no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a level is 1 to 5")]
pub struct NoLevel;

impl TryFrom<u8> for Level {
    type Error = NoLevel;

    fn try_from(number: u8) -> Result<Self, NoLevel> {
        if (1..=5).contains(&number) { Ok(Self(number)) } else { Err(NoLevel) }
    }
}

impl From<Level> for u8 {
    fn from(Level(number): Level) -> Self {
        number
    }
}

/// Requirements; empty ones leave the catalogue as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requirements {
    /// Level of the information system. It sets what depends on it, unless that is set by itself.
    pub level: Option<Level>,
    /// Thresholds that were set.
    #[serde(with = "by_label")]
    pub thresholds: BTreeMap<Threshold, u32>,
    /// Ports that may be open on the dedicated network; `None`: the machine's own list holds.
    pub allowed_ports: Option<BTreeSet<u16>>,
}

impl Requirements {
    /// A threshold as it was decided here; `None` where the catalogue's holds.
    pub fn decided(&self, threshold: Threshold) -> Option<u32> {
        self.thresholds.get(&threshold).copied().or_else(|| {
            let level = self.level?;
            match threshold {
                Threshold::AuditSecurityLevel => Some(level.number().into()),
                Threshold::LogDaysMin => Some(level.log_days()),
                _ => None,
            }
        })
    }

    /// A threshold in force.
    pub fn threshold(&self, threshold: Threshold) -> u32 {
        self.decided(threshold).unwrap_or_else(|| threshold.usual())
    }

    /// What of this asks less than the catalogue: thresholds.
    pub fn laxer(&self) -> impl Iterator<Item = Threshold> {
        Threshold::ALL.iter().copied().filter(|one| one.is_laxer(self.threshold(*one), one.usual()))
    }

    /// These, and where they leave something open, those of `base`.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        let mut thresholds = base.thresholds.clone();
        // A level that was decided nearer stands above a number that was decided further away.
        if self.level.is_some() {
            thresholds.remove(&Threshold::AuditSecurityLevel);
            thresholds.remove(&Threshold::LogDaysMin);
        }
        thresholds.extend(&self.thresholds);
        Self {
            level: self.level.or(base.level),
            thresholds,
            allowed_ports: self.allowed_ports.clone().or_else(|| base.allowed_ports.clone()),
        }
    }

    /// The same within the limits that no collector can lift.
    #[must_use]
    pub fn clamped(mut self) -> Self {
        for (threshold, value) in &mut self.thresholds {
            *value = threshold.clamped(*value);
        }
        if let Some(ports) = &mut self.allowed_ports {
            *ports =
                std::mem::take(ports).into_iter().filter(|p| *p != 0).take(PORTS_MAX).collect();
        }
        self
    }
}

impl TryFrom<wire::PostureRequirements> for Requirements {
    type Error = WireError;

    fn try_from(requirements: wire::PostureRequirements) -> Result<Self, WireError> {
        let wire::PostureRequirements { level, thresholds, allowed_ports } = requirements;
        let level = match u8::try_from(level) {
            Ok(0) => None,
            number => Some(
                number
                    .ok()
                    .and_then(|number| Level::try_from(number).ok())
                    .ok_or(WireError::new("posture_requirements.level", "is none of 1 to 5"))?,
            ),
        };
        let known = thresholds
            .into_iter()
            .filter_map(|one| Some((Threshold::from_wire(one.threshold)?, one.value)));
        let allowed_ports = allowed_ports.map(|wire::PortList { ports }| {
            let field = "posture_requirements.allowed_ports";
            if ports.len() > PORTS_MAX {
                return Err(WireError::new(field, "has more than 64 entries"));
            }
            let port = |port| u16::try_from(port).map_err(|_| WireError::new(field, "is no port"));
            ports.into_iter().map(port).collect()
        });
        let read =
            Self { level, thresholds: known.collect(), allowed_ports: allowed_ports.transpose()? };
        Ok(read.clamped())
    }
}

impl From<Requirements> for wire::PostureRequirements {
    fn from(requirements: Requirements) -> Self {
        let Requirements { level, thresholds, allowed_ports } = requirements;
        Self {
            level: level.map_or(0, |level| level.number().into()),
            thresholds: thresholds
                .into_iter()
                .map(|(threshold, value)| wire::PostureThresholdValue {
                    threshold: threshold.to_wire() as i32,
                    value,
                })
                .collect(),
            allowed_ports: allowed_ports
                .map(|ports| wire::PortList { ports: ports.into_iter().map(u32::from).collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(number: u8) -> Level {
        Level::try_from(number).expect("a level")
    }

    fn any_requirements() -> impl Strategy<Value = Requirements> {
        let threshold = (0..Threshold::ALL.len()).prop_map(|at| Threshold::ALL[at]);
        (
            proptest::option::of(1u8..=5),
            proptest::collection::btree_map(threshold, any::<u32>(), 0..8),
            proptest::option::of(proptest::collection::btree_set(any::<u16>(), 0..PORTS_MAX)),
        )
            .prop_map(|(number, thresholds, allowed_ports)| Requirements {
                level: number.map(level),
                thresholds,
                allowed_ports,
            })
    }

    proptest! {
        #[test]
        fn what_arrives_is_what_was_sent_within_the_limits(sent in any_requirements()) {
            let arrived = Requirements::try_from(wire::PostureRequirements::from(sent.clone()));
            prop_assert_eq!(arrived, Ok(sent.clone().clamped()));
            let json = serde_json::to_string(&sent).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Requirements>(&json).expect("read"), sent);
        }

        #[test]
        fn empty_requirements_change_nothing(base in any_requirements()) {
            prop_assert_eq!(Requirements::default().over(&base), base);
        }
    }

    #[test]
    fn a_level_sets_what_depends_on_it_unless_that_is_set_by_itself() {
        let mut asked = Requirements { level: Some(level(4)), ..Requirements::default() };
        assert_eq!(asked.threshold(Threshold::LogDaysMin), 180);
        assert_eq!(asked.threshold(Threshold::AuditSecurityLevel), 4);
        asked.thresholds.insert(Threshold::LogDaysMin, 400);
        assert_eq!(asked.threshold(Threshold::LogDaysMin), 400);
        let nearer = Requirements { level: Some(level(2)), ..Requirements::default() };
        assert_eq!(nearer.over(&asked).threshold(Threshold::LogDaysMin), 30);
    }

    #[test]
    fn what_asks_less_than_the_catalogue_is_named() {
        let mut asked = Requirements::default();
        assert_eq!(asked.laxer().count(), 0);
        asked.thresholds.insert(Threshold::DormantDaysMax, 90);
        asked.thresholds.insert(Threshold::PasswordLengthMin, 16);
        asked.level = Some(level(1));
        let laxer: Vec<_> = asked.laxer().collect();
        let expected =
            [Threshold::AuditSecurityLevel, Threshold::LogDaysMin, Threshold::DormantDaysMax];
        assert_eq!(laxer, expected);
    }

    #[test]
    fn what_only_a_newer_collector_knows_is_left_out() {
        let wire = wire::PostureRequirements {
            level: 0,
            thresholds: vec![wire::PostureThresholdValue { threshold: 99, value: 1 }],
            allowed_ports: None,
        };
        assert_eq!(Requirements::try_from(wire), Ok(Requirements::default()));
        let wire = wire::PostureRequirements { level: 6, ..Default::default() };
        Requirements::try_from(wire).expect_err("no level");
    }
}
