//! `screen_lock`: whether GNOME locks an unattended session, by dconf.
//!
//! A value comes from the database that a user owns, unless a system database locks the key;
//! then from the system databases in the order of the profile; then from the default of the
//! schema. Users may choose differently, and the worst of them counts.

use haidang_proto::model::posture::{CheckId, FailReason};

use crate::posture::Evidence;
use crate::posture::account_files::passwd;
use crate::posture::finding::{Finding, Judged, Unknown};
use crate::posture::gvdb::{Table, Value};
use crate::posture::malformed::lines;
use crate::posture::reading::{nameless, parsed, required};
use crate::posture::root::Root;

/// Bytes of the compiled schemas; all of GNOME's and its applications' are below 2 MB.
const DATABASE_BYTES_MAX: u64 = 4 << 20;

/// Bytes of one dconf database; a user's of many years has some 100 KB.
const OWN_BYTES_MAX: u64 = 1 << 20;

/// Databases of one profile; distributions have two or three.
const DATABASES_MAX: usize = 16;

/// Users whose own choice is read; a shared office PC has a handful.
const USERS_MAX: usize = 200;

const SCHEMAS: &str = "/usr/share/glib-2.0/schemas/gschemas.compiled";
const IDLE_DELAY: Key = Key { schema: "org.gnome.desktop.session", name: "idle-delay" };
const LOCK_ENABLED: Key = Key { schema: "org.gnome.desktop.screensaver", name: "lock-enabled" };
const LOCK_DELAY: Key = Key { schema: "org.gnome.desktop.screensaver", name: "lock-delay" };

#[derive(Debug, Clone, Copy)]
struct Key {
    schema: &'static str,
    name: &'static str,
}

impl Key {
    fn path(self) -> String {
        format!("/{}/{}", self.schema.replace('.', "/"), self.name)
    }
}

pub(super) fn screen_lock(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let seconds_max = evidence.threshold(CheckId::ScreenLock, "seconds_max")?;
    if !has_desktop(root)? {
        return Ok(Finding::NotApplicable("no graphical login on this machine".into()));
    }
    let settings = Settings::read(root)?;
    // Whoever has no database of their own, and each who has; one at a time in memory.
    let mut worst = settings.lock(None)?;
    for home in homes(root)? {
        let path = format!("{home}/.config/dconf/user");
        let own = root.without_symlinks().bytes(path, OWN_BYTES_MAX);
        let own = own.map_err(|unknown| nameless("~/.config/dconf/user", unknown))?;
        if let Some(own) = own {
            worst = worst.max(settings.lock(Some(&own))?);
        }
    }
    let Lock::After(worst) = worst else {
        let seen = "a session of somebody is never locked";
        return Ok(Finding::Fail(FailReason::Absent, seen.into()));
    };
    let seen = format!("locked after {worst} s at the latest (limit {seconds_max} s)");
    Ok(if worst <= seconds_max {
        Finding::Pass(seen)
    } else {
        Finding::Fail(FailReason::WeakValue, seen)
    })
}

/// When an unattended session locks, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    /// Seconds after the last key.
    After(u64),
    Never,
}

fn seconds(value: Value) -> Result<u32, Unknown> {
    match value {
        Value::Unsigned(seconds) => Ok(seconds),
        Value::Boolean(_) | Value::Other => {
            Err(Unknown::malformed("/etc/dconf/db", "a delay is not a number of seconds"))
        }
    }
}

/// Whether people log in on a screen: a display manager is enabled.
fn has_desktop(root: &Root) -> Result<bool, Unknown> {
    if root.metadata("/etc/systemd")?.is_none() {
        return Err(Unknown::Unsupported("without systemd it is unknown what starts".into()));
    }
    Ok(root.link("/etc/systemd/system/display-manager.service")?.is_some())
}

/// What is the same for everybody.
struct Settings {
    system: Vec<Vec<u8>>,
    schemas: Vec<u8>,
}

impl Settings {
    fn read(root: &Root) -> Result<Self, Unknown> {
        let schemas = root.bytes(SCHEMAS, DATABASE_BYTES_MAX)?.ok_or_else(|| {
            Unknown::Unsupported("a desktop without GSettings: its lock is not known".into())
        })?;
        let mut system = Vec::new();
        for name in system_databases(root)? {
            let path = format!("/etc/dconf/db/{name}");
            system.extend(root.bytes(path, OWN_BYTES_MAX)?);
        }
        Ok(Self { system, schemas })
    }

    fn lock(&self, own: Option<&[u8]>) -> Result<Lock, Unknown> {
        let is_enabled = self.value(own, LOCK_ENABLED)? == Value::Boolean(true);
        let idle = seconds(self.value(own, IDLE_DELAY)?)?;
        let delay = seconds(self.value(own, LOCK_DELAY)?)?;
        // An idle delay of 0 means never.
        Ok(if is_enabled && idle > 0 {
            Lock::After(u64::from(idle) + u64::from(delay))
        } else {
            Lock::Never
        })
    }

    fn value(&self, own: Option<&[u8]>, key: Key) -> Result<Value, Unknown> {
        let path = key.path();
        let system = self.system.iter().map(|file| table("/etc/dconf/db", file));
        let system = system.collect::<Result<Vec<_>, _>>()?;
        let mut is_locked = false;
        for database in &system {
            if let Some(locks) = parsed("/etc/dconf/db", database.table(".locks"))? {
                is_locked |= parsed("/etc/dconf/db", locks.contains(&path))?;
            }
        }
        if let Some(own) = own.filter(|_| !is_locked) {
            let own = table("~/.config/dconf/user", own)?;
            if let Some(value) = parsed("~/.config/dconf/user", own.value(&path))? {
                return Ok(value);
            }
        }
        for database in &system {
            if let Some(value) = parsed("/etc/dconf/db", database.value(&path))? {
                return Ok(value);
            }
        }
        let schemas = table(SCHEMAS, &self.schemas)?;
        let schema = parsed(SCHEMAS, schemas.table(key.schema))?.ok_or_else(|| {
            Unknown::Unsupported("a desktop other than GNOME: its lock is not known".into())
        })?;
        parsed(SCHEMAS, schema.schema_default(key.name))?
            .ok_or_else(|| Unknown::malformed(SCHEMAS, "a schema has no default"))
    }
}

fn table<'a>(path: &str, file: &'a [u8]) -> Result<Table<'a>, Unknown> {
    parsed(path, Table::root(file))
}

/// `system-db:` lines of the profile; without a profile there is none (dconf(7)).
fn system_databases(root: &Root) -> Result<Vec<String>, Unknown> {
    let path = "/etc/dconf/profile/user";
    let Some(text) = root.bytes(path, 4096)? else { return Ok(Vec::new()) };
    let lines = parsed(path, lines(&text))?;
    let names: Vec<String> = lines
        .iter()
        .filter_map(|(_, line)| line.trim().strip_prefix("system-db:"))
        .filter(|name| !name.contains('/'))
        .map(str::to_owned)
        .collect();
    if names.len() > DATABASES_MAX {
        return Err(Unknown::malformed(path, "names too many databases"));
    }
    Ok(names)
}

/// Homes of people. What lies in them is theirs, so no link is followed there.
fn homes(root: &Root) -> Result<Vec<String>, Unknown> {
    const FIRST_USER: u32 = 1000;
    let accounts = required(root, "/etc/passwd", passwd)?;
    let people = accounts
        .into_iter()
        .filter(|account| account.uid >= FIRST_USER && account.has_login_shell());
    let homes: Vec<String> = people.map(|account| account.home).collect();
    if homes.len() > USERS_MAX {
        return Err(Unknown::Unsupported(format!("more than {USERS_MAX} people have accounts")));
    }
    Ok(homes)
}
