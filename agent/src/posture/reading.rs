//! From paths to parsed evidence: the step between [`Root`] and the parsers, for the checks of
//! accounts, logs, authentication and the platform.

use super::finding::Unknown;
use super::malformed::Malformed;
use super::pam::{self, Facility, Rule};
use super::root::{CONFIG_BYTES_MAX, Root};

/// Processes that are looked at; a terminal server of a hundred users has some thousands.
const PROCESSES_MAX: usize = 20_000;

/// Files that one pattern names; `/etc/sudoers.d` of a large site has some dozens.
const INCLUDED_FILES_MAX: usize = 256;

/// Bytes of a task name: the kernel keeps 15 and a newline.
const TASK_NAME_BYTES_MAX: u64 = 64;

/// Bytes of `/proc/<pid>/status`: some fifty short lines, and the groups of a user of thousands.
const STATUS_BYTES_MAX: u64 = 64 << 10;

impl From<Malformed> for Unknown {
    /// For configurations of several files; a single one is named by [`parsed`].
    fn from(malformed: Malformed) -> Self {
        Self::Malformed { what: "configuration".into(), problem: malformed.to_string() }
    }
}

/// A file that has to be there, parsed.
///
/// # Errors
/// When it is not there, cannot be read, or is malformed.
pub(super) fn required<T>(
    root: &Root,
    path: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<T, Unknown> {
    optional(root, path, parse)?.ok_or_else(|| Unknown::absent(path))
}

/// A file that may be missing, parsed.
///
/// # Errors
/// When it cannot be read or is malformed.
pub(super) fn optional<T>(
    root: &Root,
    path: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, Unknown> {
    let Some(bytes) = root.bytes(path, CONFIG_BYTES_MAX)? else { return Ok(None) };
    parsed(path, parse(&bytes)).map(Some)
}

/// Names the file in the error.
///
/// # Errors
/// When it is malformed.
pub(super) fn parsed<T>(path: &str, parsed: Result<T, Malformed>) -> Result<T, Unknown> {
    parsed.map_err(|malformed| Unknown::malformed(path, malformed.to_string()))
}

/// The same for a path below a home, which is the name of a person and stays on the machine.
pub(super) fn nameless(shown: &str, unknown: Unknown) -> Unknown {
    let what = shown.to_owned();
    match unknown {
        Unknown::PermissionDenied { .. } => Unknown::PermissionDenied { what },
        Unknown::Absent { .. } => Unknown::Absent { what },
        Unknown::Malformed { problem, .. } => Unknown::Malformed { what, problem },
        Unknown::Unreadable { problem, .. } => Unknown::Unreadable { what, problem },
        Unknown::TooLarge { bytes_max, .. } => Unknown::TooLarge { what, bytes_max },
        other @ (Unknown::Unsupported(_) | Unknown::Stale(_) | Unknown::TimedOut(_)) => other,
    }
}

/// The files that a pattern names, sorted, with their content. `*` and `?` are understood in the
/// last part, where every distribution has them.
///
/// # Errors
/// When one cannot be read, or the pattern is of another kind.
pub(super) fn matching(root: &Root, pattern: &str) -> Result<Vec<(String, Vec<u8>)>, Unknown> {
    let (directory, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    if directory.contains(['*', '?', '[']) || name.contains('[') {
        return Err(Unknown::Unsupported(format!("the pattern {pattern} is not understood")));
    }
    let names = if name.contains(['*', '?']) {
        root.names(directory)?.unwrap_or_default()
    } else {
        vec![name.to_owned()]
    };
    let paths = names
        .into_iter()
        .filter(|candidate| is_match(name, candidate))
        .map(|candidate| format!("{directory}/{candidate}"));
    contents(root, paths)
}

/// The content of those files that are there, all of them together within limits.
///
/// # Errors
/// When one cannot be read, or they are too many or too large.
pub(super) fn contents(
    root: &Root,
    paths: impl Iterator<Item = String>,
) -> Result<Vec<(String, Vec<u8>)>, Unknown> {
    let mut files = Vec::new();
    let mut left = CONFIG_BYTES_MAX;
    for path in paths {
        if files.len() == INCLUDED_FILES_MAX {
            return Err(Unknown::malformed(path, "is one of too many included files"));
        }
        if let Some(bytes) = root.bytes(&path, left)? {
            left -= bytes.len() as u64;
            files.push((path, bytes));
        }
    }
    Ok(files)
}

/// The modules of one group of a service, with all inclusions; `None` where PAM has no such
/// service.
///
/// # Errors
/// When a file cannot be read, is missing or malformed.
pub(super) fn pam_stack(
    root: &Root,
    service: &str,
    facility: Facility,
) -> Result<Option<Vec<Rule>>, Unknown> {
    if root.metadata(format!("/etc/pam.d/{service}"))?.is_none() {
        return Ok(None);
    }
    let mut read = |file: &str| {
        let path =
            if file.starts_with('/') { file.to_owned() } else { format!("/etc/pam.d/{file}") };
        root.bytes(&path, CONFIG_BYTES_MAX)?.ok_or_else(|| Unknown::absent(&path))
    };
    pam::stack(service, facility, &mut read).map(Some)
}

/// glob(7) without brackets; a leading dot has to be written.
fn is_match(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|&rest| rest == '*')
}

/// Root's processes of these names (`/proc/<pid>/comm`, cut to 15 bytes by the kernel). Users'
/// processes may call themselves anything and are left out, and so are those of containers: what
/// logs or scans there does nothing for this machine.
///
/// # Errors
/// When processes are hidden (`hidepid`), so that a missing one proves nothing.
pub(super) fn root_tasks(root: &Root, wanted: &[&str]) -> Result<Vec<(u32, String)>, Unknown> {
    let names = root.names("/proc")?.ok_or_else(|| Unknown::absent("/proc"))?;
    if root.metadata("/proc/1")?.is_none() {
        return Err(Unknown::PermissionDenied { what: "/proc/1: processes are hidden".into() });
    }
    let mut tasks = Vec::new();
    let mut is_any_read = false;
    let pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    if pids.len() > PROCESSES_MAX {
        return Err(Unknown::Unsupported(format!("more than {PROCESSES_MAX} processes")));
    }
    for pid in pids {
        // A process may end between the listing and the look at it.
        let Some(metadata) = root.metadata(format!("/proc/{pid}"))? else { continue };
        if metadata.uid != 0 {
            continue;
        }
        let Some(name) = of_process(root, pid, "comm", TASK_NAME_BYTES_MAX)? else { continue };
        is_any_read = true;
        let name = name.trim_end();
        if wanted.contains(&name) && is_of_this_machine(root, pid)? {
            tasks.push((pid, name.to_owned()));
        }
    }
    if is_any_read { Ok(tasks) } else { Err(Unknown::absent("/proc/*/comm")) }
}

/// Whether a process lives in the PID namespace of this `/proc`: `NSpid` of proc_pid_status(5)
/// gives one number for each namespace from there down to its own. A kernel without namespaces
/// has no such line.
fn is_of_this_machine(root: &Root, pid: u32) -> Result<bool, Unknown> {
    let Some(status) = of_process(root, pid, "status", STATUS_BYTES_MAX)? else {
        return Ok(false);
    };
    let spaces = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    Ok(spaces.is_none_or(|spaces| spaces.split_whitespace().count() == 1))
}

/// A file of a process; `None` when it has ended meanwhile (ESRCH, or no such file).
fn of_process(
    root: &Root,
    pid: u32,
    file: &str,
    bytes_max: u64,
) -> Result<Option<String>, Unknown> {
    match root.text(format!("/proc/{pid}/{file}"), bytes_max) {
        Err(Unknown::Unreadable { .. }) => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn matches(pattern: &str, name: &str, expected: bool) {
        assert_eq!(is_match(pattern, name), expected, "{pattern} {name}");
    }

    #[test]
    fn patterns_are_those_of_the_shell() {
        matches("*.conf", "a.conf", true);
        matches("*.conf", ".conf", false);
        matches("*", "", true);
        matches("a*b*c", "axxbxxbc", true);
        matches("a?c", "abc", true);
        matches("a*b", "axbx", false);
        matches("sshd_config", "sshd_config", true);
    }
}
