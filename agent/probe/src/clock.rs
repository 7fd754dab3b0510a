//! Round-trip times from two clocks.
//!
//! The kernel stamps a received packet with the wall clock (`SO_TIMESTAMPNS`), before any
//! scheduling delay of ours; the wall clock may step between sending and receiving. The
//! monotonic clock never steps, but is read only when we run. So both are kept: the kernel's
//! stamp counts unless a comparison of the clocks shows that it cannot be true.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// `CLOCK_MONOTONIC`.
    pub(crate) mono: Duration,
    /// `CLOCK_REALTIME`, since 1970.
    pub(crate) wall: Duration,
}

/// One answered packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Round-trip time.
    pub rtt: Duration,
    /// Which clock gave it.
    pub timing: Timing,
}

/// Where a round-trip time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timing {
    /// The kernel's receive stamp: exact.
    Kernel,
    /// The monotonic clock, because the packet carried no stamp. May include our own delay.
    Unstamped,
    /// The monotonic clock, because the wall clock stepped in between.
    WallClockStepped,
    /// The monotonic clock, because the kernel's stamp precedes the sending.
    Negative,
}

/// The wall clock may be slewed by up to 500 ppm (`adjtimex(2)`), which is 5 ms within
/// [`crate::LATE_GRACE`]; reading two clocks takes a scheduling moment. A larger change of their
/// distance is a step.
const STEP_MIN: Duration = Duration::from_millis(6);

impl Stamp {
    /// Reads both clocks. The monotonic one comes last, nearest to what follows.
    pub(crate) fn now() -> Self {
        let wall = clock_gettime(ClockId::Realtime);
        let mono = clock_gettime(ClockId::Monotonic);
        Self {
            mono: duration(mono.tv_sec, mono.tv_nsec),
            wall: duration(wall.tv_sec, wall.tv_nsec),
        }
    }
}

/// The kernel's clocks never read before their epoch; a nonsensical value becomes 0.
fn duration(seconds: i64, nanoseconds: i64) -> Duration {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
    Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds.into()))
}

/// The round trip of a packet sent at `sent`, stamped by the kernel with `arrived` on the wall
/// clock, and handed to us at `read`.
pub(crate) fn round_trip(sent: Stamp, arrived: Option<Duration>, read: Stamp) -> Answer {
    let monotonic = read.mono.saturating_sub(sent.mono);
    let by_monotonic = |timing| Answer { rtt: monotonic, timing };
    let Some(arrived) = arrived else { return by_monotonic(Timing::Unstamped) };
    let distance_change = (read.wall + sent.mono).abs_diff(sent.wall + read.mono);
    if distance_change >= STEP_MIN {
        return by_monotonic(Timing::WallClockStepped);
    }
    match arrived.checked_sub(sent.wall) {
        None => by_monotonic(Timing::Negative),
        // The kernel stamps before we read; a longer time means that the clock stepped and
        // stepped back.
        Some(rtt) if rtt > monotonic + STEP_MIN => by_monotonic(Timing::WallClockStepped),
        Some(rtt) => Answer { rtt, timing: Timing::Kernel },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[track_caller]
    fn check(sent: (u64, u64), arrived: Option<u64>, read: (u64, u64), rtt: u64, timing: Timing) {
        let stamp = |(mono, wall)| Stamp { mono: ms(mono), wall: ms(wall) };
        let answer = round_trip(stamp(sent), arrived.map(ms), stamp(read));
        assert_eq!(answer, Answer { rtt: ms(rtt), timing });
    }

    #[test]
    fn the_kernel_stamp_counts_unless_the_clocks_disagree() {
        check((100, 5_000), Some(5_020), (150, 5_050), 20, Timing::Kernel);
        check((100, 5_000), None, (150, 5_050), 50, Timing::Unstamped);
        check((100, 5_000), Some(8_020), (150, 8_050), 50, Timing::WallClockStepped);
        check((100, 5_000), Some(4_020), (150, 4_050), 50, Timing::WallClockStepped);
        check((100, 5_000), Some(4_999), (150, 5_050), 50, Timing::Negative);
        check((100, 5_000), Some(5_500), (150, 5_050), 50, Timing::WallClockStepped);
        // A slewed clock is no step.
        check((100, 5_000), Some(5_020), (150, 5_052), 20, Timing::Kernel);
    }

    proptest! {
        #[test]
        fn any_stamps_give_a_time_no_longer_than_we_waited(
            sent in any::<(u32, u32)>(), arrived in any::<Option<u32>>(), read in any::<(u32, u32)>(),
        ) {
            let stamp = |(mono, wall): (u32, u32)| Stamp { mono: ms(mono.into()), wall: ms(wall.into()) };
            let (sent, read) = (stamp(sent), stamp(read));
            let answer = round_trip(sent, arrived.map(|at| ms(at.into())), read);
            prop_assert!(answer.rtt <= read.mono.saturating_sub(sent.mono) + STEP_MIN);
        }
    }
}
