//! What a check may answer, and why it could not.
//!
//! A check returns `Result<Finding, Unknown>`. There is no default and no conversion from an
//! error to a finding: `pass` is written down only where evidence was read, and `?` is the only
//! way on from a failed read.

use std::path::Path;
use std::time::Duration;

use haidang_proto::model::posture::{FailReason, Outcome, UnknownReason};
use serde::{Deserialize, Serialize};

/// What a check found in evidence that it read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Pass(String),
    /// Not as it should be.
    Fail(FailReason, String),
    /// A positive fact about the machine rules the question out.
    NotApplicable(String),
}

/// The answer of a check.
pub type Judged = Result<Finding, Unknown>;

/// Why a check has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// The kernel refuses this process.
    #[error("{what}: permission denied")]
    PermissionDenied {
        /// What was asked.
        what: String,
    },
    /// Evidence that has to be there is not.
    #[error("{what}: not there")]
    Absent {
        /// What was looked for.
        what: String,
    },
    /// The system failed to hand it over.
    #[error("{what}: {problem}")]
    Unreadable {
        /// What was read.
        what: String,
        /// What the system said.
        problem: String,
    },
    /// It does not have the form that it has to have.
    #[error("{what}: {problem}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It is larger than a sound machine's.
    #[error("{what}: larger than {bytes_max} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// The limit.
        bytes_max: u64,
    },
    /// This system is not one that the check understands.
    #[error("{0}")]
    Unsupported(String),
    /// Evidence that may not be relied on, because it is too old.
    #[error("{0}")]
    Stale(String),
    /// It took too long.
    #[error("not read within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

impl Unknown {
    /// Evidence at `path` that has to be there is not.
    pub fn absent(path: impl AsRef<Path>) -> Self {
        Self::Absent { what: shown(path) }
    }

    /// What was read at `path` does not have its form.
    pub fn malformed(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Malformed { what: shown(path), problem: problem.into() }
    }

    /// What the system said of `path`.
    pub(super) fn from_io(path: impl AsRef<Path>, error: &std::io::Error) -> Self {
        let what = shown(path);
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::PermissionDenied { what },
            std::io::ErrorKind::NotFound => Self::Absent { what },
            _ => Self::Unreadable { what, problem: error.to_string() },
        }
    }

    /// The closed label.
    pub fn reason(&self) -> UnknownReason {
        match self {
            Self::PermissionDenied { .. } => UnknownReason::PermissionDenied,
            Self::Absent { .. } => UnknownReason::Absent,
            Self::Malformed { .. } => UnknownReason::ParseError,
            Self::Unreadable { .. } | Self::TooLarge { .. } | Self::Unsupported(_) => {
                UnknownReason::Unsupported
            }
            Self::Stale(_) => UnknownReason::Stale,
            Self::TimedOut(_) => UnknownReason::Timeout,
        }
    }
}

/// An answer as it is reported: the outcome, and what was seen in a few words.
pub fn reported(judged: &Judged) -> (Outcome, String) {
    match judged {
        Ok(Finding::Pass(seen)) => (Outcome::Pass, seen.clone()),
        Ok(Finding::Fail(reason, seen)) => (Outcome::Fail(*reason), seen.clone()),
        Ok(Finding::NotApplicable(seen)) => (Outcome::NotApplicable, seen.clone()),
        Err(unknown) => (Outcome::Unknown(unknown.reason()), unknown.to_string()),
    }
}

fn shown(path: impl AsRef<Path>) -> String {
    Path::new("/").join(path).display().to_string()
}
