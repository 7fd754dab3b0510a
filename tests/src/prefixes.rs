//! A roster for one run: the shipped one of Hanoi, with gateways and prefixes for the agencies
//! that take part.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use crate::binaries::repository;

/// The roster that is shipped and used throughout.
pub const SHIPPED_ROSTER: &str = "deploy/rosters/hanoi-2020.csv";

/// An agency that takes part.
#[derive(Debug, Clone)]
pub struct Participant {
    /// Its id in the roster.
    pub agency: String,
    /// Its official name.
    pub name: String,
    /// Its machines' prefixes.
    pub prefixes: Vec<IpNet>,
    /// Its gateways, if the core may check them.
    pub gateways: Vec<IpAddr>,
}

/// The files of one run.
#[derive(Debug, Clone)]
pub struct RosterFiles {
    /// The roster.
    pub roster: PathBuf,
    /// The prefixes.
    pub prefixes: PathBuf,
}

/// Id and name of each agency in the shipped roster whose parent is this.
///
/// # Errors
/// When the roster cannot be read.
pub fn children_of(parent: &str) -> Result<Vec<(String, String)>> {
    let rows = shipped()?;
    let fields = rows.lines().skip(1).filter_map(|row| {
        let mut fields = row.split(',');
        Some((fields.next()?.to_owned(), fields.next()?.to_owned(), fields.nth(1)? == parent))
    });
    Ok(fields.filter(|(.., child)| *child).map(|(id, name, _)| (id, name)).collect())
}

/// The official name of an agency in the shipped roster.
///
/// # Errors
/// When there is no such agency.
pub fn name_of(agency: &str) -> Result<String> {
    let rows = shipped()?;
    let mut rows = rows.lines().filter_map(|row| row.split_once(','));
    let (_, rest) = rows
        .find(|(id, _)| *id == agency)
        .with_context(|| format!("{SHIPPED_ROSTER} has no agency {agency}"))?;
    Ok(rest.split(',').next().unwrap_or_default().to_owned())
}

/// Writes both files into a directory.
///
/// # Errors
/// When a participant is not in the shipped roster, or a file cannot be written.
pub fn write(participants: &[Participant], directory: &Path) -> Result<RosterFiles> {
    let shipped = shipped()?;
    let mut rows = shipped.lines();
    let header = rows.next().context("the shipped roster has a header")?;
    let mut roster = format!("{header},gateways\n");
    let mut found = 0;
    for row in rows {
        let id = row.split(',').next().unwrap_or_default();
        let participant = participants.iter().find(|participant| participant.agency == id);
        found += usize::from(participant.is_some());
        let gateways = participant.map_or(&[][..], |participant| &participant.gateways);
        let gateways: Vec<_> = gateways.iter().map(IpAddr::to_string).collect();
        writeln!(roster, "{row},{}", gateways.join(";"))?;
    }
    ensure!(found == participants.len(), "a participant is not in {SHIPPED_ROSTER}");
    let mut all = String::from("agency,prefix,side,valid_from,valid_to\n");
    for Participant { agency, prefixes, .. } in participants {
        for prefix in prefixes {
            writeln!(all, "{agency},{prefix},local,,")?;
        }
    }
    let files = RosterFiles {
        roster: directory.join("roster.csv"),
        prefixes: directory.join("prefixes.csv"),
    };
    for (path, text) in [(&files.roster, roster), (&files.prefixes, all)] {
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(files)
}

fn shipped() -> Result<String> {
    let path = repository(SHIPPED_ROSTER);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
