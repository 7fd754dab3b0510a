//! Whether somebody can log in from elsewhere as root, or with nothing but a password.

use haidang_proto::model::posture::{CheckId, FailReason};

use super::finding::{Finding, Judged, Unknown};
use super::pam::{self, Facility};
use super::reading::{matching, pam_stack, parsed, root_tasks};
use super::root::{CONFIG_BYTES_MAX, Root};
use super::sshd_config::{Configuration, RootLogin, SecondFactor};
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::RemoteRootLogin, Tier::T1, remote_root_login),
        Check::new(CheckId::RemotePasswordAuth, Tier::T1, remote_password_auth),
    ],
    catalogue: include_str!("remote_access.toml"),
};

const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";

/// Bytes of a command line that are looked at.
const COMMAND_LINE_BYTES_MAX: usize = 4096;

/// sshd_config(5), PermitRootLogin. A key of root names nobody either, so only `no` passes.
fn remote_root_login(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let configuration = match sshd(root)? {
        Sshd::Runs(configuration) => configuration,
        Sshd::Absent(seen) => return Ok(Finding::NotApplicable(seen.into())),
    };
    let (is_closed, seen) = match parsed(SSHD_CONFIG, configuration.root_login())? {
        RootLogin::No => (true, "PermitRootLogin no"),
        RootLogin::ForcedCommandsOnly => (false, "PermitRootLogin forced-commands-only"),
        RootLogin::ProhibitPassword => (false, "PermitRootLogin prohibit-password"),
        RootLogin::Yes => (false, "PermitRootLogin yes"),
    };
    Ok(if is_closed {
        Finding::Pass(seen.into())
    } else {
        Finding::Fail(FailReason::WeakValue, seen.into())
    })
}

/// PasswordAuthentication, KbdInteractiveAuthentication and AuthenticationMethods together, and
/// whether PAM asks everybody for a second factor.
fn remote_password_auth(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let configuration = match sshd(root)? {
        Sshd::Runs(configuration) => configuration,
        Sshd::Absent(seen) => return Ok(Finding::NotApplicable(seen.into())),
    };
    let alone = |factor| parsed(SSHD_CONFIG, configuration.password_alone(factor));
    if !alone(SecondFactor::None)? {
        return Ok(Finding::Pass("no login with a password alone".into()));
    }
    // Only now does PAM matter.
    let rules = pam_stack(root, "sshd", Facility::Auth)?;
    if rules.is_some_and(|rules| pam::second_factor(&rules)) && !alone(SecondFactor::Demanded)? {
        return Ok(Finding::Pass("a password and a second factor of PAM".into()));
    }
    Ok(Finding::Fail(FailReason::WeakValue, "a password alone is enough to log in".into()))
}

enum Sshd {
    Runs(Configuration),
    Absent(&'static str),
}

/// Whether sshd waits for somebody, by itself or behind a socket of systemd, and as what.
fn sshd(root: &Root) -> Result<Sshd, Unknown> {
    const SOCKETS: [&str; 2] = ["ssh.socket", "sshd.socket"];
    if root.metadata("/usr/sbin/sshd")?.is_none()
        && root.metadata("/usr/local/sbin/sshd")?.is_none()
    {
        return Ok(Sshd::Absent("sshd is not installed"));
    }
    let running = root_tasks(root, &["sshd"])?;
    let mut is_behind_socket = false;
    for socket in SOCKETS {
        let link = format!("/etc/systemd/system/sockets.target.wants/{socket}");
        is_behind_socket |= root.link(link)?.is_some();
    }
    if running.is_empty() && !is_behind_socket {
        return Ok(Sshd::Absent("sshd does not run"));
    }
    for (pid, _) in running {
        refuse_own_options(root, pid)?;
    }
    let bytes =
        root.bytes(SSHD_CONFIG, CONFIG_BYTES_MAX)?.ok_or_else(|| Unknown::absent(SSHD_CONFIG))?;
    let configuration =
        Configuration::read(SSHD_CONFIG, &bytes, &mut |pattern| matching(root, pattern))?;
    Ok(Sshd::Runs(configuration))
}

/// Options of the command line win over the file: a listener that has some is not judged by it.
fn refuse_own_options(root: &Root, pid: u32) -> Result<(), Unknown> {
    let path = format!("/proc/{pid}/cmdline");
    let Some(bytes) = root.part(&path, 0, COMMAND_LINE_BYTES_MAX)? else { return Ok(()) };
    let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
    let is_listener = line.contains("[listener]") || !line.starts_with("sshd:");
    let decides = |word: &str| word.starts_with("-f") || word.starts_with("-o");
    if is_listener && line.split_whitespace().any(decides) {
        return Err(Unknown::Unsupported("sshd runs with options of its own (-f or -o)".into()));
    }
    Ok(())
}
