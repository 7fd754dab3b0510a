//! The store: what has to outlive the process. Identities, tokens, the audit, journal records,
//! transitions of agencies, when agents were last seen, the posture of machines with the exceptions
//! and policies beside it, and the rosters that were in force.
//!
//! `sqlite` owns the file and its two threads: one writes in groups, so that many deliveries
//! share one sync of the disk; one reads. `schema` is the shape on disk. The other modules are
//! the questions and the changes, each a function on a connection.
//!
//! A write is acknowledged when it is durable (`synchronous=FULL`), and never before. No verdict
//! waits for the store.

mod audit;
mod exceptions;
mod history;
mod identities;
mod journals;
#[cfg(test)]
mod laws;
mod outages;
mod policies;
mod postures;
mod receipts;
mod rosters;
mod schema;
mod sqlite;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use audit::{AuditAction, AuditEntry, AuditRow};
pub(crate) use exceptions::exceptions;
pub(crate) use history::{LastState, last_transitions};
pub use history::{Seen, TransitionRow};
pub(crate) use identities::identities;
pub use identities::{Enrolment, IdentityRow};
pub use journals::{Delivered, JournalDelivery, JournalRow, RecordRow};
pub use outages::{OutageCursor, OutageEnd, OutageRow};
pub(crate) use policies::policies;
pub(crate) use postures::postures;
pub use rosters::StoredRoster;
pub(crate) use rosters::{file_seen, in_force};
pub use sqlite::{Opened, Store, StoreHealth, StoreThread};

/// Rows of one answer: a page shows a hundred.
pub const ROWS_MAX: u32 = 1_000;

/// The store cannot do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The directory or file cannot be used.
    #[error("cannot open the store {path}; see that the service's user owns it")]
    Open {
        /// The file.
        path: std::path::PathBuf,
        /// What SQLite said.
        source: Arc<rusqlite::Error>,
    },
    /// It was written by a newer version.
    #[error("the store has schema {found} and this program knows {known}; install a newer one")]
    Newer {
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A statement or a commit failed: disk full, damaged, locked.
    #[error("the store cannot be used")]
    Unavailable(#[from] Arc<rusqlite::Error>),
    /// What is in it cannot be understood.
    #[error("the store holds a {what} that cannot be read: {value:?}")]
    Damaged {
        /// Which column.
        what: &'static str,
        /// What it holds.
        value: String,
    },
    /// Too much waits for it.
    #[error("the store is too slow: its queue is full or the answer takes too long")]
    Overloaded,
    /// It was shut down.
    #[error("the store has been shut down")]
    Stopped,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}

/// Milliseconds since 1970, as every time is stored; earlier times are 0.
fn unix_ms(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn from_unix_ms(ms: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Reads a column that holds the text of a value.
fn parsed<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged { what, value: text.to_owned() })
}
