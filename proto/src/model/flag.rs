//! Flags: findings beside the state. They never change it.

use crate::wire;

use super::WireError;

/// A finding of one agent, listed per machine and any-of per agency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// A dedicated target was reached by a way that is not the dedicated network.
    Leak,
    /// Two interfaces that are up have routes, one of them not the dedicated network's.
    DualHomed,
    /// Forwarding, NAT or a bridge joins the dedicated network to another.
    Bridging,
    /// The Internet canary answered (only where it is switched on).
    InternetReachable,
    /// Four or more changes of family in 30 minutes.
    Flapping,
    /// At least one anchor is dead while another answers.
    AnchorDown,
    /// The agent may not send ICMP echo (`net.ipv4.ping_group_range`); TCP alone proves the path.
    IcmpUnavailable,
    /// Echo is allowed here but no anchor answers it, while TCP works.
    IcmpFiltered,
}

impl Flag {
    /// Every flag.
    pub const ALL: &[Self] = &[
        Self::Leak,
        Self::DualHomed,
        Self::Bridging,
        Self::InternetReachable,
        Self::Flapping,
        Self::AnchorDown,
        Self::IcmpUnavailable,
        Self::IcmpFiltered,
    ];

    /// The label in metrics, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::DualHomed => "dual_homed",
            Self::Bridging => "bridging",
            Self::InternetReachable => "internet_reachable",
            Self::Flapping => "flapping",
            Self::AnchorDown => "anchor_down",
            Self::IcmpUnavailable => "icmp_unavailable",
            Self::IcmpFiltered => "icmp_filtered",
        }
    }

    const fn to_wire(self) -> wire::Flag {
        match self {
            Self::Leak => wire::Flag::Leak,
            Self::DualHomed => wire::Flag::DualHomed,
            Self::Bridging => wire::Flag::Bridging,
            Self::InternetReachable => wire::Flag::InternetReachable,
            Self::Flapping => wire::Flag::Flapping,
            Self::AnchorDown => wire::Flag::AnchorDown,
            Self::IcmpUnavailable => wire::Flag::IcmpUnavailable,
            Self::IcmpFiltered => wire::Flag::IcmpFiltered,
        }
    }
}

impl serde::Serialize for Flag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A set of flags in one byte pair: cheap to keep for every agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Adds a flag.
    pub fn insert(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u16;
    }

    /// Whether the flag is set.
    pub const fn contains(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u16) != 0
    }

    /// Any-of.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags that are set, in the order of [`Flag::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.iter().copied().filter(move |flag| self.contains(*flag))
    }

    /// From the wire. A flag that a newer agent knows and we do not is left out: flags only add
    /// findings, so this turns nothing green.
    pub(crate) fn from_wire(flags: &[i32]) -> Result<Self, WireError> {
        if flags.len() > 64 {
            return Err(WireError::new("connectivity.flags", "has more than 64 entries"));
        }
        let mut set = Self::NONE;
        for flag in Flag::ALL {
            if flags.contains(&(flag.to_wire() as i32)) {
                set.insert(*flag);
            }
        }
        Ok(set)
    }

    /// To the wire.
    pub(crate) fn to_wire(self) -> Vec<i32> {
        self.iter().map(|flag| flag.to_wire() as i32).collect()
    }
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let mut set = Self::NONE;
        for flag in flags {
            set.insert(flag);
        }
        set
    }
}

impl serde::Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_survive_the_wire() {
        for flag in Flag::ALL {
            let set = Flags::from_iter([*flag]);
            assert_eq!(Flags::from_wire(&set.to_wire()), Ok(set));
        }
    }
}
