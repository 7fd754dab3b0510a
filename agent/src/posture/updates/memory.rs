//! When this agent first saw each update that is not installed: no list says when a fix came out.
//!
//! Pure. Kept by whoever runs the passes, as JSON in the state directory. What was there at the
//! very first look may be of any age, and is taken to be at least as old as that look.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Update;

/// First sights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The first look, in seconds since 1970.
    since_unix_s: u64,
    /// By package and version.
    first_seen_unix_s: BTreeMap<String, u64>,
}

/// How long updates have been known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Since the agent saw it come.
    Exactly(Duration),
    /// Since the very first look, or longer.
    AtLeast(Duration),
}

impl Waiting {
    /// The time, or the least it can be.
    pub const fn known(self) -> Duration {
        match self {
            Self::Exactly(time) | Self::AtLeast(time) => time,
        }
    }
}

impl Memory {
    /// The first look.
    pub fn new(now: SystemTime) -> Self {
        Self { since_unix_s: unix_s(now), first_seen_unix_s: BTreeMap::new() }
    }

    /// Takes note of what waits now, and forgets what waits no more.
    pub fn observe(&mut self, updates: &[Update], now: SystemTime) {
        let before = std::mem::take(&mut self.first_seen_unix_s);
        self.first_seen_unix_s = updates
            .iter()
            .map(|update| {
                let key = key(update);
                let seen = before.get(&key).copied().unwrap_or_else(|| unix_s(now));
                (key, seen)
            })
            .collect();
    }

    /// How long the oldest of them has waited; `None` when one of them was never noted.
    pub fn oldest(&self, updates: &[Update], now: SystemTime) -> Option<Waiting> {
        let seen = updates.iter().map(|update| self.first_seen_unix_s.get(&key(update)).copied());
        let oldest = seen.collect::<Option<Vec<u64>>>()?.into_iter().min()?;
        // A clock that was set back makes nothing older than it is.
        let waited = Duration::from_secs(unix_s(now).saturating_sub(oldest));
        Some(if oldest <= self.since_unix_s {
            Waiting::AtLeast(waited)
        } else {
            Waiting::Exactly(waited)
        })
    }
}

fn key(update: &Update) -> String {
    format!("{} {}", update.package, update.version)
}

fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400)
    }

    fn update(package: &str) -> Update {
        Update { package: package.into(), version: "2".into() }
    }

    #[test]
    fn what_was_there_at_the_first_look_is_at_least_so_old_and_what_came_later_exactly() {
        let mut memory = Memory::new(at(100));
        memory.observe(&[update("old")], at(100));
        memory.observe(&[update("old"), update("new")], at(110));
        let day = Duration::from_secs(86_400);
        assert_eq!(memory.oldest(&[update("old")], at(120)), Some(Waiting::AtLeast(day * 20)));
        assert_eq!(memory.oldest(&[update("new")], at(120)), Some(Waiting::Exactly(day * 10)));
        assert_eq!(memory.oldest(&[update("other")], at(120)), None);
        memory.observe(&[update("new")], at(121));
        assert_eq!(memory.oldest(&[update("old")], at(122)), None);
    }
}
