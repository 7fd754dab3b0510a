//! What people read: one catalogue, Vietnamese first, English beside it.
//!
//! A [`Key`] is a closed enum and every key holds both languages by construction. Terms of the
//! network and of states are the official or the usual ones: mạng truyền số liệu chuyên dùng,
//! Đã kết nối, Mất kết nối. Logs, metrics and JSON labels are English and do not come from here.

mod catalogue;

use std::str::FromStr;

use haidang_proto::model::flag::Flag;
use haidang_proto::model::verdict::{
    DegradedCause, DnsCause, DownCause, ServiceCause, UnknownCause, Verdict,
};

pub use self::catalogue::Key;

/// A language of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Language {
    /// Vietnamese.
    #[default]
    Vi,
    /// English.
    En,
}

/// A language that the catalogue does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no text in language {0:?}; choose vi or en")]
pub struct UnknownLanguage(String);

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "vi" => Ok(Self::Vi),
            "en" => Ok(Self::En),
            other => Err(UnknownLanguage(other.chars().take(16).collect())),
        }
    }
}

/// Whom a fault is taken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// Nobody: nothing is wrong.
    Nobody,
    /// Whoever looks after this machine.
    OwnMachine,
    /// Whoever looks after the agency's local network: cables, switch, router.
    OwnLan,
    /// The carrier of the agency's line.
    Carrier,
    /// The operator of the network's core.
    Core,
    /// The operator of DNS or of the service.
    Service,
}

impl Party {
    /// Every party.
    pub const ALL: &[Self] =
        &[Self::Nobody, Self::OwnMachine, Self::OwnLan, Self::Carrier, Self::Core, Self::Service];

    /// The label in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::OwnMachine => "own_machine",
            Self::OwnLan => "own_lan",
            Self::Carrier => "carrier",
            Self::Core => "core",
            Self::Service => "service",
        }
    }

    /// Its name for people.
    pub const fn key(self) -> Key {
        match self {
            Self::Nobody => Key::CallNobody,
            Self::OwnMachine => Key::CallOwnMachine,
            Self::OwnLan => Key::CallOwnLan,
            Self::Carrier => Key::CallCarrier,
            Self::Core => Key::CallCore,
            Self::Service => Key::CallService,
        }
    }
}

/// The name of a verdict's state.
pub const fn state(verdict: Verdict) -> Key {
    match verdict {
        Verdict::Connected => Key::StateConnected,
        Verdict::Degraded(_) => Key::StateDegraded,
        Verdict::DnsBroken(_) => Key::StateDnsBroken,
        Verdict::ServiceBroken(_) => Key::StateServiceBroken,
        Verdict::Disconnected(_) => Key::StateDisconnected,
        Verdict::Unknown(_) => Key::StateUnknown,
    }
}

/// What is the matter, in one sentence, and whom to call about it.
pub const fn diagnosis(verdict: Verdict) -> (Key, Party) {
    match verdict {
        Verdict::Connected => (Key::Connected, Party::Nobody),
        Verdict::Disconnected(cause) => match cause {
            DownCause::LinkDown => (Key::LinkDown, Party::OwnLan),
            DownCause::NoAddress => (Key::NoAddress, Party::OwnLan),
            DownCause::NoRoute => (Key::NoRoute, Party::OwnMachine),
            DownCause::GatewayUnreachable => (Key::GatewayUnreachable, Party::OwnLan),
            DownCause::CoreUnreachable => (Key::CoreUnreachable, Party::Carrier),
        },
        Verdict::Degraded(cause) => match cause {
            DegradedCause::Loss => (Key::Loss, Party::Carrier),
            DegradedCause::Rtt => (Key::Rtt, Party::Carrier),
            DegradedCause::DelayVariation => (Key::DelayVariation, Party::Carrier),
            DegradedCause::PathMtu => (Key::PathMtu, Party::Carrier),
            DegradedCause::Recovering => (Key::Recovering, Party::Nobody),
        },
        Verdict::DnsBroken(cause) => match cause {
            DnsCause::DnsSilent => (Key::DnsSilent, Party::Core),
            DnsCause::DnsRefused => (Key::DnsRefused, Party::Core),
            DnsCause::DnsServerFailure => (Key::DnsServerFailure, Party::Core),
            DnsCause::DnsWrongAnswer => (Key::DnsWrongAnswer, Party::Core),
        },
        Verdict::ServiceBroken(cause) => match cause {
            ServiceCause::ServiceSilent => (Key::ServiceSilent, Party::Service),
            ServiceCause::ServiceRefused => (Key::ServiceRefused, Party::Service),
            ServiceCause::ServiceWrongStatus => (Key::ServiceWrongStatus, Party::Service),
            ServiceCause::ServiceWrongAnswer => (Key::ServiceWrongAnswer, Party::Service),
            ServiceCause::TlsIntercepted => (Key::TlsIntercepted, Party::OwnLan),
        },
        Verdict::Unknown(cause) => match cause {
            UnknownCause::Starting => (Key::Starting, Party::Nobody),
            UnknownCause::Resumed => (Key::Resumed, Party::Nobody),
            UnknownCause::Starved => (Key::Starved, Party::OwnMachine),
            UnknownCause::NotMeasured => (Key::NotMeasured, Party::OwnMachine),
        },
    }
}

/// What a flag means, in one sentence, and whom to call about it.
pub const fn finding(flag: Flag) -> (Key, Party) {
    match flag {
        Flag::Leak => (Key::Leak, Party::OwnMachine),
        Flag::DualHomed => (Key::DualHomed, Party::OwnMachine),
        Flag::Bridging => (Key::Bridging, Party::OwnMachine),
        Flag::InternetReachable => (Key::InternetReachable, Party::OwnMachine),
        Flag::Flapping => (Key::Flapping, Party::Carrier),
        Flag::AnchorDown => (Key::AnchorDown, Party::Core),
        Flag::IcmpUnavailable => (Key::IcmpUnavailable, Party::OwnMachine),
        Flag::IcmpFiltered => (Key::IcmpFiltered, Party::Core),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use haidang_proto::model::verdict::all_verdicts;

    use super::*;

    #[test]
    fn no_key_lacks_a_language() {
        for key in Key::ALL {
            let (vi, en) = (key.text(Language::Vi), key.text(Language::En));
            assert!(!vi.trim().is_empty() && !en.trim().is_empty(), "{key:?}");
            assert!(en.is_ascii(), "{key:?} has Vietnamese where English belongs: {en}");
        }
        let names: HashSet<_> = Key::ALL.iter().map(|key| format!("{key:?}")).collect();
        assert_eq!(names.len(), Key::ALL.len());
    }

    #[test]
    fn vietnamese_letters_are_composed_so_that_columns_line_up() {
        for key in Key::ALL {
            let is_combining = |c: &char| ('\u{300}'..='\u{36f}').contains(c);
            assert_eq!(key.text(Language::Vi).chars().find(is_combining), None, "{key:?}");
        }
    }

    #[test]
    fn each_verdict_and_flag_has_a_sentence_of_its_own() {
        for language in [Language::Vi, Language::En] {
            let mut keys: Vec<Key> =
                all_verdicts().into_iter().map(|verdict| diagnosis(verdict).0).collect();
            keys.extend(Flag::ALL.iter().map(|flag| finding(*flag).0));
            let texts: HashSet<_> = keys.iter().map(|key| key.text(language)).collect();
            assert_eq!(texts.len(), all_verdicts().len() + Flag::ALL.len());
            for text in texts {
                assert!(text.ends_with('.'), "not a sentence: {text}");
            }
        }
    }

    /// Who can mend it, cause by cause.
    #[test]
    fn each_cause_is_taken_to_whom_can_mend_it() {
        let table = [
            ("", Party::Nobody),
            ("loss", Party::Carrier),
            ("rtt", Party::Carrier),
            ("delay_variation", Party::Carrier),
            ("path_mtu", Party::Carrier),
            ("recovering", Party::Nobody),
            ("dns_silent", Party::Core),
            ("dns_refused", Party::Core),
            ("dns_server_failure", Party::Core),
            ("dns_wrong_answer", Party::Core),
            ("service_silent", Party::Service),
            ("service_refused", Party::Service),
            ("service_wrong_status", Party::Service),
            ("service_wrong_answer", Party::Service),
            ("tls_intercepted", Party::OwnLan),
            ("link_down", Party::OwnLan),
            ("no_address", Party::OwnLan),
            ("no_route", Party::OwnMachine),
            ("gateway_unreachable", Party::OwnLan),
            ("core_unreachable", Party::Carrier),
            ("starting", Party::Nobody),
            ("resumed", Party::Nobody),
            ("starved", Party::OwnMachine),
            ("not_measured", Party::OwnMachine),
        ];
        let found: Vec<_> = all_verdicts()
            .into_iter()
            .map(|verdict| (verdict.cause(), diagnosis(verdict).1))
            .collect();
        for entry in &found {
            assert!(table.contains(entry), "{entry:?} is not in the table");
        }
        assert_eq!(found.len(), table.len());
        for verdict in all_verdicts() {
            for language in [Language::Vi, Language::En] {
                let text = diagnosis(verdict).0.text(language);
                let ends = text.matches(['.', '!', '?']).count();
                assert_eq!(ends, 1, "one sentence: {text}");
            }
        }
    }

    #[test]
    fn a_fault_always_names_somebody() {
        let is_passing = |verdict| {
            matches!(
                verdict,
                Verdict::Connected
                    | Verdict::Degraded(DegradedCause::Recovering)
                    | Verdict::Unknown(UnknownCause::Starting | UnknownCause::Resumed)
            )
        };
        for verdict in all_verdicts() {
            assert_eq!(diagnosis(verdict).1 == Party::Nobody, is_passing(verdict), "{verdict:?}");
        }
    }

    #[test]
    fn other_languages_are_refused_in_words() {
        assert_eq!("vi".parse(), Ok(Language::Vi));
        assert_eq!("en".parse(), Ok(Language::En));
        let error = "fr".parse::<Language>().expect_err("there is no French");
        assert!(error.to_string().contains("vi or en"));
    }
}
