//! What an import would change, shown before it is put in force.

use std::fmt;

use haidang_proto::model::agency::AgencyId;

use super::{Agency, Roster};

/// Differences between two rosters, by agency id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RosterDiff {
    /// Only in the new one.
    pub added: Vec<AgencyId>,
    /// Only in the old one.
    pub removed: Vec<AgencyId>,
    /// Another parent.
    pub moved: Vec<AgencyId>,
    /// Another name or kind.
    pub renamed: Vec<AgencyId>,
    /// Other prefixes or gateways.
    pub prefixes_changed: Vec<AgencyId>,
    /// Other days, codes, positions, uplinks or counts.
    pub changed: Vec<AgencyId>,
    lines: Vec<String>,
}

impl RosterDiff {
    /// Compares.
    pub fn between(old: &Roster, new: &Roster) -> Self {
        let mut diff = Self::default();
        for agency in new.agencies() {
            match old.row(&agency.id) {
                None => {
                    diff.lines.push(format!("+ {} {}", agency.id, agency.name));
                    diff.added.push(agency.id.clone());
                }
                Some(row) => diff.compare(&old.agencies()[row], agency),
            }
        }
        for agency in old.agencies().iter().filter(|agency| new.row(&agency.id).is_none()) {
            diff.lines.push(format!("- {} {}", agency.id, agency.name));
            diff.removed.push(agency.id.clone());
        }
        diff
    }

    /// Whether anything differs.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn compare(&mut self, old: &Agency, new: &Agency) {
        if old == new {
            return;
        }
        let id = &new.id;
        if old.parent != new.parent {
            self.lines.push(format!("~ {id} moved from {} to {}", old.parent, new.parent));
            self.moved.push(id.clone());
        }
        if old.name != new.name || old.kind != new.kind {
            self.lines.push(format!(
                "~ {id} renamed from {} ({}) to {} ({})",
                old.name, old.kind, new.name, new.kind
            ));
            self.renamed.push(id.clone());
        }
        let mut same_rest = Agency {
            parent: new.parent.clone(),
            name: new.name.clone(),
            kind: new.kind,
            ..old.clone()
        };
        if addresses(old) != addresses(new) {
            self.lines.push(format!(
                "~ {id} prefixes and gateways from [{}] to [{}]",
                addresses(old).join(" "),
                addresses(new).join(" ")
            ));
            self.prefixes_changed.push(id.clone());
            same_rest.local_prefixes.clone_from(&new.local_prefixes);
            same_rest.seen_prefixes.clone_from(&new.seen_prefixes);
            same_rest.gateways.clone_from(&new.gateways);
        }
        if same_rest != *new {
            self.lines.push(format!("~ {id} other columns changed"));
            self.changed.push(id.clone());
        }
    }
}

/// Prefixes and gateways as the file has them, without their days.
fn addresses(agency: &Agency) -> Vec<String> {
    let local = agency.local_prefixes.iter().map(|dated| dated.prefix.to_string());
    let seen = agency.seen_prefixes.iter().map(|dated| format!("seen as {}", dated.prefix));
    local.chain(seen).chain(agency.gateways.iter().map(ToString::to_string)).collect()
}

impl fmt::Display for RosterDiff {
    /// One line for each difference, then their counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        write!(
            f,
            "{} added, {} removed, {} moved, {} renamed, {} with other prefixes, {} otherwise changed",
            self.added.len(),
            self.removed.len(),
            self.moved.len(),
            self.renamed.len(),
            self.prefixes_changed.len(),
            self.changed.len()
        )
    }
}
