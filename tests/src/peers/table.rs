//! The comparison as it stands in `benches/RESULTS.md`: one line a check, and what each program
//! cost.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use haidang_proto::model::posture::CheckId;

use super::usage::Usage;
use super::{Comparison, Mark, Ours, Peer, System};

/// Checks whose evidence no container has for itself: the kernel, its clock and its audit are the
/// machine's, so both systems show the same.
const NOT_NAMESPACED: [CheckId; 9] = [
    CheckId::RebootRequired,
    CheckId::UsbStorageRestricted,
    CheckId::DiskEncrypted,
    CheckId::SecureBootEnabled,
    CheckId::KernelIntegrity,
    CheckId::MemoryProtection,
    CheckId::MacEnforced,
    CheckId::TimeSynchronised,
    CheckId::AuditLoggingActive,
];

/// One line of the second table.
#[derive(Debug, Clone)]
pub struct Cost {
    /// What ran, and where.
    pub what: String,
    /// What it took.
    pub usage: Usage,
}

/// Our verdict, and the marks of each peer's cells, system by system.
pub fn of_checks(comparison: &Comparison) -> String {
    let mut text = String::from(
        "| check | machine: ours | OpenSCAP | Lynis | Debian: ours | OpenSCAP | Lynis |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for &check in CheckId::ALL {
        let mark = if NOT_NAMESPACED.contains(&check) { " †" } else { "" };
        let _ = write!(text, "| {check}{mark} ");
        for system in [System::Machine, System::Debian] {
            let _ = write!(text, "| {} ", verdict(comparison, check, system));
            for peer in [Peer::OpenScap, Peer::Lynis] {
                let _ = write!(text, "| {} ", marks(comparison, check, system, peer));
            }
        }
        text.push_str("|\n");
    }
    text
}

/// CPU seconds and memory.
pub fn of_costs(costs: &[Cost]) -> String {
    let mut text = String::from("| program | CPU s | largest RSS, MiB |\n|---|---|---|\n");
    for Cost { what, usage } in costs {
        let (cpu, mib) = (usage.cpu.as_secs_f64(), usage.rss_max_kib as f64 / 1024.0);
        let _ = writeln!(text, "| {what} | {cpu:.2} | {mib:.1} |");
    }
    text
}

fn verdict(comparison: &Comparison, check: CheckId, system: System) -> &'static str {
    let cell = comparison
        .cells
        .iter()
        .find(|(cell, _)| (cell.place.check, cell.place.system) == (check, system));
    match cell.map(|(cell, _)| cell.ours) {
        Some(Ours::Pass) => "pass",
        Some(Ours::Fail) => "fail",
        Some(Ours::NotApplicable) => "n/a",
        Some(Ours::Unknown) => "unknown",
        None => "not run",
    }
}

fn marks(comparison: &Comparison, check: CheckId, system: System, peer: Peer) -> String {
    let marks: BTreeSet<Mark> = comparison
        .cells
        .iter()
        .filter(|(cell, _)| {
            (cell.place.check, cell.place.system, cell.place.peer) == (check, system, peer)
        })
        .map(|(_, mark)| *mark)
        .collect();
    let words = marks.iter().map(|mark| match mark {
        Mark::Agrees => "agrees".to_owned(),
        Mark::Explained(explanation) => format!("{explanation:?}"),
        Mark::Unexplained => "UNEXPLAINED".to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
