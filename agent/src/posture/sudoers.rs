//! Who may become root without proving who they are: sudoers(5), with its inclusions.

use super::inclusion::Inclusion;
use super::malformed::{LINE_BYTES_MAX, Malformed, logical_lines};

/// What lets somebody through without a password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unguarded {
    /// Rules with the tag NOPASSWD.
    pub nopasswd_rules: u32,
    /// `Defaults !authenticate`, of everybody or somebody.
    pub authenticate_off: bool,
    /// A negative `timestamp_timeout`: one password is good until the machine stops.
    pub never_asks_again: bool,
    /// `Defaults exempt_group`.
    pub exempt_group: bool,
}

/// One thing that an inclusion names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inclusive {
    /// `@include`.
    File(String),
    /// `@includedir`.
    Directory(String),
}

/// Reads what an inclusion names, as (path, content) sorted by name. Of a directory, names that
/// contain a dot or end in `~` are left out by [`is_read_from_directory`].
pub type Included<'a, E> = &'a mut dyn FnMut(&Inclusive) -> Result<Vec<(String, Vec<u8>)>, E>;

/// Whether sudo reads a file of this name from an included directory.
pub fn is_read_from_directory(name: &str) -> bool {
    !name.contains('.') && !name.ends_with('~')
}

impl Unguarded {
    /// Reads sudoers and what it includes.
    ///
    /// # Errors
    /// What `included` returns, and a line that visudo would not accept.
    pub fn read<E: From<Malformed>>(
        path: &str,
        bytes: &[u8],
        included: Included<'_, E>,
    ) -> Result<Self, E> {
        let mut unguarded = Self::default();
        unguarded.file(path, bytes, &mut Inclusion::default(), included)?;
        Ok(unguarded)
    }

    fn file<E: From<Malformed>>(
        &mut self,
        path: &str,
        bytes: &[u8],
        inclusion: &mut Inclusion,
        included: Included<'_, E>,
    ) -> Result<(), E> {
        inclusion.enter(path)?;
        for (number, line) in logical_lines(bytes)? {
            match Line::parse(number, &line)? {
                Line::Nothing => {}
                Line::Inclusion(inclusive) => {
                    for (path, bytes) in included(&inclusive)? {
                        self.file(&path, &bytes, inclusion, included)?;
                    }
                }
                Line::Defaults(settings) => self.defaults(&settings),
                Line::Grant { nopasswd } => self.nopasswd_rules += u32::from(nopasswd),
            }
        }
        inclusion.leave();
        Ok(())
    }

    fn defaults(&mut self, settings: &[String]) {
        for setting in settings {
            let (negated, setting) = match setting.strip_prefix('!') {
                Some(setting) => (true, setting.trim()),
                None => (false, setting.as_str()),
            };
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "authenticate" => self.authenticate_off |= negated,
                // `!timestamp_timeout` is 0: asks every time.
                "timestamp_timeout" => self.never_asks_again |= value.starts_with('-'),
                "exempt_group" => self.exempt_group |= !negated,
                _ => {}
            }
        }
    }
}

enum Line {
    Nothing,
    Inclusion(Inclusive),
    Defaults(Vec<String>),
    Grant { nopasswd: bool },
}

impl Line {
    fn parse(number: usize, line: &str) -> Result<Self, Malformed> {
        let line = line.trim();
        if let Some(directive) = line.strip_prefix('@').or_else(|| line.strip_prefix('#')) {
            if let Some(inclusion) = inclusion(directive) {
                return Ok(Self::Inclusion(inclusion));
            }
            if line.starts_with('@') {
                return Err(Malformed::Line { number, what: "an unknown directive" });
            }
        }
        let line = without_comment(line).trim_end();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if let Some(rest) = line.strip_prefix("Defaults")
            && rest.starts_with(|c: char| c.is_whitespace() || "@:!>".contains(c))
        {
            // A scope (`Defaults:an`) is one word; what it is set for does not matter.
            let settings = if rest.starts_with(char::is_whitespace) {
                rest
            } else {
                let scope = rest.trim_start_matches(['@', ':', '!', '>']).trim_start();
                scope.find(char::is_whitespace).map_or("", |at| &scope[at..])
            };
            return Ok(Self::Defaults(split_unquoted(settings, ',')));
        }
        let parts = split_unquoted(line, '=');
        if parts.len() < 2 {
            return Err(Malformed::Line { number, what: "neither a setting, an alias nor a rule" });
        }
        let first = line.split_whitespace().next().unwrap_or_default();
        if matches!(first, "User_Alias" | "Runas_Alias" | "Host_Alias" | "Cmnd_Alias" | "Cmd_Alias")
        {
            return Ok(Self::Nothing);
        }
        Ok(Self::Grant { nopasswd: parts[1..].iter().any(|part| has_nopasswd(part)) })
    }
}

fn inclusion(directive: &str) -> Option<Inclusive> {
    let (word, name) = directive.split_once(char::is_whitespace)?;
    let name = name.trim().trim_matches('"').replace("\\ ", " ");
    match word {
        "include" => Some(Inclusive::File(name)),
        "includedir" => Some(Inclusive::Directory(name)),
        _ => None,
    }
}

/// Without a trailing comment; `#` before a digit is a user or group id, and one in quotes or
/// after a backslash is itself.
fn without_comment(line: &str) -> &str {
    let bytes = line.as_bytes();
    let mut quoted = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            b'#' if !quoted && !bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                return &line[..at];
            }
            _ => {}
        }
        at += 1;
    }
    line
}

fn split_unquoted(text: &str, separator: char) -> Vec<String> {
    debug_assert!(text.len() <= 2 * LINE_BYTES_MAX, "lines are bounded where they are read");
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut escaped = false;
    for character in text.chars() {
        if character == separator && !quoted && !escaped {
            parts.push(String::new());
            continue;
        }
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn has_nopasswd(text: &str) -> bool {
    text.match_indices("NOPASSWD").any(|(at, tag)| {
        let starts = text[..at]
            .chars()
            .next_back()
            .is_none_or(|before| before.is_whitespace() || ":),=".contains(before));
        starts && text[at + tag.len()..].trim_start().starts_with(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Unguarded, Malformed> {
        let mut included = |inclusive: &Inclusive| {
            let (Inclusive::File(name) | Inclusive::Directory(name)) = inclusive;
            let found = files[1..].iter().filter(|(path, _)| path.starts_with(name.as_str()));
            Ok(found.map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect())
        };
        Unguarded::read(files[0].0, files[0].1.as_bytes(), &mut included)
    }

    #[track_caller]
    fn nopasswd(line: &str, expected: u32) {
        assert_eq!(read(&[("main", line)]).unwrap().nopasswd_rules, expected, "{line}");
    }

    #[test]
    fn the_tag_is_found_where_it_is_one() {
        nopasswd("%sudo ALL=(ALL:ALL) ALL", 0);
        nopasswd("%sudo ALL=(ALL:ALL) NOPASSWD: ALL", 1);
        nopasswd("%sudo ALL=(ALL:ALL)NOPASSWD:ALL", 1);
        nopasswd("an ALL = NOEXEC:NOPASSWD : \\\n /bin/true", 1);
        nopasswd("an ALL = PASSWD: /bin/a, NOPASSWD: /bin/b : host = /bin/c", 1);
        nopasswd("#1000 ALL=(ALL) NOPASSWD: ALL", 1);
        nopasswd("# an ALL=(ALL) NOPASSWD: ALL", 0);
        nopasswd("an ALL=(ALL) ALL # was NOPASSWD: ALL", 0);
        nopasswd("Cmnd_Alias NOPASSWD = /bin/true", 0);
    }

    #[test]
    fn defaults_count_for_whomever_they_are_set() {
        let of = |line| read(&[("main", line)]).unwrap();
        assert!(of("Defaults !authenticate").authenticate_off);
        assert!(of("Defaults:an env_reset, !authenticate").authenticate_off);
        assert!(!of("Defaults authenticate").authenticate_off);
        assert!(of("Defaults timestamp_timeout=-1").never_asks_again);
        assert!(of("Defaults env_reset, timestamp_timeout = \"-1\"").never_asks_again);
        assert!(
            !of("Defaults timestamp_timeout=15, passprompt=\"a, !authenticate\"").never_asks_again
        );
        assert!(!of("Defaults passprompt=\"a, !authenticate\"").authenticate_off);
        assert!(of("Defaults exempt_group=staff").exempt_group);
    }

    #[test]
    fn inclusions_are_followed_and_loops_end() {
        let included =
            [("main", "@includedir /etc/sudoers.d"), ("/etc/sudoers.d/a", "an ALL=NOPASSWD:ALL")];
        assert_eq!(read(&included).unwrap().nopasswd_rules, 1);
        let old =
            [("main", "#includedir /etc/sudoers.d"), ("/etc/sudoers.d/a", "an ALL=NOPASSWD:ALL")];
        assert_eq!(read(&old).unwrap().nopasswd_rules, 1);
        assert!(read(&[("main", "@include a"), ("a", "@include b"), ("b", "@include a")]).is_err());
        assert!(!is_read_from_directory("a.dpkg-old") && !is_read_from_directory("a~"));
    }

    #[test]
    fn what_visudo_would_refuse_is_refused() {
        for text in ["an ALL", "@inclde x", "\0"] {
            assert!(read(&[("main", text)]).is_err(), "{text}");
        }
    }
}
