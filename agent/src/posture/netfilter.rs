//! The kernel's own packet filter, as nfnetlink dumps it: whether packets that nobody allowed are
//! refused. Whoever wrote the rules (ufw, firewalld, nft, iptables-nft) does not matter.
//!
//! Layout: `include/uapi/linux/netfilter/nfnetlink.h` and `nf_tables.h`. A message's type is the
//! subsystem (10) and the message; its payload begins with `struct nfgenmsg`, whose first byte is
//! the family. Numbers in attributes are big-endian. The dumps (tables, chains, rules, sets, the
//! elements of each set) are parsed one behind the other, so a recording is their concatenation.

use std::collections::{HashMap, HashSet};

use super::finding::Unknown;
use super::netlink::{Misshapen, attributes, messages, read_text};

mod clause;
mod dumps;
mod reach;
mod register;
mod rule;
mod set;

pub use dumps::{ask, record};
pub use reach::Reach;

use clause::{Clause, clause};
use rule::{Effect, effect, first};
use set::{Head, Set, head};

/// Calls from chain to chain that are followed; the kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
const JUMPS_MAX: usize = 16;

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
/// Behind the header: family, version, resource id.
const GENMSG_BYTES: usize = 4;

const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const TABLE_DORMANT: u32 = 1;
const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
const VERDICT_DROP: u32 = 0;

/// Chains and rules in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    dormant: HashSet<TableKey>,
    chains: HashMap<ChainKey, Chain>,
    sets: HashMap<SetKey, Set>,
}

type TableKey = (u8, String);
type ChainKey = (u8, String, String);
type SetKey = (u8, String, String);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Chain {
    base: Option<Base>,
    rules: Vec<Effect>,
    /// The same rules, as a connection to a port meets them.
    clauses: Vec<Clause>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Base {
    hook: u32,
    is_filter: bool,
    drops: bool,
}

/// An address family of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What becomes of a packet that comes in and that no rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// It is refused, by this chain (`family table chain`).
    Refused(String),
    /// Chains look at it, and let it in.
    Allowed(String),
    /// No chain looks at it.
    Unseen,
}

/// The family, and what follows `struct nfgenmsg`.
fn genmsg(payload: &[u8]) -> Result<(u8, &[u8]), Misshapen> {
    let body = payload.get(GENMSG_BYTES..).ok_or(Misshapen("nfgenmsg"))?;
    Ok((payload[0], body))
}

/// Takes the dumps apart.
///
/// # Errors
/// When the bytes are none.
pub fn parse(bytes: &[u8]) -> Result<Ruleset, Unknown> {
    let mut ruleset = Ruleset::default();
    for message in messages(bytes) {
        let message = message?;
        let (family, body) = genmsg(message.payload)?;
        match message.kind {
            NEWTABLE => ruleset.table(family, body)?,
            NEWCHAIN => ruleset.chain(family, body)?,
            NEWRULE => ruleset.rule(family, body)?,
            NEWSET => ruleset.set(family, body)?,
            NEWSETELEM => ruleset.elements(family, body)?,
            _ => {}
        }
    }
    ruleset.sets.values_mut().for_each(Set::close);
    Ok(ruleset)
}

impl Ruleset {
    /// Whether there is any chain in force that looks at packets.
    pub fn is_empty(&self) -> bool {
        !self.chains.iter().any(|(key, chain)| chain.base.is_some() && self.is_awake(key))
    }

    /// What becomes of packets of a family that no rule allows. Chains at a hook follow each
    /// other, and a packet gets in only when all of them let it: one that refuses is enough.
    pub fn inbound(&self, family: Family) -> Inbound {
        let looking = self.inbound_chains(family);
        let refuses = |key: &&&ChainKey| self.refuses(key);
        match (looking.iter().find(refuses), looking.first()) {
            (Some(key), _) => Inbound::Refused(shown(key)),
            (None, Some(key)) => Inbound::Allowed(shown(key)),
            (None, None) => Inbound::Unseen,
        }
    }

    /// Base chains in force that look at packets of a family as they come in.
    fn inbound_chains(&self, family: Family) -> Vec<&ChainKey> {
        let mut looking: Vec<&ChainKey> = self
            .chains
            .iter()
            .filter(|(key, chain)| {
                let is_inbound = chain.base.is_some_and(|base| {
                    base.is_filter && matches!(base.hook, HOOK_PREROUTING | HOOK_INPUT)
                });
                is_inbound && sees(key.0, family) && self.is_awake(key)
            })
            .map(|(key, _)| key)
            .collect();
        looking.sort();
        looking
    }

    fn is_awake(&self, (family, table, _): &ChainKey) -> bool {
        !self.dormant.contains(&(*family, table.clone()))
    }

    /// Whether a packet that no condition matches is refused.
    fn refuses(&self, key: &ChainKey) -> bool {
        let drops = self.chains.get(key).and_then(|chain| chain.base).is_some_and(|b| b.drops);
        self.end(&key.2, key, JUMPS_MAX, &mut HashMap::new()).unwrap_or(drops)
    }

    /// How the rules of a chain end for such a packet: refused, allowed, or by none of them. Each
    /// chain is followed once; the kernel allows no loops, and a recording with one ends too.
    fn end<'a>(
        &'a self,
        name: &'a str,
        base: &ChainKey,
        jumps_left: usize,
        known: &mut HashMap<&'a str, Option<bool>>,
    ) -> Option<bool> {
        if let Some(end) = known.get(name) {
            return *end;
        }
        known.insert(name, None);
        let key = (base.0, base.1.clone(), name.to_owned());
        let mut end = None;
        for rule in &self.chains.get(&key)?.rules {
            let mut called =
                |chain: &'a str| self.end(chain, base, jumps_left.checked_sub(1)?, known);
            end = match rule {
                Effect::Conditional => continue,
                Effect::Refuse => Some(true),
                Effect::Allow => Some(false),
                Effect::Return => None,
                Effect::Jump(chain) => match called(chain) {
                    None => continue,
                    end => end,
                },
                Effect::Goto(chain) => called(chain),
            };
            break;
        }
        known.insert(name, end);
        end
    }

    fn table(&mut self, family: u8, body: &[u8]) -> Result<(), Misshapen> {
        let (mut name, mut flags) = (String::new(), 0);
        for attribute in attributes(body) {
            let attribute = attribute?;
            match attribute.kind {
                1 => name = read_text(attribute.value),
                2 => flags = number(attribute.value)?,
                _ => {}
            }
        }
        if flags & TABLE_DORMANT != 0 {
            self.dormant.insert((family, name));
        }
        Ok(())
    }

    fn chain(&mut self, family: u8, body: &[u8]) -> Result<(), Misshapen> {
        let (mut table, mut name, mut kind) = (String::new(), String::new(), String::new());
        let (mut hook, mut policy) = (None, None);
        for attribute in attributes(body) {
            let attribute = attribute?;
            match attribute.kind {
                1 => table = read_text(attribute.value),
                3 => name = read_text(attribute.value),
                4 => hook = hook_number(attribute.value)?,
                5 => policy = Some(number(attribute.value)?),
                7 => kind = read_text(attribute.value),
                _ => {}
            }
        }
        let base = hook.map(|hook| Base {
            hook,
            is_filter: kind == "filter",
            drops: policy == Some(VERDICT_DROP),
        });
        self.chains.entry((family, table, name)).or_default().base = base;
        Ok(())
    }

    fn rule(&mut self, family: u8, body: &[u8]) -> Result<(), Misshapen> {
        let (mut table, mut chain, mut expressions) = (String::new(), String::new(), &[][..]);
        for attribute in attributes(body) {
            let attribute = attribute?;
            match attribute.kind {
                1 => table = read_text(attribute.value),
                2 => chain = read_text(attribute.value),
                4 => expressions = attribute.value,
                _ => {}
            }
        }
        let (effect, clause) = (effect(expressions)?, clause(expressions)?);
        let chain = self.chains.entry((family, table, chain)).or_default();
        chain.rules.push(effect);
        chain.clauses.push(clause);
        Ok(())
    }

    fn set(&mut self, family: u8, body: &[u8]) -> Result<(), Misshapen> {
        let Head { table, name, set, .. } = head(body)?;
        self.sets.insert((family, read_text(table), read_text(name)), set);
        Ok(())
    }

    /// Elements of a set whose head was told before.
    fn elements(&mut self, family: u8, body: &[u8]) -> Result<(), Misshapen> {
        let text = |kind| Ok(first(body, kind)?.map(|text| read_text(text.value)));
        let key = (family, text(1)?.unwrap_or_default(), text(2)?.unwrap_or_default());
        if let Some(set) = self.sets.get_mut(&key) {
            set.extend(first(body, 3)?.map_or(&[], |list| list.value))?;
        }
        Ok(())
    }
}

fn hook_number(nested: &[u8]) -> Result<Option<u32>, Misshapen> {
    for attribute in attributes(nested) {
        let attribute = attribute?;
        if attribute.kind == 1 {
            return number(attribute.value).map(Some);
        }
    }
    Ok(None)
}

fn sees(table_family: u8, family: Family) -> bool {
    let own = match family {
        Family::V4 => FAMILY_IPV4,
        Family::V6 => FAMILY_IPV6,
    };
    table_family == FAMILY_INET || table_family == own
}

fn shown((family, table, chain): &ChainKey) -> String {
    let family = match *family {
        FAMILY_INET => "inet",
        FAMILY_IPV4 => "ip",
        _ => "ip6",
    };
    format!("{family} {table} {chain}")
}

/// A number of nf_tables.
fn number(value: &[u8]) -> Result<u32, Misshapen> {
    value.first_chunk().copied().map(u32::from_be_bytes).ok_or(Misshapen("number"))
}

#[cfg(test)]
mod tests;
