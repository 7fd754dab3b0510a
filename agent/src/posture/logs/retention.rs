//! `log_persistence`: how far back the records on disk reach.

use std::time::{Duration, SystemTime};

use haidang_proto::model::posture::{CheckId, FailReason};

use crate::posture::Evidence;
use crate::posture::finding::{Finding, Judged, Unknown};
use crate::posture::journal_file::{HEADER_BYTES, header};
use crate::posture::reading::parsed;
use crate::posture::root::Root;

/// Journal files that are opened; 4 GB of journal in files of the usual 8 MB and more are fewer.
const JOURNAL_FILES_MAX: usize = 1000;

/// The first names of files that rsyslog and logrotate keep, Debian's and Red Hat's.
const SYSLOG_FILES: [&str; 6] =
    ["syslog", "messages", "auth.log", "secure", "user.log", "audit.log"];

/// Records older than the required period prove that they are kept that long. Where there are
/// none, the machine may be younger than the period: its age is that of `/etc/machine-id`, which
/// is written once, at the first boot.
pub(super) fn log_persistence(evidence: &Evidence<'_>) -> Judged {
    let days_min = evidence.threshold(CheckId::LogPersistence, "days_min")?;
    let root = &evidence.root;
    let journal = oldest_in_journal(root)?;
    let syslog = oldest_of_syslog(root)?;
    let Some(oldest) = [journal, syslog].into_iter().flatten().min() else {
        return Ok(Finding::Fail(FailReason::Absent, "no log is kept on disk".into()));
    };
    let kept_days = days(evidence.age("the oldest record", oldest)?);
    let seen = format!("oldest record {kept_days} days old (required {days_min})");
    if kept_days >= days_min {
        return Ok(Finding::Pass(seen));
    }
    let installed = root
        .metadata("/etc/machine-id")?
        .ok_or_else(|| Unknown::absent("/etc/machine-id"))?
        .modified;
    let machine_days = days(evidence.age("/etc/machine-id", installed)?);
    if machine_days < days_min {
        let seen = format!("{seen}, but the machine is only {machine_days} days old");
        return Err(Unknown::Stale(seen));
    }
    Ok(Finding::Fail(FailReason::WeakValue, seen))
}

fn days(age: Duration) -> u64 {
    age.as_secs() / 86_400
}

/// The oldest entry of this machine's persistent journal.
fn oldest_in_journal(root: &Root) -> Result<Option<SystemTime>, Unknown> {
    let Some(id) = root.text("/etc/machine-id", 64)? else { return Ok(None) };
    let id = id.trim();
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Unknown::malformed("/etc/machine-id", "is no machine id"));
    }
    let directory = format!("/var/log/journal/{id}");
    let Some(names) = root.names(&directory)? else { return Ok(None) };
    let mut oldest = None;
    // `~` marks a file that was not closed properly; its entries count as well.
    let is_journal = |name: &&String| name.ends_with(".journal") || name.ends_with(".journal~");
    let journals: Vec<&String> = names.iter().filter(is_journal).collect();
    if journals.len() > JOURNAL_FILES_MAX {
        return Err(Unknown::malformed(directory, "holds too many journal files"));
    }
    for name in journals {
        let path = format!("{directory}/{name}");
        // Vacuumed between the listing and the look at it.
        let Some(bytes) = root.part(&path, 0, HEADER_BYTES)? else { continue };
        let header = parsed(&path, header(&bytes))?;
        if header.entries > 0 && header.oldest_microseconds > 0 {
            let at = SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_micros(header.oldest_microseconds));
            let at = at.ok_or_else(|| Unknown::malformed(&path, "is dated beyond any clock"))?;
            oldest = Some(oldest.map_or(at, |oldest: SystemTime| oldest.min(at)));
        }
    }
    Ok(oldest)
}

/// The last write to the oldest rotated file: its records are at least that old.
fn oldest_of_syslog(root: &Root) -> Result<Option<SystemTime>, Unknown> {
    let mut oldest = None;
    for directory in ["/var/log", "/var/log/audit"] {
        for name in root.names(directory)?.unwrap_or_default() {
            let is_log = SYSLOG_FILES.iter().any(|first| {
                name.strip_prefix(first)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
            });
            if !is_log {
                continue;
            }
            let path = format!("{directory}/{name}");
            if let Some(metadata) = root.link_metadata(&path)?.filter(|metadata| metadata.bytes > 0)
            {
                let at = metadata.modified;
                oldest = Some(oldest.map_or(at, |oldest: SystemTime| oldest.min(at)));
            }
        }
    }
    Ok(oldest)
}
