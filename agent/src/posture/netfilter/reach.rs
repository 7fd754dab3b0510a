//! Whether a stranger's new connection to a port gets in.
//!
//! Rules are followed with three values: what happens, what does not, and what depends on a
//! condition that is not read. Only the first two are answers.

use std::collections::HashMap;

use super::super::listeners::Transport;
use super::clause::{Chance, End};
use super::register::Arrival;
use super::rule::Effect;
use super::{ChainKey, Family, JUMPS_MAX, Ruleset};

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is refused.
    Refused,
    /// It gets in.
    Open,
    /// That depends on what is not read: a source address, a limit, an interface.
    Unread(&'static str),
}

/// How a chain ends for a connection that enters it.
#[derive(Debug, Clone, Copy)]
struct Flow {
    accepted: Chance,
    /// Back to the caller, or to the policy.
    falls: Chance,
    unread: Option<&'static str>,
}

impl Ruleset {
    /// What becomes of a new connection to a port. Chains at a hook follow each other, and it
    /// gets in only when all of them let it.
    pub fn reach(&self, family: Family, transport: Transport, port: u16) -> Reach {
        let arrival = Arrival { family, transport, port };
        let (mut accepted, mut unread) = (Chance::Yes, None);
        for key in self.inbound_chains(family) {
            let flow = self.flow(&key.2, key, arrival, JUMPS_MAX, &mut HashMap::new());
            let drops = self.chains.get(key).and_then(|chain| chain.base).is_some_and(|b| b.drops);
            let by_policy = if drops { Chance::No } else { flow.falls };
            accepted = accepted.min(flow.accepted.max(by_policy));
            unread = unread.or(flow.unread);
        }
        match accepted {
            Chance::No => Reach::Refused,
            Chance::Yes => Reach::Open,
            Chance::Maybe => Reach::Unread(unread.unwrap_or("condition")),
        }
    }

    /// Each chain is followed once; of one that calls itself nothing is known.
    fn flow<'a>(
        &'a self,
        name: &'a str,
        base: &ChainKey,
        arrival: Arrival,
        jumps_left: usize,
        known: &mut HashMap<&'a str, Flow>,
    ) -> Flow {
        const LOOP: Flow =
            Flow { accepted: Chance::Maybe, falls: Chance::Maybe, unread: Some("loop of chains") };
        if let Some(flow) = known.get(name) {
            return *flow;
        }
        known.insert(name, LOOP);
        let key = (base.0, base.1.clone(), name.to_owned());
        let mut flow = Flow { accepted: Chance::No, falls: Chance::No, unread: None };
        let Some(chain) = self.chains.get(&key) else { return LOOP };
        let sets = |set: &str| self.sets.get(&(base.0, base.1.clone(), set.to_owned()));
        let mut here = Chance::Yes;
        for clause in &chain.clauses {
            let (holds, unread) = clause.holds(arrival, &sets);
            let taken = here.min(holds);
            if taken == Chance::No {
                continue;
            }
            // Unless the rule is met for certain, the next one may see the connection too.
            let passed_by = if holds == Chance::Yes { Chance::No } else { here.min(Chance::Maybe) };
            let mut note = |kind: Option<&'static str>| flow.unread = flow.unread.or(kind);
            let end = clause.end(arrival, &sets);
            match end {
                End::Next => continue,
                End::Known(Effect::Allow) => {
                    note(unread);
                    flow.accepted = flow.accepted.max(taken);
                    here = passed_by;
                }
                End::Known(Effect::Refuse) => {
                    note(unread);
                    here = passed_by;
                }
                End::Known(Effect::Return) => {
                    note(unread);
                    flow.falls = flow.falls.max(taken);
                    here = passed_by;
                }
                End::Known(Effect::Jump(to) | Effect::Goto(to)) => {
                    let called = match jumps_left.checked_sub(1) {
                        Some(left) => self.flow(to, base, arrival, left, known),
                        None => LOOP,
                    };
                    flow.unread = flow.unread.or(unread).or(called.unread);
                    flow.accepted = flow.accepted.max(taken.min(called.accepted));
                    let returns = taken.min(called.falls);
                    if matches!(end, End::Known(Effect::Goto(_))) {
                        flow.falls = flow.falls.max(returns);
                        here = passed_by;
                    } else if holds == Chance::Yes {
                        here = returns;
                    } else if called.falls != Chance::Yes {
                        here = here.min(Chance::Maybe);
                    }
                }
                End::Known(Effect::Conditional) => continue,
                // A map leads to one of the others.
                End::Looked { .. } => continue,
                End::Unread(kind) => {
                    note(Some(kind));
                    flow.accepted = flow.accepted.max(Chance::Maybe);
                    here = here.min(Chance::Maybe);
                }
            }
            if here == Chance::No {
                break;
            }
        }
        flow.falls = flow.falls.max(here);
        known.insert(name, flow);
        flow
    }
}
