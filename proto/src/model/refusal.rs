//! Refusals: the closed set of reasons why a collector turns a peer away. The label
//! counts in `haidang_collector_rejected_total{reason}` and travels in the gRPC status
//! as metadata under [`REASON_KEY`], so that an agent decides on it and not on text.

/// Metadata key of the reason.
pub const REASON_KEY: &str = "haidang-reason";

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $label:literal,)+) => {
        /// Why something was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal { $($(#[$doc])* $variant,)+ }

        impl Refusal {
            /// Every reason: each has a series from the start.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The reason that a label stands for.
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

refusals! {
    /// The TLS handshake failed: wrong CA, wrong version, plain text.
    Handshake = "handshake",
    /// The peer showed no certificate where one is demanded. Agents that use a reporting listener
    /// as an anchor do so with every probe: they want its identity and have nothing to say.
    NoCertificate = "no_certificate",
    /// TLS and HTTP/2 did not begin in time, or a peer without a certificate stayed too long.
    HandshakeTimeout = "handshake_timeout",
    /// The peer took this collector's certificate for over: one of the two clocks is wrong.
    PeerClock = "peer_clock",
    /// The connection broke the rules of HTTP/2, or flooded it.
    Http2 = "http2",
    /// Too many connections, or too many handshakes at once.
    Overloaded = "overloaded",
    /// The certificate is past its end.
    CertificateExpired = "certificate_expired",
    /// The certificate is not valid yet.
    CertificateNotYetValid = "certificate_not_yet_valid",
    /// The certificate carries no agent's id of this trust domain.
    IdentityMalformed = "identity_malformed",
    /// No such identity was ever enrolled here.
    IdentityUnknown = "identity_unknown",
    /// The identity was revoked. The only refusal at which an agent stops reporting.
    Revoked = "revoked",
    /// The certificate is neither the current nor the pending one of its identity.
    SerialSuperseded = "serial_superseded",
    /// The same identity speaks from two machines; an operator has to decide.
    Cloned = "cloned",
    /// The agency of the certificate is not in the roster today.
    AgencyNotInRoster = "agency_not_in_roster",
    /// The message breaks the contract.
    Malformed = "malformed",
    /// The message is larger than allowed.
    TooLarge = "too_large",
    /// The store cannot take records now; the agent keeps them.
    StoreUnavailable = "store_unavailable",
    /// More requests than this peer may send.
    RateLimited = "rate_limited",
    /// The enrolment token is unknown or its secret is wrong.
    TokenWrong = "token_wrong",
    /// The enrolment token has expired.
    TokenExpired = "token_expired",
    /// The enrolment token has no uses left.
    TokenUsedUp = "token_used_up",
    /// The enrolment token was withdrawn.
    TokenRevoked = "token_revoked",
    /// Enrolment from an address outside the agency's prefixes.
    SourceOutsidePrefixes = "source_outside_prefixes",
    /// The certificate request is not one, or its signature is wrong.
    CsrInvalid = "csr_invalid",
    /// The expired certificate is too old for recovery, or proof of its key is missing.
    RecoveryRefused = "recovery_refused",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_lead_back() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_label(refusal.as_str()), Some(*refusal));
        }
    }
}
