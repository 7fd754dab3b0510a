//! Exceptions: an agency's failing check that somebody answers for, until a day.
//!
//! An exception explains and changes no figure: the check goes on counting as failed, and is shown
//! apart as accepted. One that has expired stays until it is removed, so that it is noticed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::posture::CheckId;

/// Exceptions of one installation: every agency of a city with a dozen.
pub const EXCEPTIONS_MAX: u32 = 10_000;
/// Bytes of an owner and of a reason: one line each.
const TEXT_BYTES_MAX: usize = 200;
/// Longest life: what stands longer is policy, and is looked at again once a year.
const LIFE_MAX: Duration = Duration::from_secs(366 * 86_400);

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionTerms {
    /// The agency.
    pub agency: AgencyId,
    /// The check.
    pub check: CheckId,
    /// Who answers for it.
    pub owner: String,
    /// Why it is accepted.
    pub reason: String,
    /// How long.
    pub life: Duration,
}

/// An exception. An agency has at most one for a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The agency.
    pub agency: AgencyId,
    /// The check.
    pub check: CheckId,
    /// Who answers for it.
    pub owner: String,
    /// Why it is accepted.
    pub reason: String,
    /// When it was made.
    pub created: SystemTime,
    /// When it ends.
    pub expires: SystemTime,
}

/// An exception that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExceptionError {
    /// Nobody or nothing is named, or at too great length.
    #[error("{field} is one line of 1 to 200 bytes")]
    Text {
        /// Which option.
        field: &'static str,
    },
    /// It would end at once, or stand for ever.
    #[error("an exception lasts at least an hour and at most 366 days")]
    Life,
}

impl Exception {
    /// Makes an exception.
    ///
    /// # Errors
    /// When nobody answers for it, no reason is given, or it would not end.
    pub fn new(terms: ExceptionTerms, now: SystemTime) -> Result<Self, ExceptionError> {
        let ExceptionTerms { agency, check, owner, reason, life } = terms;
        if life < Duration::from_secs(3_600) || life > LIFE_MAX {
            return Err(ExceptionError::Life);
        }
        let expires = now.checked_add(life).ok_or(ExceptionError::Life)?;
        let text = |text, field| line(text).ok_or(ExceptionError::Text { field });
        let (owner, reason) = (text(&owner, "owner")?, text(&reason, "reason")?);
        Ok(Self { agency, check, owner, reason, created: now, expires })
    }

    /// Whether it accepts anything now.
    pub fn holds(&self, now: SystemTime) -> bool {
        now < self.expires
    }
}

/// One line of an operator's words; `None` when it says nothing, too much, or controls a terminal.
pub(super) fn line(text: &str) -> Option<String> {
    let text = text.trim();
    let is_line =
        !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    is_line.then(|| text.to_owned())
}

/// All exceptions, by agency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    by_agency: HashMap<AgencyId, Vec<Exception>>,
}

impl Exceptions {
    /// Those of an agency, in the order of the catalogue.
    pub fn of(&self, agency: &AgencyId) -> &[Exception] {
        self.by_agency.get(agency).map_or(&[], Vec::as_slice)
    }
}

impl FromIterator<Exception> for Exceptions {
    fn from_iter<I: IntoIterator<Item = Exception>>(exceptions: I) -> Self {
        let mut by_agency: HashMap<AgencyId, Vec<Exception>> = HashMap::new();
        for exception in exceptions {
            by_agency.entry(exception.agency.clone()).or_default().push(exception);
        }
        for its in by_agency.values_mut() {
            its.sort_by_key(|exception| exception.check);
        }
        Self { by_agency }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn made(owner: &str, reason: &str, life_s: u64) -> Result<Exception, ExceptionError> {
        let terms = ExceptionTerms {
            agency: "01-001".parse().expect("an id"),
            check: CheckId::ScreenLock,
            owner: owner.into(),
            reason: reason.into(),
            life: Duration::from_secs(life_s),
        };
        Exception::new(terms, UNIX_EPOCH)
    }

    #[test]
    fn somebody_answers_for_it_with_a_reason_and_until_a_day() {
        assert!(made("Phòng CNTT", "màn hình công cộng", 86_400).is_ok());
        assert_eq!(made(" ", "x", 86_400), Err(ExceptionError::Text { field: "owner" }));
        assert_eq!(made("x", "a\nb", 86_400), Err(ExceptionError::Text { field: "reason" }));
        assert_eq!(
            made("x", &"x".repeat(201), 86_400),
            Err(ExceptionError::Text { field: "reason" })
        );
        for life in [0, 3_599, 367 * 86_400, u64::MAX] {
            assert_eq!(made("x", "y", life), Err(ExceptionError::Life), "{life}");
        }
    }

    #[test]
    fn it_holds_until_it_expires_and_no_longer() {
        let exception = made("x", "y", 86_400).expect("sound");
        assert!(exception.holds(UNIX_EPOCH + Duration::from_secs(86_399)));
        assert!(!exception.holds(UNIX_EPOCH + Duration::from_secs(86_400)));
    }
}
