//! DNS and services above a path that is up: broken after 3 of the last 5 cycles that asked,
//! well again after 3 good ones in a row. Another fault takes over by the same 3 of 5.

use std::collections::VecDeque;

use haidang_proto::model::record::Moment;
use haidang_proto::model::verdict::Verdict;

use super::ladder::Upper;

/// Cycles that are remembered.
const WINDOW: usize = 5;
/// How many of them decide.
const ENOUGH: usize = 3;

/// The state machine of what stands above the path.
#[derive(Debug, Default)]
pub(super) struct UpperWatch {
    /// The latest cycles that asked, oldest first.
    seen: VecDeque<(Fault, Moment)>,
    held: Fault,
}

/// What one cycle found; `None` when all was fine.
type Fault = Option<Verdict>;

impl UpperWatch {
    /// The fault in force, as a verdict.
    pub(super) fn fault(&self) -> Option<Verdict> {
        self.held
    }

    /// Whether the last cycle contradicts what is held: the next ones should ask again soon.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.seen.back().is_some_and(|(last, _)| *last != self.held)
    }

    /// The path went: what was seen above it is over.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes a cycle in; answers when the new fault or its end was first seen, if that changed.
    pub(super) fn observe(&mut self, upper: Upper, started: Moment) -> Option<Moment> {
        if upper == Upper::NotTried {
            return None;
        }
        let fault = upper.fault();
        if self.seen.len() == WINDOW {
            self.seen.pop_front();
        }
        self.seen.push_back((fault, started));
        let first_seen = match (self.held, fault) {
            (None, Some(_)) => self.first_of_enough(Option::is_some),
            (Some(held), Some(new)) if held != new => self.first_of_enough(|seen| *seen == fault),
            (Some(_), None) => self.fine_in_a_row(),
            (None, None) | (Some(_), Some(_)) => None,
        };
        if first_seen.is_some() {
            self.held = fault;
        }
        first_seen
    }

    /// The first of at least [`ENOUGH`] cycles that match.
    fn first_of_enough(&self, matches: impl Fn(&Fault) -> bool) -> Option<Moment> {
        let mut matching = self.seen.iter().filter(|(fault, _)| matches(fault));
        let first = matching.next()?.1;
        (matching.count() + 1 >= ENOUGH).then_some(first)
    }

    /// The first of the last [`ENOUGH`] cycles, if all are fine.
    fn fine_in_a_row(&self) -> Option<Moment> {
        let mut last = self.seen.iter().rev().take(ENOUGH);
        let are_fine = last.len() == ENOUGH && last.all(|(fault, _)| fault.is_none());
        are_fine.then(|| self.seen[self.seen.len() - ENOUGH].1)
    }
}
