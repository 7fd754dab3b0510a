//! Text evidence as lines, and what is said when bytes are not what their format promises.
//!
//! Every parser of posture evidence is a plain function over bytes that ends in a value or in
//! [`Malformed`]; a malformed source makes its check unknown (`parse_error`), never green.

use std::borrow::Cow;

/// Most lines a configuration file may have. The longest seen in distributions, `/etc/services`,
/// has under a thousand; a directory of 20,000 accounts still fits.
pub const LINES_MAX: usize = 50_000;

/// Most bytes of one line; sudo, sshd and glibc refuse or truncate far shorter ones.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Why bytes could not be understood. It names no content: evidence may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line breaks the format.
    #[error("line {number}: {what}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The whole breaks the format.
    #[error("{0}")]
    Whole(&'static str),
}

/// Lines of a text with their numbers, without their ends. Bytes that are not UTF-8 are kept as
/// replacement characters: comments in another locale must not hide the directives beside them.
///
/// # Errors
/// A NUL byte, more than [`LINES_MAX`] lines, or a line over [`LINE_BYTES_MAX`].
pub fn lines(bytes: &[u8]) -> Result<Vec<(usize, Cow<'_, str>)>, Malformed> {
    if bytes.contains(&0) {
        return Err(Malformed::Whole("binary data where text was expected"));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        if number > LINES_MAX {
            return Err(Malformed::Whole("too many lines"));
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(Malformed::Line { number, what: "longer than any tool accepts" });
        }
        lines.push((number, String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))));
    }
    Ok(lines)
}

/// Lines joined where one ends in a backslash, each with the number of its first.
///
/// # Errors
/// As [`lines`], and a joined line over [`LINE_BYTES_MAX`].
pub fn logical_lines(bytes: &[u8]) -> Result<Vec<(usize, String)>, Malformed> {
    let mut joined: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in lines(bytes)? {
        let (part, continues) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (&*line, false),
        };
        match joined.last_mut() {
            Some((first, whole)) if open => {
                whole.push(' ');
                whole.push_str(part);
                if whole.len() > LINE_BYTES_MAX {
                    return Err(Malformed::Line {
                        number: *first,
                        what: "longer than any tool accepts",
                    });
                }
            }
            _ => joined.push((number, part.to_owned())),
        }
        open = continues;
    }
    Ok(joined)
}

/// `key = value` or `key value` lines, as libpwquality, pam_faillock and login.defs have them;
/// `#` starts a comment, a key alone has an empty value, the last of a key wins.
///
/// # Errors
/// As [`lines`].
pub fn assignments(bytes: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let mut found = Vec::new();
    for (_, line) in lines(bytes)? {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (key, value) = line
            .split_once(|character: char| character == '=' || character.is_whitespace())
            .unwrap_or((line, ""));
        let value = value.trim().trim_start_matches('=').trim();
        found.push((key.trim().to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_locale_hides_no_line() {
        let lines = lines(b"# ti\xeang Vi\xeat\r\nPort 22").unwrap();
        assert_eq!(lines[1], (2, Cow::Borrowed("Port 22")));
    }

    #[test]
    fn binary_and_endless_input_is_refused() {
        assert!(lines(b"a\0b").is_err());
        assert!(lines(&b"\n".repeat(LINES_MAX + 1)).is_err());
        assert!(lines(&b"x".repeat(LINE_BYTES_MAX + 1)).is_err());
        assert!(logical_lines(&b"xxxxxxxxxxxxxxx\\\n".repeat(LINE_BYTES_MAX / 8)).is_err());
    }

    #[test]
    fn a_backslash_joins_lines() {
        let joined = logical_lines(b"a \\\nb\nc\\").unwrap();
        assert_eq!(joined, [(1, "a  b".to_owned()), (3, "c".to_owned())]);
    }

    #[test]
    fn both_ways_to_assign_are_read() {
        let found = assignments(b"minlen = 14 # why\nUID_MIN\t1000\nlocal_users_only\n").unwrap();
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, [("minlen", "14"), ("UID_MIN", "1000"), ("local_users_only", "")]);
    }
}
