//! The domain values that cross the wire, one concept a file.

pub mod agency;
pub mod enrolment_code;
pub mod fact;
pub mod flag;
pub mod goodbye;
pub mod host;
pub mod posture;
pub mod quality;
pub mod record;
pub mod refusal;
pub mod report;
pub mod settings;
pub mod spiffe;
pub mod verdict;

/// A wire message that breaks the contract: which field, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct WireError {
    /// Field as it stands in the .proto file.
    pub field: &'static str,
    /// What was expected of it.
    pub problem: &'static str,
}

impl WireError {
    pub(crate) const fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }
}

/// Checks text from a peer: its length in bytes, and no control characters, so that
/// it can stand in a log line or a label.
fn text(value: String, bytes_max: usize, field: &'static str) -> Result<String, WireError> {
    if value.len() > bytes_max {
        return Err(WireError::new(field, "is longer than allowed"));
    }
    if value.chars().any(char::is_control) {
        return Err(WireError::new(field, "holds a control character"));
    }
    Ok(value)
}

/// Text as [`text`] accepts it: cut to its length, control characters replaced, so that an honest
/// sender is never refused for being thorough.
fn clean(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

/// Checks a byte string of fixed length.
fn fixed<const N: usize>(value: &[u8], field: &'static str) -> Result<[u8; N], WireError> {
    value.try_into().map_err(|_| WireError::new(field, "has the wrong length"))
}
