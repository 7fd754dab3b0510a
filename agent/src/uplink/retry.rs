//! When something that failed is tried again.

use std::time::Duration;

use super::backoff;

/// When something is tried next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Retry {
    failures: u32,
    pub(super) at: Duration,
}

impl Retry {
    /// After a first and up to a longest wait.
    pub(super) fn failed(
        &mut self,
        now: Duration,
        (first, cap): (Duration, Duration),
        random: u32,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.at = now + backoff::delay(self.failures, first, cap, random);
    }

    pub(super) fn succeeded(&mut self, next: Duration) {
        *self = Self { failures: 0, at: next };
    }
}
