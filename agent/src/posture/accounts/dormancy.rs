//! `dormant_accounts`: who could log in, but has not for long.
//!
//! The last login is the latest that lastlog, wtmp or utmp tells. lastlog knows only logins of
//! programs that write it (a graphical login does not), wtmp only what was not rotated away: who
//! is in neither is dormant only when they reach far enough back.

use std::collections::HashMap;
use std::time::SystemTime;

use haidang_proto::model::posture::{CheckId, FailReason};

use super::{Member, first_user_id, members, today};
use crate::posture::Evidence;
use crate::posture::account_files::{
    LASTLOG_RECORD_BYTES, Login, Logins, UTMP_RECORD_BYTES, lastlog, utmp,
};
use crate::posture::finding::{Finding, Judged, Unknown};
use crate::posture::reading::parsed;
use crate::posture::root::Root;

const LASTLOG: &str = "/var/log/lastlog";
const DAY_SECONDS: u64 = 86_400;

/// The id of nobody, which no person has.
const NOBODY: u32 = 65_534;

/// Records of wtmp that are read, from the end: a busy server's month.
const WTMP_RECORDS_MAX: u64 = 10_000;

pub(super) fn dormant_accounts(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let days_max = evidence.threshold(CheckId::DormantAccounts, "days_max")?;
    let now = evidence.now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let limit = now.saturating_sub(days_max.saturating_mul(DAY_SECONDS));
    let first_user = first_user_id(root)?;
    let members = members(root)?;
    let mut people = Vec::new();
    for member in &members {
        let uid = member.account.uid;
        if uid >= first_user && uid != NOBODY && member.is_open(root, today(evidence))? {
            people.push(member);
        }
    }
    if people.is_empty() {
        return Ok(Finding::Pass("nobody but root can log in".into()));
    }
    let records = Records::read(root)?;
    let (mut dormant, mut undecided) = (0, 0);
    for person in &people {
        match records.activity(root, person, limit)? {
            Activity::Recent => {}
            Activity::Dormant => dormant += 1,
            Activity::Untold => undecided += 1,
        }
    }
    let seen = format!("{dormant} of {} accounts idle for more than {days_max} days", people.len());
    match (dormant, undecided) {
        (0, 0) => Ok(Finding::Pass(seen)),
        (0, _) => Err(Unknown::Stale(format!("{seen}; {undecided} are in no record of logins"))),
        _ => Ok(Finding::Fail(FailReason::Stale, seen)),
    }
}

enum Activity {
    Recent,
    Dormant,
    Untold,
}

/// What the machine recorded of logins.
struct Records {
    has_lastlog: bool,
    /// Latest login by name, in seconds since 1970.
    latest: HashMap<String, u64>,
    /// How far back wtmp reaches.
    since_seconds: Option<u64>,
}

impl Records {
    fn read(root: &Root) -> Result<Self, Unknown> {
        let has_lastlog = root.metadata(LASTLOG)?.is_some();
        let mut records = Self { has_lastlog, latest: HashMap::new(), since_seconds: None };
        let mut found = has_lastlog;
        for path in ["/var/log/wtmp.1", "/var/log/wtmp", "/run/utmp"] {
            let Some(Logins { logins, since_seconds }) = tail(root, path)? else { continue };
            found = true;
            for Login { name, seconds } in logins {
                let latest = records.latest.entry(name).or_default();
                *latest = seconds.max(*latest);
            }
            records.since_seconds =
                [records.since_seconds, since_seconds].into_iter().flatten().min();
        }
        if found {
            return Ok(records);
        }
        // Debian 13 and Fedora write SQLite databases instead.
        for path in ["/var/lib/lastlog/lastlog2.db", "/var/lib/wtmpdb/wtmp.db"] {
            if root.metadata(path)?.is_some() {
                return Err(Unknown::Unsupported(format!("{path}: this record is not read")));
            }
        }
        Err(Unknown::absent(LASTLOG))
    }

    fn activity(&self, root: &Root, person: &Member, limit: u64) -> Result<Activity, Unknown> {
        let account = &person.account;
        let told = self.latest.get(&account.name).copied();
        let written = if self.has_lastlog { last_login(root, account.uid)? } else { None };
        // An account is in use from the day its password was set.
        let set = person.shadow.as_ref().and_then(|shadow| shadow.changed_day);
        let set = set.map(|day| u64::from(day) * DAY_SECONDS);
        let latest = [told, written, set].into_iter().flatten().max();
        if latest.is_some_and(|latest| latest >= limit) {
            return Ok(Activity::Recent);
        }
        let reaches_back = self.since_seconds.is_some_and(|since| since <= limit);
        Ok(if written.is_some() || told.is_some() || reaches_back {
            Activity::Dormant
        } else {
            Activity::Untold
        })
    }
}

/// The record of a uid; lastlog is sparse, and ends after the highest uid that logged in.
fn last_login(root: &Root, uid: u32) -> Result<Option<u64>, Unknown> {
    let offset = u64::from(uid) * LASTLOG_RECORD_BYTES as u64;
    match root.part(LASTLOG, offset, LASTLOG_RECORD_BYTES)? {
        Some(record) if !record.is_empty() => parsed(LASTLOG, lastlog(&record)),
        _ => Ok(None),
    }
}

/// The last records of wtmp or utmp.
fn tail(root: &Root, path: &str) -> Result<Option<Logins>, Unknown> {
    let record_bytes = UTMP_RECORD_BYTES as u64;
    let Some(metadata) = root.metadata(path)? else { return Ok(None) };
    let records = metadata.bytes / record_bytes;
    let first = records.saturating_sub(WTMP_RECORDS_MAX);
    let bytes_max = (records - first) as usize * UTMP_RECORD_BYTES;
    let Some(bytes) = root.part(path, first * record_bytes, bytes_max)? else { return Ok(None) };
    parsed(path, utmp(&bytes)).map(Some)
}
