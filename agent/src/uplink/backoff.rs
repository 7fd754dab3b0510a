//! How long to wait before trying again. Pure; the random number is passed in.
//!
//! Full jitter, applied after the cap: jitter within a cap would bring a whole fleet that has
//! reached the cap back in one beat.

use std::time::Duration;

/// Doublings that are counted; the cap is reached long before.
const DOUBLINGS_MAX: u32 = 16;

/// A uniform share of `first`, doubled with each failure after the first, up to `cap`.
pub(super) fn delay(failures: u32, first: Duration, cap: Duration, random: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
    let ceiling = first.saturating_mul(1 << doublings).min(cap);
    share(ceiling, random)
}

/// A uniform share of a time.
pub(super) fn share(time: Duration, random: u32) -> Duration {
    time.mul_f64(f64::from(random) / (f64::from(u32::MAX) + 1.0))
}

/// The next moment on the beat of `interval` whose phase is `phase`, a number drawn from the
/// identity: agents that start together do not report together.
pub(super) fn next_beat(now: Duration, interval: Duration, phase: u32) -> Duration {
    let interval_ms = interval.as_millis().max(1);
    let offset_ms = share(interval, phase).as_millis();
    let now_ms = now.as_millis();
    let into_beat_ms = (now_ms + interval_ms - offset_ms % interval_ms) % interval_ms;
    let wait_ms = interval_ms - into_beat_ms;
    now + Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        for (failures, ceiling) in [(0, 10), (1, 10), (2, 20), (3, 40), (4, 60), (99, 60)] {
            let longest = delay(failures, seconds(10), seconds(60), u32::MAX);
            assert!(longest < seconds(ceiling) && longest > seconds(ceiling - 1), "{failures}");
            assert_eq!(delay(failures, seconds(10), seconds(60), 0), Duration::ZERO);
        }
    }

    #[test]
    fn at_the_cap_a_fleet_is_spread_over_the_whole_of_it() {
        let mut per_quarter = [0; 4];
        for n in 0..1000_u32 {
            let at = delay(30, seconds(10), seconds(60), n.wrapping_mul(2_654_435_769));
            per_quarter[(at.as_secs() / 15) as usize] += 1;
        }
        assert!(per_quarter.iter().all(|count| (200..300).contains(count)), "{per_quarter:?}");
    }

    proptest! {
        #[test]
        fn beats_are_an_interval_apart_and_keep_their_phase(
            now_ms in 0_u64..1_000_000_000, interval_ms in 500_u64..300_000, phase: u32,
        ) {
            let (now, interval) = (Duration::from_millis(now_ms), Duration::from_millis(interval_ms));
            let beat = next_beat(now, interval, phase);
            prop_assert!(beat > now && beat <= now + interval);
            prop_assert_eq!(next_beat(beat, interval, phase), beat + interval);
        }
    }
}
