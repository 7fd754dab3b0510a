//! What `haidang-agent check` says: one look at the path, for the person in front of the machine.
//!
//! Pure rendering. The caller reads the configuration and runs one thorough cycle; here the
//! cycle becomes rows (`rows`), what is missing becomes words (`missing`), and both become a
//! table of at most 80 columns or JSON (`json`, where the shape is documented).
//!
//! Exit status: 0 all good, 1 something fails, 2 something is unknown and nothing fails. A note,
//! such as an agent that measures by TCP because ICMP is shut, changes nothing. The whole is the
//! worse of path and security order ([`PostureLook`]).

mod clock;
mod json;
mod missing;
mod posture;
mod rows;
mod table;
mod ways;

use std::path::Path;

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::flag::{Flag, Flags};
use haidang_proto::model::host::HostFacts;
use haidang_proto::model::verdict::{DegradedCause, Family, Verdict};

use crate::config::Config;
use crate::connectivity::{flags_of, ladder};
use crate::evidence::{Cycle, PathMtu, Way};
use crate::language::Language;

use self::missing::Missing;
use self::rows::Row;

pub use self::clock::{AgentSays, ClockDoubt};
pub use self::posture::PostureLook;

/// Everything that `check` looked at.
#[derive(Debug, Clone, Copy)]
pub struct Checkup<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// One thorough cycle.
    pub cycle: &'a Cycle,
    /// Whether the machine has an identity.
    pub enrolment: &'a Enrolment,
    /// The machine, where it could be read.
    pub host: Option<&'a HostFacts>,
    /// The ways to the anchors; empty unless they were asked for.
    pub ways: &'a [Way],
    /// Why this machine's clock is not believed.
    pub clock: Option<&'a ClockDoubt>,
}

/// Life of the machine's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// It speaks for an agency.
    Enrolled(AgencyId),
    /// It has no identity yet.
    NotEnrolled,
    /// The state directory could not be read, and why.
    Unreadable(String),
}

/// Whether colours are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A file or a pipe.
    Plain,
    /// A terminal.
    Coloured,
}

/// The result of one row, and of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Worth knowing, no fault.
    Note,
    /// Could not be told.
    Unknown,
    /// Does not work.
    Fails,
}

impl Outcome {
    /// The exit status of the program.
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Good | Self::Note => 0,
            Self::Fails => 1,
            Self::Unknown => 2,
        }
    }
}

impl Checkup<'_> {
    /// The verdict of this one look.
    pub fn verdict(&self) -> Verdict {
        let verdict = ladder::judge(self.cycle, self.config.verdict.starved_lag).verdict();
        match (verdict, &self.cycle.path_mtu) {
            (Verdict::Connected, Some(PathMtu::Hole { .. })) => {
                Verdict::Degraded(DegradedCause::PathMtu)
            }
            (verdict, _) => verdict,
        }
    }

    /// Findings beside it.
    pub fn flags(&self) -> Flags {
        let Config { dedicated, posture, .. } = self.config;
        flags_of(self.cycle, &dedicated.network_prefixes, &posture.permitted_interfaces)
    }

    /// The worst of verdict, findings and enrolment. A probe that failed where another proved
    /// the path, such as echo where TCP works, is told but fails nothing.
    pub fn outcome(&self) -> Outcome {
        let verdict = match (self.verdict(), self.verdict().family()) {
            (Verdict::Connected, _) => Outcome::Good,
            (_, Family::Unknown) => Outcome::Unknown,
            (_, Family::Up | Family::Down) => Outcome::Fails,
        };
        let flags = self.flags().iter().map(flag_outcome).max();
        let missing = self.missing().iter().map(Missing::outcome).max();
        verdict.max(flags.unwrap_or(Outcome::Good)).max(missing.unwrap_or(Outcome::Good))
    }

    /// The table for a person.
    pub fn table(&self, language: Language, style: Style) -> String {
        table::checkup(self, language, style)
    }

    /// The same for a program.
    pub fn json(&self) -> String {
        json::checkup(self)
    }

    fn rows(&self) -> Vec<Row> {
        rows::rows(self)
    }

    fn missing(&self) -> Vec<Missing> {
        missing::missing(self)
    }
}

/// What to print where there is no usable configuration; its outcome is [`Outcome::Unknown`].
pub fn without_config(path: &Path, problem: &str, language: Language, style: Style) -> String {
    table::without_config(&Missing::config(path, problem), language, style)
}

/// The same for a program.
pub fn without_config_json(path: &Path, problem: &str) -> String {
    json::without_config(&Missing::config(path, problem))
}

/// How much a finding weighs in the exit status.
const fn flag_outcome(flag: Flag) -> Outcome {
    match flag {
        Flag::Leak
        | Flag::DualHomed
        | Flag::Bridging
        | Flag::InternetReachable
        | Flag::Flapping
        | Flag::AnchorDown => Outcome::Fails,
        Flag::IcmpUnavailable | Flag::IcmpFiltered => Outcome::Note,
    }
}

#[cfg(test)]
mod tests;
