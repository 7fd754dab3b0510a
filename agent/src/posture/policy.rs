//! What a site asks of its machines where the catalogue leaves it open: the `[posture]` section
//! of the configuration. It chooses numbers and lists, never what is evidence.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The section. An empty one asks for what the catalogue asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Ports that may be open on the dedicated network.
    pub allowed_ports: Vec<u16>,
    /// Thresholds other than the catalogue's, by check and name:
    /// `thresholds.security_updates_pending.days_max = 14`.
    pub thresholds: BTreeMap<String, BTreeMap<String, u64>>,
}
