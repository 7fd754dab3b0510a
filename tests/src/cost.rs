//! What a process has cost so far, as the kernel counts it in `/proc` (proc(5)).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Unit of the times in `/proc/<pid>/stat`: `USER_HZ`, 100 on every Linux.
const TICKS_PER_SECOND: u64 = 100;
/// Processor time that does not grow for so long is at its end.
const QUIET: Duration = Duration::from_millis(250);
const QUIET_LOOKS_MAX: u32 = 120;

/// Processor time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// User and system time of all its threads, to 10 ms.
    pub cpu: Duration,
    /// Resident memory; the kernel's own for its sockets is not in it.
    pub resident_bytes: u64,
    /// Its threads.
    pub threads: u64,
}

impl Cost {
    /// Reads it.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = read(pid, "stat")?;
        let ticks = ticks(&stat).context("/proc/<pid>/stat has another shape")?;
        let status = read(pid, "status")?;
        Ok(Self {
            cpu: Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND),
            resident_bytes: number(&status, "VmRSS:")? * 1_024,
            threads: number(&status, "Threads:")?,
        })
    }

    /// Reads it once the process has worked off what it has queued, and its processor time stands
    /// still.
    ///
    /// # Errors
    /// When there is no such process, or it is at work for half a minute.
    pub async fn settled(pid: u32) -> Result<Self> {
        let mut last = Self::of(pid)?;
        for _ in 0..QUIET_LOOKS_MAX {
            tokio::time::sleep(QUIET).await;
            let now = Self::of(pid)?;
            if now.cpu == last.cpu {
                return Ok(now);
            }
            last = now;
        }
        bail!("process {pid} is still at work after {:?}", QUIET * QUIET_LOOKS_MAX)
    }
}

/// Resident memory with shared pages divided among those who share them. The kernel walks the
/// process's page tables for it: not for sampling.
///
/// # Errors
/// When there is no such process, or it is another user's.
pub fn proportional_bytes(pid: u32) -> Result<u64> {
    Ok(number(&read(pid, "smaps_rollup")?, "Pss:")? * 1_024)
}

/// The highest resident memory since the start or since [`reset_peak`].
///
/// # Errors
/// When there is no such process.
pub fn peak_bytes(pid: u32) -> Result<u64> {
    Ok(number(&read(pid, "status")?, "VmHWM:")? * 1_024)
}

/// Begins the peak anew.
///
/// # Errors
/// When there is no such process, or it is another user's.
pub fn reset_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("reset the peak by {path}"))
}

/// Its open files, sockets among them.
///
/// # Errors
/// When there is no such process, or it is another user's.
pub fn open_files(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).with_context(|| format!("list {path}"))?.count())
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// `utime` and `stime`, the 14th and 15th field; the second, the name, may hold spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number behind a key that begins a line.
fn number(text: &str, key: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{key} is missing or no number"))
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
    fn this_process_has_memory_threads_and_files() {
        let own = std::process::id();
        let cost = Cost::of(own).expect("it runs");
        assert!(cost.resident_bytes > 0 && cost.threads > 0, "{cost:?}");
        assert!(proportional_bytes(own).expect("it is ours") > 0);
        assert!(open_files(own).expect("it is ours") > 2);
        assert_eq!(number("VmRSS:\t  12 kB\n", "VmRSS:").expect("it is there"), 12);
    }

    #[test]
    fn the_peak_begins_anew() {
        let own = std::process::id();
        let large = vec![1_u8; 64 << 20];
        let before = peak_bytes(own).expect("it runs");
        drop(large);
        reset_peak(own).expect("it is ours");
        assert!(peak_bytes(own).expect("it runs") < before);
    }
}
