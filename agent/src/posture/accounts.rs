//! Whether accounts are who they should be. Names stay on the machine: counts are reported.

mod dormancy;

use std::collections::{HashMap, HashSet};

use haidang_proto::model::posture::{CheckId, FailReason};

use super::account_files::{Account, Password, Shadow, group, passwd, shadow};
use super::finding::{Finding, Judged, Unknown};
use super::malformed::assignments;
use super::reading::{nameless, optional, required};
use super::root::Root;
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::EmptyPasswords, Tier::T1, empty_passwords),
        Check::new(CheckId::SuperuserAccounts, Tier::T1, superuser_accounts),
        Check::new(CheckId::DefaultAccounts, Tier::T2, default_accounts),
        Check::new(CheckId::DormantAccounts, Tier::T2, dormancy::dormant_accounts),
    ],
    catalogue: include_str!("accounts.toml"),
};

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";

/// An account with what shadow says of it.
#[derive(Debug)]
pub(super) struct Member {
    account: Account,
    shadow: Option<Shadow>,
}

impl Member {
    /// The password that counts: passwd's own, unless it says `x`.
    fn password(&self) -> Password {
        match (self.account.password, &self.shadow) {
            (Password::Shadowed, Some(shadow)) => shadow.password,
            // pam_unix(8) lets nobody in whom shadow does not know.
            (Password::Shadowed, None) => Password::Locked,
            (own, _) => own,
        }
    }

    /// Whether somebody may log in as it: a login shell, a password or a key for SSH, and not
    /// expired. A locked password does not keep a key out.
    fn is_open(&self, root: &Root, today: u64) -> Result<bool, Unknown> {
        const KEYS: &str = ".ssh/authorized_keys";
        let expires = self.shadow.as_ref().and_then(|shadow| shadow.expires_day);
        let is_expired = expires.is_some_and(|day| u64::from(day) <= today);
        if !self.account.has_login_shell() || is_expired {
            return Ok(false);
        }
        if matches!(self.password(), Password::Usable | Password::Empty) {
            return Ok(true);
        }
        let keys = root.metadata(format!("{}/{KEYS}", self.account.home));
        let keys = keys.map_err(|unknown| nameless("~/.ssh/authorized_keys", unknown))?;
        Ok(keys.is_some_and(|keys| keys.bytes > 0))
    }
}

/// passwd joined with shadow.
fn members(root: &Root) -> Result<Vec<Member>, Unknown> {
    let accounts = required(root, PASSWD, passwd)?;
    let shadows = required(root, SHADOW, shadow)?;
    let mut of_name: HashMap<String, Shadow> = HashMap::new();
    for shadow in shadows {
        // As getspnam(3): the first entry of a name counts.
        of_name.entry(shadow.name.clone()).or_insert(shadow);
    }
    let join = |account: Account| {
        let shadow = of_name.get(&account.name).cloned();
        Member { account, shadow }
    };
    Ok(accounts.into_iter().map(join).collect())
}

/// Any empty field counts, whatever the shell: su and services ask PAM, not the shell.
fn empty_passwords(evidence: &Evidence<'_>) -> Judged {
    let members = members(&evidence.root)?;
    let empty = members.iter().filter(|member| member.password() == Password::Empty).count();
    let seen = format!("{empty} of {} accounts without a password", members.len());
    Ok(if empty == 0 { Finding::Pass(seen) } else { Finding::Fail(FailReason::WeakValue, seen) })
}

/// A second account with uid 0, or more members of the groups that may do everything than the
/// site expects. Members of the container groups start a root shell with one command.
fn superuser_accounts(evidence: &Evidence<'_>) -> Judged {
    const ADMINISTRATIVE: [&str; 8] =
        ["root", "sudo", "wheel", "admin", "docker", "lxd", "incus-admin", "disk"];
    let max = evidence.threshold(CheckId::SuperuserAccounts, "administrators_max")?;
    let accounts = required(&evidence.root, PASSWD, passwd)?;
    let groups = required(&evidence.root, "/etc/group", group)?;
    let twins = accounts.iter().filter(|account| account.uid == 0).count().saturating_sub(1);
    let administrative =
        groups.iter().filter(|group| ADMINISTRATIVE.contains(&group.name.as_str()));
    let mut administrators = HashSet::new();
    for group in administrative {
        administrators.extend(group.members.iter().map(String::as_str));
        let primary = accounts.iter().filter(|account| account.gid == group.gid);
        administrators.extend(primary.map(|account| account.name.as_str()));
    }
    // Neither root itself, nor the closed accounts that distributions put into its group.
    let people: HashSet<&str> = accounts
        .iter()
        .filter(|account| account.uid != 0 && account.has_login_shell())
        .map(|account| account.name.as_str())
        .collect();
    let count = administrators.intersection(&people).count();
    let seen = format!("{twins} more accounts with uid 0; {count} administrators (at most {max})");
    Ok(if twins == 0 && count as u64 <= max {
        Finding::Pass(seen)
    } else {
        Finding::Fail(FailReason::WeakValue, seen)
    })
}

/// Accounts that a distribution, an image or a package made and that somebody could log in to:
/// ids of the system, and the well-known names of images.
fn default_accounts(evidence: &Evidence<'_>) -> Judged {
    const WELL_KNOWN: [&str; 12] = [
        "guest",
        "test",
        "user",
        "demo",
        "pi",
        "ubuntu",
        "debian",
        "vagrant",
        "centos",
        "ec2-user",
        "cloud-user",
        "oracle",
    ];
    let root = &evidence.root;
    let first_user = first_user_id(root)?;
    let members = members(root)?;
    let mut count = 0;
    for member in &members {
        let Account { name, uid, .. } = &member.account;
        let is_default = *uid != 0 && *uid < first_user || WELL_KNOWN.contains(&name.as_str());
        if is_default && member.is_open(root, today(evidence))? {
            count += 1;
        }
    }
    let seen = format!("{count} built-in accounts can log in");
    Ok(if count == 0 { Finding::Pass(seen) } else { Finding::Fail(FailReason::WeakValue, seen) })
}

/// UID_MIN of login.defs(5); 1000 where nothing else is said.
fn first_user_id(root: &Root) -> Result<u32, Unknown> {
    let path = "/etc/login.defs";
    let defs = optional(root, path, assignments)?.unwrap_or_default();
    match defs.iter().rev().find(|(key, _)| key == "UID_MIN") {
        Some((_, value)) => {
            value.parse().map_err(|_| Unknown::malformed(path, "UID_MIN is not a number"))
        }
        None => Ok(1000),
    }
}

/// Days since 1970, as shadow counts them.
fn today(evidence: &Evidence<'_>) -> u64 {
    let since = evidence.now.duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / 86_400)
}
