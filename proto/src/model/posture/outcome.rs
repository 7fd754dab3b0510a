//! Outcomes: what a check found, with the reasons that each verdict can have.

use std::borrow::Cow;

use crate::model::WireError;
use crate::wire;

/// What a check found. There is no default: an outcome comes from evidence, or is unknown with
/// the reason why there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Positive evidence was read, and it is good.
    Pass,
    /// Evidence was read, and it is bad.
    Fail(FailReason),
    /// A positive fact about the machine says that there is nothing to check.
    NotApplicable,
    /// There is no evidence.
    Unknown(UnknownReason),
}

/// What is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// The value does not meet its threshold.
    WeakValue,
    /// What should be there is not.
    Absent,
    /// What should be recent is old.
    Stale,
}

/// Why there is no evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnknownReason {
    /// The source is not there, which says nothing by itself.
    Absent,
    /// The source is too old to be believed.
    Stale,
    /// The source may not be read.
    PermissionDenied,
    /// The source is not what its format promises.
    ParseError,
    /// Nobody has written how to check this system.
    Unsupported,
    /// Reading took longer than the check's deadline.
    Timeout,
}

/// The reason as one closed set of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Of a pass.
    Ok,
    /// See [`FailReason::WeakValue`].
    WeakValue,
    /// See [`FailReason::Absent`] and [`UnknownReason::Absent`].
    Absent,
    /// See [`FailReason::Stale`] and [`UnknownReason::Stale`].
    Stale,
    /// See [`UnknownReason::PermissionDenied`].
    PermissionDenied,
    /// See [`UnknownReason::ParseError`].
    ParseError,
    /// See [`UnknownReason::Unsupported`].
    Unsupported,
    /// See [`UnknownReason::Timeout`].
    Timeout,
    /// Of what is not applicable.
    NoSuchComponent,
}

impl Outcome {
    /// Every outcome that there can be.
    pub const ALL: &[Self] = &[
        Self::Pass,
        Self::Fail(FailReason::WeakValue),
        Self::Fail(FailReason::Absent),
        Self::Fail(FailReason::Stale),
        Self::NotApplicable,
        Self::Unknown(UnknownReason::Absent),
        Self::Unknown(UnknownReason::Stale),
        Self::Unknown(UnknownReason::PermissionDenied),
        Self::Unknown(UnknownReason::ParseError),
        Self::Unknown(UnknownReason::Unsupported),
        Self::Unknown(UnknownReason::Timeout),
    ];

    /// The verdict's label in metrics, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::NotApplicable => "not_applicable",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Pass => Reason::Ok,
            Self::Fail(FailReason::WeakValue) => Reason::WeakValue,
            Self::Fail(FailReason::Absent) | Self::Unknown(UnknownReason::Absent) => Reason::Absent,
            Self::Fail(FailReason::Stale) | Self::Unknown(UnknownReason::Stale) => Reason::Stale,
            Self::NotApplicable => Reason::NoSuchComponent,
            Self::Unknown(UnknownReason::PermissionDenied) => Reason::PermissionDenied,
            Self::Unknown(UnknownReason::ParseError) => Reason::ParseError,
            Self::Unknown(UnknownReason::Unsupported) => Reason::Unsupported,
            Self::Unknown(UnknownReason::Timeout) => Reason::Timeout,
        }
    }

    /// The outcome that two labels stand for.
    pub fn from_labels(verdict: &str, reason: &str) -> Option<Self> {
        let is =
            |outcome: &&Self| outcome.as_str() == verdict && outcome.reason().as_str() == reason;
        Self::ALL.iter().find(is).copied()
    }

    pub(super) const fn to_wire(self) -> (wire::CheckVerdict, wire::CheckReason) {
        let verdict = match self {
            Self::Pass => wire::CheckVerdict::Pass,
            Self::Fail(_) => wire::CheckVerdict::Fail,
            Self::NotApplicable => wire::CheckVerdict::NotApplicable,
            Self::Unknown(_) => wire::CheckVerdict::Unknown,
        };
        (verdict, self.reason().to_wire())
    }

    /// From the wire. A verdict or reason that a newer agent knows and we do not is read as what
    /// helps nobody's score: a pass or a not-applicable for an unknown reason is unknown, and a
    /// failure stays one.
    pub(super) fn from_wire(verdict: i32, reason: i32) -> Result<Self, WireError> {
        let not_understood = Self::Unknown(UnknownReason::Unsupported);
        let Ok(verdict) = wire::CheckVerdict::try_from(verdict) else { return Ok(not_understood) };
        if verdict == wire::CheckVerdict::Unspecified {
            return Err(WireError::new("check_result.verdict", "is missing"));
        }
        let Ok(reason) = wire::CheckReason::try_from(reason) else {
            return Ok(match verdict {
                wire::CheckVerdict::Fail => Self::Fail(FailReason::WeakValue),
                wire::CheckVerdict::Unspecified
                | wire::CheckVerdict::Pass
                | wire::CheckVerdict::NotApplicable
                | wire::CheckVerdict::Unknown => not_understood,
            });
        };
        Self::ALL
            .iter()
            .find(|outcome| outcome.to_wire() == (verdict, reason))
            .copied()
            .ok_or(WireError::new("check_result.reason", "does not belong to the verdict"))
    }
}

/// As two labels: `verdict` and `reason`.
impl serde::Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Labels { verdict: self.as_str().into(), reason: self.reason().as_str().into() }
            .serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Outcome {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Labels { verdict, reason } = Labels::deserialize(deserializer)?;
        let unknown = || format!("there is no outcome `{verdict}` for the reason `{reason}`");
        Self::from_labels(&verdict, &reason).ok_or_else(|| serde::de::Error::custom(unknown()))
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Labels<'a> {
    verdict: Cow<'a, str>,
    reason: Cow<'a, str>,
}

impl Reason {
    /// The label in JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::WeakValue => "weak_value",
            Self::Absent => "absent",
            Self::Stale => "stale",
            Self::PermissionDenied => "permission_denied",
            Self::ParseError => "parse_error",
            Self::Unsupported => "unsupported",
            Self::Timeout => "timeout",
            Self::NoSuchComponent => "no_such_component",
        }
    }

    const fn to_wire(self) -> wire::CheckReason {
        match self {
            Self::Ok => wire::CheckReason::Ok,
            Self::WeakValue => wire::CheckReason::WeakValue,
            Self::Absent => wire::CheckReason::Absent,
            Self::Stale => wire::CheckReason::Stale,
            Self::PermissionDenied => wire::CheckReason::PermissionDenied,
            Self::ParseError => wire::CheckReason::ParseError,
            Self::Unsupported => wire::CheckReason::Unsupported,
            Self::Timeout => wire::CheckReason::Timeout,
            Self::NoSuchComponent => wire::CheckReason::NoSuchComponent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_the_wire_and_their_labels() {
        for outcome in Outcome::ALL {
            let (verdict, reason) = outcome.to_wire();
            assert_eq!(Outcome::from_wire(verdict as i32, reason as i32), Ok(*outcome));
            let labels = (outcome.as_str(), outcome.reason().as_str());
            assert_eq!(Outcome::from_labels(labels.0, labels.1), Some(*outcome));
        }
    }

    #[test]
    fn no_other_pair_of_verdict_and_reason_is_accepted() {
        let accepted = (0..=4)
            .flat_map(|verdict| (0..=9).map(move |reason| (verdict, reason)))
            .filter(|(verdict, reason)| Outcome::from_wire(*verdict, *reason).is_ok());
        assert_eq!(accepted.count(), Outcome::ALL.len());
    }

    #[test]
    fn what_a_newer_agent_says_is_never_read_as_good() {
        let unsupported = Outcome::Unknown(UnknownReason::Unsupported);
        for (verdict, reason, read) in [
            (5, 1, unsupported),
            (-1, 1, unsupported),
            (1, 10, unsupported),
            (2, 10, Outcome::Fail(FailReason::WeakValue)),
            (3, 10, unsupported),
            (4, i32::MAX, unsupported),
        ] {
            assert_eq!(Outcome::from_wire(verdict, reason), Ok(read), "{verdict} {reason}");
        }
    }
}
