//! Posture: is this machine in good security order? Forty checks, each with its evidence.
//!
//! One way for the data: [`root`] and [`kernel`] read → a check judges → [`finding`] is reported.
//! A check is a function from [`Evidence`] to `Result<Finding, Unknown>`: it passes only on
//! evidence that it read, is not applicable only for a fact about the machine, and whatever could
//! not be read is unknown. No check starts a program, walks the disk or asks the network.
//!
//! Checks are made one by one on threads that may hang (`pass`), by the agent itself or by a
//! reader with the privilege that it lacks (`readers`), when they are due (`passes`, `watch`).
//!
//! A check is one function and one line in its domain's module, one data block in the `.toml`
//! beside it (`catalogue`), and four fixtures in `agent/tests/posture/` (`fixtures`). The last
//! part of CONTRIBUTING.md walks through adding one.

pub mod catalogue;
pub mod finding;
pub mod kernel;
pub mod listeners;
pub mod netfilter;
pub mod netlink;
pub mod pass;
pub mod passes;
pub mod policy;
pub mod readers;
pub mod root;
pub mod updates;
pub mod watch;

// Formats, as plain functions over bytes that a fuzz target can call.
pub mod account_files;
pub mod block;
pub mod gvdb;
pub mod inclusion;
pub mod journal_file;
pub mod kernel_audit;
pub mod kernel_clock;
pub mod kernel_tables;
pub mod malformed;
pub mod pam;
pub mod rsyslog_conf;
pub mod sshd_config;
pub mod sudoers;
mod reading;

mod forwarding;
mod logs;
mod remote_access;
mod accounts;
mod authentication;
mod platform;
mod file_system;
pub mod continuity;
mod routes;
mod firewall;
mod malware;
pub(crate) mod parsers;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod hostile;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use haidang_proto::model::posture::CheckId;
use ipnet::IpNet;

use self::catalogue::Entry;
use self::finding::{Judged, Unknown};
use self::kernel::Kernel;
use self::policy::Policy;
use self::root::Root;
use self::updates::{Memory, Update};

/// A check: what it is called, how often it is made, and the function that makes it.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its label and severity.
    pub id: CheckId,
    /// How often, and how much it may cost.
    pub tier: Tier,
    judge: fn(&Evidence<'_>) -> Judged,
}

impl Check {
    const fn new(id: CheckId, tier: Tier, judge: fn(&Evidence<'_>) -> Judged) -> Self {
        Self { id, tier, judge }
    }

    /// Makes the check. A read that comes back after the tier's deadline ends it; for one that
    /// does not come back, see [`pass`].
    pub fn judge(&self, evidence: &Evidence<'_>) -> Judged {
        evidence.root.allow(self.tier.deadline());
        (self.judge)(evidence)
    }
}

/// How often a check is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Every 5 minutes: what changes by the minute, and costs a few milliseconds.
    T0,
    /// Hourly.
    T1,
    /// Daily.
    T2,
}

impl Tier {
    /// Start to start.
    pub const fn period(self) -> Duration {
        Duration::from_secs(match self {
            Self::T0 => 300,
            Self::T1 => 3_600,
            Self::T2 => 86_400,
        })
    }

    /// The longest that one check may take: a hundred times what it costs, because the disk of an
    /// old PC is slow while it boots.
    pub const fn deadline(self) -> Duration {
        Duration::from_millis(match self {
            Self::T0 => 500,
            Self::T1 => 5_000,
            Self::T2 => 20_000,
        })
    }
}

/// A domain: checks that share evidence, and what is said of them.
#[derive(Debug, Clone, Copy)]
struct Domain {
    checks: &'static [Check],
    catalogue: &'static str,
}

/// Every domain; a check is in exactly one.
const DOMAINS: &[Domain] = &[
    firewall::DOMAIN,
    updates::DOMAIN,
    malware::DOMAIN,
    forwarding::DOMAIN,
    logs::DOMAIN,
    remote_access::DOMAIN,
    accounts::DOMAIN,
    authentication::DOMAIN,
    platform::DOMAIN,
    file_system::DOMAIN,
    continuity::DOMAIN,
];

/// Every check, domain by domain.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    DOMAINS.iter().flat_map(|domain| domain.checks)
}

/// What is said of the checks.
#[derive(Debug, Clone)]
pub struct Catalogue(BTreeMap<CheckId, Entry>);

impl Catalogue {
    /// Reads the data blocks that are part of the program.
    ///
    /// # Errors
    /// When one is no catalogue; a test reads them all, so a released program has none.
    pub fn load() -> Result<Self, toml::de::Error> {
        let mut entries = BTreeMap::new();
        for domain in DOMAINS {
            let blocks = catalogue::parse(domain.catalogue)?;
            entries.extend(blocks.into_iter().map(|entry| (entry.id, entry)));
        }
        Ok(Self(entries))
    }

    /// What is said of one.
    pub fn entry(&self, check: CheckId) -> Option<&Entry> {
        self.0.get(&check)
    }
}

/// What a check may look at.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Files.
    pub root: Root,
    /// The kernel's answers.
    pub kernel: &'a Kernel,
    /// Where this agent keeps its identity.
    pub state_dir: &'a Path,
    /// The agency's prefixes on the dedicated network; `None` on a machine without configuration.
    pub dedicated_prefixes: Option<&'a [IpNet]>,
    /// What the site asks for.
    pub policy: &'a Policy,
    /// Thresholds that it leaves alone.
    pub catalogue: &'a Catalogue,
    /// The wall clock.
    pub now: SystemTime,
    /// When the agent first saw updates; `None` where it never ran, or does not tell.
    pub memory: Option<&'a Memory>,
    /// Read once, for the check and for the figures beside it.
    pending_updates: OnceCell<Result<Vec<Update>, Unknown>>,
}

/// What a pass is made of.
#[derive(Debug)]
pub struct Sources<'a> {
    /// See [`Evidence::root`].
    pub root: Root,
    /// See [`Evidence::kernel`].
    pub kernel: &'a Kernel,
    /// See [`Evidence::state_dir`].
    pub state_dir: &'a Path,
    /// See [`Evidence::dedicated_prefixes`].
    pub dedicated_prefixes: Option<&'a [IpNet]>,
    /// See [`Evidence::policy`].
    pub policy: &'a Policy,
    /// See [`Evidence::catalogue`].
    pub catalogue: &'a Catalogue,
    /// See [`Evidence::now`].
    pub now: SystemTime,
    /// See [`Evidence::memory`].
    pub memory: Option<&'a Memory>,
}

impl<'a> Evidence<'a> {
    /// Nothing is read yet.
    pub fn new(sources: Sources<'a>) -> Self {
        let Sources { root, kernel, state_dir, dedicated_prefixes, policy, catalogue, now, memory } =
            sources;
        Self {
            root,
            kernel,
            state_dir,
            dedicated_prefixes,
            policy,
            catalogue,
            now,
            memory,
            pending_updates: OnceCell::new(),
        }
    }

    /// Security updates that are not installed.
    ///
    /// # Errors
    /// When packages or lists cannot be read, or the lists are stale.
    pub fn pending_updates(&self) -> Result<&[Update], Unknown> {
        let pending = self.pending_updates.get_or_init(|| updates::pending(self));
        pending.as_deref().map_err(Unknown::clone)
    }

    /// What the checks of this pass know of pending updates; `None` when none of them asked.
    pub fn pending_updates_read(&self) -> Option<&[Update]> {
        self.pending_updates.get()?.as_deref().ok()
    }

    /// A threshold of a check: the site's, else the catalogue's.
    ///
    /// # Errors
    /// When neither names it.
    pub fn threshold(&self, check: CheckId, name: &str) -> Result<u64, Unknown> {
        let chosen = self.policy.thresholds.get(check.as_str()).and_then(|own| own.get(name));
        let usual = self.catalogue.entry(check).and_then(|entry| entry.thresholds.get(name));
        chosen.or(usual).copied().ok_or_else(|| {
            Unknown::Unsupported(format!("the catalogue has no threshold {name} for {check}"))
        })
    }

    /// How old something is. What is dated after now has no age, and proves nothing.
    pub fn age(&self, what: &str, at: SystemTime) -> Result<Duration, Unknown> {
        self.now.duration_since(at).map_err(|_| {
            Unknown::Stale(format!("{what} is dated in the future: a clock was or is wrong"))
        })
    }
}
