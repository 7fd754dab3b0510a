//! Strict parsing of `roster.csv` and `prefixes.csv`.
//!
//! RFC 4180, UTF-8, a header row. Columns of the roster: `id,name,kind,parent,gso_code,id_code,
//! lat,lon` and, optionally, `uplink,local_prefixes,seen_prefixes,gateways,agents_expected,
//! valid_from,valid_to`; of the prefixes: `agency,prefix,side,valid_from,valid_to`. Several values
//! in one cell stand between semicolons. Up to twenty problems are told at once, so that
//! a file is not mended one row an attempt.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use haidang_proto::model::agency::AgencyId;
use ipnet::IpNet;
use jiff::civil::Date;
use sha2::{Digest, Sha256};
use unicode_normalization::is_nfc;

use super::{Agency, AgencyKind, DatedPrefix, ROWS_MAX, Roster, Validity};

/// Problems told at once.
const PROBLEMS_MAX: usize = 20;
/// Bytes of a file: a hundred thousand rows with long names fit.
const FILE_BYTES_MAX: usize = 64 << 20;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 200;
/// Prefixes or gateways in one cell.
const CELL_VALUES_MAX: usize = 64;

const REQUIRED: [&str; 8] = ["id", "name", "kind", "parent", "gso_code", "id_code", "lat", "lon"];
const OPTIONAL: [&str; 7] = [
    "uplink",
    "local_prefixes",
    "seen_prefixes",
    "gateways",
    "agents_expected",
    "valid_from",
    "valid_to",
];
const PREFIX_COLUMNS: [&str; 5] = ["agency", "prefix", "side", "valid_from", "valid_to"];

/// A file that was refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RosterError {
    /// What is wrong, in the order of the file.
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, RosterProblem { file, line, column, problem }) in self.problems.iter().enumerate()
        {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{file}, line {line}")?;
            if !column.is_empty() {
                write!(f, ", column {column}")?;
            }
            write!(f, ": {problem}")?;
        }
        Ok(())
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
    let mut rows = reading.rows(roster);
    reading.parents(&rows, roster.name);
    if let Some(prefixes) = prefixes {
        reading.prefixes(prefixes, &mut rows);
    }
    reading.overlaps(&rows, roster.name);
    reading.gateways_inside(&rows, roster.name);
    if !reading.problems.is_empty() {
        return Err(RosterError { problems: reading.problems });
    }
    let mut digest = Sha256::new_with_prefix(roster.bytes);
    if let Some(prefixes) = prefixes {
        digest.update(prefixes.bytes);
    }
    let version = digest.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Roster::new(version, rows.into_iter().map(|row| row.agency).collect()))
}

struct Row {
    line: u64,
    agency: Agency,
}

struct Reading {
    loopback: Loopback,
    problems: Vec<RosterProblem>,
}

/// One line and where it stands.
struct Cells<'a> {
    file: &'a str,
    line: u64,
    record: &'a csv::StringRecord,
    columns: &'a HashMap<String, usize>,
}

impl<'a> Cells<'a> {
    fn cell(&self, column: &str) -> &'a str {
        self.columns.get(column).and_then(|at| self.record.get(*at)).unwrap_or("")
    }
}

impl Reading {
    fn problem(&mut self, file: &str, line: u64, column: &str, problem: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(RosterProblem {
                file: file.to_owned(),
                line,
                column: column.to_owned(),
                problem: problem.into(),
            });
        }
    }

    fn rows(&mut self, source: Source<'_>) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut lines: HashMap<AgencyId, u64> = HashMap::new();
        self.each_line(source, &REQUIRED, &OPTIONAL, |reading, cells| {
            let Some(agency) = reading.agency(cells) else { return };
            if let Some(first) = lines.insert(agency.id.clone(), cells.line) {
                let problem = format!("{} stands in line {first} already", agency.id);
                return reading.problem(cells.file, cells.line, "id", problem);
            }
            rows.push(Row { line: cells.line, agency });
        });
        if rows.is_empty() && self.problems.is_empty() {
            self.problem(source.name, 1, "", "there is no agency in the file");
        }
        rows
    }

    /// Reads the header and hands over each line with the right number of fields.
    fn each_line(
        &mut self,
        source: Source<'_>,
        required: &[&str],
        optional: &[&str],
        mut each: impl FnMut(&mut Self, &Cells<'_>),
    ) {
        let Source { name, bytes } = source;
        if bytes.len() > FILE_BYTES_MAX {
            return self.problem(name, 1, "", "the file is larger than 64 MiB");
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
        let mut columns: Option<HashMap<String, usize>> = None;
        for (count, record) in reader.records().enumerate() {
            if count > ROWS_MAX {
                return self.problem(name, 1, "", format!("more than {ROWS_MAX} rows"));
            }
            if self.problems.len() >= PROBLEMS_MAX {
                return;
            }
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    self.problem(name, line, "", csv_problem(&error));
                    if matches!(error.kind(), csv::ErrorKind::Io(_)) {
                        return;
                    }
                    continue;
                }
            };
            let line = record.position().map_or(0, csv::Position::line);
            match &columns {
                None => match header(&record, required, optional) {
                    Ok(header) => columns = Some(header),
                    Err((column, problem)) => return self.problem(name, line, &column, problem),
                },
                Some(columns) => {
                    each(self, &Cells { file: name, line, record: &record, columns });
                }
            }
        }
        if columns.is_none() && self.problems.is_empty() {
            self.problem(name, 1, "", format!("the header is missing: {}", required.join(",")));
        }
    }

    fn agency(&mut self, cells: &Cells<'_>) -> Option<Agency> {
        let before = self.problems.len();
        let id = self.parsed::<AgencyId>(cells, "id");
        let name = self.text(cells, "name");
        if name.is_empty() {
            self.problem(cells.file, cells.line, "name", "is empty");
        }
        let kind = AgencyKind::from_label(cells.cell("kind"));
        if kind.is_none() {
            let kinds: Vec<&str> = AgencyKind::ALL.iter().map(|kind| kind.as_str()).collect();
            let problem = format!("{:?} is none of {}", cells.cell("kind"), kinds.join(", "));
            self.problem(cells.file, cells.line, "kind", problem);
        }
        let parent = self.parsed::<AgencyId>(cells, "parent");
        let position = self.position(cells);
        let agents_expected = match cells.cell("agents_expected") {
            "" => None,
            _ => self.parsed::<u32>(cells, "agents_expected"),
        };
        let validity = self.validity(cells);
        let dated = |prefix| DatedPrefix { prefix, validity: Validity::default() };
        let local_prefixes = self.prefix_list(cells, "local_prefixes");
        let seen_prefixes = self.prefix_list(cells, "seen_prefixes");
        let gateways = self.list::<IpAddr>(cells, "gateways", "an IP address");
        let (gso_code, id_code) = (self.text(cells, "gso_code"), self.text(cells, "id_code"));
        let uplink = Some(self.text(cells, "uplink")).filter(|uplink| !uplink.is_empty());
        if self.problems.len() > before {
            return None;
        }
        Some(Agency {
            id: id?,
            name,
            kind: kind?,
            parent: parent?,
            gso_code,
            id_code,
            position,
            uplink,
            local_prefixes: local_prefixes.into_iter().map(dated).collect(),
            seen_prefixes: seen_prefixes.into_iter().map(dated).collect(),
            gateways,
            agents_expected,
            validity,
        })
    }

    fn text(&mut self, cells: &Cells<'_>, column: &str) -> String {
        let value = cells.cell(column);
        if value.len() > NAME_BYTES_MAX {
            self.problem(cells.file, cells.line, column, "is longer than 200 bytes");
        }
        if value.chars().any(char::is_control) {
            self.problem(cells.file, cells.line, column, "holds a control character");
        }
        if value.trim() != value {
            self.problem(cells.file, cells.line, column, "begins or ends with a space");
        }
        if !is_nfc(value) {
            let problem = format!("{value:?} is not in Unicode normal form C; save it as NFC");
            self.problem(cells.file, cells.line, column, problem);
        }
        value.to_owned()
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        cells: &Cells<'_>,
        column: &str,
    ) -> Option<T> {
        let value = cells.cell(column);
        match value.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(cells.file, cells.line, column, format!("{value:?}: {error}"));
                None
            }
        }
    }

    fn position(&mut self, cells: &Cells<'_>) -> Option<(f64, f64)> {
        match (cells.cell("lat"), cells.cell("lon")) {
            ("", "") => None,
            ("", _) | (_, "") => {
                self.problem(
                    cells.file,
                    cells.line,
                    "lat",
                    "lat and lon stand together or not at all",
                );
                None
            }
            _ => {
                let lat = self.degrees(cells, "lat", 90.0)?;
                let lon = self.degrees(cells, "lon", 180.0)?;
                Some((lat, lon))
            }
        }
    }

    fn degrees(&mut self, cells: &Cells<'_>, column: &str, limit: f64) -> Option<f64> {
        let degrees = self.parsed::<f64>(cells, column)?;
        if degrees.abs() <= limit {
            return Some(degrees);
        }
        let problem = format!("{degrees} is not between -{limit} and {limit} degrees");
        self.problem(cells.file, cells.line, column, problem);
        None
    }

    fn validity(&mut self, cells: &Cells<'_>) -> Validity {
        let mut day = |column| match cells.cell(column) {
            "" => None,
            _ => self.parsed::<Date>(cells, column),
        };
        let validity = Validity { from: day("valid_from"), to: day("valid_to") };
        if matches!((validity.from, validity.to), (Some(from), Some(to)) if from > to) {
            self.problem(cells.file, cells.line, "valid_to", "is before valid_from");
        }
        validity
    }

    fn list<T: FromStr>(&mut self, cells: &Cells<'_>, column: &str, expected: &str) -> Vec<T> {
        let cell = cells.cell(column);
        if cell.is_empty() {
            return Vec::new();
        }
        let values: Vec<&str> = cell.split(';').map(str::trim).collect();
        if values.len() > CELL_VALUES_MAX {
            self.problem(cells.file, cells.line, column, "has more than 64 values");
            return Vec::new();
        }
        values
            .into_iter()
            .filter_map(|value| {
                let parsed = value.parse().ok();
                if parsed.is_none() {
                    let problem = format!("{value:?} is not {expected}");
                    self.problem(cells.file, cells.line, column, problem);
                }
                parsed
            })
            .collect()
    }

    fn prefix_list(&mut self, cells: &Cells<'_>, column: &str) -> Vec<IpNet> {
        let prefixes = self.list::<IpNet>(cells, column, "a prefix such as 198.18.10.0/24");
        prefixes.into_iter().filter(|prefix| self.prefix_is_sound(cells, column, *prefix)).collect()
    }

    fn prefix_is_sound(&mut self, cells: &Cells<'_>, column: &str, prefix: IpNet) -> bool {
        let problem = if prefix.trunc() != prefix {
            format!("{prefix} has host bits; the prefix is {}", prefix.trunc())
        } else if prefix.prefix_len() == 0 {
            format!("{prefix} is everything")
        } else if prefix.addr().is_multicast() || prefix.addr().is_unspecified() {
            format!("{prefix} is no agency's")
        } else if prefix.addr().is_loopback() && self.loopback == Loopback::Refused {
            format!("{prefix} is loopback, which only a demonstration (demo = true) may use")
        } else {
            return true;
        };
        self.problem(cells.file, cells.line, column, problem);
        false
    }

    /// Each parent is a row, or the one root that has none and whose id begins every id.
    fn parents(&mut self, rows: &[Row], file: &str) {
        let ids: std::collections::HashSet<&AgencyId> =
            rows.iter().map(|row| &row.agency.id).collect();
        for row in rows {
            let Agency { id, parent, .. } = &row.agency;
            let below_root = || {
                let root = format!("{parent}-");
                rows.iter().all(|row| row.agency.id.as_str().starts_with(&root))
            };
            if id == parent {
                self.problem(file, row.line, "parent", format!("{id} is its own parent"));
            } else if !ids.contains(parent) && !below_root() {
                let problem = format!("no row has the id {parent}");
                self.problem(file, row.line, "parent", problem);
            }
        }
    }

    fn prefixes(&mut self, source: Source<'_>, rows: &mut [Row]) {
        let at: HashMap<AgencyId, usize> =
            rows.iter().enumerate().map(|(at, row)| (row.agency.id.clone(), at)).collect();
        self.each_line(source, &PREFIX_COLUMNS[..3], &PREFIX_COLUMNS[3..], |reading, cells| {
            let Some(id) = reading.parsed::<AgencyId>(cells, "agency") else { return };
            let Some(row) = at.get(&id) else {
                let problem = format!("{id} is not in the roster");
                return reading.problem(cells.file, cells.line, "agency", problem);
            };
            let Some(prefix) = reading.parsed::<IpNet>(cells, "prefix") else { return };
            if !reading.prefix_is_sound(cells, "prefix", prefix) {
                return;
            }
            let dated = DatedPrefix { prefix, validity: reading.validity(cells) };
            let agency = &mut rows[*row].agency;
            match cells.cell("side") {
                "local" => agency.local_prefixes.push(dated),
                "seen" => agency.seen_prefixes.push(dated),
                other => {
                    let problem = format!("{other:?} is neither local nor seen");
                    reading.problem(cells.file, cells.line, "side", problem);
                }
            }
        });
    }

    /// An address may belong to one agency a day, or nobody could say who spoke.
    fn overlaps(&mut self, rows: &[Row], file: &str) {
        let mut all: Vec<(IpNet, Validity, &Row)> = rows
            .iter()
            .flat_map(|row| {
                row.agency
                    .source_prefixes()
                    .iter()
                    .map(move |dated| (dated.prefix, dated.validity, row))
            })
            .collect();
        all.sort_by_key(|(prefix, ..)| (prefix.network(), prefix.prefix_len()));
        // Prefixes nest or are disjoint, so those that cover the present one form a stack.
        let mut covering: Vec<(IpNet, Validity, &Row)> = Vec::new();
        for (prefix, validity, row) in all {
            while covering.last().is_some_and(|(outer, ..)| !outer.contains(&prefix)) {
                covering.pop();
            }
            let clash = covering.iter().find(|(_, other_validity, other)| {
                other.agency.id != row.agency.id && other_validity.overlaps(validity)
            });
            if let Some((other_prefix, _, other)) = clash {
                let problem = format!(
                    "{prefix} of {} (line {}) overlaps {other_prefix} of {} (line {})",
                    row.agency.id, row.line, other.agency.id, other.line
                );
                self.problem(file, row.line.max(other.line), "local_prefixes", problem);
            }
            covering.push((prefix, validity, row));
        }
    }

    fn gateways_inside(&mut self, rows: &[Row], file: &str) {
        for row in rows {
            let Agency { local_prefixes, seen_prefixes, gateways, .. } = &row.agency;
            for gateway in gateways {
                let inside = local_prefixes
                    .iter()
                    .chain(seen_prefixes)
                    .any(|dated| dated.prefix.contains(gateway));
                if !inside {
                    let problem = format!("{gateway} is outside the agency's prefixes");
                    self.problem(file, row.line, "gateways", problem);
                }
            }
        }
    }
}

/// Column → position.
fn header(
    record: &csv::StringRecord,
    required: &[&str],
    optional: &[&str],
) -> Result<HashMap<String, usize>, (String, String)> {
    let mut columns = HashMap::new();
    for (at, column) in record.iter().enumerate() {
        if !required.contains(&column) && !optional.contains(&column) {
            let known = [required, optional].concat().join(",");
            return Err((column.to_owned(), format!("is not a column; known are {known}")));
        }
        if columns.insert(column.to_owned(), at).is_some() {
            return Err((column.to_owned(), "stands twice in the header".to_owned()));
        }
    }
    match required.iter().find(|column| !columns.contains_key(**column)) {
        Some(missing) => Err(((*missing).to_owned(), "is missing from the header".to_owned())),
        None => Ok(columns),
    }
}

fn csv_problem(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
