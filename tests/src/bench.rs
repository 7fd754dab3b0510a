//! The server's figures, one a module: each measures the product, a peer in the same run and,
//! where that is cheap, the floor that no program of this kind can undercut. The targets and the
//! other floors are those of the design; a floor that was not measured in the run says so.
//!
//! Processor time is what the kernel counts for the server's process, so that other work on the
//! machine disturbs it little; the clients share the processors.

pub mod exposition;
pub mod ingest;
pub mod connections;
pub mod handshakes;
pub mod records;
pub mod startup;
pub mod soak;
mod pushgateway;
pub mod raw_tls;
mod otlp;
mod rotel;
mod redis;
mod tls;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::figures;
use crate::target::Target;

/// A figure with all its values.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Title of its section.
    pub title: &'static str,
    /// What N counts.
    pub size: &'static str,
    /// Whom it is compared with.
    pub peer: &'static str,
    /// What has to be known to read it.
    pub notes: String,
    /// Its values.
    pub rows: Vec<Row>,
}

/// One value beside what it is held against.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured, with its unit.
    pub quantity: &'static str,
    /// How large the work was.
    pub n: usize,
    /// What was measured of the product.
    pub value: f64,
    /// What the design asks for.
    pub target: Target,
    /// What cannot be undercut.
    pub floor: Floor,
    /// What was measured of the peer, and what has to be known of it.
    pub peer: Option<(f64, String)>,
}

/// The least that is possible.
#[derive(Debug, Clone)]
pub enum Floor {
    /// Nothing is known.
    Unknown,
    /// From the design's own measurements, on a quiet machine.
    Design(&'static str),
    /// Measured in the same run.
    Measured(f64, &'static str),
}

impl Figure {
    /// Its section of the results.
    pub fn section(&self, command: &str) -> String {
        let mut tables = format!(
            "| quantity | N {} | value | target | floor | {} | peer ÷ value |\n\
             |---|---|---|---|---|---|---|\n",
            self.size, self.peer
        );
        for row in &self.rows {
            row.write(&mut tables);
        }
        let growth = self.growth();
        if !growth.is_empty() {
            write!(tables, "\nFrom the smallest to the largest N: {}.\n", growth.join("; "))
                .expect("a string takes everything");
        }
        figures::section_of_tables(self.title, command, &self.notes, &tables)
    }

    /// Each quantity's exponent over N, product's and peer's.
    fn growth(&self) -> Vec<String> {
        let mut by_quantity: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            by_quantity.entry(row.quantity).or_default().push(row);
        }
        let of = |(quantity, rows): (&str, Vec<&Row>)| {
            let (first, last) = (rows.first()?, rows.last()?);
            let own = exponent((first.n, first.value), (last.n, last.value))?;
            let mut text = format!("{quantity} as N^{own:.2}");
            let peer = |row: &Row| row.peer.as_ref().map(|(value, _)| (row.n, *value));
            if let (Some(first), Some(last)) = (peer(first), peer(last))
                && let Some(exponent) = exponent(first, last)
            {
                text += &format!(", the peer's as N^{exponent:.2}");
            }
            Some(text)
        };
        by_quantity.into_iter().filter_map(of).collect()
    }
}

impl Row {
    fn write(&self, table: &mut String) {
        let Self { quantity, n, value, target, floor, peer } = self;
        let floor = match floor {
            Floor::Unknown => "–".to_owned(),
            Floor::Design(floor) => format!("{floor} (design)"),
            Floor::Measured(floor, what) => format!("{} ({what})", digits(*floor)),
        };
        let (peer, ratio) = match peer {
            None => ("–".to_owned(), "–".to_owned()),
            Some((peer, note)) => {
                let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
                (format!("{}{note}", digits(*peer)), format!("{:.2}", peer / value))
            }
        };
        let target = target.judge(*value);
        let value = digits(*value);
        writeln!(table, "| {quantity} | {n} | {value} | {target} | {floor} | {peer} | {ratio} |")
            .expect("a string takes everything");
    }
}

/// Three significant digits, or all of a whole number.
fn digits(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The power of N by which a value grows; `None` with one size, or where nothing was measured.
fn exponent(first: (usize, f64), last: (usize, f64)) -> Option<f64> {
    let (work, cost) = (last.0 as f64 / first.0 as f64, last.1 / first.1);
    (work > 1.0 && cost > 0.0 && cost.is_finite()).then(|| cost.ln() / work.ln())
}

/// The middle value; 0 without any.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_grows_with_the_work_has_exponent_one() {
        assert_eq!(exponent((10, 2.0), (1_000, 200.0)), Some(1.0));
        assert_eq!(exponent((10, 2.0), (100, 2.0)), Some(0.0));
        assert_eq!(exponent((10, 2.0), (10, 3.0)), None);
        assert_eq!(exponent((10, 0.0), (100, 3.0)), None);
    }

    #[test]
    fn a_row_names_target_floor_and_peer() {
        let row = |n, value| Row {
            quantity: "µs",
            n,
            value,
            target: Target::at_most(5.0),
            floor: Floor::Measured(0.5, "raw"),
            peer: Some((8.0, String::new())),
        };
        let figure = Figure {
            title: "T",
            size: "things",
            peer: "other",
            notes: "Notes.".into(),
            rows: vec![row(1, 2.0), row(100, 20.0)],
        };
        let section = figure.section("command");
        assert!(section.contains("| µs | 1 | 2.00 | ≤ 5: met | 0.500 (raw) | 8.00 | 4.00 |\n"));
        assert!(section.contains("µs as N^0.50, the peer's as N^0.00."), "{section}");
    }
}
