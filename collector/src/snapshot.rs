//! The snapshot: what every reader sees. The fleet makes one a second; metrics, API and
//! alerts are rendered from it and never reach into the fleet.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::fact::Fact;
use haidang_proto::model::flag::{Flag, Flags};
use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::host::HostFacts;
use haidang_proto::model::report::JournalStatus;
use haidang_proto::model::verdict::{DownCause, Verdict};

use crate::posture::{AgencyPosture, Exceptions, MachineFigures, MachinePosture, Policies};
use crate::roster::Roster;

/// The fleet at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was made.
    pub taken_at: SystemTime,
    /// The roster it was folded against.
    pub roster: Arc<Roster>,
    /// One view for each agency of the roster that is valid today, in roster order.
    pub agencies: Vec<AgencyView>,
    /// Every enrolled agent, by agency.
    pub agents: Vec<AgentView>,
    /// Live goals.
    pub goals: Vec<Goal>,
    /// Incidents that hold now.
    pub incidents: Vec<Incident>,
    /// Failing checks that somebody answers for.
    pub exceptions: Arc<Exceptions>,
    /// What was decided to be asked of agencies.
    pub policies: Arc<Policies>,
}

/// The states of an agency. Exactly one holds, so they sum to the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgencyState {
    /// A fresh verified message, and the best agent is well.
    Connected,
    /// The path works, with a fault that users notice.
    Degraded,
    /// Proved to be cut off.
    Disconnected(DisconnectCause),
    /// Alive, but every message comes from outside its prefixes.
    OffNetwork,
    /// Nothing heard; the path is not proved either way.
    Silent {
        /// A clean stop said so.
        stopped: Option<GoodbyeReason>,
    },
    /// The collector cannot tell.
    Unknown,
    /// No agent of it was ever verified.
    NotEnrolled,
}

/// Why an agency is disconnected: the closed label set of `haidang_agency_disconnect_cause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisconnectCause {
    /// An agent said so over another permitted path.
    Agent(DownCause),
    /// The agency's gateway stopped answering the core.
    NoAnswerFromCore,
    /// It was so before the collector restarted, and nothing has been heard since.
    Unconfirmed,
}

impl AgencyState {
    /// Labels of all states, in the order of their metrics.
    pub const LABELS: [&str; 7] = [
        "connected",
        "degraded",
        "disconnected",
        "off_network",
        "silent",
        "unknown",
        "not_enrolled",
    ];

    /// Position in [`Self::LABELS`].
    pub const fn index(self) -> usize {
        match self {
            Self::Connected => 0,
            Self::Degraded => 1,
            Self::Disconnected(_) => 2,
            Self::OffNetwork => 3,
            Self::Silent { .. } => 4,
            Self::Unknown => 5,
            Self::NotEnrolled => 6,
        }
    }

    /// The label in metrics, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// What stands behind the state: the cause of `disconnected`, the reason of a clean stop;
    /// empty for the others.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Disconnected(cause) => cause.as_str(),
            Self::Silent { stopped: Some(reason) } => reason.as_str(),
            Self::Connected
            | Self::Degraded
            | Self::OffNetwork
            | Self::Silent { stopped: None }
            | Self::Unknown
            | Self::NotEnrolled => "",
        }
    }

    /// The state that a label and its detail stand for, as the store keeps them; `None` when
    /// no such state exists.
    pub fn from_labels(state: &str, detail: &str) -> Option<Self> {
        let plain = |state| detail.is_empty().then_some(state);
        match state {
            "connected" => plain(Self::Connected),
            "degraded" => plain(Self::Degraded),
            "disconnected" => DisconnectCause::from_label(detail).map(Self::Disconnected),
            "off_network" => plain(Self::OffNetwork),
            "silent" if detail.is_empty() => Some(Self::Silent { stopped: None }),
            "silent" => [
                GoodbyeReason::Shutdown,
                GoodbyeReason::Sleep,
                GoodbyeReason::Upgrade,
                GoodbyeReason::Uninstall,
            ]
            .into_iter()
            .find(|reason| reason.as_str() == detail)
            .map(|reason| Self::Silent { stopped: Some(reason) }),
            "unknown" => plain(Self::Unknown),
            "not_enrolled" => plain(Self::NotEnrolled),
            _ => None,
        }
    }

    /// Whether it counts for "connected to the dedicated network".
    pub const fn counts_as_connected(self) -> bool {
        matches!(self, Self::Connected | Self::Degraded)
    }
}

impl DisconnectCause {
    /// Every label.
    pub const LABELS: [&str; 7] = [
        "link_down",
        "no_address",
        "no_route",
        "gateway_unreachable",
        "core_unreachable",
        "no_answer_from_core",
        "unconfirmed",
    ];

    /// The label in metrics, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent(cause) => cause.as_str(),
            Self::NoAnswerFromCore => "no_answer_from_core",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// The cause that a label stands for.
    pub fn from_label(label: &str) -> Option<Self> {
        match label {
            "no_answer_from_core" => Some(Self::NoAnswerFromCore),
            "unconfirmed" => Some(Self::Unconfirmed),
            _ => DownCause::ALL
                .iter()
                .copied()
                .find(|cause| cause.as_str() == label)
                .map(Self::Agent),
        }
    }
}

/// One agency.
#[derive(Debug, Clone)]
pub struct AgencyView {
    /// Its row in `Snapshot::roster`.
    pub row: usize,
    /// Its state.
    pub state: AgencyState,
    /// When that state began, on the collector's wall clock.
    pub since: SystemTime,
    /// Receipt of the last verified message.
    pub last_verified: Option<SystemTime>,
    /// The fault behind `degraded`, or the agent's own words behind another state.
    pub verdict: Option<Verdict>,
    /// Machines with each flag, in the order of [`Flag::ALL`].
    pub flag_machines: [u32; Flag::ALL.len()],
    /// Findings of the collector about this agency.
    pub findings: Vec<Finding>,
    /// Whose prefixes its agents speak from, where these are another agency's.
    pub speaks_from: Vec<AgencyId>,
    /// What else its machines are attached to, and what joins the networks: any machine's, each
    /// once.
    pub surroundings: Vec<Fact>,
    /// Share of its fresh agents that do not see the path up, while others do.
    pub partial_ratio: Option<f64>,
    /// Agents enrolled and not revoked.
    pub agents_enrolled: u32,
    /// Of these, heard within the freshness limit.
    pub agents_fresh: u32,
    /// Of the fresh, verified: dedicated listener, source inside the prefixes.
    pub agents_verified: u32,
    /// Quality over the fresh verified agents' last windows; `None` when stale.
    pub quality: Option<QualityView>,
    /// The earliest end of its agents' certificates.
    pub certificate_expiry: Option<SystemTime>,
    /// Why alerts about it are held back, if they are.
    pub suppressed: Option<Suppression>,
    /// The security order of its machines.
    pub posture: AgencyPosture,
}

/// Path quality, in the shape that is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QualityView {
    /// Median round-trip time.
    pub rtt_p50: Duration,
    /// 95th percentile.
    pub rtt_p95: Duration,
    /// Share lost, 0 to 1.
    pub loss_ratio: f64,
    /// Packet delay variation, p95 − min (RFC 5481).
    pub jitter: Duration,
}

/// What the collector itself noticed about an agency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finding {
    /// An agent says "down" although its message arrived over the path.
    Contradiction,
    /// Some agents see the path up, others down.
    Partial,
    /// An agent is enrolled but the roster names no prefixes: nothing can be verified.
    PrefixesUnknown,
    /// Messages come from another agency's prefix: mis-cabling, moved machine or stolen key.
    ForeignPrefix,
    /// One identity speaks from two machines; neither counts until an operator decides.
    Cloned,
}

impl Finding {
    /// Every finding.
    pub const ALL: &[Self] = &[
        Self::Contradiction,
        Self::Partial,
        Self::PrefixesUnknown,
        Self::ForeignPrefix,
        Self::Cloned,
    ];

    /// The label in metrics, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Contradiction => "contradiction",
            Self::Partial => "partial",
            Self::PrefixesUnknown => "prefixes_unknown",
            Self::ForeignPrefix => "foreign_prefix",
            Self::Cloned => "cloned",
        }
    }
}

/// Why an agency's alerts are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suppression {
    /// An incident of its parent covers it.
    ParentIncident,
    /// The collector suspects itself.
    CollectorSuspected,
    /// The collector has not run for three intervals yet.
    WarmUp,
    /// Its machines said that they stop.
    Stopped,
    /// Its machines are not expected to be on now.
    OutsideHours,
}

impl Suppression {
    /// Every reason.
    pub const ALL: &[Self] = &[
        Self::ParentIncident,
        Self::CollectorSuspected,
        Self::WarmUp,
        Self::Stopped,
        Self::OutsideHours,
    ];

    /// The label in metrics, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ParentIncident => "parent_incident",
            Self::CollectorSuspected => "collector_suspected",
            Self::WarmUp => "warm_up",
            Self::Stopped => "stopped",
            Self::OutsideHours => "outside_hours",
        }
    }
}

/// One agent.
#[derive(Debug, Clone)]
pub struct AgentView {
    /// Its id.
    pub agent: AgentId,
    /// Its agency.
    pub agency: AgencyId,
    /// Receipt of its last message, on the collector's wall clock.
    pub last_heard: Option<SystemTime>,
    /// Receipt of its last verified message.
    pub last_verified: Option<SystemTime>,
    /// Whether the last message is within the freshness limit.
    pub fresh: bool,
    /// Where the last message came from.
    pub source: Option<IpAddr>,
    /// The last report's words.
    pub report: Option<Arc<ReportView>>,
    /// A clean stop.
    pub stopped: Option<GoodbyeReason>,
    /// End of its certificate.
    pub certificate_expiry: SystemTime,
    /// Both sources, where the identity speaks from two machines.
    pub conflict: Option<Conflict>,
    /// Its security order.
    pub posture: MachineView,
}

/// The security order of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineView {
    /// What counts.
    pub figures: MachineFigures,
    /// What its agent sent, whether or not it counts.
    pub held: Option<MachinePosture>,
}

/// The two sources of a cloned identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Conflict {
    /// Where the process speaks that was accepted last.
    pub accepted: IpAddr,
    /// Where the former process came back.
    pub returned: IpAddr,
}

/// What is kept of an agent's last report.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportView {
    /// Its verdict.
    pub verdict: Verdict,
    /// Its flags.
    pub flags: Flags,
    /// Its evidence.
    pub evidence: Vec<Fact>,
    /// What else its machine is attached to, and what joins the networks.
    pub surroundings: Vec<Fact>,
    /// Its quality window.
    pub quality: Option<QualityView>,
    /// Its version.
    pub agent_version: String,
    /// Its journal.
    pub journal: JournalStatus,
    /// Its wall clock minus the collector's, in seconds.
    pub clock_skew_seconds: f64,
    /// From the last full report.
    pub host: Option<Arc<HostFacts>>,
}

/// A goal of the plan with its live figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// Its label.
    pub goal: &'static str,
    /// What share has been reached, 0 to 1.
    pub ratio: f64,
    /// What share is asked for, 0 to 1.
    pub target_ratio: f64,
    /// What is divided by what.
    pub definition: &'static str,
}

/// One cause behind many agencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// What sort.
    pub kind: IncidentKind,
    /// The parent's agency id or uplink name; `collector` when the collector suspects itself.
    pub scope: String,
    /// When it was seen.
    pub since: SystemTime,
    /// The agencies that it explains.
    pub agencies: Vec<AgencyId>,
}

/// Sorts of incidents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IncidentKind {
    /// Most agencies under one parent fell together.
    Parent,
    /// Agencies of many parents fell together: the core or the collector is the likelier cause.
    CollectorSuspected,
}

impl IncidentKind {
    /// The label in metrics, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::CollectorSuspected => "collector_suspected",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_leads_back_from_its_labels() {
        let causes = DisconnectCause::LABELS.map(|label| ("disconnected", label));
        let plain = ["connected", "degraded", "off_network", "silent", "unknown", "not_enrolled"];
        let stops = ["shutdown", "sleep", "upgrade", "uninstall"].map(|stop| ("silent", stop));
        for (state, detail) in causes.into_iter().chain(plain.map(|state| (state, ""))).chain(stops)
        {
            let parsed = AgencyState::from_labels(state, detail).expect(state);
            assert_eq!((parsed.as_str(), parsed.detail()), (state, detail));
        }
        assert_eq!(AgencyState::from_labels("connected", "loss"), None);
        assert_eq!(AgencyState::from_labels("disconnected", ""), None);
    }
}
