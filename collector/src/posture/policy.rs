//! Policies: what is asked of an agency where it is not the default.

use std::collections::HashMap;

use haidang_proto::model::agency::AgencyId;

use super::machine::CRITICAL_CAP;

/// What is asked of an agency's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Score from which a machine complies.
    pub score_min: u8,
}

impl Policy {
    /// Where nothing else was decided.
    pub const DEFAULT: Self = Self { score_min: 80 };

    /// A policy with another score.
    ///
    /// # Errors
    /// When a machine with a critical finding could comply, or none could.
    pub const fn new(score_min: u8) -> Result<Self, PolicyError> {
        if score_min > CRITICAL_CAP && score_min <= 100 {
            Ok(Self { score_min })
        } else {
            Err(PolicyError)
        }
    }
}

/// A score that cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("score_min must be 50 to 100: 49 is the most that a machine with a critical finding has")]
pub struct PolicyError;

/// The policies of all agencies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    by_agency: HashMap<AgencyId, Policy>,
}

impl Policies {
    /// What is asked of an agency.
    pub fn of(&self, agency: &AgencyId) -> Policy {
        self.by_agency.get(agency).copied().unwrap_or(Policy::DEFAULT)
    }
}

impl FromIterator<(AgencyId, Policy)> for Policies {
    fn from_iter<I: IntoIterator<Item = (AgencyId, Policy)>>(policies: I) -> Self {
        Self { by_agency: policies.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_lets_a_critical_finding_comply() {
        for (score_min, is_sound) in
            [(0, false), (49, false), (50, true), (100, true), (101, false)]
        {
            assert_eq!(Policy::new(score_min).is_ok(), is_sound, "{score_min}");
        }
        assert_eq!(Policy::new(Policy::DEFAULT.score_min), Ok(Policy::DEFAULT));
    }
}
