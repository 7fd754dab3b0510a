//! Whether this machine's clock is fit to talk to a collector. Pure.
//!
//! A clock that is ahead trusts no collector, and one that is behind is seen by the machine's own
//! certificate, which cannot have been issued in the future.

use std::time::SystemTime;

use crate::identity::Identity;
use crate::language::Key;
use crate::status::rfc3339;

/// Why the clock is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockDoubt {
    /// What is the matter and what to do.
    pub(super) key: Key,
    /// The time it says, and the dates that it is held against.
    pub(super) detail: String,
}

/// What the running agent says of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentSays {
    /// By it, the collector's certificate is over.
    CollectorOver,
    /// Nothing against it, or the agent was not heard.
    Nothing,
}

impl ClockDoubt {
    /// Holds the clock against the machine's certificate and what the running agent met with.
    pub fn of(now: SystemTime, identity: &Identity, agent: AgentSays) -> Option<Self> {
        let (from, until) = (identity.not_before, identity.not_after);
        let key = match agent {
            _ if now < from => Key::ClockBehind,
            AgentSays::CollectorOver => Key::ClockDoubted,
            AgentSays::Nothing if now >= until => Key::CertificateOver,
            AgentSays::Nothing => return None,
        };
        let [now, from, until] = [now, from, until].map(rfc3339);
        Some(Self { key, detail: format!("{now}; {from} – {until}") })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::tests::Authority;
    use crate::identity::{Replace, Store};

    #[test]
    fn a_clock_is_doubted_outside_the_dates_of_the_own_certificate_or_by_the_running_agent() {
        let place = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let new = Authority::new().identity();
        let identity = Store::new(place.path()).install(new, Replace::No, now).unwrap();
        let year = Duration::from_secs(365 * 86_400);
        for (at, agent, expected) in [
            (now, AgentSays::Nothing, None),
            (now, AgentSays::CollectorOver, Some(Key::ClockDoubted)),
            (now - year, AgentSays::Nothing, Some(Key::ClockBehind)),
            (now - year, AgentSays::CollectorOver, Some(Key::ClockBehind)),
            (now + year, AgentSays::Nothing, Some(Key::CertificateOver)),
            (now + year, AgentSays::CollectorOver, Some(Key::ClockDoubted)),
        ] {
            let doubt = ClockDoubt::of(at, &identity, agent);
            assert_eq!(doubt.map(|doubt| doubt.key), expected);
        }
    }
}
