//! The machine's clocks, read in one place. Everything that decides takes the time as a value.

use std::time::{Duration, SystemTime};

use haidang_proto::model::record::Moment;
use rustix::time::{ClockId, Timespec, clock_gettime};
use uuid::Uuid;

use crate::connectivity::Now;

/// The clocks of this boot.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot_id: Uuid,
}

impl Clock {
    /// Learns the boot id. Where the kernel does not tell it, one is drawn for this process: times
    /// are then comparable within the process only, which is the truth.
    pub fn new() -> Self {
        let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let boot_id = told.and_then(|text| text.trim().parse().ok()).unwrap_or_else(Uuid::new_v4);
        Self { boot_id }
    }

    /// Every clock, now.
    pub fn now(&self) -> Now {
        Now { moment: self.moment(), monotonic: duration(clock_gettime(ClockId::Monotonic)) }
    }

    /// Boot id, CLOCK_BOOTTIME and wall clock, now.
    pub fn moment(&self) -> Moment {
        Moment { boot_id: self.boot_id, boottime: self.boottime(), wall: SystemTime::now() }
    }

    /// Processor time of this process and all its threads.
    pub fn processor(&self) -> Duration {
        duration(clock_gettime(ClockId::ProcessCPUTime))
    }

    /// CLOCK_BOOTTIME, which goes on in sleep and is never set.
    pub fn boottime(&self) -> Duration {
        duration(clock_gettime(ClockId::Boottime))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// A random number for jitter. Where the kernel has none to give, the nanoseconds must do.
pub(crate) fn random() -> u32 {
    getrandom::u32().unwrap_or_else(|_| clock_gettime(ClockId::Monotonic).tv_nsec as u32)
}

/// The kernel's clocks never read before their epoch; a nonsensical value becomes 0.
fn duration(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds.into()))
}
