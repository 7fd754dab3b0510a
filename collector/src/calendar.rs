//! The working calendar: when an agency's machines are expected to be on. Data, not code: hours by
//! agency, by kind or for all, public holidays with their source, and days worked instead.
//!
//! It changes no state and no figure. Outside the hours alerts about silence and outages are held
//! back, silence counts for no incident, and a gateway that stops answering proves nothing,
//! because an office may switch its router off. Each opening is shortened by a margin at both
//! ends: people come and go around the hour. Without a calendar every moment is a working one.
//!
//! The file is TOML and refused whole with file and line. Hours are local time in Vietnam
//! (UTC+7 all year).

mod file;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use haidang_proto::model::agency::AgencyId;
use jiff::civil::{Date, DateTime, Weekday};

use crate::roster::{AgencyKind, Roster};

pub use file::CalendarError;

/// The calendar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calendar {
    margin: Duration,
    of_all: Option<Hours>,
    of_kinds: HashMap<AgencyKind, Hours>,
    of_agencies: HashMap<AgencyId, Hours>,
    /// Each with its first and last day.
    holidays: Vec<(Date, Date)>,
    worked_instead: BTreeSet<Date>,
}

/// Hours of some agencies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hours {
    weekdays: Vec<Weekday>,
    open: Vec<Opening>,
    works_on_holidays: bool,
}

/// From one minute of the day to another; 24:00 is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opening {
    from_min: u16,
    to_min: u16,
}

/// Minutes of a day.
const DAY_MIN: u16 = 24 * 60;

impl Calendar {
    /// Whether an agency's machines are expected to be on at a local moment.
    pub fn expects(&self, agency: &AgencyId, kind: AgencyKind, at: DateTime) -> bool {
        let own = self.of_agencies.get(agency).or_else(|| self.of_kinds.get(&kind));
        let Some(hours) = own.or(self.of_all.as_ref()) else { return true };
        let day = at.date();
        let is_holiday = self.holidays.iter().any(|(from, to)| (*from..=*to).contains(&day));
        let is_worked = hours.weekdays.contains(&day.weekday())
            || self.worked_instead.contains(&day) && !hours.weekdays.is_empty();
        if !is_worked || is_holiday && !hours.works_on_holidays {
            return false;
        }
        hours.open.iter().any(|opening| opening.holds(at, self.margin))
    }

    /// Whether it says nothing, so that every moment is a working one.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it names any holiday of the year. Holidays are announced year by year, and a
    /// calendar that was not carried on calls them working days.
    pub fn covers(&self, year: i16) -> bool {
        self.is_empty() || self.holidays.iter().any(|(from, _)| from.year() == year)
    }

    /// Agencies that it names and the roster has not: misspelt, or gone.
    pub fn unknown<'a>(&'a self, roster: &Roster) -> Vec<&'a AgencyId> {
        let mut unknown: Vec<_> =
            self.of_agencies.keys().filter(|id| roster.row(id).is_none()).collect();
        unknown.sort_unstable();
        unknown
    }
}

impl Opening {
    fn holds(self, at: DateTime, margin: Duration) -> bool {
        let (from, to) = self.shortened(margin);
        let time = at.time();
        let seconds = |part: i8, each: u64| u64::try_from(part).unwrap_or(0) * each;
        let now =
            seconds(time.hour(), 3_600) + seconds(time.minute(), 60) + seconds(time.second(), 1);
        (from..to).contains(&now)
    }

    /// Seconds of the day without the margin; midnight is no one's arrival.
    fn shortened(self, margin: Duration) -> (u64, u64) {
        let margin = margin.as_secs();
        let (from, to) = (u64::from(self.from_min) * 60, u64::from(self.to_min) * 60);
        let from = if self.from_min == 0 { from } else { from + margin };
        let to = if self.to_min == DAY_MIN { to } else { to.saturating_sub(margin) };
        (from, to)
    }
}
