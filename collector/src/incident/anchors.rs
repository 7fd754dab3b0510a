//! Whether the collector's own anchors fail: none of them answered in several rounds in a row.

use std::time::Duration;

/// Rounds without an answer that count as failing: five seconds, before the first gateway can be
/// called lost.
const BAD_ROUNDS: u8 = 4;
/// Rounds with an answer that end it.
const GOOD_ROUNDS: u8 = 3;
/// A round older than this says nothing about now.
const STALE_AFTER: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct Anchors {
    bad: u8,
    good: u8,
    failing: bool,
    checked_at: Duration,
}

impl Anchors {
    pub(super) fn checked(&mut self, answered: bool, mono: Duration) {
        self.checked_at = mono;
        if answered {
            self.bad = 0;
            self.good = self.good.saturating_add(1);
        } else {
            self.good = 0;
            self.bad = self.bad.saturating_add(1);
        }
        let stays = self.failing && self.good < GOOD_ROUNDS;
        self.failing = stays || self.bad >= BAD_ROUNDS;
    }

    pub(super) fn fail(&self, mono: Duration) -> bool {
        self.failing && mono.saturating_sub(self.checked_at) <= STALE_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bad_rounds_begin_it_and_three_good_ones_end_it() {
        let mut anchors = Anchors::default();
        let rounds = "++---+---++----+--+++---";
        let mut shown = String::new();
        for (second, round) in (1..).zip(rounds.chars()) {
            let at = Duration::from_secs(second);
            anchors.checked(round == '+', at);
            shown.push(if anchors.fail(at) { 'f' } else { '.' });
        }
        assert_eq!(shown, "..............ffffff....");
    }

    #[test]
    fn a_watch_that_has_stopped_says_nothing() {
        let mut anchors = Anchors::default();
        assert!(!anchors.fail(Duration::ZERO));
        (0..4).for_each(|second| anchors.checked(false, Duration::from_secs(second)));
        assert!(anchors.fail(Duration::from_secs(18)));
        assert!(!anchors.fail(Duration::from_secs(19)));
    }
}
