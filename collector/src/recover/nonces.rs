//! Nonces that were handed out and not used yet: at most one an agent, each good for one use and
//! a short while.

use std::collections::HashMap;
use std::time::Duration;

use haidang_proto::model::agency::AgentId;
use subtle::ConstantTimeEq as _;

/// Bytes of a nonce: nobody guesses 256 bits.
pub(super) const NONCE_BYTES: usize = 32;
/// Life of a nonce. An agent answers at once; a line that is barely alive takes seconds.
const LIFE: Duration = Duration::from_secs(60);
/// Agents that may have a nonce at a time; each of them has proved to hold its certificate's key.
/// A city's machines that were all off for months come back over hours.
const NONCES_MAX: usize = 4_096;

/// The nonces.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    of: HashMap<AgentId, Nonce>,
}

#[derive(Debug, Clone, Copy)]
struct Nonce {
    bytes: [u8; NONCE_BYTES],
    made: Duration,
}

impl Nonces {
    /// The nonce of an agent: the one that it has, so that a repeated first call takes nothing
    /// from a second one under way, or else `fresh`. `None` when too many are out.
    pub(super) fn give(
        &mut self,
        agent: AgentId,
        fresh: [u8; NONCE_BYTES],
        mono: Duration,
    ) -> Option<[u8; NONCE_BYTES]> {
        let is_alive = |nonce: &Nonce| mono.saturating_sub(nonce.made) < LIFE;
        if let Some(known) = self.of.get(&agent).filter(|known| is_alive(known)) {
            return Some(known.bytes);
        }
        self.of.remove(&agent);
        if self.of.len() >= NONCES_MAX {
            self.of.retain(|_, nonce| is_alive(nonce));
            if self.of.len() >= NONCES_MAX {
                return None;
            }
        }
        self.of.insert(agent, Nonce { bytes: fresh, made: mono });
        Some(fresh)
    }

    /// Whether this is the agent's nonce. Right or wrong, it is spent.
    pub(super) fn take(&mut self, agent: AgentId, presented: &[u8], mono: Duration) -> bool {
        let Some(nonce) = self.of.remove(&agent) else { return false };
        mono.saturating_sub(nonce.made) < LIFE && bool::from(nonce.bytes.ct_eq(presented))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn agent(number: u128) -> AgentId {
        AgentId(Uuid::from_u128(number))
    }

    const START: Duration = Duration::from_secs(5);

    #[test]
    fn a_nonce_is_good_once_for_its_agent_and_its_life() {
        let nonce = [7; NONCE_BYTES];
        let mut nonces = Nonces::default();
        assert!(!nonces.take(agent(1), &nonce, START), "never given");
        assert_eq!(nonces.give(agent(1), nonce, START), Some(nonce));
        assert_eq!(nonces.give(agent(1), [8; NONCE_BYTES], START), Some(nonce), "it has one");
        assert!(!nonces.take(agent(2), &nonce, START), "another's");
        assert!(nonces.take(agent(1), &nonce, START));
        assert!(!nonces.take(agent(1), &nonce, START), "used");
        nonces.give(agent(1), nonce, START);
        assert!(!nonces.take(agent(1), &nonce[1..], START), "cut short");
        assert!(!nonces.take(agent(1), &nonce, START), "spent by the wrong one");
        nonces.give(agent(1), nonce, START);
        assert!(!nonces.take(agent(1), &nonce, START + LIFE), "too late");
        nonces.give(agent(1), nonce, START);
        let renewed = nonces.give(agent(1), [9; NONCE_BYTES], START + LIFE);
        assert_eq!(renewed, Some([9; NONCE_BYTES]), "the old one has ended");
    }

    #[test]
    fn nonces_are_bounded_and_forgotten() {
        let mut nonces = Nonces::default();
        let given = (0..10_000).filter(|n| nonces.give(agent(*n), [1; 32], START).is_some());
        assert_eq!(given.count(), NONCES_MAX);
        assert_eq!(nonces.give(agent(10_000), [1; 32], START), None);
        assert!(nonces.give(agent(10_000), [1; 32], START + LIFE).is_some());
        assert_eq!(nonces.of.len(), 1);
    }
}
