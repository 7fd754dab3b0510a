//! Thresholds: the numbers that checks are judged by, each with its default, its limits, and the
//! direction in which it asks less.

use std::collections::BTreeMap;
use std::fmt;

use crate::wire;

use super::CheckId;

/// Which way a threshold is strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// A larger number asks less.
    Most,
    /// A smaller number asks less.
    Least,
}

macro_rules! thresholds {
    ($($(#[$doc:meta])* $variant:ident = $check:ident $name:literal,
        $bound:ident $default:literal in $min:literal..=$max:literal;)+) => {
        /// A number of a check; the unit stands in its name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Threshold { $($(#[$doc])* $variant,)+ }

        impl Threshold {
            /// Every threshold.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The check.
            pub const fn check(self) -> CheckId {
                match self { $(Self::$variant => CheckId::$check,)+ }
            }

            /// Its name within the check, as in the catalogue.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What is asked where nobody has decided otherwise.
            pub const fn usual(self) -> u32 {
                match self { $(Self::$variant => $default,)+ }
            }

            /// The least and the greatest number that can be asked: beyond, a check could not
            /// fail, or not pass.
            pub const fn limits(self) -> (u32, u32) {
                match self { $(Self::$variant => ($min, $max),)+ }
            }

            const fn bound(self) -> Bound {
                match self { $(Self::$variant => Bound::$bound,)+ }
            }

            pub(super) const fn to_wire(self) -> wire::PostureThreshold {
                match self { $(Self::$variant => wire::PostureThreshold::$variant,)+ }
            }

            /// `None` for those of a newer collector, and for zero.
            pub(super) fn from_wire(threshold: i32) -> Option<Self> {
                match wire::PostureThreshold::try_from(threshold).ok()? {
                    wire::PostureThreshold::Unspecified => None,
                    $(wire::PostureThreshold::$variant => Some(Self::$variant),)+
                }
            }
        }
    };
}

thresholds! {
    /// Since when a security update may be pending.
    SecurityUpdatesDaysMax = SecurityUpdatesPending "days_max", Most 30 in 1..=180;
    /// Age of the update index.
    UpdateMetadataDaysMax = UpdateMetadataFresh "days_max", Most 7 in 1..=60;
    /// Since when automatic updates last ran.
    AutoUpdatesDaysMax = AutoUpdatesEnabled "days_max", Most 7 in 1..=60;
    /// Age of malware signatures.
    MalwareSignaturesDaysMax = MalwareSignaturesFresh "days_max", Most 7 in 1..=60;
    /// Error of the clock.
    TimeErrorMsMax = TimeSynchronised "error_ms_max", Most 5000 in 10..=60000;
    /// From level 3 on the kernel has to audit.
    AuditSecurityLevel = AuditLoggingActive "security_level", Least 2 in 1..=5;
    /// How long records are kept.
    LogDaysMin = LogPersistence "days_min", Least 90 in 0..=730;
    /// Administrators.
    AdministratorsMax = SuperuserAccounts "administrators_max", Most 3 in 1..=50;
    /// How long an account may be unused.
    DormantDaysMax = DormantAccounts "days_max", Most 45 in 1..=365;
    /// Length of passwords.
    PasswordLengthMin = PasswordPolicy "length_min", Least 14 in 6..=64;
    /// The same where everybody has a second factor.
    PasswordLengthMinWithMfa = PasswordPolicy "length_min_with_mfa", Least 8 in 6..=64;
    /// Failed logins before an account locks.
    LockoutFailuresMax = AccountLockout "failures_max", Most 10 in 1..=50;
    /// Rules of sudo that ask for no password.
    NopasswdRulesMax = ElevationGuarded "nopasswd_rules_max", Most 0 in 0..=20;
    /// Idle time before a session locks.
    ScreenLockSecondsMax = ScreenLock "seconds_max", Most 900 in 30..=7200;
    /// What is left of certificates.
    CertificateDaysMin = CertificatesExpiring "days_min", Least 30 in 1..=180;
    /// Age of the last backup.
    BackupDaysMax = BackupRecent "days_max", Most 7 in 1..=90;
    /// Whether a virtual machine's disks are judged (1), or are the business of their host (0).
    VirtualDisksJudged = DiskEncrypted "virtual_disks_judged", Least 1 in 0..=1;
}

impl Threshold {
    /// The threshold with a label, as [`fmt::Display`] writes it.
    pub fn from_label(label: &str) -> Option<Self> {
        let (check, name) = label.split_once('.')?;
        let is_it = |one: &&Self| one.check().as_str() == check && one.name() == name;
        Self::ALL.iter().find(is_it).copied()
    }

    /// Whether a number asks less than another.
    pub const fn is_laxer(self, value: u32, than: u32) -> bool {
        match self.bound() {
            Bound::Most => value > than,
            Bound::Least => value < than,
        }
    }

    /// The nearest number within the limits.
    pub fn clamped(self, value: u32) -> u32 {
        let (least, most) = self.limits();
        value.clamp(least, most)
    }
}

/// `dormant_accounts.days_max`
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.check(), self.name())
    }
}

/// Numbers by threshold, as JSON by label. Labels of a newer version are left out.
pub(super) mod by_label {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{BTreeMap, Threshold};

    pub(in super::super) fn serialize<S: Serializer>(
        values: &BTreeMap<Threshold, u32>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(values.iter().map(|(threshold, value)| (threshold.to_string(), value)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Threshold, u32>, D::Error> {
        let values = BTreeMap::<String, u32>::deserialize(from)?;
        let known = |(label, value): (String, u32)| Some((Threshold::from_label(&label)?, value));
        Ok(values.into_iter().filter_map(known).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lead_back_and_defaults_lie_within_the_limits() {
        for threshold in Threshold::ALL {
            assert_eq!(Threshold::from_label(&threshold.to_string()), Some(*threshold));
            assert_eq!(threshold.clamped(threshold.usual()), threshold.usual(), "{threshold}");
            assert_eq!(Threshold::from_wire(threshold.to_wire() as i32), Some(*threshold));
        }
        assert_eq!(Threshold::from_label("screen_lock"), None);
        assert_eq!(Threshold::from_wire(0), None);
        assert_eq!(Threshold::from_wire(999), None);
    }
}
