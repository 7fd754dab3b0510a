//! When records were received: a row for each delivery, with the span of numbers that it brought.
//! History is dropped by these. An index of every record and every outage by its receipt would say
//! the same and cost each of them two more writes.
//!
//! An outage that is open is not dropped with the record that began it. When it ends, it gets a
//! receipt of its own, and is dropped by that.

use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::{StoreError, unix_ms};

/// Records of a journal with these numbers were received.
pub(super) fn insert(
    connection: &Connection,
    received: SystemTime,
    journal: i64,
    first_seq: i64,
    last_seq: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO receipts (received_ms, journal, first_seq, last_seq)
             VALUES (?1, ?2, ?3, ?4) ON CONFLICT (received_ms, journal, first_seq)
             DO UPDATE SET last_seq = max(last_seq, excluded.last_seq)",
        )?
        .execute(params![unix_ms(received), journal, first_seq, last_seq])?;
    Ok(())
}

/// The oldest receipt.
pub(super) fn oldest(connection: &Connection) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT min(received_ms) FROM receipts";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Drops records and ended outages that were received before `oldest`, until so many rows are gone.
/// Returns whether there may be more.
pub(super) fn prune(
    connection: &Connection,
    oldest: SystemTime,
    rows_max: u32,
) -> Result<bool, StoreError> {
    let oldest = unix_ms(oldest);
    let mut due = connection.prepare_cached(
        "SELECT received_ms, journal, first_seq, last_seq FROM receipts
         WHERE received_ms < ?1 ORDER BY received_ms, journal, first_seq LIMIT ?2",
    )?;
    let due: Vec<[i64; 4]> = due
        .query_map(params![oldest, rows_max], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?
        .collect::<Result<_, _>>()?;
    let mut records = connection.prepare_cached(
        "DELETE FROM records
         WHERE journal = ?1 AND seq BETWEEN ?2 AND ?3 AND received_ms < ?4",
    )?;
    let mut outages = connection.prepare_cached(
        "DELETE FROM outages
         WHERE journal = ?1 AND seq BETWEEN ?2 AND ?3 AND received_ms < ?4 AND ending <> 'open'",
    )?;
    let mut receipts = connection.prepare_cached(
        "DELETE FROM receipts WHERE received_ms = ?1 AND journal = ?2 AND first_seq = ?3",
    )?;
    let (rows_max, mut rows) = (rows_max as usize, 0);
    for [received, journal, first_seq, last_seq] in &due {
        if rows >= rows_max {
            return Ok(true);
        }
        let span = params![journal, first_seq, last_seq, oldest];
        rows += records.execute(span)? + outages.execute(span)?;
        rows += receipts.execute(params![received, journal, first_seq])?;
    }
    Ok(due.len() >= rows_max)
}

#[cfg(test)]
mod tests;
