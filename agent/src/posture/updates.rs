//! Whether this machine gets, installs and runs the security fixes of its distribution. Read are
//! dpkg's status, apt's lists and configuration, never apt itself; systems without dpkg are
//! unknown.

mod apt_conf;
mod memory;
mod packages;
mod releases;
mod version;

use std::time::{Duration, SystemTime};

use haidang_proto::model::posture::{CheckId, FailReason};
use haidang_proto::parsers::Parser;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::finding::{Finding, Judged, Unknown};
use super::root::{CONFIG_BYTES_MAX, Root};
use super::{Check, Domain, Evidence, Tier};

use self::packages::{Installed, is_security, security_lists};
use self::version::compare;

pub use self::memory::{Memory, Waiting};
pub use self::packages::Update;

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::OsSupported, Tier::T2, os_supported),
        Check::new(CheckId::SecurityUpdatesPending, Tier::T1, security_updates_pending),
        Check::new(CheckId::UpdateMetadataFresh, Tier::T1, update_metadata_fresh),
        Check::new(CheckId::AutoUpdatesEnabled, Tier::T1, auto_updates_enabled),
        Check::new(CheckId::RebootRequired, Tier::T1, reboot_required),
    ],
    catalogue: include_str!("updates.toml"),
};

/// For [`super::parsers`].
pub(super) const PARSERS: &[Parser] = &[
    ("package_list", |bytes| packages::any_bytes(bytes, "")),
    ("package_list_gz", |bytes| packages::any_bytes(bytes, ".gz")),
    ("package_list_xz", |bytes| packages::any_bytes(bytes, ".xz")),
    ("package_list_lz4", |bytes| packages::any_bytes(bytes, ".lz4")),
    ("package_list_zst", |bytes| packages::any_bytes(bytes, ".zst")),
    ("package_version", version::any_bytes),
    ("apt_conf", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = apt_conf::value(&text, "APT::Periodic::Unattended-Upgrade", "apt.conf");
    }),
];

const LISTS: &str = "/var/lib/apt/lists";
/// Bytes of an `InRelease`: Debian's security has 60 KB, its main 150 KB.
const RELEASE_BYTES_MAX: u64 = 2 << 20;
const DAY: u64 = 86_400;

/// `/etc/os-release` against the distributions' own tables.
fn os_supported(evidence: &Evidence<'_>) -> Judged {
    let path = "/etc/os-release";
    let text = evidence.root.required_text(path, CONFIG_BYTES_MAX)?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let id = value("ID").ok_or_else(|| Unknown::malformed(path, "has no ID"))?;
    let version = value("VERSION_ID").ok_or_else(|| {
        Unknown::Unsupported(format!("{id} names no release: testing, or rolling"))
    })?;
    let release = releases::find(&id, &version).ok_or_else(|| {
        Unknown::Unsupported(format!("{id} {version} is not in this agent's table of releases"))
    })?;
    let now = Timestamp::try_from(evidence.now)
        .map_err(|_| Unknown::Stale("the clock is beyond any calendar".into()))?;
    let today = TimeZone::UTC.to_datetime(now).date();
    if today <= release.until {
        return Ok(Finding::Pass(format!("{id} {version} until {}", release.until)));
    }
    match release.with_subscription_until {
        Some(until) if today <= until && has_subscription(&evidence.root)? => {
            Ok(Finding::Pass(format!("{id} {version} Pro until {until}")))
        }
        _ => Ok(Finding::Fail(
            FailReason::Stale,
            format!("{id} {version} ended on {}", release.until),
        )),
    }
}

/// Whether Ubuntu Pro gives this machine fixes past the end (`esm-infra`).
fn has_subscription(root: &Root) -> Result<bool, Unknown> {
    let path = "/var/lib/ubuntu-advantage/status.json";
    let Some(text) = root.text(path, CONFIG_BYTES_MAX)? else { return Ok(false) };
    let status: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Unknown::malformed(path, error.to_string()))?;
    let services = status.get("services").and_then(|services| services.as_array());
    let services = services.ok_or_else(|| Unknown::malformed(path, "lists no services"))?;
    Ok(services.iter().any(|service| {
        service.get("name").is_some_and(|name| name == "esm-infra")
            && service.get("status").is_some_and(|status| status == "enabled")
    }))
}

/// Fixes that the security archive offers and that are not installed, and how long they have
/// been known. A stale list would hide them, and then nothing is said.
fn security_updates_pending(evidence: &Evidence<'_>) -> Judged {
    let limit = evidence.threshold(CheckId::SecurityUpdatesPending, "days_max")?;
    let updates = evidence.pending_updates()?;
    if updates.is_empty() {
        return Ok(Finding::Pass("0 pending".into()));
    }
    let count = updates.len();
    let waiting = evidence.memory.and_then(|memory| memory.oldest(updates, evidence.now));
    let Some(waiting) = waiting else {
        let problem = format!("{count} pending; since when is known once the agent has run");
        return Err(Unknown::Unsupported(problem));
    };
    let days = waiting.known().as_secs() / DAY;
    match waiting {
        _ if days > limit => {
            Ok(Finding::Fail(FailReason::Stale, format!("{count} pending, oldest {days} d")))
        }
        Waiting::Exactly(_) => {
            Ok(Finding::Pass(format!("{count} pending, oldest {days} d, limit {limit} d")))
        }
        Waiting::AtLeast(_) => {
            let problem = format!("{count} pending, {days} d or longer, limit {limit} d");
            Err(Unknown::Unsupported(problem))
        }
    }
}

/// What is offered and not installed; shared by the check and the figures beside it.
///
/// # Errors
/// When packages or lists cannot be read, or the lists are stale.
pub(super) fn pending(evidence: &Evidence<'_>) -> Result<Vec<Update>, Unknown> {
    let root = &evidence.root;
    let installed = installed(root)?;
    let limit = evidence.threshold(CheckId::UpdateMetadataFresh, "days_max")?;
    match index_date(root)? {
        Some(date) => {
            let days = evidence.age("the update index", date)?.as_secs() / DAY;
            if days > limit {
                let problem = format!("the update index is {days} d old and may hide updates");
                return Err(Unknown::Stale(problem));
            }
        }
        None => {
            let problem = "no index of security updates: whether any is missing is not known";
            return Err(Unknown::Unsupported(problem.into()));
        }
    }
    let lists = security_lists(root)?;
    if lists.is_empty() {
        return Err(Unknown::absent(format!("{LISTS}/*security*_Packages")));
    }
    installed.updates(root, &lists)
}

fn installed(root: &Root) -> Result<Installed, Unknown> {
    Installed::read(root)?
        .ok_or_else(|| Unknown::Unsupported("no dpkg on this system: not read yet".into()))
}

/// Age of the security archive's index, by its own signed date.
fn update_metadata_fresh(evidence: &Evidence<'_>) -> Judged {
    let limit = evidence.threshold(CheckId::UpdateMetadataFresh, "days_max")?;
    if evidence.root.metadata("/var/lib/dpkg/status")?.is_none() {
        return Err(Unknown::Unsupported("no dpkg on this system: not read yet".into()));
    }
    let Some(date) = index_date(&evidence.root)? else {
        return Ok(Finding::Fail(FailReason::Absent, "no index of security updates".into()));
    };
    let Ok(age) = evidence.now.duration_since(date) else {
        return Ok(Finding::Fail(FailReason::WeakValue, "the index is dated in the future".into()));
    };
    let days = age.as_secs() / DAY;
    Ok(if days > limit {
        Finding::Fail(FailReason::Stale, format!("{days} d old, limit {limit} d"))
    } else {
        Finding::Pass(format!("{days} d old"))
    })
}

/// `Date:` of the newest `InRelease` or `Release` of a security archive; `None` without any.
fn index_date(root: &Root) -> Result<Option<SystemTime>, Unknown> {
    let names = root.names(LISTS)?.ok_or_else(|| Unknown::absent(LISTS))?;
    let mut newest = None;
    for name in names {
        if !is_security(&name) || !name.ends_with("Release") {
            continue;
        }
        let path = format!("{LISTS}/{name}");
        let text = root.required_text(&path, RELEASE_BYTES_MAX)?;
        let date = text.lines().find_map(|line| line.strip_prefix("Date: "));
        let date = date.ok_or_else(|| Unknown::malformed(&path, "has no Date"))?;
        // RFC 2822 knows the zone as GMT or +0000 only.
        let date = jiff::fmt::rfc2822::parse(&date.trim().replace("UTC", "+0000"))
            .map_err(|error| Unknown::malformed(&path, error.to_string()))?;
        newest = newest.max(Some(date.timestamp()));
    }
    Ok(newest.map(|date| {
        let seconds = u64::try_from(date.as_second()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }))
}

/// Whether unattended-upgrades is there, switched on, woken by its timer, and has run lately.
fn auto_updates_enabled(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let limit = evidence.threshold(CheckId::AutoUpdatesEnabled, "days_max")?;
    let absent = |what: &str| Ok(Finding::Fail(FailReason::Absent, what.into()));
    if installed(root)?.version("unattended-upgrades").is_none() {
        return absent("unattended-upgrades is not installed");
    }
    let option = "APT::Periodic::Unattended-Upgrade";
    match apt_option(root, option)?.as_deref().map(str::trim) {
        None | Some("0" | "") => return absent("APT::Periodic::Unattended-Upgrade is off"),
        Some(_) => {}
    }
    if matches!(apt_option(root, "APT::Periodic::Enable")?.as_deref(), Some("0")) {
        return absent("APT::Periodic::Enable is off");
    }
    let timer = "apt-daily-upgrade.timer";
    let is_masked =
        root.link(format!("/etc/systemd/system/{timer}"))?.as_deref() == Some("/dev/null");
    let wanted = format!("/etc/systemd/system/timers.target.wants/{timer}");
    if is_masked || root.link_metadata(wanted)?.is_none() {
        return absent("apt-daily-upgrade.timer is not enabled");
    }
    let Some(stamp) = root.metadata("/var/lib/apt/periodic/upgrade-stamp")? else {
        return absent("switched on, but has never run");
    };
    let days = evidence.age("the last run", stamp.modified)?.as_secs() / DAY;
    Ok(if days > limit {
        Finding::Fail(FailReason::Stale, format!("last run {days} d ago, limit {limit} d"))
    } else {
        Finding::Pass(format!("last run {days} d ago"))
    })
}

/// The value that apt would use: of `apt.conf.d` in order, then `apt.conf` (apt.conf(5)).
fn apt_option(root: &Root, option: &str) -> Result<Option<String>, Unknown> {
    let directory = "/etc/apt/apt.conf.d";
    let names = root.names(directory)?.unwrap_or_default();
    let is_read = |name: &String| !name.contains('.') || name.ends_with(".conf");
    let parts = names.into_iter().filter(is_read).map(|name| format!("{directory}/{name}"));
    let mut found = None;
    for path in parts.chain(["/etc/apt/apt.conf".to_owned()]) {
        let Some(text) = root.text(&path, CONFIG_BYTES_MAX)? else { continue };
        found = apt_conf::value(&text, option, &path)?.or(found);
    }
    Ok(found)
}

/// The flag that packages leave, and the running kernel against the newest installed one: plain
/// Debian leaves no flag for kernels.
fn reboot_required(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    if root.metadata("/run/reboot-required")?.is_some() {
        return Ok(Finding::Fail(FailReason::Stale, "/run/reboot-required is there".into()));
    }
    let path = "/proc/version";
    let running = root.required_text(path, CONFIG_BYTES_MAX)?;
    let mut words = running.split_whitespace();
    let release = words.nth(2).ok_or_else(|| Unknown::malformed(path, "names no release"))?;
    let installed = installed(root)?;
    let prefix = "linux-image-";
    let Some(own) = installed.version(&format!("{prefix}{release}")) else {
        let problem = format!("the running kernel {release} is not from an installed package");
        return Err(Unknown::Unsupported(problem));
    };
    // Debian's kernels say which build they are; a new build may keep its release.
    let mut build = running.split_whitespace().skip_while(|word| *word != "Debian").skip(1);
    if let Some(build) = build.next()
        && compare(build, own).is_ne()
    {
        let seen = format!("running {build}, installed {own}");
        return Ok(Finding::Fail(FailReason::Stale, seen));
    }
    // `6.1.0-30-cloud-amd64` is a `cloud-amd64`; another flavour is nothing to boot into.
    let flavour = |release: &str| {
        release.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-').to_owned()
    };
    let newest = installed
        .names(prefix)
        .filter_map(|name| name.strip_prefix(prefix))
        .filter(|other| other.starts_with(|first: char| first.is_ascii_digit()))
        .filter(|other| flavour(other) == flavour(release))
        .max_by(|left, right| compare(left, right));
    Ok(match newest {
        Some(newest) if compare(newest, release).is_gt() => {
            Finding::Fail(FailReason::Stale, format!("running {release}, installed {newest}"))
        }
        _ => Finding::Pass(format!("running {release}, the newest installed")),
    })
}
