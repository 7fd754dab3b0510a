//! What can be checked only over all rows.

use std::collections::HashMap;

use haidang_proto::model::agency::AgencyId;

use super::{Place, Placed, Reading, Row};

/// Each parent has a row, except one root: the city itself, whose id begins every id. Following
/// the parents always leads to the top.
pub(super) fn parents(
    reading: &mut Reading,
    rows: &[Row<'_>],
    ids: &HashMap<AgencyId, u64>,
    file: &str,
) {
    let shared = shared_beginning(ids.keys().map(AgencyId::as_str));
    let mut root: Option<(&AgencyId, u64)> = None;
    for row in rows {
        let id = &row.agency.id;
        let parent = &row.agency.parent;
        let place = Place { file, line: row.line, column: "parent" };
        if id == parent {
            reading.problem(place, format!("{id} is its own parent"));
        } else if !ids.contains_key(parent) {
            let begins_all = shared.starts_with(&format!("{parent}-"));
            match root {
                _ if !begins_all => {
                    let problem = format!(
                        "no row has the id {parent}; only the root may lack one, and its id begins \
                         every other id"
                    );
                    reading.problem(place, problem);
                }
                Some((root, line)) if root != parent => {
                    let problem =
                        format!("no row has the id {parent}; {root} (line {line}) is the root");
                    reading.problem(place, problem);
                }
                Some(_) => {}
                None => root = Some((parent, row.line)),
            }
        }
    }
    if reading.problems.is_empty() {
        cycles(reading, rows, file);
    }
}

/// What all ids begin with.
fn shared_beginning<'i>(mut ids: impl Iterator<Item = &'i str>) -> &'i str {
    let Some(mut shared) = ids.next() else { return "" };
    for id in ids {
        let same = shared.bytes().zip(id.bytes()).take_while(|(a, b)| a == b).count();
        shared = &shared[..same];
    }
    shared
}

fn cycles(reading: &mut Reading, rows: &[Row<'_>], file: &str) {
    let at: HashMap<&AgencyId, usize> =
        rows.iter().enumerate().map(|(at, row)| (&row.agency.id, at)).collect();
    // The walk in which each row was met first; every row is met once.
    let mut met = vec![None; rows.len()];
    for start in 0..rows.len() {
        let mut next = Some(start);
        while let Some(row) = next.filter(|row| met[*row].is_none()) {
            met[row] = Some(start);
            next = at.get(&rows[row].agency.parent).copied();
        }
        if let Some(row) = next.filter(|row| met[*row] == Some(start)) {
            let place = Place { file, line: rows[row].line, column: "parent" };
            let problem =
                format!("following the parents of {} leads back to it", rows[row].agency.id);
            reading.problem(place, problem);
        }
    }
}

pub(super) fn gateways_inside(reading: &mut Reading, rows: &[Row<'_>], file: &str) {
    for row in rows {
        for gateway in &row.agency.gateways {
            let mut prefixes = row.local.iter().chain(&row.seen);
            if !prefixes.any(|placed| placed.dated.prefix.contains(gateway)) {
                let place = Place { file, line: row.line, column: "gateways" };
                let problem = format!("{gateway} is outside the prefixes of {}", row.agency.id);
                reading.problem(place, problem);
            }
        }
    }
}

/// An address may belong to one agency a day, or nobody could say who spoke.
pub(super) fn overlaps(reading: &mut Reading, rows: &[Row<'_>]) {
    let prefixes_of = |row| Row::source_prefixes(row).iter();
    let mut all: Vec<(&Placed<'_>, &AgencyId)> = rows
        .iter()
        .flat_map(|row| prefixes_of(row).map(|placed| (placed, &row.agency.id)))
        .collect();
    all.sort_by_key(|(placed, _)| {
        (placed.dated.prefix.network(), placed.dated.prefix.prefix_len())
    });
    // Prefixes nest or are disjoint, so those that cover the present one form a stack.
    let mut covering: Vec<(&Placed<'_>, &AgencyId)> = Vec::new();
    for (placed, id) in all {
        if reading.is_full() {
            return;
        }
        let prefix = placed.dated.prefix;
        while covering.last().is_some_and(|(outer, _)| !outer.dated.prefix.contains(&prefix)) {
            covering.pop();
        }
        let clash = covering.iter().find(|(other, other_id)| {
            *other_id != id && other.dated.validity.overlaps(placed.dated.validity)
        });
        if let Some((other, other_id)) = clash {
            // The later line is the one to mend.
            let mut pair = [(placed, id), (*other, *other_id)];
            pair.sort_by_key(|(placed, _)| std::cmp::Reverse(placed.place.line));
            let [(late, late_id), (early, early_id)] = pair;
            let problem = format!(
                "{} of {late_id} overlaps {} of {early_id} ({}, line {}) on the same days",
                late.dated.prefix, early.dated.prefix, early.place.file, early.place.line
            );
            reading.problem(late.place, problem);
        }
        covering.push((placed, id));
    }
}
