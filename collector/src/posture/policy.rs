//! Policies: what is asked of an agency where it is not what the catalogue asks. One is for all
//! agencies, and each agency may have its own above it.
//!
//! The score from which a machine complies and what weighs in it count here, in the fold. Level,
//! thresholds and ports travel to the agents as settings. What asks less than the catalogue is
//! counted and named, so that it is seen.

use std::collections::HashMap;
use std::time::SystemTime;

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::posture::{CheckId, CheckSet, Level, PORTS_MAX, Requirements, Threshold};
use serde::{Deserialize, Serialize};

use super::exception::line;
use super::machine::{CRITICAL_CAP, WEIGHED};

/// What the fold asks of an agency's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Score from which a machine complies.
    pub score_min: u8,
    /// Whether `usb_storage_restricted` weighs in the score; otherwise it is only reported.
    pub weighs_usb_storage: bool,
    /// In how many things it asks less than the catalogue.
    pub laxer: u32,
}

impl Policy {
    /// Where nothing was decided.
    pub const DEFAULT: Self = Self { score_min: 80, weighs_usb_storage: false, laxer: 0 };

    /// Checks that weigh in a machine's score.
    pub const fn weighed(self) -> CheckSet {
        let mut weighed = WEIGHED;
        if self.weighs_usb_storage {
            weighed.insert(CheckId::UsbStorageRestricted);
        }
        weighed
    }
}

/// For whom something was decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every agency.
    All,
    /// One agency, above what was decided for all.
    Agency(AgencyId),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Agency(agency) => agency.fmt(f),
        }
    }
}

/// What was decided; what is left open is as in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyTerms {
    /// Score from which a machine complies.
    pub score_min: Option<u8>,
    /// Whether `usb_storage_restricted` weighs.
    pub weighs_usb_storage: Option<bool>,
    /// What agents are told.
    pub requirements: Requirements,
}

/// A change of terms: what is `None` or absent stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyChange {
    /// Score from which a machine complies, 50 to 100.
    pub score_min: Option<u8>,
    /// Level of the information system.
    pub level: Option<u8>,
    /// Thresholds by label; `None` gives one back to the catalogue.
    pub thresholds: Vec<(String, Option<u32>)>,
    /// Ports that may be open on the dedicated network.
    pub allowed_ports: Option<Vec<u16>>,
    /// Whether `usb_storage_restricted` weighs.
    pub weighs_usb_storage: Option<bool>,
}

/// Terms, and who decided on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The terms.
    pub terms: PolicyTerms,
    /// Who answers for them.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When.
    pub decided: SystemTime,
    /// Grows with every change of this scope, from 1; also when the terms are given up.
    pub revision: u64,
}

/// A policy that cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A machine with a critical finding could comply, or none could.
    #[error(
        "score_min must be 50 to 100: 49 is the most that a machine with a critical finding has"
    )]
    Score,
    /// It names none of 1 to 5.
    #[error("a level is 1 to 5")]
    Level,
    /// There is no such number.
    #[error("there is no threshold {label}; one of {}", labels())]
    Threshold {
        /// What was named.
        label: String,
    },
    /// Beyond it the check could not fail, or not pass.
    #[error("{threshold} must be {least} to {most}")]
    Limits {
        /// Which.
        threshold: Threshold,
        /// At least.
        least: u32,
        /// At most.
        most: u32,
    },
    /// A port is none, or there are too many.
    #[error("allowed ports are at most 64 of 1 to 65535")]
    Ports,
    /// Nobody answers for it, or no reason is given.
    #[error("{field} is one line of 1 to 200 bytes")]
    Text {
        /// Which option.
        field: &'static str,
    },
}

fn labels() -> String {
    Threshold::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl PolicyTerms {
    /// These terms after a change.
    ///
    /// # Errors
    /// When something cannot be asked for.
    pub fn changed(mut self, change: PolicyChange) -> Result<Self, PolicyError> {
        let PolicyChange { score_min, level, thresholds, allowed_ports, weighs_usb_storage } =
            change;
        if let Some(score) = score_min {
            if score <= CRITICAL_CAP || score > 100 {
                return Err(PolicyError::Score);
            }
            self.score_min = Some(score);
        }
        let requirements = &mut self.requirements;
        if let Some(level) = level {
            requirements.level = Some(Level::try_from(level).map_err(|_| PolicyError::Level)?);
        }
        for (label, value) in thresholds {
            let threshold =
                Threshold::from_label(&label).ok_or(PolicyError::Threshold { label })?;
            let Some(value) = value else {
                requirements.thresholds.remove(&threshold);
                continue;
            };
            let (least, most) = threshold.limits();
            if !(least..=most).contains(&value) {
                return Err(PolicyError::Limits { threshold, least, most });
            }
            requirements.thresholds.insert(threshold, value);
        }
        if let Some(ports) = allowed_ports {
            if ports.contains(&0) || ports.len() > PORTS_MAX {
                return Err(PolicyError::Ports);
            }
            requirements.allowed_ports = Some(ports.into_iter().collect());
        }
        self.weighs_usb_storage = weighs_usb_storage.or(self.weighs_usb_storage);
        Ok(self)
    }

    /// These, and where they leave something open, those of `base`.
    fn over(&self, base: &Self) -> Self {
        Self {
            score_min: self.score_min.or(base.score_min),
            weighs_usb_storage: self.weighs_usb_storage.or(base.weighs_usb_storage),
            requirements: self.requirements.over(&base.requirements),
        }
    }

    /// Labels of what asks less than the catalogue.
    pub fn laxer(&self) -> Vec<String> {
        let score = self.score_min.filter(|score| *score < Policy::DEFAULT.score_min);
        let ports = self.requirements.allowed_ports.as_ref().filter(|ports| !ports.is_empty());
        score
            .map(|_| "score_min".to_owned())
            .into_iter()
            .chain(self.requirements.laxer().map(|threshold| threshold.to_string()))
            .chain(ports.map(|_| "exposed_services.allowed_ports".to_owned()))
            .collect()
    }

    /// What the fold asks.
    fn policy(&self) -> Policy {
        Policy {
            score_min: self.score_min.unwrap_or(Policy::DEFAULT.score_min),
            weighs_usb_storage: self.weighs_usb_storage.unwrap_or_default(),
            laxer: u32::try_from(self.laxer().len()).unwrap_or(u32::MAX),
        }
    }
}

impl Decision {
    /// A decision in the place of a former one.
    ///
    /// # Errors
    /// When nobody answers for it, or no reason is given.
    pub fn after(
        former: Option<&Self>,
        terms: PolicyTerms,
        (owner, reason): (&str, &str),
        decided: SystemTime,
    ) -> Result<Self, PolicyError> {
        let text = |text, field| line(text).ok_or(PolicyError::Text { field });
        Ok(Self {
            terms,
            owner: text(owner, "owner")?,
            reason: text(reason, "reason")?,
            decided,
            revision: former.map_or(0, |former| former.revision).saturating_add(1),
        })
    }
}

/// Everything that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    decisions: HashMap<Scope, Decision>,
    /// What the fold asks for each tick, of agencies with a decision of their own and of the rest.
    own: HashMap<AgencyId, Policy>,
    rest: Policy,
}

impl Default for Policies {
    fn default() -> Self {
        Self { decisions: HashMap::new(), own: HashMap::new(), rest: Policy::DEFAULT }
    }
}

impl Policies {
    /// What the fold asks of an agency.
    pub fn of(&self, agency: &AgencyId) -> Policy {
        self.own.get(agency).copied().unwrap_or(self.rest)
    }

    /// What was decided for a scope alone.
    pub fn decision(&self, scope: &Scope) -> Option<&Decision> {
        self.decisions.get(scope)
    }

    /// Terms in force for an agency.
    pub fn terms(&self, scope: &Scope) -> PolicyTerms {
        let terms = |scope| self.decisions.get(scope).map(|decision| &decision.terms);
        let all = terms(&Scope::All).cloned().unwrap_or_default();
        match scope {
            Scope::All => all,
            Scope::Agency(_) => terms(scope).map_or(all.clone(), |own| own.over(&all)),
        }
    }

    /// Grows with every change that concerns an agency.
    pub fn revision(&self, agency: &AgencyId) -> u64 {
        let revision = |scope| self.decisions.get(scope).map_or(0, |decision| decision.revision);
        revision(&Scope::All).saturating_add(revision(&Scope::Agency(agency.clone())))
    }

    /// Every decision whose terms say anything, the one for all first.
    pub fn decided(&self) -> Vec<(&Scope, &Decision)> {
        let mut decided: Vec<_> = self
            .decisions
            .iter()
            .filter(|(_, decision)| decision.terms != PolicyTerms::default())
            .collect();
        decided.sort_by_key(|(scope, _)| scope.to_string());
        decided
    }
}

impl FromIterator<(Scope, Decision)> for Policies {
    fn from_iter<I: IntoIterator<Item = (Scope, Decision)>>(decisions: I) -> Self {
        let mut policies = Self { decisions: decisions.into_iter().collect(), ..Self::default() };
        policies.rest = policies.terms(&Scope::All).policy();
        let agencies = policies.decisions.keys().filter_map(|scope| match scope {
            Scope::All => None,
            Scope::Agency(agency) => Some((agency.clone(), policies.terms(scope).policy())),
        });
        policies.own = agencies.collect();
        policies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(terms: PolicyTerms, change: PolicyChange) -> PolicyTerms {
        terms.changed(change).expect("sound")
    }

    fn decision(terms: PolicyTerms, revision: u64) -> Decision {
        let (owner, reason) = ("Phòng CNTT".to_owned(), "hồ sơ cấp độ".to_owned());
        Decision { terms, owner, reason, decided: SystemTime::UNIX_EPOCH, revision }
    }

    #[test]
    fn no_policy_lets_a_critical_finding_comply() {
        for (score, is_sound) in [(0, false), (49, false), (50, true), (100, true), (101, false)] {
            let change = PolicyChange { score_min: Some(score), ..PolicyChange::default() };
            assert_eq!(PolicyTerms::default().changed(change).is_ok(), is_sound, "{score}");
        }
        assert_eq!(PolicyTerms::default().policy(), Policy::DEFAULT);
    }

    #[track_caller]
    fn is_refused(threshold: &str, value: u32, because: &str) {
        let thresholds = vec![(threshold.to_owned(), Some(value))];
        let change = PolicyChange { thresholds, ..PolicyChange::default() };
        let error = PolicyTerms::default().changed(change).expect_err("refused").to_string();
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn a_threshold_outside_its_limits_or_without_a_name_is_refused() {
        is_refused("dormant_accounts.days_max", 0, "must be 1 to 365");
        is_refused("dormant_accounts.days_max", 366, "must be 1 to 365");
        is_refused("dormant_accounts.days", 30, "one of security_updates_pending.days_max");
        let ports = PolicyChange { allowed_ports: Some(vec![0]), ..PolicyChange::default() };
        assert_eq!(PolicyTerms::default().changed(ports), Err(PolicyError::Ports));
        let level = PolicyChange { level: Some(6), ..PolicyChange::default() };
        assert_eq!(PolicyTerms::default().changed(level), Err(PolicyError::Level));
    }

    #[test]
    fn an_agencys_own_terms_stand_above_those_for_all() {
        let set = |label: &str, value| PolicyChange {
            thresholds: vec![(label.to_owned(), value)],
            ..PolicyChange::default()
        };
        let dormant = "dormant_accounts.days_max";
        let all = changed(PolicyTerms::default(), set(dormant, Some(90)));
        let all = changed(all, PolicyChange { score_min: Some(85), ..PolicyChange::default() });
        let own = changed(PolicyTerms::default(), set("screen_lock.seconds_max", Some(300)));
        let agency: AgencyId = "01-018".parse().expect("an id");
        let other: AgencyId = "01-001".parse().expect("an id");
        let scope = Scope::Agency(agency.clone());
        let policies: Policies =
            [(Scope::All, decision(all, 2)), (scope.clone(), decision(own.clone(), 3))]
                .into_iter()
                .collect();
        let terms = policies.terms(&scope);
        assert_eq!(terms.requirements.threshold(Threshold::DormantDaysMax), 90);
        assert_eq!(terms.requirements.threshold(Threshold::ScreenLockSecondsMax), 300);
        assert_eq!(policies.of(&agency).score_min, 85);
        assert_eq!(terms.laxer(), [dormant], "stricter is not laxer");
        assert_eq!((policies.of(&agency).laxer, policies.of(&other).laxer), (1, 1));
        assert_eq!((policies.revision(&agency), policies.revision(&other)), (5, 2));
        let given_back = changed(own, set("screen_lock.seconds_max", None));
        assert_eq!(given_back, PolicyTerms::default());
    }

    #[test]
    fn usb_storage_weighs_only_where_a_policy_asks() {
        let change = PolicyChange { weighs_usb_storage: Some(true), ..PolicyChange::default() };
        let asked = changed(PolicyTerms::default(), change).policy();
        assert!(asked.weighed().contains(CheckId::UsbStorageRestricted));
        assert!(!Policy::DEFAULT.weighed().contains(CheckId::UsbStorageRestricted));
    }
}
