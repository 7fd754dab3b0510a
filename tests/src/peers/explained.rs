//! The two data files: which items of a peer ask what a check of ours asks, and why a cell may
//! differ.
//!
//! `peers/mapping.csv`: `check,peer,item`. An item of OpenSCAP is a rule without its prefix; one
//! of Lynis is a test, and after a colon what to look for in it, where a test holds many.
//!
//! `peers/explained.csv`: `check,peer,item,system,ours,theirs,explanation,why`. The item is empty
//! where the mapping has none.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use haidang_proto::model::posture::CheckId;
use serde::Deserialize;

use super::{Cell, Explanation, Ours, Peer, Place, System, Theirs};

/// A reason shorter than this explains nothing.
const WHY_CHARS_MIN: usize = 20;

/// Our checks with the items of the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping(BTreeMap<(CheckId, Peer), Vec<String>>);

/// Why one cell differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The closed kind.
    pub explanation: Explanation,
    /// Our answer that it explains.
    pub ours: Ours,
    /// Theirs.
    pub theirs: Theirs,
    /// In words.
    pub why: String,
}

#[derive(Deserialize)]
struct Mapped {
    check: String,
    peer: Peer,
    item: String,
}

#[derive(Deserialize)]
struct Row {
    check: String,
    peer: Peer,
    item: String,
    system: System,
    ours: Ours,
    theirs: Theirs,
    explanation: Explanation,
    why: String,
}

impl Mapping {
    /// Reads `peers/mapping.csv`.
    ///
    /// # Errors
    /// When it names a check that does not exist, or an item twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut items: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for row in csv::Reader::from_reader(text.as_bytes()).deserialize() {
            let Mapped { check, peer, item } = row.context("read the mapping")?;
            let check = check_id(&check)?;
            let items = items.entry((check, peer)).or_default();
            ensure!(!item.is_empty() && !items.contains(&item), "{check} {item} is no new item");
            items.push(item);
        }
        Ok(Self(items))
    }

    /// Every item of a peer, once.
    pub fn items(&self, peer: Peer) -> BTreeSet<&str> {
        let of_peer = self.0.iter().filter(|((_, whose), _)| *whose == peer);
        of_peer.flat_map(|(_, items)| items.iter().map(String::as_str)).collect()
    }

    /// The cells of a system.
    ///
    /// # Errors
    /// When we, or a peer, have no answer to what is mapped.
    pub fn cells(
        &self,
        system: System,
        ours: &BTreeMap<CheckId, Ours>,
        theirs: &BTreeMap<(Peer, String), Theirs>,
    ) -> Result<Vec<Cell>> {
        let mut cells = Vec::new();
        for &check in CheckId::ALL {
            let ours = *ours.get(&check).with_context(|| format!("we do not answer {check}"))?;
            for peer in [Peer::OpenScap, Peer::Lynis] {
                let place = |item: &str| Place { check, peer, item: item.to_owned(), system };
                let Some(items) = self.0.get(&(check, peer)) else {
                    cells.push(Cell { place: place(""), ours, theirs: Theirs::NoItem });
                    continue;
                };
                for item in items {
                    let theirs = theirs.get(&(peer, item.clone()));
                    let theirs = *theirs.with_context(|| format!("{peer:?} has no {item}"))?;
                    cells.push(Cell { place: place(item), ours, theirs });
                }
            }
        }
        Ok(cells)
    }
}

/// Reads `peers/explained.csv`.
///
/// # Errors
/// When a row names what does not exist, explains a cell twice, says too little, or cannot be
/// true of the answer it names.
pub fn parse(text: &str) -> Result<BTreeMap<Place, Explained>> {
    let mut all = BTreeMap::new();
    for row in csv::Reader::from_reader(text.as_bytes()).deserialize() {
        let Row { check, peer, item, system, ours, theirs, explanation, why } =
            row.context("read the explanations")?;
        let place = Place { check: check_id(&check)?, peer, item, system };
        ensure!(why.chars().count() >= WHY_CHARS_MIN, "{place}: say why");
        ensure!(explanation.fits(theirs), "{place}: {explanation:?} cannot explain {theirs:?}");
        let given = Explained { explanation, ours, theirs, why };
        ensure!(all.insert(place.clone(), given).is_none(), "{place} is explained twice");
    }
    Ok(all)
}

fn check_id(label: &str) -> Result<CheckId> {
    CheckId::from_label(label).with_context(|| format!("there is no check {label}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: &str = include_str!("../../peers/mapping.csv");
    const EXPLAINED: &str = include_str!("../../peers/explained.csv");

    #[test]
    fn every_explanation_is_of_a_cell_that_can_be() {
        let mapping = Mapping::parse(MAPPING).expect("a mapping");
        for place in parse(EXPLAINED).expect("explanations").keys() {
            let items = mapping.0.get(&(place.check, place.peer));
            let is_mapped = match items {
                Some(items) => items.contains(&place.item),
                None => place.item.is_empty(),
            };
            assert!(is_mapped, "{place} is not in the mapping");
        }
    }

    #[test]
    fn what_the_catalogue_names_of_a_peer_is_mapped() {
        let mapping = Mapping::parse(MAPPING).expect("a mapping");
        let catalogue = haidang_agent::posture::Catalogue::load().expect("a catalogue");
        for &check in CheckId::ALL {
            let entry = catalogue.entry(check).expect("every check has a block");
            for named in &entry.mappings {
                let peer = match named.standard.as_str() {
                    "ssg" => Peer::OpenScap,
                    "lynis" => Peer::Lynis,
                    _ => continue,
                };
                let items = mapping.0.get(&(check, peer)).map_or(&[][..], Vec::as_slice);
                let is_mapped =
                    named.control.split([',', ' ']).filter(|control| !control.is_empty()).all(
                        |control| items.iter().any(|item| item.split(':').next() == Some(control)),
                    );
                assert!(is_mapped, "{check}: {} is not in the mapping", named.control);
            }
        }
    }

    #[test]
    fn a_row_that_cannot_be_true_is_refused() {
        let head = "check,peer,item,system,ours,theirs,explanation,why\n";
        let row = "os_supported,openscap,,debian,pass,fail,E2,they have no rule for it at all\n";
        let error = parse(&format!("{head}{row}")).expect_err("E2 explains a missing rule alone");
        assert!(error.to_string().contains("cannot explain"), "{error}");
        let row = "os_supported,openscap,,debian,pass,no_item,E2,short\n";
        assert!(parse(&format!("{head}{row}")).is_err());
    }
}
