//! PAM stacks (pam.d(5)), expanded with `@include`, `include` and `substack`, and what the
//! password and lock-out modules in them demand.

use super::inclusion::Inclusion;
use super::malformed::{Malformed, logical_lines};

/// The four management groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// Who is it?
    Auth,
    /// May they?
    Account,
    /// Changing the password.
    Password,
    /// Around the session.
    Session,
}

/// Whether a module's failure ends in refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `required`, `requisite`, or a bracket whose default is to fail.
    Demanded,
    /// `sufficient`, `optional`, or a bracket that lets failure pass.
    Lenient,
}

/// One module of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its group.
    pub facility: Facility,
    /// What its failure does.
    pub control: Control,
    /// File name of the module, such as `pam_unix.so`.
    pub module: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Rule {
    /// The value of `name=value`.
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.arguments
            .iter()
            .rev()
            .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether a bare argument is there.
    pub fn has(&self, name: &str) -> bool {
        self.arguments.iter().any(|argument| argument == name)
    }
}

/// One line of a file in pam.d.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A module.
    Rule(Rule),
    /// Another file: all of it, or its lines of one group.
    Include {
        /// `None` for `@include`.
        facility: Option<Facility>,
        /// Name inside pam.d, or an absolute path.
        file: String,
    },
}

/// One file of pam.d.
///
/// # Errors
/// A line PAM would not accept.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut entries = Vec::new();
    for (number, line) in logical_lines(bytes)? {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let words = words(number, line)?;
        entries.push(entry(number, &words)?);
    }
    Ok(entries)
}

fn entry(number: usize, words: &[String]) -> Result<Entry, Malformed> {
    let bad = |what| Malformed::Line { number, what };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["@include", file] => Ok(Entry::Include { facility: None, file: file.to_owned() }),
        [facility, "include" | "substack", file] => Ok(Entry::Include {
            facility: Some(self::facility(facility).ok_or(bad("an unknown group"))?),
            file: file.to_owned(),
        }),
        [facility, control, module, ref arguments @ ..] => Ok(Entry::Rule(Rule {
            facility: self::facility(facility).ok_or(bad("an unknown group"))?,
            control: self::control(control).ok_or(bad("an unknown control"))?,
            module: module.rsplit('/').next().unwrap_or_default().to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        })),
        _ => Err(bad("neither a module nor an inclusion")),
    }
}

fn facility(word: &str) -> Option<Facility> {
    match word.strip_prefix('-').unwrap_or(word).to_ascii_lowercase().as_str() {
        "auth" => Some(Facility::Auth),
        "account" => Some(Facility::Account),
        "password" => Some(Facility::Password),
        "session" => Some(Facility::Session),
        _ => None,
    }
}

fn control(word: &str) -> Option<Control> {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "required" | "requisite" => Some(Control::Demanded),
        "sufficient" | "optional" | "binding" => Some(Control::Lenient),
        _ => {
            let inside = word.strip_prefix('[')?.strip_suffix(']')?;
            // A module that fails takes the action of `default`, unless its own error is named.
            let default = inside.split_whitespace().find_map(|pair| pair.strip_prefix("default="));
            Some(match default {
                Some("die" | "bad") => Control::Demanded,
                _ => Control::Lenient,
            })
        }
    }
}

/// Words, where brackets hold spaces together.
fn words(number: usize, line: &str) -> Result<Vec<String>, Malformed> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let end = if rest.starts_with('[') {
            rest.find(']')
                .map(|at| at + 1)
                .ok_or(Malformed::Line { number, what: "a bracket is not closed" })?
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        words.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    Ok(words)
}

/// Reads one file of pam.d by its name, or by its path if that is absolute.
pub type Read<'a, E> = &'a mut dyn FnMut(&str) -> Result<Vec<u8>, E>;

/// The modules of one group of a service, in order, with all inclusions.
///
/// # Errors
/// What `read` returns, what PAM would not accept, and inclusions without an end.
pub fn stack<E: From<Malformed>>(
    service: &str,
    facility: Facility,
    read: Read<'_, E>,
) -> Result<Vec<Rule>, E> {
    let mut rules = Vec::new();
    expand(service, facility, &mut Inclusion::default(), read, &mut rules)?;
    Ok(rules)
}

fn expand<E: From<Malformed>>(
    file: &str,
    wanted: Facility,
    inclusion: &mut Inclusion,
    read: Read<'_, E>,
    rules: &mut Vec<Rule>,
) -> Result<(), E> {
    inclusion.enter(file)?;
    for entry in parse(&read(file)?)? {
        match entry {
            Entry::Rule(rule) if rule.facility == wanted => rules.push(rule),
            Entry::Rule(_) => {}
            Entry::Include { facility, file } => {
                if facility.is_none_or(|facility| facility == wanted) {
                    expand(&file, wanted, inclusion, read, rules)?;
                }
            }
        }
    }
    inclusion.leave();
    Ok(())
}

/// Settings of libpwquality or pam_faillock, in the order in which they were read.
pub type Assignments = [(String, String)];

/// The shortest password that the `password` stack accepts.
///
/// pam_pwquality counts a character class as extra length where its credit is positive, so the
/// credits are taken off; pam_unix alone asks for six. Only modules whose refusal counts count.
///
/// # Errors
/// A length that is no number, or a module whose rule is not one length.
pub fn password_length_min(rules: &[Rule], pwquality: &Assignments) -> Result<u32, Malformed> {
    let mut longest = 0;
    for rule in rules {
        let length = match rule.module.as_str() {
            "pam_pwquality.so" if rule.control == Control::Demanded => {
                graded_length(rule, pwquality, 8, 0)?
            }
            "pam_cracklib.so" if rule.control == Control::Demanded => {
                graded_length(rule, &[], 9, 1)?
            }
            "pam_passwdqc.so" => {
                return Err(Malformed::Whole("pam_passwdqc grades by class, not by one length"));
            }
            "pam_unix.so" => number(rule.argument("minlen").unwrap_or("6"))?.max(0),
            _ => continue,
        };
        longest = longest.max(length);
    }
    if longest == 0 {
        return Err(Malformed::Whole("no module of the password stack is known"));
    }
    Ok(u32::try_from(longest).unwrap_or(0))
}

fn graded_length(
    rule: &Rule,
    file: &Assignments,
    length_default: i64,
    credit_default: i64,
) -> Result<i64, Malformed> {
    let value = |key: &str, default: i64| match rule.argument(key).or_else(|| last(file, key)) {
        Some(text) => number(text),
        None => Ok(default),
    };
    let enforcing = value("enforcing", 1)? != 0;
    let mut length = value("minlen", length_default)?;
    for credit in ["dcredit", "ucredit", "lcredit", "ocredit"] {
        length -= value(credit, credit_default)?.max(0);
    }
    // Neither library accepts less than six, whatever the settings say.
    Ok(if enforcing { length.max(6) } else { 0 })
}

/// After how many failures pam_faillock, or its forerunner pam_tally2, locks an account;
/// `None` when neither does.
///
/// # Errors
/// A number that is none.
pub fn failures_max(rules: &[Rule], faillock: &Assignments) -> Result<Option<u32>, Malformed> {
    let deny = |rule: &Rule, file: &Assignments, default: &str| {
        let value = rule.argument("deny").or_else(|| last(file, "deny")).unwrap_or(default);
        number(value).map(|deny| u32::try_from(deny).ok().filter(|&deny| deny > 0))
    };
    let counting = |rule: &&Rule| rule.module == "pam_faillock.so" && rule.has("authfail");
    let refusing = rules.iter().any(|rule| {
        rule.module == "pam_faillock.so" && (rule.has("preauth") || rule.has("authsucc"))
    });
    if let Some(rule) = rules.iter().find(counting) {
        return if refusing { deny(rule, faillock, "3") } else { Ok(None) };
    }
    match rules.iter().find(|rule| rule.module == "pam_tally2.so") {
        Some(rule) => deny(rule, &[], "0"),
        None => Ok(None),
    }
}

/// Whether the `auth` stack demands something beside a password of everybody. `nullok` lets
/// those pass who have not registered anything.
pub fn second_factor(rules: &[Rule]) -> bool {
    const MODULES: [&str; 7] = [
        "pam_google_authenticator.so",
        "pam_oath.so",
        "pam_u2f.so",
        "pam_yubico.so",
        "pam_duo.so",
        "pam_pkcs11.so",
        "pam_fido2.so",
    ];
    rules.iter().any(|rule| {
        MODULES.contains(&rule.module.as_str())
            && rule.control == Control::Demanded
            && !rule.has("nullok")
    })
}

fn last<'a>(assignments: &'a Assignments, key: &str) -> Option<&'a str> {
    assignments.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn number(text: &str) -> Result<i64, Malformed> {
    // Bounded, so that sums of credits cannot overflow.
    text.parse::<i32>().map(i64::from).map_err(|_| Malformed::Whole("a setting is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str, facility: Facility) -> Vec<Rule> {
        stack::<Malformed>("main", facility, &mut |_| Ok(text.as_bytes().to_vec())).unwrap()
    }

    fn settings(text: &str) -> Vec<(String, String)> {
        super::super::malformed::assignments(text.as_bytes()).unwrap()
    }

    #[track_caller]
    fn length(stack: &str, conf: &str, expected: u32) {
        let rules = rules(stack, Facility::Password);
        assert_eq!(password_length_min(&rules, &settings(conf)), Ok(expected), "{stack}");
    }

    const DEBIAN: &str = "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\npassword requisite pam_deny.so\n";

    #[test]
    fn length_is_what_is_enforced() {
        length(DEBIAN, "minlen = 14", 6);
        length("password requisite pam_pwquality.so retry=3", "", 8);
        length("password requisite pam_pwquality.so retry=3", "minlen = 14", 14);
        length("password requisite pam_pwquality.so minlen=10", "minlen = 14", 10);
        length("password requisite pam_pwquality.so", "minlen = 14\ndcredit = 2\nucredit=-1", 12);
        length("password required pam_cracklib.so minlen=14", "", 10);
        length(
            "password optional pam_pwquality.so minlen=14\npassword required pam_unix.so",
            "",
            6,
        );
        length(
            "password requisite pam_pwquality.so\npassword required pam_unix.so",
            "minlen=14\nenforcing=0",
            6,
        );
    }

    #[test]
    fn what_is_not_one_length_is_not_judged() {
        let passwdqc = rules("password requisite pam_passwdqc.so", Facility::Password);
        assert!(password_length_min(&passwdqc, &[]).is_err());
        assert!(password_length_min(&[], &[]).is_err());
        let huge =
            rules("password requisite pam_pwquality.so minlen=99999999999", Facility::Password);
        assert!(password_length_min(&huge, &[]).is_err());
    }

    #[track_caller]
    fn failures(stack: &str, conf: &str, expected: Option<u32>) {
        let rules = rules(stack, Facility::Auth);
        assert_eq!(failures_max(&rules, &settings(conf)), Ok(expected), "{stack}");
    }

    #[test]
    fn lockout_needs_counting_and_refusing() {
        let both = "auth required pam_faillock.so preauth\nauth [success=1 default=ignore] pam_unix.so\nauth [default=die] pam_faillock.so authfail\n";
        failures(both, "", Some(3));
        failures(both, "deny = 5", Some(5));
        failures(both, "deny = 0", None);
        failures("auth required pam_faillock.so preauth", "", None);
        failures("auth [default=die] pam_faillock.so authfail", "", None);
        failures("auth required pam_tally2.so deny=4 onerr=fail", "", Some(4));
        failures("auth required pam_unix.so", "deny = 5", None);
    }

    #[test]
    fn inclusion_takes_the_wanted_group_and_ends() {
        let files = |file: &str| -> Result<Vec<u8>, Malformed> {
            Ok(match file {
                "sshd" => b"@include common\nauth include common\naccount include loop".to_vec(),
                "common" => b"auth required pam_env.so\naccount required pam_unix.so".to_vec(),
                _ => b"account substack loop".to_vec(),
            })
        };
        assert_eq!(stack("sshd", Facility::Auth, &mut |file| files(file)).unwrap().len(), 2);
        assert!(stack("sshd", Facility::Account, &mut |file| files(file)).is_err());
    }

    #[test]
    fn a_second_factor_that_lets_the_unregistered_pass_is_none() {
        let demanded = rules("auth required pam_google_authenticator.so", Facility::Auth);
        assert!(second_factor(&demanded));
        let nullok = rules("auth required pam_google_authenticator.so nullok", Facility::Auth);
        assert!(!second_factor(&nullok));
    }

    #[test]
    fn what_pam_would_refuse_is_refused() {
        for text in [
            "auth",
            "auht required pam_unix.so",
            "auth perhaps pam_unix.so",
            "auth [default=die pam_unix.so",
            "\0",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
