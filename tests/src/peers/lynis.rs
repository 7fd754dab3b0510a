//! Lynis: what its log says of a test.
//!
//! Its screen says "ok" for a test that found nothing, whatever was looked at, so that is no
//! verdict: warnings, suggestions and points are. All points are a pass; a warning, a suggestion
//! or points kept back are a failure; neither is [`Theirs::NoFinding`]. A test that its
//! prerequisites rule out is not applicable.

use anyhow::{Result, bail};

use super::Theirs;

/// Before the text of every line: `2026-11-25 14:37:31 `.
const STAMP_BYTES: usize = 20;

/// What ends one question inside of a test that asks many.
const ENDS: [&str; 4] = ["Hardening: ", "Outcome: ", "Skipping file", "Result: key "];

/// How it passes over a file system that is none by itself.
const NOT_MOUNTED: &str = "not found in /etc/fstab";

/// The answer to an item: a test, or `TEST:what` for the part of a test that names `what`.
///
/// # Errors
/// When the log does not know the test.
pub fn answer(log: &str, item: &str) -> Result<Theirs> {
    let (test, part) = match item.split_once(':') {
        Some((test, part)) => (test, Some(part)),
        None => (item, None),
    };
    let lines: Vec<&str> =
        log.lines().map(|line| line.get(STAMP_BYTES..).unwrap_or_default()).collect();
    let named = |line: &&str, words: &str| {
        line.strip_prefix(words).and_then(|rest| rest.split(' ').next()) == Some(test)
    };
    let Some(start) = lines.iter().position(|line| named(line, "Performing test ID ")) else {
        if lines.iter().any(|line| named(line, "Skipped test ")) {
            return Ok(Theirs::NotApplicable);
        }
        bail!("Lynis' log does not know the test {test}");
    };
    let length = lines[start + 1..].iter().position(|line| line.starts_with("===="));
    let lines = &lines[start + 1..start + 1 + length.unwrap_or(lines.len() - start - 1)];
    Ok(match part {
        None => verdict(lines),
        Some(part) => match excerpt(lines, part) {
            Some(lines) => verdict(lines),
            // The test asks much, but not this.
            None => Theirs::NotEvaluated,
        },
    })
}

/// From the line that names `part` as a word to the line that concludes.
fn excerpt<'a>(lines: &'a [&'a str], part: &str) -> Option<&'a [&'a str]> {
    let names = |line: &&str| line.split(' ').any(|word| word == part);
    let start = lines.iter().position(names)?;
    let is_end =
        |line: &&str| ENDS.iter().any(|end| line.starts_with(end)) || line.ends_with(NOT_MOUNTED);
    let length = lines[start..].iter().position(is_end)?;
    Some(&lines[start..=start + length])
}

fn verdict(lines: &[&str]) -> Theirs {
    let any = |words: &str| lines.iter().any(|line| line.contains(words));
    let says_nothing_is_there = |line: &&str| {
        line.starts_with("Result: key ") && line.ends_with("does not exist on this machine")
            || line.starts_with("Skipping file")
            || line.ends_with(NOT_MOUNTED)
    };
    if lines.iter().any(|line| line.starts_with("Suggestion: ") || line.starts_with("Warning: "))
        || any("assigned partial number of hardening points")
        || any("are not matching expected value")
    {
        Theirs::Fail
    } else if any("assigned maximum number of hardening points")
        || any("Outcome: correct permissions")
    {
        Theirs::Pass
    } else if lines.iter().any(says_nothing_is_there) {
        Theirs::NotApplicable
    } else {
        Theirs::NoFinding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from the log of Lynis 3.0.8 on Debian 12.
    const LOG: &str = include_str!("lynis/sample.log");

    #[track_caller]
    fn answers(item: &str, expected: Theirs) {
        assert_eq!(answer(LOG, item).expect("the log knows it"), expected, "{item}");
    }

    #[test]
    fn points_suggestions_and_silence_are_told_apart() {
        answers("LOGG-2130", Theirs::Pass);
        answers("ACCT-9628", Theirs::Fail);
        answers("AUTH-9204", Theirs::NoFinding);
        answers("MALW-3286", Theirs::NotApplicable);
        assert!(answer(LOG, "MALW-9999").is_err());
    }

    #[test]
    fn a_part_of_a_test_has_its_own_answer() {
        answers("SSH-7408:PermitRootLogin", Theirs::Pass);
        answers("SSH-7408:AllowTcpForwarding", Theirs::Fail);
        answers("KRNL-6000:fs.suid_dumpable", Theirs::Pass);
        answers("KRNL-6000:fs.protected_fifos", Theirs::Fail);
        answers("KRNL-6000:kernel.yama.ptrace_scope", Theirs::NotApplicable);
        answers("SSH-7408:PasswordAuthentication", Theirs::NotEvaluated);
        answers("FILE-7524:/etc/passwd", Theirs::Pass);
        answers("FILE-7524:/etc/crontab", Theirs::Fail);
        answers("FILE-7524:/etc/at.deny", Theirs::NotApplicable);
        answers("FILE-6374:/dev/shm", Theirs::Fail);
    }
}
