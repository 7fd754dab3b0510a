//! From bytes to lines whose cells are known by their column.

use std::collections::HashMap;

use super::super::ROWS_MAX;
use super::{Place, Reading, Source};

/// Bytes of a file: a hundred thousand rows with long names fit.
const FILE_BYTES_MAX: usize = 64 << 20;

/// One line and where it stands.
pub(super) struct Cells<'a, 'r> {
    pub(super) file: &'a str,
    pub(super) line: u64,
    record: &'r csv::StringRecord,
    columns: &'r HashMap<&'static str, usize>,
}

impl<'a, 'r> Cells<'a, 'r> {
    /// The cell of a column; empty where the file does not have the column.
    pub(super) fn cell(&self, column: &str) -> &'r str {
        self.columns.get(column).and_then(|at| self.record.get(*at)).unwrap_or("")
    }

    pub(super) const fn place(&self, column: &'static str) -> Place<'a> {
        Place { file: self.file, line: self.line, column }
    }
}

/// Reads the header and hands over each line with the right number of fields.
pub(super) fn each<'a>(
    reading: &mut Reading,
    Source { name, bytes }: Source<'a>,
    required: &[&'static str],
    optional: &[&'static str],
    mut each: impl FnMut(&mut Reading, &Cells<'a, '_>),
) {
    let whole = |line| Place { file: name, line, column: "" };
    if bytes.len() > FILE_BYTES_MAX {
        let problem = format!("the file has {} bytes, more than 64 MiB", bytes.len());
        return reading.problem(whole(1), problem);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    let mut columns: Option<HashMap<&'static str, usize>> = None;
    for (count, record) in reader.records().enumerate() {
        if reading.is_full() {
            return;
        }
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(1, csv::Position::line);
                reading.problem(whole(line), csv_problem(&error));
                continue;
            }
        };
        let line = record.position().map_or(1, csv::Position::line);
        if count > ROWS_MAX {
            let problem = format!("the file goes on after {ROWS_MAX} rows, which is the limit");
            return reading.problem(whole(line), problem);
        }
        match &columns {
            None => match header(&record, required, optional) {
                Ok(header) => columns = Some(header),
                Err((column, problem)) => {
                    return reading.problem(Place { file: name, line, column }, problem);
                }
            },
            Some(columns) => each(reading, &Cells { file: name, line, record: &record, columns }),
        }
    }
    if columns.is_none() && reading.problems.is_empty() {
        let problem = format!("the header is missing; it begins {}", required.join(","));
        reading.problem(whole(1), problem);
    }
}

/// Column → position.
fn header(
    record: &csv::StringRecord,
    required: &[&'static str],
    optional: &[&'static str],
) -> Result<HashMap<&'static str, usize>, (&'static str, String)> {
    let mut columns = HashMap::new();
    for (at, found) in record.iter().enumerate() {
        let Some(column) = required.iter().chain(optional).find(|column| **column == found) else {
            let known = [required, optional].concat().join(",");
            return Err(("", format!("{found:?} is not a column; known are {known}")));
        };
        if columns.insert(*column, at).is_some() {
            return Err((*column, "stands twice in the header".to_owned()));
        }
    }
    match required.iter().find(|column| !columns.contains_key(**column)) {
        Some(missing) => Err((*missing, "is missing from the header".to_owned())),
        None => Ok(columns),
    }
}

fn csv_problem(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8; save the file as UTF-8".to_owned(),
        _ => error.to_string(),
    }
}
