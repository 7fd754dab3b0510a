//! The collector's two clocks, read at the edge and passed inwards as values.

use std::time::{Duration, Instant, SystemTime};

use crate::fleet::Now;

/// A monotonic clock that started with the process, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Instant,
    base_wall: SystemTime,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self { base: Instant::now(), base_wall: SystemTime::now() }
    }

    /// The moment on both.
    pub fn now(&self) -> Now {
        Now { mono: self.base.elapsed(), wall: SystemTime::now() }
    }

    /// How far the wall clock has been stepped since the start, in seconds: ahead is positive. What
    /// NTP slews moves both clocks and is no step.
    pub fn step_seconds(&self) -> f64 {
        step_seconds(self.base_wall, self.base.elapsed(), SystemTime::now())
    }
}

fn step_seconds(base: SystemTime, elapsed: Duration, now: SystemTime) -> f64 {
    match now.duration_since(base) {
        Ok(since) => since.as_secs_f64() - elapsed.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64() - elapsed.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_the_monotonic_clock_did_not_see() {
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let (hour, year) = (Duration::from_secs(3_600), Duration::from_secs(365 * 86_400));
        assert_eq!(step_seconds(base, hour, base + hour), 0.0);
        assert_eq!(step_seconds(base, hour, base + hour + year), year.as_secs_f64());
        assert_eq!(step_seconds(base, hour, base + hour - year), -year.as_secs_f64());
    }
}
