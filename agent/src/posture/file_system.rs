//! Whether what root runs and reads can be changed by somebody else.
//!
//! A fixed list of paths is asked for its inodes; the disk is never walked.

use haidang_proto::model::posture::{CheckId, FailReason};

use super::account_files::{Group, group};
use super::finding::{Finding, Judged, Unknown};
use super::kernel_tables::mounts;
use super::malformed::assignments;
use super::platform::seen_at;
use super::reading::{optional, required};
use super::root::{Kind, Metadata, Root};
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::SystemFilePerms, Tier::T1, system_file_perms),
        Check::new(CheckId::WorldWritablePaths, Tier::T2, world_writable_paths),
        Check::new(CheckId::TempMountOptions, Tier::T1, temp_mount_options),
    ],
    catalogue: include_str!("file_system.toml"),
};

/// Paths named in what was seen.
const NAMED_MAX: usize = 3;

/// Files that have to be there: without them the list was not read on a sound system.
const INDISPENSABLE: [&str; 3] = ["/etc/passwd", "/etc/group", "/etc/shadow"];

/// The most permissive mode of each, by CIS Debian Linux 12 Benchmark 7.1 and the packages' own
/// modes. Owned by root, each.
const LIMITS: [(&str, u32); 40] = [
    ("/etc/passwd", 0o644),
    ("/etc/passwd-", 0o644),
    ("/etc/group", 0o644),
    ("/etc/group-", 0o644),
    ("/etc/shadow", 0o640),
    ("/etc/shadow-", 0o640),
    ("/etc/gshadow", 0o640),
    ("/etc/gshadow-", 0o640),
    ("/etc/security/opasswd", 0o600),
    ("/etc/sudoers", 0o440),
    ("/etc/sudoers.d", 0o755),
    ("/etc/pam.d", 0o755),
    ("/etc/pam.d/common-auth", 0o644),
    ("/etc/pam.d/system-auth", 0o644),
    ("/etc/login.defs", 0o644),
    ("/etc/securetty", 0o644),
    ("/etc/ssh/sshd_config", 0o644),
    ("/etc/ssh/sshd_config.d", 0o755),
    ("/etc/ssh/ssh_host_rsa_key", 0o640),
    ("/etc/ssh/ssh_host_ecdsa_key", 0o640),
    ("/etc/ssh/ssh_host_ed25519_key", 0o640),
    ("/etc/crontab", 0o644),
    ("/etc/cron.d", 0o755),
    ("/etc/cron.hourly", 0o755),
    ("/etc/cron.daily", 0o755),
    ("/etc/cron.weekly", 0o755),
    ("/etc/cron.monthly", 0o755),
    ("/etc/profile", 0o644),
    ("/etc/environment", 0o644),
    ("/etc/fstab", 0o664),
    ("/etc/hosts", 0o644),
    ("/etc/nsswitch.conf", 0o644),
    ("/etc/ld.so.conf", 0o644),
    ("/etc/ld.so.preload", 0o644),
    ("/etc/sysctl.conf", 0o644),
    ("/etc/haidang", 0o755),
    ("/etc/haidang/agent.toml", 0o644),
    ("/boot/grub/grub.cfg", 0o644),
    ("/root", 0o755),
    ("/usr/bin/haidang-agent", 0o755),
];

/// Owner and mode of a fixed list. Shadow's group may read it if it is called shadow; others may
/// never, whatever the mode's name.
fn system_file_perms(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for (path, mode_max) in LIMITS {
        let Some(metadata) = root.metadata(path)? else {
            if INDISPENSABLE.contains(&path) {
                return Err(Unknown::absent(path));
            }
            continue;
        };
        looked_at += 1;
        // What others may read or write; that a file may be executed gives nobody its content.
        let beyond = metadata.mode & 0o066 & !mode_max;
        if metadata.uid != 0 || beyond != 0 {
            wrong.push(format!("{path} {:o} uid {}", metadata.mode, metadata.uid));
        }
    }
    let groups = required(root, "/etc/group", group)?;
    if let Some(readers) = shadow_readers(root, &groups)? {
        wrong.push(readers);
    }
    Ok(named(&wrong, format!("{looked_at} files and directories as they should be")))
}

/// A group other than root and shadow that may read the hashes.
fn shadow_readers(root: &Root, groups: &[Group]) -> Result<Option<String>, Unknown> {
    let Some(metadata) = root.metadata("/etc/shadow")? else { return Ok(None) };
    let is_shadow = groups.iter().any(|group| group.gid == metadata.gid && group.name == "shadow");
    let may_read = metadata.mode & 0o040 != 0 && metadata.gid != 0 && !is_shadow;
    Ok(may_read.then(|| format!("/etc/shadow gid {}", metadata.gid)))
}

/// Directories that root runs programs from or reads units from, with all above them: writable
/// for root alone, or for a group without members. A shared temporary directory is sticky.
fn world_writable_paths(evidence: &Evidence<'_>) -> Judged {
    const SYSTEM: [&str; 16] = [
        "/etc/systemd/system",
        "/run/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
        "/etc/init.d",
        "/etc/cron.d",
        "/etc/cron.hourly",
        "/etc/cron.daily",
        "/etc/profile.d",
        "/etc/ld.so.conf.d",
        "/etc/sudoers.d",
        "/etc/pam.d",
        "/etc/udev/rules.d",
        "/etc/modprobe.d",
        "/etc/haidang",
        "/var/lib/haidang-agent",
    ];
    let root = &evidence.root;
    let groups = required(root, "/etc/group", group)?;
    let mut paths: Vec<String> = SYSTEM.iter().map(|&path| path.to_owned()).collect();
    paths.extend(search_path(root)?);
    let mut all: Vec<String> = paths.iter().flat_map(|path| with_parents(path)).collect();
    all.sort_unstable();
    all.dedup();
    let mut writable = Vec::new();
    let mut looked_at = 0;
    for path in all {
        let Some(metadata) = root.metadata(&path)? else { continue };
        if metadata.kind != Kind::Directory {
            continue;
        }
        looked_at += 1;
        let agents_own = path == "/var/lib/haidang-agent";
        if is_writable(&metadata, &groups) || metadata.uid != 0 && !agents_own {
            writable.push(format!("{path} {:o} uid {}", metadata.mode, metadata.uid));
        }
    }
    if looked_at == 0 {
        return Err(Unknown::absent("/etc"));
    }
    for path in ["/tmp", "/var/tmp", "/dev/shm"] {
        let Some(metadata) = root.metadata(path)? else { continue };
        if metadata.mode & 0o002 != 0 && metadata.mode & 0o1000 == 0 {
            writable.push(format!("{path} {:o} not sticky", metadata.mode));
        }
    }
    Ok(named(&writable, format!("{looked_at} directories writable for root alone")))
}

/// Whether others may write, or a group that somebody is in.
fn is_writable(metadata: &Metadata, groups: &[Group]) -> bool {
    let has_members = || {
        groups
            .iter()
            .find(|group| group.gid == metadata.gid)
            .is_none_or(|group| !group.members.is_empty())
    };
    metadata.mode & 0o002 != 0 || metadata.mode & 0o020 != 0 && metadata.gid != 0 && has_members()
}

/// Where root's programs are looked up: the usual path, and ENV_SUPATH of login.defs(5).
fn search_path(root: &Root) -> Result<Vec<String>, Unknown> {
    const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let defs = optional(root, "/etc/login.defs", assignments)?.unwrap_or_default();
    let set = defs.iter().rev().find(|(key, _)| key == "ENV_SUPATH");
    let set = set.map(|(_, value)| value.strip_prefix("PATH=").unwrap_or(value));
    let directories = USUAL.split(':').chain(set.unwrap_or_default().split(':'));
    Ok(directories.filter(|path| path.starts_with('/')).map(str::to_owned).collect())
}

/// `/a/b` and `/a`; who may rename a directory may replace it.
fn with_parents(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(at, _)| at).filter(|&at| at > 0);
    ends.map(|at| path[..at].to_owned()).chain([path.to_owned()]).collect()
}

fn named(wrong: &[String], right: String) -> Finding {
    if wrong.is_empty() {
        return Finding::Pass(right);
    }
    let named = wrong.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    Finding::Fail(FailReason::WeakValue, format!("{} wrong: {named}", wrong.len()))
}

/// nosuid and nodev on what everybody may write to. Where `/tmp` is not mounted by itself it has
/// the options of the disk below it, which needs set-id programs.
fn temp_mount_options(evidence: &Evidence<'_>) -> Judged {
    let mounts = required(&evidence.root, "/proc/self/mountinfo", mounts)?;
    let mut missing = Vec::new();
    for point in ["/tmp", "/dev/shm"] {
        match seen_at(&mounts, point) {
            None => missing.push(format!("{point} is not mounted by itself")),
            Some(mount) => {
                let lacks = ["nosuid", "nodev"]
                    .into_iter()
                    .filter(|option| !mount.options.iter().any(|own| own == option));
                missing.extend(lacks.map(|option| format!("{point} without {option}")));
            }
        }
    }
    Ok(if missing.is_empty() {
        Finding::Pass("/tmp and /dev/shm are nosuid,nodev".into())
    } else {
        Finding::Fail(FailReason::WeakValue, missing.join(", "))
    })
}
