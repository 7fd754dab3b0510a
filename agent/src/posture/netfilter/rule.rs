//! What one rule does with a packet that is nothing in particular: no port, no address, no
//! connection that was allowed before, and not of this machine's own loopback.
//!
//! A rule is a list of expressions. Counting, logging and comments let every packet through to
//! the next expression; a verdict ends it; a condition that is not understood is taken to be one
//! that such a packet does not meet.

use super::super::netlink::{Attribute, Misshapen, attributes, read_text};
use super::number;
use super::register::LOOPBACK_INDEX;

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// The rule has a condition.
    Conditional,
    /// Dropped or rejected.
    Refuse,
    /// Let in.
    Allow,
    /// Back to the calling chain, or to the policy.
    Return,
    /// On in another chain, then here again.
    Jump(String),
    /// On in another chain for good.
    Goto(String),
}

const VERDICT_DROP: i32 = 0;
const VERDICT_ACCEPT: i32 = 1;
const VERDICT_JUMP: i32 = -3;
const VERDICT_GOTO: i32 = -4;
const VERDICT_RETURN: i32 = -5;
const REGISTER_VERDICT: u32 = 0;
const META_IIF: u32 = 4;
const META_IIFNAME: u32 = 6;
const COMPARE_NOT_EQUAL: u32 = 1;

/// The effect of a rule's expressions (`NFTA_RULE_EXPRESSIONS`).
pub(super) fn effect(expressions: &[u8]) -> Result<Effect, Misshapen> {
    let mut interface_loaded = None;
    for element in attributes(expressions) {
        let (name, data) = expression(element?.value)?;
        match name.as_str() {
            "counter" | "log" | "notrack" | "last" => {}
            "reject" => return Ok(Effect::Refuse),
            "immediate" => match verdict(data)? {
                Some(effect) => return Ok(effect),
                // A value for a later expression.
                None => return Ok(Effect::Conditional),
            },
            // Targets of iptables that nf_tables has no expression for.
            "target" => match first(data, 1)?.map(|name| read_text(name.value)).as_deref() {
                Some("REJECT") => return Ok(Effect::Refuse),
                Some("LOG" | "NFLOG" | "TRACE") => {}
                _ => return Ok(Effect::Conditional),
            },
            "meta" => match first(data, 2)?.map(|key| number(key.value)).transpose()? {
                Some(key @ (META_IIF | META_IIFNAME)) => interface_loaded = Some(key),
                _ => return Ok(Effect::Conditional),
            },
            // "not by loopback" is met by everything that comes from elsewhere.
            "cmp" if is_other_than_loopback(interface_loaded, data)? => {}
            _ => return Ok(Effect::Conditional),
        }
    }
    // Without a verdict the packet goes on to the next rule.
    Ok(Effect::Conditional)
}

pub(super) fn expression(element: &[u8]) -> Result<(String, &[u8]), Misshapen> {
    let name = first(element, 1)?.map(|name| read_text(name.value)).unwrap_or_default();
    Ok((name, first(element, 2)?.map_or(&[], |data| data.value)))
}

/// The verdict of an immediate expression; `None` when it loads something else.
pub(super) fn verdict(data: &[u8]) -> Result<Option<Effect>, Misshapen> {
    let register = first(data, 1)?.map(|register| number(register.value)).transpose()?;
    let nested = first(data, 2)?.map_or(&[][..], |nested| nested.value);
    if register != Some(REGISTER_VERDICT) {
        return Ok(None);
    }
    verdict_of(nested)
}

/// The verdict in a value (`NFTA_DATA_VERDICT`); `None` when it is another one.
pub(super) fn verdict_of(nested: &[u8]) -> Result<Option<Effect>, Misshapen> {
    let Some(verdict) = first(nested, 2)? else { return Ok(None) };
    let code = first(verdict.value, 1)?.map(|code| number(code.value)).transpose()?;
    let chain = first(verdict.value, 2)?.map(|chain| read_text(chain.value)).unwrap_or_default();
    Ok(code.map(|code| match code as i32 {
        VERDICT_DROP => Effect::Refuse,
        VERDICT_ACCEPT => Effect::Allow,
        VERDICT_JUMP => Effect::Jump(chain),
        VERDICT_GOTO => Effect::Goto(chain),
        VERDICT_RETURN => Effect::Return,
        // To a queue in user space, which may do anything.
        _ => Effect::Conditional,
    }))
}

fn is_other_than_loopback(loaded: Option<u32>, data: &[u8]) -> Result<bool, Misshapen> {
    let operation = first(data, 2)?.map(|operation| number(operation.value)).transpose()?;
    let nested = first(data, 3)?.map_or(&[][..], |nested| nested.value);
    let value = first(nested, 1)?.map_or(&[][..], |value| value.value);
    let is_loopback = match loaded {
        Some(META_IIFNAME) => read_text(value) == "lo",
        Some(META_IIF) => value == LOOPBACK_INDEX.to_ne_bytes(),
        _ => false,
    };
    Ok(operation == Some(COMPARE_NOT_EQUAL) && is_loopback)
}

pub(super) fn first(nested: &[u8], kind: u16) -> Result<Option<Attribute<'_>>, Misshapen> {
    for attribute in attributes(nested) {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}
