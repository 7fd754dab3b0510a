//! Which collector to try next, and when. Pure.
//!
//! The list is ordered: dedicated listeners by preference, then permitted fallbacks. A fallback
//! is tried only when every dedicated one has failed, and while one carries the reports the
//! dedicated ones are tried on: nobody settles on the fallback. Over it a good path is told only
//! once it has been seen again after attempts of the same good time have failed
//! ([`Choice::is_missed_on_a_good_path`]). An agent on a later dedicated listener returns to an
//! earlier one too, but spread over ten minutes, because nothing is wrong.

use std::net::SocketAddr;
use std::time::Duration;

use super::backoff;

/// Longest wait for a listener that does not answer: what a healed path may cost at most.
const RETRY_CAP: Duration = Duration::from_secs(60);
/// Over how long agents come back to a preferred listener.
const RETURN_WINDOW: Duration = Duration::from_secs(600);
/// A path that was just seen to work again is tried within so long.
const HURRY_WINDOW: Duration = Duration::from_secs(2);

/// By which way a listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// By the dedicated network: bound to its device and to an address of the agency.
    Dedicated,
    /// By whatever way the machine has: explains a failure, never proves the path.
    Fallback,
}

/// A listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// How it is reached.
    pub way: Way,
}

/// The list, and how each listener fared.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    candidates: Vec<Candidate>,
    /// The one that carries the reports.
    connected: Option<usize>,
    /// Window of the first retry: the server sizes it to its fleet, by the report interval.
    first_window: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    target: Target,
    failures: u32,
    /// When it was last tried, or last sent a report. On CLOCK_BOOTTIME, like the next.
    tried_at: Option<Duration>,
    failed: Option<Failed>,
    retry_at: Duration,
}

/// What failed last.
#[derive(Debug, Clone, Copy)]
struct Failed {
    began: Duration,
    ended: Duration,
}

impl Choice {
    pub(super) fn new(
        dedicated: &[SocketAddr],
        fallback: &[SocketAddr],
        first_window: Duration,
    ) -> Self {
        let candidate = |way| {
            move |address: &SocketAddr| Candidate {
                target: Target { address: *address, way },
                failures: 0,
                tried_at: None,
                failed: None,
                retry_at: Duration::ZERO,
            }
        };
        let dedicated = dedicated.iter().map(candidate(Way::Dedicated));
        let candidates = dedicated.chain(fallback.iter().map(candidate(Way::Fallback))).collect();
        Self { candidates, connected: None, first_window }
    }

    pub(super) fn target(&self, index: usize) -> Option<Target> {
        self.candidates.get(index).map(|candidate| candidate.target)
    }

    pub(super) fn connected(&self) -> Option<usize> {
        self.connected
    }

    /// The window of the first retry follows the settings in force.
    pub(super) fn set_first_window(&mut self, window: Duration) {
        self.first_window = window;
    }

    /// Which to try next, and when (now, if that has passed). While connected, only better ones.
    pub(super) fn next(&self, now: Duration) -> Option<(usize, Duration)> {
        let better = self.connected.unwrap_or(self.candidates.len());
        let dedicated_failed = self
            .candidates
            .iter()
            .all(|candidate| candidate.target.way == Way::Fallback || candidate.failures > 0);
        let eligible =
            self.candidates.iter().enumerate().take(better).filter(|(_, candidate)| {
                candidate.target.way == Way::Dedicated || dedicated_failed
            });
        let due = |candidate: &Candidate| candidate.retry_at.max(now);
        eligible
            .map(|(index, candidate)| (index, due(candidate)))
            .min_by_key(|(index, at)| (*at, *index))
    }

    /// A listener is about to be tried, or to be sent a report.
    pub(super) fn tried(&mut self, index: usize, now: Duration) {
        if let Some(candidate) = self.candidates.get_mut(index) {
            candidate.tried_at = Some(now);
        }
    }

    /// A listener could not be reached, or stopped answering.
    pub(super) fn failed(&mut self, index: usize, now: Duration, random: u32) {
        if self.connected == Some(index) {
            self.connected = None;
        }
        let first = self.first_window;
        if let Some(candidate) = self.candidates.get_mut(index) {
            candidate.failures = candidate.failures.saturating_add(1);
            let began = candidate.tried_at.unwrap_or(now);
            candidate.failed = Some(Failed { began, ended: now });
            let wait = backoff::delay(candidate.failures, first, RETRY_CAP, random);
            candidate.retry_at = now + wait;
        }
    }

    /// Whether the dedicated listeners are out of reach although the path is good: each was tried
    /// in vain since the path is held to be up, and a cycle that began after the last of these
    /// failures has found it good. Before that, a failed listener is the first sign of a cut that
    /// the probes are about to see, or a leftover of one that has just healed: an attempt that
    /// began during the cut says nothing of the path after it, whenever it ends.
    pub(super) fn is_missed_on_a_good_path(
        &self,
        up_since: Duration,
        proved_at: Option<Duration>,
    ) -> bool {
        let mut dedicated =
            self.candidates.iter().filter(|candidate| candidate.target.way == Way::Dedicated);
        dedicated.all(|candidate| {
            candidate.failed.is_some_and(|Failed { began, ended }| {
                began >= up_since && proved_at.is_some_and(|proved_at| proved_at > ended)
            })
        })
    }

    /// A connection was made: it is to carry the reports. Whether it does is not known yet, for
    /// in TLS 1.3 a client learns with the first answer whether it was let in.
    pub(super) fn reached(&mut self, index: usize) {
        self.connected = Some(index);
    }

    /// A report arrived at a listener: its failures are forgiven.
    pub(super) fn proved(&mut self, index: usize, now: Duration, random: u32) {
        let way = self.target(index).map(|target| target.way);
        for (position, candidate) in self.candidates.iter_mut().enumerate() {
            if position == index {
                candidate.failures = 0;
                candidate.retry_at = now;
            } else if position < index
                && way == Some(Way::Dedicated)
                && candidate.retry_at <= now + RETRY_CAP
            {
                candidate.retry_at = now + RETRY_CAP + backoff::share(RETURN_WINDOW, random);
            }
        }
    }

    /// The probes have just seen the dedicated path work again.
    pub(super) fn hurry(&mut self, now: Duration, random: u32) {
        let soon = now + backoff::share(HURRY_WINDOW, random);
        let waiting = self.candidates.iter_mut().enumerate();
        for (_, candidate) in waiting.filter(|(index, candidate)| {
            candidate.target.way == Way::Dedicated && self.connected != Some(*index)
        }) {
            candidate.retry_at = candidate.retry_at.min(soon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);
    const HALF: u32 = u32::MAX / 2;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 18, 0, 1], port))
    }

    /// Two dedicated listeners (0, 1) and two fallbacks (2, 3).
    fn choice() -> Choice {
        let window = Duration::from_secs(10);
        Choice::new(&[address(1), address(2)], &[address(3), address(4)], window)
    }

    #[track_caller]
    fn next(choice: &Choice, index: usize, wait_seconds: f64) {
        let (found, at) = choice.next(NOW).expect("there is always something to try");
        assert_eq!(found, index);
        assert!(((at - NOW).as_secs_f64() - wait_seconds).abs() < 0.01, "{:?}", at - NOW);
    }

    #[test]
    fn the_order_is_kept_and_the_fallback_comes_after_every_dedicated_listener() {
        let mut choice = choice();
        next(&choice, 0, 0.0);
        choice.failed(0, NOW, HALF);
        next(&choice, 1, 0.0);
        choice.failed(1, NOW, HALF);
        next(&choice, 2, 0.0);
        choice.failed(2, NOW, HALF);
        next(&choice, 3, 0.0);
        choice.failed(3, NOW, HALF);
        next(&choice, 0, 5.0);
    }

    #[test]
    fn without_a_fallback_only_dedicated_listeners_are_tried() {
        let mut choice = Choice::new(&[address(1)], &[], Duration::from_secs(10));
        for (failures, wait) in [(1, 5.0), (2, 10.0), (3, 20.0), (4, 30.0), (5, 30.0)] {
            choice.failed(0, NOW, HALF);
            assert_eq!(choice.candidates[0].failures, failures);
            next(&choice, 0, wait);
        }
    }

    #[test]
    fn nobody_settles_on_the_fallback() {
        let mut choice = choice();
        choice.failed(0, NOW, HALF);
        choice.failed(1, NOW, HALF);
        choice.reached(2);
        choice.proved(2, NOW, HALF);
        next(&choice, 0, 5.0);
        for _ in 0..20 {
            choice.failed(0, NOW, HALF);
            choice.failed(1, NOW, HALF);
        }
        next(&choice, 0, 30.0);
        choice.reached(0);
        assert_eq!(choice.next(NOW), None, "nothing is better than the first");
    }

    #[test]
    fn a_good_path_is_believed_beside_failed_listeners_only_by_evidence_after_the_failures() {
        let second = Duration::from_secs(1);
        let mut choice = choice();
        let missed = |choice: &Choice, up_since, proved_at| {
            choice.is_missed_on_a_good_path(up_since, Some(proved_at))
        };
        assert!(!missed(&choice, Duration::ZERO, NOW), "nothing was tried");
        choice.failed(0, NOW, HALF);
        assert!(!missed(&choice, Duration::ZERO, NOW + second), "the other was not tried");
        choice.failed(1, NOW, HALF);
        assert!(missed(&choice, Duration::ZERO, NOW + second));
        assert!(!choice.is_missed_on_a_good_path(Duration::ZERO, None));
        assert!(!missed(&choice, Duration::ZERO, NOW), "seen before the failure, or with it");
        assert!(!missed(&choice, NOW + second, NOW + 2 * second), "they failed before the healing");
        choice.tried(0, NOW + second);
        choice.failed(0, NOW + 3 * second, HALF);
        choice.failed(1, NOW + 3 * second, HALF);
        let at = NOW + 4 * second;
        assert!(missed(&choice, NOW + second, at));
        assert!(
            !missed(&choice, NOW + 2 * second, at),
            "an attempt of the time before the healing"
        );
        choice.tried(0, NOW + 3 * second);
        assert!(!missed(&choice, NOW + 2 * second, at), "how the next one ends is not known");
        let only_fallback = Choice::new(&[], &[address(3)], second);
        assert!(only_fallback.is_missed_on_a_good_path(NOW, None));
    }

    #[test]
    fn the_return_to_a_preferred_listener_is_spread() {
        let mut choice = choice();
        choice.failed(0, NOW, HALF);
        choice.reached(1);
        choice.proved(1, NOW, HALF);
        next(&choice, 0, 360.0);
        choice.proved(1, NOW + Duration::from_secs(10), HALF);
        next(&choice, 0, 360.0);
    }

    #[test]
    fn only_a_report_that_arrived_forgives_failures() {
        let mut choice = Choice::new(&[address(1)], &[], Duration::from_secs(10));
        choice.failed(0, NOW, HALF);
        choice.failed(0, NOW, HALF);
        choice.reached(0);
        choice.failed(0, NOW, HALF);
        next(&choice, 0, 20.0);
        choice.reached(0);
        choice.proved(0, NOW, HALF);
        choice.failed(0, NOW, HALF);
        next(&choice, 0, 5.0);
        assert_eq!(choice.connected(), None);
    }

    #[test]
    fn a_path_that_works_again_is_tried_soon() {
        let mut choice = choice();
        for _ in 0..9 {
            choice.failed(0, NOW, HALF);
            choice.failed(1, NOW, HALF);
        }
        choice.reached(2);
        choice.hurry(NOW, HALF);
        next(&choice, 0, 1.0);
    }
}
