//! Flapping: four or more changes between up and down in 30 minutes, until 15 minutes without.
//!
//! While it lasts, a path that is up stays `degraded (recovering)`, the worst verdict that an
//! answering path can honestly have. Each change is journalled all the same.

use std::collections::VecDeque;
use std::time::Duration;

/// Changes that make a path flap.
const CHANGES: usize = 4;
/// The time they fall into.
const WITHIN: Duration = Duration::from_secs(30 * 60);
/// The time without a change that ends it.
const QUIET: Duration = Duration::from_secs(15 * 60);

/// The latest changes between up and down.
#[derive(Debug, Default)]
pub(super) struct Flapping {
    /// At most [`CHANGES`], oldest first.
    changes: VecDeque<Duration>,
    is_on: bool,
}

impl Flapping {
    /// The path went up or down.
    pub(super) fn change(&mut self, now: Duration) {
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(now);
        let first = self.changes.front().copied().unwrap_or(now);
        let are_close = now.saturating_sub(first) <= WITHIN;
        self.is_on |= self.changes.len() == CHANGES && are_close;
    }

    /// Whether the path flaps.
    pub(super) fn is_on(&mut self, now: Duration) -> bool {
        let is_quiet = self.changes.back().is_none_or(|last| now.saturating_sub(*last) >= QUIET);
        self.is_on &= !is_quiet;
        self.is_on
    }
}
