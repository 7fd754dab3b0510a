//! The calendar's file: strict TOML. The commented sample in `deploy/` is its manual and is
//! tested to load.

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haidang_proto::model::agency::AgencyId;
use jiff::civil::{Date, Weekday};
use serde::Deserialize;
use toml::Spanned;

use super::{Calendar, DAY_MIN, Hours, Opening};
use crate::roster::AgencyKind;

/// Bytes of a file: hours of every agency of the nation would fit.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Openings of one day.
const OPENINGS_MAX: usize = 8;
/// Longest margin: beyond it the calendar would say little.
const MARGIN_MAX: Duration = Duration::from_secs(2 * 3_600);
/// Longest holiday.
const HOLIDAY_DAYS_MAX: i32 = 31;

/// A calendar that is not used.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// It cannot be read.
    #[error("cannot read the calendar {path}; see the key calendar of the configuration")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is longer than any calendar.
    #[error("{path} is larger than 1 MiB and no calendar")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Something in it is wrong.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found and what was expected.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(with = "humantime_serde", default = "margin")]
    margin: Duration,
    #[serde(default)]
    hours: Vec<Spanned<HoursText>>,
    #[serde(default)]
    holiday: Vec<Spanned<HolidayText>>,
    #[serde(default)]
    working_day: Vec<Spanned<WorkingDayText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursText {
    #[serde(default)]
    kinds: Vec<Spanned<String>>,
    #[serde(default)]
    agencies: Vec<Spanned<String>>,
    weekdays: Vec<Spanned<String>>,
    open: Vec<Spanned<String>>,
    #[serde(default)]
    works_on_holidays: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HolidayText {
    name: String,
    from: Spanned<String>,
    to: Option<Spanned<String>>,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkingDayText {
    date: Spanned<String>,
    source: String,
}

type Broken = (Range<usize>, String);

const fn margin() -> Duration {
    Duration::from_secs(15 * 60)
}

impl Calendar {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, CalendarError> {
        let unreadable = |source| CalendarError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(CalendarError::TooLarge { path: path.to_owned() });
        }
        Self::parse(&text, path)
    }

    /// Parses and checks the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, CalendarError> {
        let line =
            |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let broken = |at: usize, problem: String| CalendarError::Line {
            path: path.to_owned(),
            line: line(at),
            problem,
        };
        let file: File = toml::from_str(text).map_err(|error| {
            broken(error.span().map_or(0, |span| span.start), error.message().to_owned())
        })?;
        calendar(file, line).map_err(|(span, problem)| broken(span.start, problem))
    }
}

fn calendar(file: File, line: impl Fn(usize) -> usize) -> Result<Calendar, Broken> {
    let File { margin, hours, holiday, working_day } = file;
    if margin > MARGIN_MAX {
        return Err((0..0, format!("margin = {margin:?} is longer than 2h")));
    }
    let mut calendar = Calendar { margin, ..Calendar::default() };
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut take = |who: String, span: Range<usize>| match taken.insert(who.clone(), span.start) {
        None => Ok(()),
        Some(first) => {
            let first = line(first);
            Err((span, format!("{who} has hours already, in line {first}; name it once")))
        }
    };
    for entry in hours {
        let whole = entry.span();
        let HoursText { kinds, agencies, weekdays, open, works_on_holidays } = entry.into_inner();
        let hours =
            Hours { weekdays: days(weekdays)?, open: openings(open, margin)?, works_on_holidays };
        if kinds.is_empty() && agencies.is_empty() {
            take("every other agency".to_owned(), whole)?;
            calendar.of_all = Some(hours);
            continue;
        }
        for kind in kinds {
            let (span, text) = (kind.span(), kind.into_inner());
            let kind = AgencyKind::ALL.iter().find(|kind| kind.as_str() == text);
            let kind =
                kind.ok_or_else(|| (span.clone(), format!("{text:?} is no kind of agency")))?;
            take(text, span)?;
            calendar.of_kinds.insert(*kind, hours.clone());
        }
        for agency in agencies {
            let (span, text) = (agency.span(), agency.into_inner());
            let id: AgencyId =
                text.parse().map_err(|_| (span.clone(), format!("{text:?} is no agency id")))?;
            take(text, span)?;
            calendar.of_agencies.insert(id, hours.clone());
        }
    }
    for entry in holiday {
        calendar.holidays.push(days_off(entry)?);
    }
    let mut worked = BTreeSet::new();
    for entry in working_day {
        let whole = entry.span();
        let WorkingDayText { date, source } = entry.into_inner();
        sourced(&source, whole)?;
        let span = date.span();
        let day = day(date)?;
        if !worked.insert(day) {
            return Err((span, format!("{day} is named already")));
        }
    }
    calendar.worked_instead = worked;
    Ok(calendar)
}

fn days(weekdays: Vec<Spanned<String>>) -> Result<Vec<Weekday>, Broken> {
    let mut days = Vec::new();
    for weekday in weekdays {
        let (span, text) = (weekday.span(), weekday.into_inner());
        let day = match text.as_str() {
            "mon" => Weekday::Monday,
            "tue" => Weekday::Tuesday,
            "wed" => Weekday::Wednesday,
            "thu" => Weekday::Thursday,
            "fri" => Weekday::Friday,
            "sat" => Weekday::Saturday,
            "sun" => Weekday::Sunday,
            _ => {
                let problem = format!("{text:?} is none of mon, tue, wed, thu, fri, sat, sun");
                return Err((span, problem));
            }
        };
        if days.contains(&day) {
            return Err((span, format!("{text} is named already")));
        }
        days.push(day);
    }
    Ok(days)
}

fn openings(open: Vec<Spanned<String>>, margin: Duration) -> Result<Vec<Opening>, Broken> {
    let mut openings: Vec<Opening> = Vec::new();
    for text in open {
        let (span, text) = (text.span(), text.into_inner());
        let parsed = text.split_once('-').and_then(|(from, to)| {
            let opening = Opening { from_min: minute(from)?, to_min: minute(to)? };
            (opening.from_min < opening.to_min).then_some(opening)
        });
        let problem = || format!("{text:?} is no time span such as 08:00-12:00");
        let opening = parsed.ok_or_else(|| (span.clone(), problem()))?;
        if openings.last().is_some_and(|last| opening.from_min < last.to_min) {
            return Err((span, format!("{text} begins before the one in front of it ends")));
        }
        let (from, to) = opening.shortened(margin);
        if from >= to {
            return Err((span, format!("{text} is no longer than the margin at both its ends")));
        }
        openings.push(opening);
        if openings.len() > OPENINGS_MAX {
            return Err((span, format!("a day has at most {OPENINGS_MAX} openings")));
        }
    }
    Ok(openings)
}

/// `HH:MM`, from 00:00 to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY_MIN).then_some(minutes)
}

fn days_off(entry: Spanned<HolidayText>) -> Result<(Date, Date), Broken> {
    let whole = entry.span();
    let HolidayText { name, from, to, source } = entry.into_inner();
    sourced(&source, whole.clone())?;
    let first = day(from)?;
    let last = to.map_or(Ok(first), day)?;
    let days = first.until(last).map_or(i32::MAX, |span| span.get_days());
    if !(0..HOLIDAY_DAYS_MAX).contains(&days) {
        return Err((whole, format!("{name} does not last 1 to {HOLIDAY_DAYS_MAX} days")));
    }
    Ok((first, last))
}

fn day(text: Spanned<String>) -> Result<Date, Broken> {
    let (span, text) = (text.span(), text.into_inner());
    text.parse().map_err(|_| (span, format!("{text:?} is no day such as 2026-02-17")))
}

/// Whoever holds alerts back says on whose word.
fn sourced(source: &str, span: Range<usize>) -> Result<(), Broken> {
    if source.trim().is_empty() {
        return Err((span, "source is empty; name the decision or announcement".to_owned()));
    }
    Ok(())
}
