//! What a site asks of its machines where the catalogue leaves it open: the `[posture]` section
//! of the configuration. It chooses numbers and lists, never what is evidence.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// The section. An empty one asks for what the catalogue asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Ports that may be open on the dedicated network.
    pub allowed_ports: Vec<u16>,
    /// Interfaces to other networks than the dedicated one that the site has declared and permits,
    /// such as a fallback line: reported as declared, without the flag `dual_homed`. A machine that
    /// joins them to the dedicated network raises `bridging` and fails all the same.
    pub permitted_interfaces: Vec<String>,
    /// Thresholds other than the catalogue's, by check and name:
    /// `thresholds.security_updates_pending.days_max = 14`.
    pub thresholds: BTreeMap<String, BTreeMap<String, u64>>,
    /// What shows that this machine was backed up; every one counts.
    pub backups: Vec<Backup>,
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
