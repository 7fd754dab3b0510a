//! When to renew the certificate. Pure.
//!
//! At half its life, ±10 % of its life by a number drawn from the identity, so that machines
//! enrolled on one day do not renew on one day. A failed attempt is repeated with full jitter:
//! there are weeks left.

use std::time::{Duration, SystemTime};

use super::backoff;

/// Window of the first repetition.
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// Longest wait between attempts: a certificate near its end is still worth an hour's delay.
const RETRY_CAP: Duration = Duration::from_secs(3600);

/// The state of one certificate's renewal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    due: SystemTime,
    failures: u32,
    /// On CLOCK_BOOTTIME.
    retry_at: Duration,
}

impl Renewal {
    /// `phase` is a number drawn from the identity.
    pub(super) fn new(not_before: SystemTime, not_after: SystemTime, phase: u32) -> Self {
        let life = not_after.duration_since(not_before).unwrap_or_default();
        let due = not_before + life.mul_f64(0.4) + backoff::share(life.mul_f64(0.2), phase);
        Self { due, failures: 0, retry_at: Duration::ZERO }
    }

    /// For a certificate that has just been issued: half of what is left of it counts, so that one
    /// which is backdated by more than its life is not renewed without end.
    pub(super) fn of_fresh(issued: SystemTime, not_after: SystemTime, phase: u32) -> Self {
        Self::new(issued.min(not_after), not_after, phase)
    }

    /// Whether to try now.
    pub(super) fn is_due(&self, wall: SystemTime, now: Duration) -> bool {
        wall >= self.due && now >= self.retry_at
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, now: Duration, random: u32) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + backoff::delay(self.failures, RETRY_FIRST, RETRY_CAP, random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn renewal_is_due_at_half_life_give_or_take_a_tenth() {
        let start = SystemTime::UNIX_EPOCH + 1000 * DAY;
        for (phase, day) in [(0, 36), (u32::MAX / 2, 45), (u32::MAX, 54)] {
            let renewal = Renewal::new(start, start + 90 * DAY, phase);
            assert!(!renewal.is_due(start + day * DAY - DAY / 10, Duration::ZERO), "{phase}");
            assert!(renewal.is_due(start + day * DAY + DAY / 10, Duration::ZERO), "{phase}");
        }
    }

    #[test]
    fn a_failed_attempt_waits_but_is_never_given_up() {
        let start = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let mut renewal = Renewal::new(start, start + 90 * DAY, 0);
        for _ in 0..100 {
            renewal.failed(Duration::from_secs(50), u32::MAX);
            assert!(!renewal.is_due(start + 80 * DAY, Duration::from_secs(51)));
            assert!(renewal.is_due(start + 80 * DAY, Duration::from_secs(50) + RETRY_CAP));
        }
    }
}
