//! Checks: the closed catalogue, each with its label and severity.

use crate::wire;

/// Checks in the catalogue; fits a [`CheckSet`].
pub const CHECKS: usize = CheckId::ALL.len();

/// What a failure endangers. The weight is the check's share in the machine's score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Helps once something else has failed.
    Low,
    /// Weakens a defence.
    Medium,
    /// Opens the machine to a common attack.
    High,
    /// Exposes the machine or the dedicated network now; caps the score.
    Critical,
}

impl Severity {
    /// Every severity, the gravest first.
    pub const ALL: &[Self] = &[Self::Critical, Self::High, Self::Medium, Self::Low];

    /// The label in metrics, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    /// Share in the machine's score.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Critical => 8,
            Self::High => 4,
            Self::Medium => 2,
            Self::Low => 1,
        }
    }
}

macro_rules! checks {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $severity:ident;)+) => {
        /// A check of the catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum CheckId { $($(#[$doc])* $variant,)+ }

        impl CheckId {
            /// Every check, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label in metrics, JSON, settings and logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// What a failure endangers.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }

            pub(super) const fn to_wire(self) -> wire::PostureCheck {
                match self { $(Self::$variant => wire::PostureCheck::$variant,)+ }
            }

            /// `None` for the checks of a newer catalogue, and for zero.
            pub(super) fn from_wire(check: i32) -> Option<Self> {
                match wire::PostureCheck::try_from(check).ok()? {
                    wire::PostureCheck::Unspecified => None,
                    $(wire::PostureCheck::$variant => Some(Self::$variant),)+
                }
            }
        }
    };
}

checks! {
    /// Host firewall filters inbound.
    HostFirewallActive = "host_firewall_active", Critical;
    /// OS still gets security fixes.
    OsSupported = "os_supported", Critical;
    /// No security update older than limit.
    SecurityUpdatesPending = "security_updates_pending", Critical;
    /// Update index is fresh.
    UpdateMetadataFresh = "update_metadata_fresh", High;
    /// Automatic security updates.
    AutoUpdatesEnabled = "auto_updates_enabled", High;
    /// No reboot outstanding.
    RebootRequired = "reboot_required", Medium;
    /// Real-time anti-malware runs.
    MalwareProtectionActive = "malware_protection_active", Critical;
    /// Signatures ≤ 7 days old.
    MalwareSignaturesFresh = "malware_signatures_fresh", High;
    /// Autorun off for removable media.
    AutorunDisabled = "autorun_disabled", High;
    /// USB storage controlled.
    UsbStorageRestricted = "usb_storage_restricted", Low;
    /// System disk encrypted.
    DiskEncrypted = "disk_encrypted", High;
    /// Secure Boot on.
    SecureBootEnabled = "secure_boot_enabled", Medium;
    /// Kernel locked down (HVCI on Windows).
    KernelIntegrity = "kernel_integrity", Low;
    /// ASLR, suid dumps, ptrace.
    MemoryProtection = "memory_protection", Low;
    /// AppArmor/SELinux enforcing (WDAC info).
    MacEnforced = "mac_enforced", Low;
    /// Clock disciplined, offset small.
    TimeSynchronised = "time_synchronised", High;
    /// Security events recorded.
    AuditLoggingActive = "audit_logging_active", High;
    /// Logs kept ≥ level's period.
    LogPersistence = "log_persistence", Medium;
    /// Logs leave the machine.
    LogForwarding = "log_forwarding", Medium;
    /// No direct root/Administrator remote login.
    RemoteRootLogin = "remote_root_login", High;
    /// Remote admin not password-only.
    RemotePasswordAuth = "remote_password_auth", High;
    /// No enabled account without password.
    EmptyPasswords = "empty_passwords", Critical;
    /// Only expected administrators.
    SuperuserAccounts = "superuser_accounts", High;
    /// Guest/built-in accounts disabled.
    DefaultAccounts = "default_accounts", Medium;
    /// No account idle > 45 days.
    DormantAccounts = "dormant_accounts", Medium;
    /// Min length 14, or 8 with MFA.
    PasswordPolicy = "password_policy", Medium;
    /// Lock after ≤ 10 failures.
    AccountLockout = "account_lockout", Medium;
    /// No NOPASSWD sudo; UAC on.
    ElevationGuarded = "elevation_guarded", Medium;
    /// Session locks ≤ 15 min.
    ScreenLock = "screen_lock", Medium;
    /// Only allowed ports on the dedicated net.
    ExposedServices = "exposed_services", High;
    /// Not on dedicated net and Internet at once.
    DualHomedBridge = "dual_homed_bridge", Critical;
    /// No routing/NAT/ICS.
    IpForwarding = "ip_forwarding", High;
    /// No rogue IPv6 RA default route.
    Ipv6RouterAdvert = "ipv6_router_advert", Low;
    /// No SMBv1/telnet/rsh/LLMNR.
    LegacyProtocols = "legacy_protocols", High;
    /// passwd/shadow/agent files sane.
    SystemFilePerms = "system_file_perms", Medium;
    /// No writable dir in root's PATH/units.
    WorldWritablePaths = "world_writable_paths", Medium;
    /// /tmp, /dev/shm nosuid,nodev.
    TempMountOptions = "temp_mount_options", Low;
    /// Machine/agent certs > 30 days left.
    CertificatesExpiring = "certificates_expiring", Medium;
    /// A declared backup ran in time.
    BackupRecent = "backup_recent", Medium;
    /// Agent binary, unit, config unmodified.
    AgentIntegrity = "agent_integrity", High;
}

impl CheckId {
    /// The check that a label stands for.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|check| check.as_str() == label)
    }

    /// Whether it weighs nothing unless an agency's policy asks for it.
    pub const fn is_report_only(self) -> bool {
        matches!(self, Self::UsbStorageRestricted)
    }
}

impl std::fmt::Display for CheckId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for CheckId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for CheckId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let label = String::deserialize(deserializer)?;
        let unknown =
            || serde::de::Error::custom(format!("`{label}` is no check of the catalogue"));
        Self::from_label(&label).ok_or_else(unknown)
    }
}

/// A set of checks in one word: cheap to keep for every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckSet(u64);

const _: () = assert!(CHECKS <= 64, "a check is a bit of a CheckSet");

impl CheckSet {
    /// No check.
    pub const NONE: Self = Self(0);
    /// The whole catalogue.
    pub const ALL: Self = Self(u64::MAX >> (64 - CHECKS));

    /// The checks of one severity.
    pub const fn of(severity: Severity) -> Self {
        let mut set = Self::NONE;
        let mut at = 0;
        while at < CHECKS {
            if CheckId::ALL[at].severity() as u8 == severity as u8 {
                set.insert(CheckId::ALL[at]);
            }
            at += 1;
        }
        set
    }

    /// Adds a check.
    pub const fn insert(&mut self, check: CheckId) {
        self.0 |= 1 << check as u8;
    }

    /// Removes a check.
    pub const fn remove(&mut self, check: CheckId) {
        self.0 &= !(1 << check as u8);
    }

    /// Whether the check is in it.
    pub const fn contains(self, check: CheckId) -> bool {
        self.0 & (1 << check as u8) != 0
    }

    /// Checks in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Checks in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Checks in this one alone.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Number of checks in it.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether no check is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its checks in the order of the catalogue.
    pub fn iter(self) -> impl Iterator<Item = CheckId> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let index = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            CheckId::ALL.get(index).copied()
        })
    }
}

impl FromIterator<CheckId> for CheckSet {
    fn from_iter<I: IntoIterator<Item = CheckId>>(checks: I) -> Self {
        let mut set = Self::NONE;
        for check in checks {
            set.insert(check);
        }
        set
    }
}

impl serde::Serialize for CheckSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_its_own_number_and_label() {
        for (number, check) in (1..).zip(CheckId::ALL) {
            assert_eq!(check.to_wire() as i32, number, "{check}");
            assert_eq!(CheckId::from_wire(number), Some(*check));
            assert_eq!(CheckId::from_label(check.as_str()), Some(*check));
            let wire = format!("POSTURE_CHECK_{}", check.as_str().to_uppercase());
            assert_eq!(check.to_wire().as_str_name(), wire);
        }
        for newer in [0, CHECKS as i32 + 1, -1, i32::MAX] {
            assert_eq!(CheckId::from_wire(newer), None);
        }
    }

    #[test]
    fn six_checks_are_critical() {
        let labels: Vec<&str> =
            CheckSet::of(Severity::Critical).iter().map(CheckId::as_str).collect();
        assert_eq!(
            labels,
            [
                "host_firewall_active",
                "os_supported",
                "security_updates_pending",
                "malware_protection_active",
                "empty_passwords",
                "dual_homed_bridge",
            ]
        );
    }

    #[test]
    fn a_set_holds_each_check_once_and_in_order() {
        let set: CheckSet = CheckId::ALL.iter().rev().copied().collect();
        assert_eq!(set, CheckSet::ALL);
        assert_eq!(set.iter().collect::<Vec<_>>(), CheckId::ALL);
        assert_eq!(CheckSet::NONE.iter().next(), None);
        let mut most = set;
        most.remove(CheckId::AgentIntegrity);
        assert_eq!((most.len(), most.contains(CheckId::AgentIntegrity)), (CHECKS - 1, false));
        assert_eq!(set.without(most).iter().collect::<Vec<_>>(), [CheckId::AgentIntegrity]);
    }
}
