//! Our verdicts beside those of Lynis and OpenSCAP on the same system: the pure part.
//!
//! `peers/mapping.csv` says which of their rules and tests ask what one of our checks asks. Each
//! becomes a [`Cell`], on each [`System`]; a check that a peer does not know has one cell for it,
//! with no item. A cell agrees, or `peers/explained.csv` gives it one of six closed
//! [`Explanation`]s, which is verified as far as it can be. What is neither is a finding, and so
//! is an explanation that no cell needs any more.
//!
//! `openscap` and `lynis` read what the peers wrote, `explained` reads the two files, `systems`
//! and `usage` run the programs, `table` writes the result down. `units` starts the agent's units
//! on the same Debian.

pub mod explained;
pub mod lynis;
pub mod openscap;
pub mod systems;
pub mod table;
pub mod units;
pub mod usage;

use std::collections::BTreeMap;
use std::fmt;

use haidang_proto::model::posture::CheckId;
use serde::{Deserialize, Serialize};

use self::explained::Explained;

/// Whose answer stands beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// OpenSCAP with the rules of the SCAP Security Guide.
    OpenScap,
    /// Lynis.
    Lynis,
}

/// What was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// The machine that the program runs on.
    Machine,
    /// A Debian from the archive with sshd, auditd, ufw, rsyslog, chrony and unattended-upgrades,
    /// started under systemd-nspawn.
    Debian,
}

/// Our answer, as `check --json` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ours {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail,
    /// A fact about the machine rules the question out.
    NotApplicable,
    /// It could not be read.
    Unknown,
}

/// A peer's answer to one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Theirs {
    /// OpenSCAP says so, or Lynis gives all points.
    Pass,
    /// OpenSCAP says so, or Lynis warns, suggests or keeps points back.
    Fail,
    /// OpenSCAP's platforms, or Lynis' prerequisites, rule the item out.
    NotApplicable,
    /// OpenSCAP has no automatic answer: notchecked, error, unknown.
    NotEvaluated,
    /// Lynis ran the test and said nothing, which is no verdict.
    NoFinding,
    /// The peer has nothing that asks this.
    NoItem,
}

/// Why a cell may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum Explanation {
    /// They check configuration, we check effect.
    E1,
    /// They have no rule.
    E2,
    /// Not applicable to them, by their gating of platforms.
    E3,
    /// Another threshold, or another question.
    E4,
    /// They cannot evaluate it.
    E5,
    /// Their "ok" means "no finding".
    E6,
}

impl Explanation {
    /// Whether what the peer said can be explained so.
    fn fits(self, theirs: Theirs) -> bool {
        match self {
            Self::E1 | Self::E4 => matches!(theirs, Theirs::Pass | Theirs::Fail),
            Self::E2 => theirs == Theirs::NoItem,
            Self::E3 => theirs == Theirs::NotApplicable,
            Self::E5 => theirs == Theirs::NotEvaluated,
            Self::E6 => theirs == Theirs::NoFinding,
        }
    }
}

/// One question to one peer on one system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Our check.
    pub check: CheckId,
    /// The peer.
    pub peer: Peer,
    /// Its rule or test; empty where it has none.
    pub item: String,
    /// The system.
    pub system: System,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, peer, item, system } = self;
        let item = if item.is_empty() { "-" } else { item };
        write!(f, "{check} {peer:?} {item} on {system:?}")
    }
}

/// Both answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What was asked.
    pub place: Place,
    /// Our answer.
    pub ours: Ours,
    /// Theirs.
    pub theirs: Theirs,
}

impl Cell {
    /// Whether the two say the same. A peer's silence agrees with nothing.
    fn agrees(&self) -> bool {
        matches!(
            (self.ours, self.theirs),
            (Ours::Pass, Theirs::Pass)
                | (Ours::Fail, Theirs::Fail)
                | (Ours::NotApplicable, Theirs::NotApplicable)
                | (Ours::Unknown, Theirs::NotEvaluated)
        )
    }
}

/// What a cell came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The two agree.
    Agrees,
    /// They differ, for a reason that is written down.
    Explained(Explanation),
    /// They differ, and nothing says why.
    Unexplained,
}

/// Every cell with its mark, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Cells in the order of the catalogue.
    pub cells: Vec<(Cell, Mark)>,
    /// Sentences; the comparison holds when there are none.
    pub problems: Vec<String>,
}

/// Compares. An explanation holds for exactly the two answers that it names, so that a verdict
/// that changes has to be explained anew.
pub fn compare(cells: Vec<Cell>, explained: &BTreeMap<Place, Explained>) -> Comparison {
    let mut problems = Vec::new();
    let mut needed = Vec::new();
    let mut marked = Vec::new();
    for cell in cells {
        let given = explained.get(&cell.place);
        let mark = match given {
            _ if cell.agrees() => Mark::Agrees,
            Some(given)
                if (given.ours, given.theirs) == (cell.ours, cell.theirs)
                    && given.explanation.fits(cell.theirs) =>
            {
                needed.push(cell.place.clone());
                Mark::Explained(given.explanation)
            }
            _ => Mark::Unexplained,
        };
        if mark == Mark::Unexplained {
            let Cell { place, ours, theirs } = &cell;
            let instead = given.map_or_else(String::new, |given| {
                let Explained { explanation, ours, theirs, .. } = given;
                format!("; {explanation:?} is written for {ours:?} and {theirs:?}")
            });
            problems.push(format!("{place}: ours {ours:?}, theirs {theirs:?}{instead}"));
        }
        marked.push((cell, mark));
    }
    let asked: Vec<System> = marked.iter().map(|(cell, _)| cell.place.system).collect();
    let stale = explained
        .keys()
        .filter(|place| asked.contains(&place.system) && !needed.contains(place))
        .filter(|place| {
            !marked.iter().any(|(cell, mark)| cell.place == **place && *mark == Mark::Unexplained)
        });
    problems.extend(stale.map(|place| format!("{place}: explained, but no cell needs it")));
    Comparison { cells: marked, problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(ours: Ours, theirs: Theirs) -> Cell {
        let place = Place {
            check: CheckId::HostFirewallActive,
            peer: Peer::Lynis,
            item: "FIRE-4590".into(),
            system: System::Debian,
        };
        Cell { place, ours, theirs }
    }

    #[track_caller]
    fn compared(
        (ours, theirs): (Ours, Theirs),
        given: Option<(Explanation, Ours, Theirs)>,
        expected: Mark,
        problems: usize,
    ) {
        let cell = cell(ours, theirs);
        let explained = given.map(|(explanation, ours, theirs)| {
            (cell.place.clone(), Explained { explanation, ours, theirs, why: "why".into() })
        });
        let comparison = compare(vec![cell], &explained.into_iter().collect());
        assert_eq!(comparison.cells[0].1, expected);
        assert_eq!(comparison.problems.len(), problems, "{:?}", comparison.problems);
    }

    #[test]
    fn a_difference_that_nothing_explains_is_a_problem() {
        compared((Ours::Pass, Theirs::Pass), None, Mark::Agrees, 0);
        compared((Ours::Pass, Theirs::Fail), None, Mark::Unexplained, 1);
        compared((Ours::Unknown, Theirs::Fail), None, Mark::Unexplained, 1);
        compared((Ours::Pass, Theirs::NoItem), None, Mark::Unexplained, 1);
    }

    #[test]
    fn silence_of_a_peer_agrees_with_nothing() {
        for ours in [Ours::Pass, Ours::Fail, Ours::NotApplicable, Ours::Unknown] {
            compared((ours, Theirs::NoFinding), None, Mark::Unexplained, 1);
        }
    }

    #[test]
    fn an_explanation_holds_for_the_answers_it_names_and_no_others() {
        use Explanation::{E1, E3};
        let given = (E1, Ours::Pass, Theirs::Fail);
        compared((Ours::Pass, Theirs::Fail), Some(given), Mark::Explained(E1), 0);
        compared((Ours::Unknown, Theirs::Fail), Some(given), Mark::Unexplained, 1);
        // Not applicable is what E3 says, and they said something else.
        let unfit = (E3, Ours::Pass, Theirs::Fail);
        compared((Ours::Pass, Theirs::Fail), Some(unfit), Mark::Unexplained, 1);
    }

    #[test]
    fn an_explanation_that_is_not_needed_is_a_problem() {
        let given = (Explanation::E1, Ours::Pass, Theirs::Fail);
        compared((Ours::Pass, Theirs::Pass), Some(given), Mark::Agrees, 1);
    }
}
