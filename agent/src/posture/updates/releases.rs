//! Until when a release gets security fixes: from the distributions' own tables
//! (distro-info-data, state of 2026-11). A release that is not in the table is newer than this
//! program or none that it knows: then nothing is said.

use jiff::civil::Date;

/// A release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Release {
    /// `ID` of os-release(5).
    id: &'static str,
    /// `VERSION_ID`.
    version: &'static str,
    /// Fixes that come to every machine end on this day: for Debian with LTS, which needs nothing
    /// to be set up.
    pub(super) until: Date,
    /// Fixes for subscribers end: Ubuntu Pro.
    pub(super) with_subscription_until: Option<Date>,
}

/// The table.
const RELEASES: &[Release] = &[
    release("debian", "9", (2022, 6, 30), None),
    release("debian", "10", (2024, 6, 30), None),
    release("debian", "11", (2026, 8, 31), None),
    release("debian", "12", (2028, 6, 30), None),
    release("debian", "13", (2030, 6, 30), None),
    release("ubuntu", "16.04", (2021, 4, 30), Some((2026, 4, 23))),
    release("ubuntu", "18.04", (2023, 5, 31), Some((2028, 4, 26))),
    release("ubuntu", "20.04", (2025, 5, 29), Some((2030, 4, 23))),
    release("ubuntu", "22.04", (2027, 6, 1), Some((2032, 4, 21))),
    release("ubuntu", "23.10", (2024, 7, 11), None),
    release("ubuntu", "24.04", (2029, 5, 31), Some((2034, 4, 25))),
    release("ubuntu", "24.10", (2025, 7, 10), None),
    release("ubuntu", "25.04", (2026, 1, 15), None),
    release("ubuntu", "25.10", (2026, 7, 9), None),
    release("ubuntu", "26.04", (2031, 5, 29), Some((2036, 4, 23))),
    release("ubuntu", "26.10", (2027, 7, 15), None),
];

type Day = (i16, i8, i8);

const fn release(
    id: &'static str,
    version: &'static str,
    until: Day,
    subscription: Option<Day>,
) -> Release {
    let with_subscription_until = match subscription {
        Some((year, month, day)) => Some(jiff::civil::date(year, month, day)),
        None => None,
    };
    Release {
        id,
        version,
        until: jiff::civil::date(until.0, until.1, until.2),
        with_subscription_until,
    }
}

/// The release of that name.
pub(super) fn find(id: &str, version: &str) -> Option<&'static Release> {
    RELEASES.iter().find(|release| release.id == id && release.version == version)
}
