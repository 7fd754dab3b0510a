//! Times as people and programs read them: RFC 3339, UTC, milliseconds.

use std::time::SystemTime;

use jiff::{Timestamp, Unit};

/// The time as text. Times beyond the year 9999 cannot come from a snapshot and are shown as
/// the last one that can be written.
pub(super) fn text(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::MAX);
    let at = at.round(Unit::Millisecond).unwrap_or(at);
    format!("{at:.3}")
}

/// A time from a query.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().and_then(|at| SystemTime::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn milliseconds_are_kept_and_no_more() {
        let at = UNIX_EPOCH + Duration::from_micros(1_790_000_000_005_400);
        assert_eq!(text(at), "2026-09-21T14:13:20.005Z");
        assert_eq!(parse(&text(at)), Some(UNIX_EPOCH + Duration::from_millis(1_790_000_000_005)));
        assert_eq!(text(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn absurd_times_are_shown_or_refused_without_a_panic() {
        for seconds in [253_402_300_800, 9_000_000_000_000] {
            text(UNIX_EPOCH + Duration::from_secs(seconds));
        }
        for absurd in ["", "now", "2026-13-01T00:00:00Z", "-999999-01-01T00:00:00Z", "1"] {
            assert_eq!(parse(absurd), None, "{absurd}");
        }
    }
}
