//! A real collector with a working calendar: an office that switches off after its hours, or on a
//! holiday, alerts nobody, and the figures stay raw. The calendar says which hours are open today,
//! so that no clock is moved. Needs no root.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haidang_tests::collector::AgencySeen;
use haidang_tests::exposition::Exposition;
use haidang_tests::loopback::Loopback;
use haidang_tests::wait;

/// Open round the clock.
const OPEN: &str = "01-018";
/// Closed on every day of the week.
const CLOSED: &str = "01-001";
/// Open round the clock, and today is its holiday.
const ON_HOLIDAY: &str = "01-002";
const DEADLINE: Duration = Duration::from_secs(60);
/// Seconds that Vietnam is ahead of UTC, all year.
const VIETNAM: u64 = 7 * 3_600;
const DAY: u64 = 86_400;

#[tokio::test(flavor = "multi_thread")]
async fn silence_outside_the_hours_is_shown_and_drives_no_alert() {
    let world = Loopback::start_in_hours(&[OPEN, CLOSED, ON_HOLIDAY], &calendar()).await;
    let world = world.unwrap_or_else(|error| panic!("{error:#}"));
    let mut agents = Vec::new();
    for (number, agency) in (0..).zip([OPEN, CLOSED, ON_HOLIDAY]) {
        let agent = world.start_agent(agency, number, agency);
        agents.push(agent.unwrap_or_else(|error| panic!("{error:#}")));
    }
    for agency in [OPEN, CLOSED, ON_HOLIDAY] {
        world.connected(agency).await.unwrap_or_else(|error| panic!("{error:#}"));
    }
    let before = world.collector.metrics().await.expect("metrics");
    assert_eq!(connected(&before), 3.0);
    for agency in [OPEN, CLOSED, ON_HOLIDAY] {
        assert_eq!(suppressed(&before, agency), None, "{agency} is connected");
    }

    // Without a word, as when the mains are switched off.
    for agent in agents {
        agent.kill();
    }
    for (agency, reason) in
        [(OPEN, None), (CLOSED, Some("outside_hours")), (ON_HOLIDAY, Some("outside_hours"))]
    {
        wait::until(&format!("{agency} silent, {reason:?}"), DEADLINE, || async {
            let metrics = world.collector.metrics().await.map_err(|error| format!("{error:#}"))?;
            let state = AgencySeen::read(&metrics, agency).map(|seen| seen.state);
            let seen = (state.as_deref() == Some("silent"), suppressed(&metrics, agency));
            if seen == (true, reason.map(str::to_owned)) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
    let after = world.collector.metrics().await.expect("metrics");
    assert_eq!(connected(&after), 0.0, "the raw figure knows no hours");
    let incidents: f64 = after.find("haidang_incident_active", &[]).map(|one| one.value).sum();
    assert_eq!(incidents, 0.0);
}

/// Why alerts about an agency are held back.
fn suppressed(metrics: &Exposition, agency: &str) -> Option<String> {
    let of_agency = [("agency", agency)];
    metrics.label_of_one("haidang_agency_suppressed", &of_agency, "reason").map(str::to_owned)
}

fn connected(metrics: &Exposition) -> f64 {
    let labels = [("state", "connected")];
    metrics.find("haidang_agency_state", &labels).map(|sample| sample.value).sum()
}

/// Yesterday to tomorrow are holidays: midnight may pass while the test runs.
fn calendar() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_secs();
    let (from, to) = (day(now + VIETNAM - DAY), day(now + VIETNAM + DAY));
    let week = "[\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]";
    let always = format!("weekdays = {week}\nopen = [\"00:00-24:00\"]\n");
    format!(
        "[[hours]]\nagencies = [\"{OPEN}\"]\n{always}works_on_holidays = true\n\n\
         [[hours]]\nagencies = [\"{CLOSED}\"]\nweekdays = []\nopen = [\"00:00-24:00\"]\n\n\
         [[hours]]\nagencies = [\"{ON_HOLIDAY}\"]\n{always}\n\
         [[holiday]]\nname = \"today\"\nfrom = \"{from}\"\nto = \"{to}\"\nsource = \"a test\"\n"
    )
}

/// The date of a moment in seconds since 1970, by the inverse of the civil calendar's day count.
fn day(seconds: u64) -> String {
    let (mut year, mut left) = (1970, seconds / DAY);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", left + 1)
}

#[test]
fn a_day_is_the_calendars() {
    let days = [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_795_597_200, "2026-11-25")];
    for (seconds, expected) in days {
        assert_eq!(day(seconds), expected);
    }
}
