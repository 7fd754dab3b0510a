//! Whether guessing, borrowing and walking up to a screen are made hard: the password's length,
//! the lock after failures, sudo, and the lock of an unattended screen.

mod screen;

use haidang_proto::model::posture::{CheckId, FailReason};

use super::finding::{Finding, Judged, Unknown};
use super::malformed::assignments;
use super::pam::{self, Facility};
use super::reading::{contents, matching, optional, pam_stack, parsed};
use super::root::{CONFIG_BYTES_MAX, Root};
use super::sudoers::{Inclusive, Unguarded, is_read_from_directory};
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::PasswordPolicy, Tier::T2, password_policy),
        Check::new(CheckId::AccountLockout, Tier::T2, account_lockout),
        Check::new(CheckId::ElevationGuarded, Tier::T2, elevation_guarded),
        Check::new(CheckId::ScreenLock, Tier::T2, screen::screen_lock),
    ],
    catalogue: include_str!("authentication.toml"),
};

/// The shortest password that passwd(1) accepts; shorter is enough where the login asks everybody
/// for a second factor.
fn password_policy(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let threshold = |name| evidence.threshold(CheckId::PasswordPolicy, name);
    let rules = pam_stack(root, "passwd", Facility::Password)?
        .ok_or_else(|| Unknown::absent("/etc/pam.d/passwd"))?;
    let settings = pwquality(root)?;
    let length = parsed("/etc/pam.d/passwd", pam::password_length_min(&rules, &settings))?;
    let login = pam_stack(root, "login", Facility::Auth)?;
    let second_factor = login.is_some_and(|rules| pam::second_factor(&rules));
    let required = threshold(if second_factor { "length_min_with_mfa" } else { "length_min" })?;
    let seen = format!("shortest password {length} (required {required})");
    Ok(if u64::from(length) >= required {
        Finding::Pass(seen)
    } else {
        Finding::Fail(FailReason::WeakValue, seen)
    })
}

/// pwquality.conf(5): the files of the directory come first, in the order of their names, the
/// main file after them; the last value of a key wins.
fn pwquality(root: &Root) -> Result<Vec<(String, String)>, Unknown> {
    let mut settings = Vec::new();
    for (path, bytes) in matching(root, "/etc/security/pwquality.conf.d/*.conf")? {
        settings.extend(parsed(&path, assignments(&bytes))?);
    }
    let main = optional(root, "/etc/security/pwquality.conf", assignments)?;
    settings.extend(main.unwrap_or_default());
    Ok(settings)
}

/// pam_faillock in each way in that this machine has; the weakest counts.
fn account_lockout(evidence: &Evidence<'_>) -> Judged {
    const WAYS_IN: [&str; 4] = ["login", "sshd", "gdm-password", "lightdm"];
    let root = &evidence.root;
    let failures_max = evidence.threshold(CheckId::AccountLockout, "failures_max")?;
    let faillock = optional(root, "/etc/security/faillock.conf", assignments)?.unwrap_or_default();
    let mut most = None;
    let mut ways = 0;
    for service in WAYS_IN {
        let Some(rules) = pam_stack(root, service, Facility::Auth)? else { continue };
        ways += 1;
        match parsed("/etc/security/faillock.conf", pam::failures_max(&rules, &faillock))? {
            Some(failures) => most = most.max(Some(failures)),
            None => {
                let seen = format!("{service}: no failure ever locks an account");
                return Ok(Finding::Fail(FailReason::Absent, seen));
            }
        }
    }
    let Some(most) = most.filter(|_| ways > 0) else {
        return Err(Unknown::absent("/etc/pam.d/login"));
    };
    let seen = format!("locked after {most} failures (at most {failures_max})");
    Ok(if u64::from(most) <= failures_max {
        Finding::Pass(seen)
    } else {
        Finding::Fail(FailReason::WeakValue, seen)
    })
}

/// sudoers(5) with everything it includes.
fn elevation_guarded(evidence: &Evidence<'_>) -> Judged {
    const SUDOERS: &str = "/etc/sudoers";
    let root = &evidence.root;
    let rules_max = evidence.threshold(CheckId::ElevationGuarded, "nopasswd_rules_max")?;
    if root.metadata("/usr/bin/sudo")?.is_none() {
        return Ok(Finding::NotApplicable("sudo is not installed".into()));
    }
    let bytes = root.bytes(SUDOERS, CONFIG_BYTES_MAX)?.ok_or_else(|| Unknown::absent(SUDOERS))?;
    let unguarded: Unguarded =
        Unguarded::read(SUDOERS, &bytes, &mut |inclusive| sudoers_included(root, inclusive))?;
    let Unguarded { nopasswd_rules, authenticate_off, never_asks_again, exempt_group } = unguarded;
    let mut seen = format!("{nopasswd_rules} rules with NOPASSWD (at most {rules_max})");
    for (is_set, setting) in [
        (authenticate_off, "!authenticate"),
        (never_asks_again, "timestamp_timeout below 0"),
        (exempt_group, "exempt_group"),
    ] {
        if is_set {
            seen = format!("{seen}, {setting}");
        }
    }
    let is_guarded = u64::from(nopasswd_rules) <= rules_max
        && !authenticate_off
        && !never_asks_again
        && !exempt_group;
    Ok(if is_guarded { Finding::Pass(seen) } else { Finding::Fail(FailReason::WeakValue, seen) })
}

fn sudoers_included(root: &Root, inclusive: &Inclusive) -> Result<Vec<(String, Vec<u8>)>, Unknown> {
    let absolute = |name: &str| {
        if name.contains('%') {
            // `%h` stands for the host's name.
            return Err(Unknown::Unsupported("sudoers includes a file named for the host".into()));
        }
        Ok(if name.starts_with('/') { name.to_owned() } else { format!("/etc/{name}") })
    };
    match inclusive {
        Inclusive::File(name) => {
            let path = absolute(name)?;
            let bytes =
                root.bytes(&path, CONFIG_BYTES_MAX)?.ok_or_else(|| Unknown::absent(&path))?;
            Ok(vec![(path, bytes)])
        }
        Inclusive::Directory(name) => {
            let directory = absolute(name)?;
            let names = root.names(&directory)?.unwrap_or_default();
            let read = names.iter().filter(|name| is_read_from_directory(name));
            contents(root, read.map(|name| format!("{directory}/{name}")))
        }
    }
}
