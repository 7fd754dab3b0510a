//! One line of the roster, cell by cell.

use std::net::IpAddr;
use std::str::FromStr;

use haidang_proto::model::agency::AgencyId;
use ipnet::IpNet;
use jiff::civil::Date;
use unicode_normalization::is_nfc;

use super::super::{Agency, AgencyKind, DatedPrefix, Validity};
use super::lines::Cells;
use super::{Placed, Reading, Row};

/// Bytes of a name: the longest official name of the shipped rosters has 63.
const TEXT_BYTES_MAX: usize = 200;
/// Prefixes or gateways in one cell.
const CELL_VALUES_MAX: usize = 64;

const A_PREFIX: &str = "a prefix such as 198.18.10.0/24";

/// The row, if nothing in it is wrong; every problem of it is told.
pub(super) fn parse<'a>(
    reading: &mut Reading,
    cells: &Cells<'a, '_>,
    id: AgencyId,
) -> Option<Row<'a>> {
    let before = reading.problems.len();
    let name = text(reading, cells, "name");
    if name.is_empty() {
        reading.problem(cells.place("name"), "is empty; every agency has a name");
    }
    let kind = kind(reading, cells);
    let parent = reading.id(cells, "parent");
    let gso_code = text(reading, cells, "gso_code");
    let id_code = text(reading, cells, "id_code");
    let position = position(reading, cells);
    let uplink = Some(text(reading, cells, "uplink")).filter(|uplink| !uplink.is_empty());
    let local = prefixes(reading, cells, "local_prefixes");
    let seen = prefixes(reading, cells, "seen_prefixes");
    let gateways = list::<IpAddr>(reading, cells, "gateways", "an IP address");
    let agents_expected = match cells.cell("agents_expected") {
        "" => None,
        _ => reading.parsed::<u32>(cells, "agents_expected", "a whole number"),
    };
    let validity = validity(reading, cells);
    if reading.problems.len() > before {
        return None;
    }
    let validity = validity?;
    let placed = |prefixes: Vec<IpNet>, column| {
        prefixes
            .into_iter()
            .map(|prefix| Placed {
                dated: DatedPrefix { prefix, validity },
                place: cells.place(column),
            })
            .collect()
    };
    Some(Row {
        line: cells.line,
        local: placed(local, "local_prefixes"),
        seen: placed(seen, "seen_prefixes"),
        agency: Agency {
            id,
            name,
            kind: kind?,
            parent: parent?,
            gso_code,
            id_code,
            position,
            uplink,
            local_prefixes: Vec::new(),
            seen_prefixes: Vec::new(),
            gateways,
            agents_expected,
            validity,
        },
    })
}

fn text(reading: &mut Reading, cells: &Cells<'_, '_>, column: &'static str) -> String {
    let value = cells.cell(column);
    let problem = if value.len() > TEXT_BYTES_MAX {
        format!("has {} bytes, more than {TEXT_BYTES_MAX}", value.len())
    } else if value.chars().any(char::is_control) {
        format!("{value:?} holds a control character")
    } else if value.trim() != value {
        format!("{value:?} begins or ends with a space")
    } else if !is_nfc(value) {
        format!("{value:?} is not in Unicode normal form C; save it as NFC")
    } else {
        return value.to_owned();
    };
    reading.problem(cells.place(column), problem);
    value.to_owned()
}

fn kind(reading: &mut Reading, cells: &Cells<'_, '_>) -> Option<AgencyKind> {
    let label = cells.cell("kind");
    let kind = AgencyKind::from_label(label);
    if kind.is_none() {
        let kinds: Vec<&str> = AgencyKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let problem = format!("{label:?} is none of {}", kinds.join(", "));
        reading.problem(cells.place("kind"), problem);
    }
    kind
}

fn position(reading: &mut Reading, cells: &Cells<'_, '_>) -> Option<(f64, f64)> {
    match (cells.cell("lat"), cells.cell("lon")) {
        ("", "") => None,
        ("", _) | (_, "") => {
            let problem = "lat and lon stand together or not at all";
            reading.problem(cells.place("lat"), problem);
            None
        }
        _ => degrees(reading, cells, "lat", 90.0).zip(degrees(reading, cells, "lon", 180.0)),
    }
}

fn degrees(
    reading: &mut Reading,
    cells: &Cells<'_, '_>,
    column: &'static str,
    limit: f64,
) -> Option<f64> {
    let degrees: f64 = reading.parsed(cells, column, "a number of degrees such as 21.035")?;
    if degrees.abs() <= limit {
        return Some(degrees);
    }
    let problem = format!("{degrees} is not between -{limit} and {limit} degrees");
    reading.problem(cells.place(column), problem);
    None
}

/// The days of a line; `None` when they are wrong.
pub(super) fn validity(reading: &mut Reading, cells: &Cells<'_, '_>) -> Option<Validity> {
    let mut day = |column| match cells.cell(column) {
        "" => Some(None),
        _ => reading.parsed::<Date>(cells, column, "a day such as 2025-07-01").map(Some),
    };
    let (from, to) = (day("valid_from"), day("valid_to"));
    let (from, to) = (from?, to?);
    if let (Some(first), Some(last)) = (from, to)
        && first > last
    {
        let problem = format!("{last} is before valid_from, {first}");
        reading.problem(cells.place("valid_to"), problem);
        return None;
    }
    Some(Validity { from, to })
}

fn prefixes(reading: &mut Reading, cells: &Cells<'_, '_>, column: &'static str) -> Vec<IpNet> {
    let prefixes = list::<IpNet>(reading, cells, column, A_PREFIX);
    let place = cells.place(column);
    prefixes.into_iter().filter(|prefix| reading.prefix_is_sound(place, *prefix)).collect()
}

/// One prefix that stands alone in its cell.
pub(super) fn prefix(
    reading: &mut Reading,
    cells: &Cells<'_, '_>,
    column: &'static str,
    value: &str,
) -> Option<IpNet> {
    match value.parse() {
        Ok(prefix) => reading.prefix_is_sound(cells.place(column), prefix).then_some(prefix),
        Err(_) => {
            reading.problem(cells.place(column), format!("{value:?} is not {A_PREFIX}"));
            None
        }
    }
}

/// The values of a cell; those that are wrong are told and left out.
fn list<T: FromStr>(
    reading: &mut Reading,
    cells: &Cells<'_, '_>,
    column: &'static str,
    expected: &str,
) -> Vec<T> {
    let cell = cells.cell(column);
    if cell.is_empty() {
        return Vec::new();
    }
    if cell.split(';').count() > CELL_VALUES_MAX {
        let problem = format!("has more than {CELL_VALUES_MAX} values");
        reading.problem(cells.place(column), problem);
        return Vec::new();
    }
    let mut values = Vec::new();
    for value in cell.split(';').map(str::trim) {
        match value.parse() {
            Ok(parsed) => values.push(parsed),
            Err(_) => {
                reading.problem(cells.place(column), format!("{value:?} is not {expected}"));
            }
        }
    }
    values
}
