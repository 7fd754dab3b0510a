//! The kernel's clock discipline, by adjtimex(2) without any change: any user may ask.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::finding::Unknown;

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDiscipline {
    /// Somebody corrects it: STA_UNSYNC is off.
    pub is_synchronised: bool,
    /// The kernel's bound of the error.
    pub error_max: Duration,
}

/// How far this machine's clock is ahead of the collector's: the collector's time of an answer lies
/// between sending and receiving, so between two numbers, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// At least.
    pub least_ms: i64,
    /// At most.
    pub most_ms: i64,
}

impl ClockOffset {
    /// Whether the clocks agree within a limit; `None` where the answer took too long to tell.
    pub const fn agrees(self, limit_ms: i64) -> Option<bool> {
        let Self { least_ms, most_ms } = self;
        if least_ms >= -limit_ms && most_ms <= limit_ms {
            Some(true)
        } else if least_ms > limit_ms || most_ms < -limit_ms {
            Some(false)
        } else {
            None
        }
    }
}

/// Asks.
///
/// # Errors
/// When the kernel refuses, as under some seccomp filters.
pub fn ask() -> Result<ClockDiscipline, Unknown> {
    let mut timex = empty();
    // SAFETY: adjtimex writes into the structure that it is given and keeps no pointer; all bits
    // of its fields are values, and `modes` zero asks for no change.
    #[expect(unsafe_code, reason = "no safe crate of ours offers adjtimex")]
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(Unknown::from_io("adjtimex", &std::io::Error::last_os_error()));
    }
    Ok(discipline(timex.status, timex.maxerror))
}

fn empty() -> libc::timex {
    // SAFETY: `timex` consists of integers, for which all bits zero are values.
    #[expect(unsafe_code, reason = "libc gives the structure no constructor")]
    unsafe {
        std::mem::zeroed()
    }
}

fn discipline(status: i32, error_max_microseconds: i64) -> ClockDiscipline {
    ClockDiscipline {
        is_synchronised: status & libc::STA_UNSYNC == 0,
        // Never negative; if it were, no error would be small enough.
        error_max: u64::try_from(error_max_microseconds)
            .map_or(Duration::MAX, Duration::from_micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_this_machine_answers() {
        ask().unwrap();
    }

    #[test]
    fn clocks_agree_or_not_only_where_the_answer_was_quick_enough_to_tell() {
        let agrees = |least_ms, most_ms| ClockOffset { least_ms, most_ms }.agrees(5_000);
        assert_eq!(agrees(-20, 35), Some(true));
        assert_eq!(agrees(-5_000, 5_000), Some(true));
        assert_eq!(agrees(4_000, 5_500), None);
        assert_eq!(agrees(5_001, 5_100), Some(false));
        assert_eq!(agrees(-3_600_000, -3_599_000), Some(false));
    }

    #[test]
    fn an_undisciplined_clock_is_told() {
        let free = discipline(libc::STA_UNSYNC, 16_000_000);
        assert_eq!(
            free,
            ClockDiscipline { is_synchronised: false, error_max: Duration::from_secs(16) }
        );
        assert!(discipline(0x2001, 500).is_synchronised);
        assert_eq!(discipline(0, -1).error_max, Duration::MAX);
    }
}
