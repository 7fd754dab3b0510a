//! The agent's verdict on its path: a state, and the cause that belongs to it.
//!
//! The rules are in the agent's `connectivity` module; this is only the value. A
//! cause cannot stand beside a state that it does not explain: the type has no such
//! value, and the wire conversion refuses it.

use crate::wire;

use super::WireError;

/// What an agent holds of its path to the dedicated network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The path works and its quality is good.
    Connected,
    /// The path works badly.
    Degraded(DegradedCause),
    /// The path works, the resolvers do not.
    DnsBroken(DnsCause),
    /// Path and names work, the service does not.
    ServiceBroken(ServiceCause),
    /// The path does not work.
    Disconnected(DownCause),
    /// The agent cannot tell, and says why.
    Unknown(UnknownCause),
}

/// Families of verdicts: the hysteresis rules speak of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// The path carries packets: connected, degraded, dns_broken, service_broken.
    Up,
    /// The path carries none.
    Down,
    /// Not known.
    Unknown,
}

/// Declares a closed set of causes with their label and wire value.
macro_rules! causes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every cause of the set.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label in metrics, JSON and logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            const fn to_wire(self) -> wire::Cause {
                match self { $(Self::$variant => wire::Cause::$variant,)+ }
            }

            fn from_wire(cause: wire::Cause) -> Result<Self, WireError> {
                match cause {
                    $(wire::Cause::$variant => Ok(Self::$variant),)+
                    _ => Err(WireError::new("cause", "does not belong to the state")),
                }
            }
        }
    };
}

causes! {
    /// Why the path carries nothing, from the lowest layer up.
    DownCause {
        /// Interface missing, administratively down or without carrier.
        LinkDown = "link_down",
        /// No address inside the agency's prefixes.
        NoAddress = "no_address",
        /// The FIB does not lead to the anchors through the dedicated interface.
        NoRoute = "no_route",
        /// The gateway answers neither ARP/NDP nor echo, and nothing beyond it does.
        GatewayUnreachable = "gateway_unreachable",
        /// The gateway is there, no anchor is.
        CoreUnreachable = "core_unreachable",
    }
}

causes! {
    /// What is bad about a path that works.
    DegradedCause {
        /// Loss over the threshold.
        Loss = "loss",
        /// Round-trip time over the threshold.
        Rtt = "rtt",
        /// Packet delay variation (RFC 5481, p95 − min) over the threshold.
        DelayVariation = "delay_variation",
        /// Large packets vanish (a silent MTU hole).
        PathMtu = "path_mtu",
        /// Just back from an outage, not yet proved stable.
        Recovering = "recovering",
    }
}

causes! {
    /// How the resolvers fail.
    DnsCause {
        /// No answer.
        DnsSilent = "dns_silent",
        /// Port closed, or rcode REFUSED.
        DnsRefused = "dns_refused",
        /// rcode SERVFAIL or another error.
        DnsServerFailure = "dns_server_failure",
        /// An answer outside what was expected.
        DnsWrongAnswer = "dns_wrong_answer",
    }
}

causes! {
    /// How a service fails.
    ServiceCause {
        /// Nothing answered in time.
        ServiceSilent = "service_silent",
        /// Connection refused or reset.
        ServiceRefused = "service_refused",
        /// An HTTP status outside what was expected.
        ServiceWrongStatus = "service_wrong_status",
        /// An answer without the nonce, malformed, or too long.
        ServiceWrongAnswer = "service_wrong_answer",
        /// A certificate by somebody else's CA.
        TlsIntercepted = "tls_intercepted",
    }
}

causes! {
    /// Why the agent cannot tell.
    UnknownCause {
        /// Not enough cycles yet.
        Starting = "starting",
        /// The machine was suspended a moment ago.
        Resumed = "resumed",
        /// The prober's own timers lag: its silence proves nothing.
        Starved = "starved",
        /// Nothing could be probed: no interface or anchor is configured, or every probe failed
        /// for a local reason.
        NotMeasured = "not_measured",
    }
}

impl Verdict {
    /// The family for hysteresis and for "best of".
    pub const fn family(self) -> Family {
        match self {
            Self::Connected | Self::Degraded(_) | Self::DnsBroken(_) | Self::ServiceBroken(_) => {
                Family::Up
            }
            Self::Disconnected(_) => Family::Down,
            Self::Unknown(_) => Family::Unknown,
        }
    }

    /// The state's label in metrics, JSON and logs.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Degraded(_) => "degraded",
            Self::DnsBroken(_) => "dns_broken",
            Self::ServiceBroken(_) => "service_broken",
            Self::Disconnected(_) => "disconnected",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The cause's label; empty when connected, which needs none.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Connected => "",
            Self::Degraded(cause) => cause.as_str(),
            Self::DnsBroken(cause) => cause.as_str(),
            Self::ServiceBroken(cause) => cause.as_str(),
            Self::Disconnected(cause) => cause.as_str(),
            Self::Unknown(cause) => cause.as_str(),
        }
    }
}

impl DownCause {
    /// A cause from the wire alone, where the state is implied.
    pub(crate) fn try_from_wire(cause: i32) -> Result<Self, WireError> {
        Self::from_wire(wire_cause(cause)?)
    }

    /// The wire value where the state is implied.
    pub(crate) const fn wire_value(self) -> i32 {
        self.to_wire() as i32
    }
}

fn wire_cause(cause: i32) -> Result<wire::Cause, WireError> {
    wire::Cause::try_from(cause).map_err(|_| WireError::new("cause", "is not known"))
}

impl TryFrom<wire::Verdict> for Verdict {
    type Error = WireError;

    fn try_from(wire::Verdict { state, cause }: wire::Verdict) -> Result<Self, WireError> {
        let state = wire::PathState::try_from(state)
            .map_err(|_| WireError::new("verdict.state", "is not known"))?;
        let cause = wire_cause(cause)?;
        Ok(match state {
            wire::PathState::Unspecified => {
                return Err(WireError::new("verdict.state", "is missing"));
            }
            wire::PathState::Connected => match cause {
                wire::Cause::Unspecified => Self::Connected,
                _ => return Err(WireError::new("cause", "does not belong to the state")),
            },
            wire::PathState::Degraded => Self::Degraded(DegradedCause::from_wire(cause)?),
            wire::PathState::DnsBroken => Self::DnsBroken(DnsCause::from_wire(cause)?),
            wire::PathState::ServiceBroken => Self::ServiceBroken(ServiceCause::from_wire(cause)?),
            wire::PathState::Disconnected => Self::Disconnected(DownCause::from_wire(cause)?),
            wire::PathState::Unknown => Self::Unknown(UnknownCause::from_wire(cause)?),
        })
    }
}

impl From<Verdict> for wire::Verdict {
    fn from(verdict: Verdict) -> Self {
        let (state, cause) = match verdict {
            Verdict::Connected => (wire::PathState::Connected, wire::Cause::Unspecified),
            Verdict::Degraded(cause) => (wire::PathState::Degraded, cause.to_wire()),
            Verdict::DnsBroken(cause) => (wire::PathState::DnsBroken, cause.to_wire()),
            Verdict::ServiceBroken(cause) => (wire::PathState::ServiceBroken, cause.to_wire()),
            Verdict::Disconnected(cause) => (wire::PathState::Disconnected, cause.to_wire()),
            Verdict::Unknown(cause) => (wire::PathState::Unknown, cause.to_wire()),
        };
        Self { state: state as i32, cause: cause as i32 }
    }
}

impl serde::Serialize for Verdict {
    /// `{"state": "…", "cause": "…"}`; `cause` is null when connected.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Verdict", 2)?;
        out.serialize_field("state", self.state())?;
        out.serialize_field("cause", &Some(self.cause()).filter(|cause| !cause.is_empty()))?;
        out.end()
    }
}

/// Every verdict there is, for tables and tests.
pub fn all_verdicts() -> Vec<Verdict> {
    let mut all = vec![Verdict::Connected];
    all.extend(DegradedCause::ALL.iter().map(|cause| Verdict::Degraded(*cause)));
    all.extend(DnsCause::ALL.iter().map(|cause| Verdict::DnsBroken(*cause)));
    all.extend(ServiceCause::ALL.iter().map(|cause| Verdict::ServiceBroken(*cause)));
    all.extend(DownCause::ALL.iter().map(|cause| Verdict::Disconnected(*cause)));
    all.extend(UnknownCause::ALL.iter().map(|cause| Verdict::Unknown(*cause)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_survives_the_wire() {
        for verdict in all_verdicts() {
            assert_eq!(Verdict::try_from(wire::Verdict::from(verdict)), Ok(verdict));
        }
    }

    #[test]
    fn a_cause_beside_the_wrong_state_is_refused() {
        let accepted = (0..=7)
            .flat_map(|state| (0..=80).map(move |cause| wire::Verdict { state, cause }))
            .filter(|verdict| Verdict::try_from(*verdict).is_ok())
            .count();
        assert_eq!(accepted, all_verdicts().len());
    }
}
