//! The kernel's clock discipline, by adjtimex(2) without any change: any user may ask.

use std::time::Duration;

use super::finding::Unknown;

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDiscipline {
    /// Somebody corrects it: STA_UNSYNC is off.
    pub is_synchronised: bool,
    /// The kernel's bound of the error.
    pub error_max: Duration,
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
