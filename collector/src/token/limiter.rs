//! Limits on attempts to enrol or to recover: per source address, and per token or agent. A guess at 256 random bits
//! is hopeless at any rate; the limits keep an open listener cheap and its audit readable.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

/// Attempts at once: an agency behind one address enrols all its machines in one go.
const BURST: f64 = 30.0;
/// Attempts a minute in the long run.
const PER_MINUTE: f64 = 30.0;
/// Characters of an agent's id, the longer of the two kinds.
const SUBJECT_CHARS_MAX: usize = 36;
/// Sources and subjects that are remembered. When there are more, everyone new waits until old
/// ones have recovered and are forgotten.
const REMEMBERED_MAX: usize = 4_096;

/// Remembers attempts.
#[derive(Debug, Default)]
pub struct AttemptLimiter {
    sources: Buckets<IpAddr>,
    subjects: Buckets<String>,
}

impl AttemptLimiter {
    /// Whether another attempt from `source` with the token `id` may be looked at.
    pub fn admits(&mut self, source: IpAddr, id: &str, mono: Duration) -> bool {
        self.admits_source(source, mono) && self.admits_subject(id, mono)
    }

    /// Whether `source` may attempt anything now, before it is known what.
    pub fn admits_source(&mut self, source: IpAddr, mono: Duration) -> bool {
        self.sources.spend(source, mono)
    }

    /// Whether another attempt with this token, or for this agent, may be looked at.
    pub fn admits_subject(&mut self, id: &str, mono: Duration) -> bool {
        // No token's and no agent's id is longer; others cannot name one anyway.
        self.subjects.spend(id.chars().take(SUBJECT_CHARS_MAX).collect(), mono)
    }
}

#[derive(Debug)]
struct Buckets<K> {
    levels: HashMap<K, (f64, Duration)>,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { levels: HashMap::new() }
    }
}

impl<K: Hash + Eq> Buckets<K> {
    fn spend(&mut self, key: K, mono: Duration) -> bool {
        if self.levels.len() >= REMEMBERED_MAX && !self.levels.contains_key(&key) {
            self.levels.retain(|_, (level, at)| refilled(*level, *at, mono) < BURST);
            if self.levels.len() >= REMEMBERED_MAX {
                return false;
            }
        }
        let (level, at) = self.levels.entry(key).or_insert((BURST, mono));
        *level = refilled(*level, *at, mono);
        *at = mono;
        if *level < 1.0 {
            return false;
        }
        *level -= 1.0;
        true
    }
}

fn refilled(level: f64, at: Duration, mono: Duration) -> f64 {
    (level + mono.saturating_sub(at).as_secs_f64() * PER_MINUTE / 60.0).min(BURST)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn source(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn a_source_and_a_token_each_have_their_limit() {
        let mut limiter = AttemptLimiter::default();
        let at = Duration::from_secs;
        let by_source = (0..40).filter(|n| limiter.admits(source(1), &format!("t{n}"), at(0)));
        assert_eq!(by_source.count(), 30);
        let by_token = (100..140).filter(|n| limiter.admits(source(*n), "one", at(0)));
        assert_eq!(by_token.count(), 30);
        assert!(!limiter.admits(source(1), "other", at(1)));
        assert!(limiter.admits(source(1), "other", at(4)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let mut limiter = AttemptLimiter::default();
        for number in 0..10_000 {
            limiter.admits(source(number), &number.to_string(), Duration::ZERO);
        }
        assert!(limiter.sources.levels.len() <= REMEMBERED_MAX);
        assert!(limiter.subjects.levels.len() <= REMEMBERED_MAX);
        assert!(!limiter.admits(source(99_999), "new", Duration::ZERO));
        assert!(limiter.admits(source(99_999), "new", Duration::from_secs(3)));
    }
}
