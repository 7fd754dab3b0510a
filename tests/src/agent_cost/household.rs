//! A process with everything that it started, as the kernel counts them in `/proc` (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Unit of the times in `/proc/<pid>/stat`: `USER_HZ`, 100 on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A process and its descendants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Household {
    head: u32,
}

/// Memory of all of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) resident_kib: u64,
    pub(super) proportional_kib: u64,
    /// Belongs to no file: heap, stacks, data that was changed.
    pub(super) anonymous_kib: u64,
}

/// Of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Its own, and of the children that it has waited for.
    ticks: u64,
}

impl Household {
    pub(super) fn of(head: u32) -> Self {
        Self { head }
    }

    /// User and system time of all, and of the children that have ended; to 10 ms.
    pub(super) fn processor(self) -> Result<Duration> {
        let ticks: u64 = self.members()?.values().map(|stat| stat.ticks).sum();
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    pub(super) fn memory(self) -> Result<Memory> {
        let mut memory = Memory::default();
        for pid in self.members()?.into_keys() {
            // One that ends meanwhile has no memory any more.
            let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
                continue;
            };
            memory.resident_kib += kib(&rollup, "Rss:");
            memory.proportional_kib += kib(&rollup, "Pss:");
            memory.anonymous_kib += kib(&rollup, "Anonymous:");
        }
        Ok(memory)
    }

    fn members(self) -> Result<BTreeMap<u32, Stat>> {
        let entries = fs::read_dir("/proc").context("list the processes")?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let all: BTreeMap<u32, Stat> = pids
            .filter_map(|pid: u32| {
                let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                Some((pid, stat(&text)?))
            })
            .collect();
        ensure!(all.contains_key(&self.head), "the process {} has ended", self.head);
        let belongs = |pid: u32| {
            let mut line = std::iter::successors(Some(pid), |pid| {
                all.get(pid).map(|stat| stat.parent).filter(|parent| *parent > 1)
            });
            line.any(|pid| pid == self.head)
        };
        Ok(all.iter().filter(|(pid, _)| belongs(**pid)).map(|(pid, stat)| (*pid, *stat)).collect())
    }
}

/// The name, in brackets, may hold anything; what follows its last bracket are numbers.
fn stat(text: &str) -> Option<Stat> {
    let numbers: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| numbers.get(at)?.parse::<u64>().ok();
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks })
}

fn kib(rollup: &str, key: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_counts_with_its_children() {
        let text = "7 (a) b) S 3 7 7 0 -1 0 0 0 0 0 10 20 3 4 20 0 1 0 5 0 0";
        assert_eq!(stat(text), Some(Stat { parent: 3, ticks: 37 }));
        assert_eq!(stat("7 (a"), None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        let members = Household::of(std::process::id()).members().expect("this process lives");
        let has_both = [std::process::id(), child.id()].iter().all(|pid| members.contains_key(pid));
        child.kill().and_then(|()| child.wait()).expect("ended");
        assert!(has_both, "{members:?}");
        let memory = Household::of(std::process::id()).memory().expect("readable");
        assert!(memory.resident_kib >= memory.proportional_kib && memory.proportional_kib > 0);
        assert!(memory.resident_kib > memory.anonymous_kib && memory.anonymous_kib > 0);
    }
}
