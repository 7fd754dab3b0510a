//! What a process has cost so far, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Unit of the times in `/proc/<pid>/stat`: `USER_HZ`, 100 on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time and memory of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// User and system time of all its threads.
    pub(super) cpu: Duration,
    /// Resident memory; the kernel's own for its sockets is not in it.
    pub(super) resident_bytes: u64,
}

impl Cost {
    /// Reads it.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let stat = read("stat")?;
        let ticks = ticks(&stat).context("/proc/<pid>/stat has another shape")?;
        let status = read("status")?;
        let resident_kib = resident_kib(&status).context("/proc/<pid>/status has no VmRSS")?;
        Ok(Self {
            cpu: Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND),
            resident_bytes: resident_kib * 1_024,
        })
    }
}

/// `utime` and `stime`, the 14th and 15th field; the second, the name, may hold spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_moves_no_field() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 31 11 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let cost = Cost::of(std::process::id()).expect("it runs");
        assert!(cost.resident_bytes > 0);
        assert_eq!(resident_kib("VmRSS:\t  12 kB\n"), Some(12));
    }
}
