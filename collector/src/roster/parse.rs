//! Strict parsing of `roster.csv` and `prefixes.csv`.
//!
//! RFC 4180, UTF-8 (with or without a byte-order mark, LF or CRLF), a header row. Columns of the
//! roster: `id,name,kind,parent,gso_code,id_code,lat,lon` and, optionally, `uplink,local_prefixes,
//! seen_prefixes,gateways,agents_expected,valid_from,valid_to`; of the prefixes:
//! `agency,prefix,side` and, optionally, `valid_from,valid_to`. Several values in one cell stand
//! between semicolons. Up to twenty problems are told at once, so that a file is not mended
//! one row an attempt.

use std::collections::{HashMap, HashSet};
use std::fmt;

use haidang_proto::model::agency::AgencyId;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::{Agency, DatedPrefix, Roster, Validity};
use lines::Cells;

mod checks;
mod lines;
mod row;

/// Problems told at once.
const PROBLEMS_MAX: usize = 20;

const ROSTER_REQUIRED: &[&str] =
    &["id", "name", "kind", "parent", "gso_code", "id_code", "lat", "lon"];
const ROSTER_OPTIONAL: &[&str] = &[
    "uplink",
    "local_prefixes",
    "seen_prefixes",
    "gateways",
    "agents_expected",
    "valid_from",
    "valid_to",
];
const PREFIXES_REQUIRED: &[&str] = &["agency", "prefix", "side"];
const PREFIXES_OPTIONAL: &[&str] = &["valid_from", "valid_to"];

/// A file that was refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RosterError {
    /// What is wrong, at most twenty problems.
    pub problems: Vec<RosterProblem>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterProblem {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// The column's name; empty when the row as a whole is wrong.
    pub column: String,
    /// What was found and what was expected.
    pub problem: String,
}

impl fmt::Display for RosterError {
    /// One line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for RosterProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, problem } = self;
        write!(f, "{file}, line {line}")?;
        if !column.is_empty() {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {problem}")
    }
}

/// A file by name and content.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// How messages name it.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Whether prefixes inside 127.0.0.0/8 are accepted: only for a demonstration on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// Refused.
    Refused,
    /// Accepted.
    Demo,
}

/// Parses a roster and, where there is one, the file of its prefixes.
///
/// # Errors
/// Every problem with its file, line and column. Nothing of a refused file is used.
pub fn parse(
    roster: Source<'_>,
    prefixes: Option<Source<'_>>,
    loopback: Loopback,
) -> Result<Roster, RosterError> {
    let mut reading = Reading { loopback, problems: Vec::new() };
    let (mut rows, ids) = reading.roster(roster);
    if let Some(prefixes) = prefixes {
        reading.prefixes(prefixes, &mut rows, &ids);
    }
    checks::parents(&mut reading, &rows, &ids, roster.name);
    checks::gateways_inside(&mut reading, &rows, roster.name);
    checks::overlaps(&mut reading, &rows);
    if !reading.problems.is_empty() {
        return Err(RosterError { problems: reading.problems });
    }
    let mut digest = Sha256::new_with_prefix(roster.bytes);
    if let Some(prefixes) = prefixes {
        digest.update(Sha256::digest(prefixes.bytes));
    }
    let version = digest.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Roster::new(version, rows.into_iter().map(Row::into_agency).collect()))
}

/// Where something stands.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: u64,
    column: &'static str,
}

/// A prefix and where it stands.
#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    dated: DatedPrefix,
    place: Place<'a>,
}

/// One row of the roster; its prefixes may still grow from the other file.
struct Row<'a> {
    line: u64,
    agency: Agency,
    local: Vec<Placed<'a>>,
    seen: Vec<Placed<'a>>,
}

impl<'a> Row<'a> {
    /// Prefixes from which the core sees the agency.
    fn source_prefixes(&self) -> &[Placed<'a>] {
        if self.seen.is_empty() { &self.local } else { &self.seen }
    }

    fn into_agency(mut self) -> Agency {
        let dated = |placed: Vec<Placed<'_>>| placed.into_iter().map(|p| p.dated).collect();
        self.agency.local_prefixes = dated(self.local);
        self.agency.seen_prefixes = dated(self.seen);
        self.agency
    }
}

/// What has been found wrong so far.
struct Reading {
    loopback: Loopback,
    problems: Vec<RosterProblem>,
}

impl Reading {
    fn problem(&mut self, place: Place<'_>, problem: impl Into<String>) {
        if !self.is_full() {
            self.problems.push(RosterProblem {
                file: place.file.to_owned(),
                line: place.line,
                column: place.column.to_owned(),
                problem: problem.into(),
            });
        }
    }

    /// Reading on would tell nothing more.
    fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS_MAX
    }

    /// The sound rows, and every id with its line: children of a bad row are not bad for it.
    fn roster<'a>(&mut self, source: Source<'a>) -> (Vec<Row<'a>>, HashMap<AgencyId, u64>) {
        let mut rows = Vec::new();
        let mut ids: HashMap<AgencyId, u64> = HashMap::new();
        lines::each(self, source, ROSTER_REQUIRED, ROSTER_OPTIONAL, |reading, cells| {
            let Some(id) = reading.id(cells, "id") else { return };
            if let Some(first) = ids.get(&id) {
                let problem =
                    format!("{id} stands in line {first} already; an id stands in one row only");
                return reading.problem(cells.place("id"), problem);
            }
            ids.insert(id.clone(), cells.line);
            rows.extend(row::parse(reading, cells, id));
        });
        if ids.is_empty() && self.problems.is_empty() {
            let place = Place { file: source.name, line: 1, column: "" };
            self.problem(place, "there is no agency in the file, only its header");
        }
        (rows, ids)
    }

    fn prefixes<'a>(
        &mut self,
        source: Source<'a>,
        rows: &mut [Row<'a>],
        ids: &HashMap<AgencyId, u64>,
    ) {
        let at: HashMap<AgencyId, usize> =
            rows.iter().enumerate().map(|(at, row)| (row.agency.id.clone(), at)).collect();
        let mut seen: HashSet<(usize, String, String, Validity)> = HashSet::new();
        lines::each(self, source, PREFIXES_REQUIRED, PREFIXES_OPTIONAL, |reading, cells| {
            let Some(id) = reading.id(cells, "agency") else { return };
            if !ids.contains_key(&id) {
                let problem = format!("{id} has no row in the roster");
                return reading.problem(cells.place("agency"), problem);
            }
            let prefix = row::prefix(reading, cells, "prefix", cells.cell("prefix"));
            let validity = row::validity(reading, cells);
            let side = cells.cell("side");
            if !matches!(side, "local" | "seen") {
                let problem = format!("{side:?} is neither local nor seen");
                return reading.problem(cells.place("side"), problem);
            }
            // Its row is refused already, or the prefix is.
            let (Some(row), Some(prefix), Some(validity)) = (at.get(&id), prefix, validity) else {
                return;
            };
            if !seen.insert((*row, prefix.to_string(), side.to_owned(), validity)) {
                let problem = format!("{prefix} of {id} stands in the file already");
                return reading.problem(cells.place("prefix"), problem);
            }
            let within = rows[*row].agency.validity.intersection(validity);
            let Some(validity) = within else {
                let problem = format!("no day of {id}'s own row is within these");
                return reading.problem(cells.place("valid_from"), problem);
            };
            let dated = DatedPrefix { prefix, validity };
            let placed = Placed { dated, place: cells.place("prefix") };
            match side {
                "local" => rows[*row].local.push(placed),
                _ => rows[*row].seen.push(placed),
            }
        });
    }

    fn id(&mut self, cells: &Cells<'_, '_>, column: &'static str) -> Option<AgencyId> {
        let expected = "an agency id: 1 to 63 lower-case letters, digits and single hyphens between \
                        them, such as 01-018";
        self.parsed(cells, column, expected)
    }

    fn parsed<T: std::str::FromStr>(
        &mut self,
        cells: &Cells<'_, '_>,
        column: &'static str,
        expected: &str,
    ) -> Option<T> {
        let value = cells.cell(column);
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.problem(cells.place(column), format!("{value:?} is not {expected}"));
        }
        parsed
    }

    fn prefix_is_sound(&mut self, place: Place<'_>, prefix: IpNet) -> bool {
        let problem = if prefix.trunc() != prefix {
            format!("{prefix} has host bits; the prefix is {}", prefix.trunc())
        } else if prefix.prefix_len() == 0 {
            format!("{prefix} is every address; name the agency's own prefix")
        } else if prefix.addr().is_multicast() || prefix.addr().is_unspecified() {
            format!("{prefix} is multicast or unspecified, which no agency's machine can have")
        } else if is_loopback(prefix) && self.loopback == Loopback::Refused {
            format!("{prefix} is loopback, which only a demonstration (demo = true) may use")
        } else {
            return true;
        };
        self.problem(place, problem);
        false
    }
}

/// Whether any of its addresses is a loopback one.
fn is_loopback(prefix: IpNet) -> bool {
    prefix.network().is_loopback()
        || prefix.broadcast().is_loopback()
        || prefix.contains(&std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST))
        || prefix.contains(&std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST))
}

#[cfg(test)]
mod tests;
