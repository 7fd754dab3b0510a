//! Goodbye: a clean stop with its reason.

use crate::wire;

use super::{WireError, fixed};

/// Why an agent stopped on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GoodbyeReason {
    /// The machine shuts down, or the service was stopped.
    Shutdown,
    /// The machine goes to sleep.
    Sleep,
    /// The agent is replaced by another version.
    Upgrade,
    /// The agent is removed.
    Uninstall,
}

impl GoodbyeReason {
    /// The label in JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Sleep => "sleep",
            Self::Upgrade => "upgrade",
            Self::Uninstall => "uninstall",
        }
    }
}

/// A clean stop of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    /// Why.
    pub reason: GoodbyeReason,
    /// The process that stops; another process of the same agent is not stopped by it.
    pub process_nonce: [u8; 16],
}

impl TryFrom<wire::GoodbyeRequest> for Goodbye {
    type Error = WireError;

    fn try_from(
        wire::GoodbyeRequest { reason, process_nonce }: wire::GoodbyeRequest,
    ) -> Result<Self, WireError> {
        let unknown = WireError::new("reason", "is not known");
        let reason = match wire::GoodbyeReason::try_from(reason).map_err(|_| unknown.clone())? {
            wire::GoodbyeReason::Unspecified => return Err(unknown),
            wire::GoodbyeReason::Shutdown => GoodbyeReason::Shutdown,
            wire::GoodbyeReason::Sleep => GoodbyeReason::Sleep,
            wire::GoodbyeReason::Upgrade => GoodbyeReason::Upgrade,
            wire::GoodbyeReason::Uninstall => GoodbyeReason::Uninstall,
        };
        Ok(Self { reason, process_nonce: fixed(&process_nonce, "process_nonce")? })
    }
}

impl From<Goodbye> for wire::GoodbyeRequest {
    fn from(Goodbye { reason, process_nonce }: Goodbye) -> Self {
        let reason = match reason {
            GoodbyeReason::Shutdown => wire::GoodbyeReason::Shutdown,
            GoodbyeReason::Sleep => wire::GoodbyeReason::Sleep,
            GoodbyeReason::Upgrade => wire::GoodbyeReason::Upgrade,
            GoodbyeReason::Uninstall => wire::GoodbyeReason::Uninstall,
        };
        Self { reason: reason as i32, process_nonce: process_nonce.to_vec() }
    }
}
