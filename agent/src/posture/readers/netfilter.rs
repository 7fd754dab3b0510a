//! The packet filter by way of its reader, both sides.
//!
//! The frame's first byte is 0 before a dump, and 1 before an [`Unknown`] in JSON.

use std::path::Path;
use std::time::Duration;

use crate::posture::finding::Unknown;
use crate::posture::netfilter::{Ruleset, parse, record};

use super::{ServeError, accepted, connect, lock, receive, send};

/// Where the reader is asked unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/haidang/netfilter.sock";
/// Bytes of an answer: tables, chains and rules of a firewall of some ten thousand rules.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// A dump takes milliseconds; the reader has to be started first.
const ASK_BUDGET: Duration = Duration::from_secs(5);
/// The asker waits for nothing else.
const ANSWER_BUDGET: Duration = Duration::from_secs(2);
const WHAT: &str = "nftables";

const DUMP: u8 = 0;
const UNKNOWN: u8 = 1;

/// Asks the reader.
///
/// # Errors
/// [`Unknown::PermissionDenied`] where there is none; what the reader met; what its answer is not.
pub fn ask(socket: &Path) -> Result<Ruleset, Unknown> {
    ask_within(socket, ASK_BUDGET)
}

pub(super) fn ask_within(socket: &Path, budget: Duration) -> Result<Ruleset, Unknown> {
    let stream = connect(socket, WHAT)?;
    let answer = receive(&stream, ANSWER_BYTES_MAX, budget, WHAT)?;
    let malformed = |problem: &str| Unknown::Malformed {
        what: "nftables (reader)".into(),
        problem: problem.into(),
    };
    match answer.split_first() {
        Some((&DUMP, dump)) => parse(dump),
        Some((&UNKNOWN, json)) => {
            Err(serde_json::from_slice(json).unwrap_or_else(|error| malformed(&error.to_string())))
        }
        _ => Err(malformed("the answer is neither a dump nor a reason")),
    }
}

/// Serves the one connection that is standard input: gives up what it does not need, asks the
/// kernel for its dumps, hands them over and is done. Nothing of the peer's is read.
///
/// # Errors
/// When there is no connection, its peer may not ask, or does not take the answer.
pub fn serve() -> Result<(), ServeError> {
    let stream = accepted()?;
    lock::give_up_all_but_dumps()?;
    let dumped = record().and_then(|dump| {
        let bytes_max = ANSWER_BYTES_MAX as u64;
        let is_fit = dump.len() < ANSWER_BYTES_MAX;
        is_fit.then_some(dump).ok_or(Unknown::TooLarge { what: WHAT.into(), bytes_max })
    });
    let mut answer = vec![UNKNOWN];
    match dumped {
        Ok(dump) => {
            answer[0] = DUMP;
            answer.extend(dump);
        }
        Err(unknown) => {
            let json = serde_json::to_vec(&unknown);
            answer.extend(json.map_err(|error| ServeError::Answer(error.into()))?);
        }
    }
    send(&stream, &answer, ANSWER_BUDGET).map_err(ServeError::Answer)
}
