//! What is asked of the machine where the catalogue leaves it open: the `[posture]` section of the
//! configuration, under what the agency's collector asks. It chooses numbers and lists, never what
//! is evidence.
//!
//! The collector owns what is asked: a machine's own thresholds count where they ask more, so that
//! nobody at the machine can quietly pass. To ask less is decided at the collector, and shown there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use haidang_proto::model::posture::{Requirements, Threshold};
use serde::Deserialize;

/// The section. An empty one asks for what the catalogue asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Ports that may be open on the dedicated network, unless the collector says which.
    pub allowed_ports: Vec<u16>,
    /// Interfaces to other networks than the dedicated one that the site has declared and permits,
    /// such as a fallback line: reported as declared, without the flag `dual_homed`. A machine that
    /// joins them to the dedicated network raises `bridging` and fails all the same.
    pub permitted_interfaces: Vec<String>,
    /// Thresholds stricter than those asked for, by check and name:
    /// `thresholds.security_updates_pending.days_max = 14`.
    pub thresholds: BTreeMap<String, BTreeMap<String, u64>>,
    /// What shows that this machine was backed up; every one counts.
    pub backups: Vec<Backup>,
    /// The first pass comes at a random moment within so long, so that a city's machines do not
    /// all read their disks at eight; so does the pass after other requirements arrived.
    #[serde(with = "humantime_serde")]
    pub first_pass_within: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allowed_ports: Vec::new(),
            permitted_interfaces: Vec::new(),
            thresholds: BTreeMap::new(),
            backups: Vec::new(),
            first_pass_within: Duration::from_secs(120),
        }
    }
}

impl Policy {
    /// This section under what the collector asks; without one, what the catalogue asks.
    #[must_use]
    pub fn under(&self, asked: &Requirements) -> Self {
        let mut policy = self.clone();
        for threshold in Threshold::ALL {
            let asked = asked.threshold(*threshold);
            let stricter = self.own(*threshold).filter(|own| !threshold.is_laxer(*own, asked));
            let of_check = policy.thresholds.entry(threshold.check().as_str().into()).or_default();
            of_check.insert(threshold.name().into(), stricter.unwrap_or(asked).into());
        }
        if let Some(ports) = &asked.allowed_ports {
            policy.allowed_ports = ports.iter().copied().collect();
        }
        policy
    }

    /// Thresholds of this section that have no effect, because they ask less.
    pub fn laxer_than(&self, asked: &Requirements) -> Vec<Threshold> {
        let is_laxer = |one: &&Threshold| {
            self.own(**one).is_some_and(|own| one.is_laxer(own, asked.threshold(**one)))
        };
        Threshold::ALL.iter().filter(is_laxer).copied().collect()
    }

    fn own(&self, threshold: Threshold) -> Option<u32> {
        let value = self.thresholds.get(threshold.check().as_str())?.get(threshold.name())?;
        Some(u32::try_from(*value).unwrap_or(u32::MAX))
    }
}

/// A trace that a backup leaves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backup {
    /// A file that the backup writes when it has succeeded: `{ stamp = "/var/lib/backup.stamp" }`.
    Stamp(PathBuf),
    /// A directory in which every backup adds or replaces an entry, such as the `snapshots` of
    /// restic's cache, borg's cache of one repository, or a directory of database dumps.
    Directory(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posture::Catalogue;

    /// Catalogue and wire are two places for one number.
    #[test]
    fn thresholds_of_the_catalogue_are_those_that_a_collector_can_set() {
        let catalogue = Catalogue::load().unwrap();
        let mut known = 0;
        for threshold in Threshold::ALL {
            let entry = catalogue.entry(threshold.check()).unwrap();
            assert_eq!(
                entry.thresholds.get(threshold.name()).copied(),
                Some(threshold.usual().into()),
                "{threshold}"
            );
            known += 1;
        }
        let in_catalogue = super::super::checks()
            .map(|check| catalogue.entry(check.id).unwrap().thresholds.len())
            .sum::<usize>();
        assert_eq!(in_catalogue, known);
    }

    #[track_caller]
    fn days_in_force(own: Option<u64>, asked: Option<u32>, expected: u64) {
        let mut policy = Policy::default();
        if let Some(own) = own {
            let days = BTreeMap::from([("days_max".to_owned(), own)]);
            policy.thresholds.insert("dormant_accounts".into(), days);
        }
        let mut requirements = Requirements::default();
        requirements.thresholds.extend(asked.map(|days| (Threshold::DormantDaysMax, days)));
        let in_force = policy.under(&requirements);
        assert_eq!(in_force.thresholds["dormant_accounts"]["days_max"], expected);
        let is_ignored = own.is_some_and(|own| own > expected);
        let ignored = policy.laxer_than(&requirements);
        assert_eq!(ignored.contains(&Threshold::DormantDaysMax), is_ignored);
    }

    #[test]
    fn a_machine_may_ask_more_of_itself_and_only_the_collector_less() {
        days_in_force(None, None, 45);
        days_in_force(Some(30), None, 30);
        days_in_force(Some(90), None, 45);
        days_in_force(None, Some(90), 90);
        days_in_force(Some(60), Some(90), 60);
        days_in_force(Some(60), Some(20), 20);
        days_in_force(Some(u64::MAX), Some(90), 90);
    }

    #[test]
    fn the_collectors_list_of_ports_replaces_the_machines() {
        let own = Policy { allowed_ports: vec![22, 8080], ..Policy::default() };
        let mut asked = Requirements::default();
        assert_eq!(own.under(&asked).allowed_ports, [22, 8080]);
        asked.allowed_ports = Some([443].into());
        assert_eq!(own.under(&asked).allowed_ports, [443]);
    }
}
