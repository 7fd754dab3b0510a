//! The report: what an agent holds true now.

use std::time::{Duration, SystemTime};

use crate::wire;

use super::fact::{Fact, facts_from_wire, facts_to_wire};
use super::flag::Flags;
use super::host::HostFacts;
use super::quality::Quality;
use super::record::{unix_ms, wall};
use super::settings::{Settings, millis};
use super::verdict::Verdict;
use super::{WireError, fixed, text};

/// Bytes of one request that a collector accepts: the largest delivery fits.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;

/// One report. Who sent it is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Drawn when the process started.
    pub process_nonce: [u8; 16],
    /// SHA-256 over machine id and instance id.
    pub machine_fingerprint: [u8; 32],
    /// Grows by one with every report of one process, from 1.
    pub sequence: u64,
    /// The agent's wall clock: its skew is shown, nothing is decided by it.
    pub sent_at: SystemTime,
    /// The agent's version.
    pub agent_version: String,
    /// Settings in force; 0 stands for its defaults.
    pub settings_version: u64,
    /// Trust bundle in force.
    pub trust_bundle_version: u64,
    /// The path.
    pub connectivity: Connectivity,
    /// The journal.
    pub journal: JournalStatus,
    /// In full reports only.
    pub host: Option<HostFacts>,
}

/// The verdict and what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connectivity {
    /// The committed verdict.
    pub verdict: Verdict,
    /// How long it has stood.
    pub verdict_age: Duration,
    /// Findings.
    pub flags: Flags,
    /// Counts since the previous report.
    pub quality: Quality,
    /// Facts behind the verdict; empty when connected.
    pub evidence: Vec<Fact>,
    /// What else the machine is attached to, and what joins it to the dedicated network.
    pub surroundings: Vec<Fact>,
}

/// How the journal fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct JournalStatus {
    /// Records not yet acknowledged.
    pub waiting_records: u64,
    /// Records dropped because it was full.
    pub dropped_records: u64,
    /// Damaged journals set aside since the process started.
    pub set_aside: u32,
}

impl TryFrom<wire::ReportRequest> for Report {
    type Error = WireError;

    fn try_from(request: wire::ReportRequest) -> Result<Self, WireError> {
        let wire::ReportRequest {
            process_nonce,
            machine_fingerprint,
            sequence,
            sent_unix_ms,
            agent_version,
            settings_version,
            trust_bundle_version,
            connectivity,
            journal,
            host,
        } = request;
        if sequence == 0 {
            return Err(WireError::new("sequence", "is zero"));
        }
        let wire::JournalStatus { waiting_records, dropped_records, set_aside } =
            journal.ok_or(WireError::new("journal", "is missing"))?;
        Ok(Self {
            process_nonce: fixed(&process_nonce, "process_nonce")?,
            machine_fingerprint: fixed(&machine_fingerprint, "machine_fingerprint")?,
            sequence,
            sent_at: wall(sent_unix_ms)?,
            agent_version: text(agent_version, 64, "agent_version")?,
            settings_version,
            trust_bundle_version,
            connectivity: connectivity
                .ok_or(WireError::new("connectivity", "is missing"))?
                .try_into()?,
            journal: JournalStatus { waiting_records, dropped_records, set_aside },
            host: host.map(HostFacts::try_from).transpose()?,
        })
    }
}

impl From<Report> for wire::ReportRequest {
    fn from(report: Report) -> Self {
        let JournalStatus { waiting_records, dropped_records, set_aside } = report.journal;
        Self {
            process_nonce: report.process_nonce.to_vec(),
            machine_fingerprint: report.machine_fingerprint.to_vec(),
            sequence: report.sequence,
            sent_unix_ms: unix_ms(report.sent_at),
            agent_version: report.agent_version,
            settings_version: report.settings_version,
            trust_bundle_version: report.trust_bundle_version,
            connectivity: Some(report.connectivity.into()),
            journal: Some(wire::JournalStatus { waiting_records, dropped_records, set_aside }),
            host: report.host.map(wire::HostFacts::from),
        }
    }
}

impl TryFrom<wire::Connectivity> for Connectivity {
    type Error = WireError;

    fn try_from(connectivity: wire::Connectivity) -> Result<Self, WireError> {
        let wire::Connectivity { verdict, verdict_age_ms, flags, quality, evidence, surroundings } =
            connectivity;
        Ok(Self {
            verdict: verdict
                .ok_or(WireError::new("connectivity.verdict", "is missing"))?
                .try_into()?,
            verdict_age: Duration::from_millis(verdict_age_ms),
            flags: Flags::from_wire(&flags)?,
            quality: quality
                .ok_or(WireError::new("connectivity.quality", "is missing"))?
                .try_into()?,
            evidence: facts_from_wire(evidence)?,
            surroundings: facts_from_wire(surroundings)?,
        })
    }
}

impl From<Connectivity> for wire::Connectivity {
    fn from(connectivity: Connectivity) -> Self {
        let Connectivity { verdict, verdict_age, flags, quality, evidence, surroundings } =
            connectivity;
        Self {
            verdict: Some(verdict.into()),
            verdict_age_ms: u64::try_from(verdict_age.as_millis()).unwrap_or(u64::MAX),
            flags: flags.to_wire(),
            quality: Some(quality.into()),
            evidence: facts_to_wire(&evidence),
            surroundings: facts_to_wire(&surroundings),
        }
    }
}

/// The collector's answer to a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The collector's wall clock.
    pub server_time: SystemTime,
    /// When to send the next report, counted from now.
    pub next_report_in: Duration,
    /// The interval after which silence counts.
    pub report_interval: Duration,
    /// Settings that replace the agent's.
    pub settings: Option<Settings>,
    /// Roots that replace the agent's.
    pub trust_bundle: Option<TrustBundle>,
    /// Whether the next report should be in full.
    pub full_report_wanted: bool,
    /// Open a new connection at a random moment within so long.
    pub reconnect_within: Option<Duration>,
}

/// The roots that are trusted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// Grows with every change, from 1.
    pub version: u64,
    /// DER certificates, 1 to 8.
    pub roots_der: Vec<Vec<u8>>,
}

impl TryFrom<wire::ReportResponse> for Reply {
    type Error = WireError;

    fn try_from(response: wire::ReportResponse) -> Result<Self, WireError> {
        let wire::ReportResponse {
            server_unix_ms,
            next_report_in_ms,
            report_interval_ms,
            settings,
            trust_bundle,
            full_report_wanted,
            reconnect_within_ms,
        } = response;
        let ms = |ms: u32| Duration::from_millis(ms.into());
        Ok(Self {
            server_time: wall(server_unix_ms)?,
            next_report_in: ms(next_report_in_ms),
            report_interval: ms(report_interval_ms)
                .clamp(Settings::REPORT_INTERVAL_MIN, Settings::REPORT_INTERVAL_MAX),
            settings: settings.map(Settings::try_from).transpose()?,
            trust_bundle: trust_bundle.map(TrustBundle::try_from).transpose()?,
            full_report_wanted,
            reconnect_within: (reconnect_within_ms > 0).then(|| ms(reconnect_within_ms)),
        })
    }
}

impl From<Reply> for wire::ReportResponse {
    fn from(reply: Reply) -> Self {
        Self {
            server_unix_ms: unix_ms(reply.server_time),
            next_report_in_ms: millis(reply.next_report_in),
            report_interval_ms: millis(reply.report_interval),
            settings: reply.settings.map(wire::Settings::from),
            trust_bundle: reply.trust_bundle.map(wire::TrustBundle::from),
            full_report_wanted: reply.full_report_wanted,
            reconnect_within_ms: reply.reconnect_within.map_or(0, millis),
        }
    }
}

impl TryFrom<wire::TrustBundle> for TrustBundle {
    type Error = WireError;

    fn try_from(
        wire::TrustBundle { version, roots_der }: wire::TrustBundle,
    ) -> Result<Self, WireError> {
        if version == 0 {
            return Err(WireError::new("trust_bundle.version", "is zero"));
        }
        if roots_der.is_empty() || roots_der.len() > 8 {
            return Err(WireError::new("trust_bundle.roots_der", "has not 1 to 8 roots"));
        }
        if roots_der.iter().any(|der| der.len() > 16 << 10) {
            return Err(WireError::new("trust_bundle.roots_der", "holds more than 16 KiB"));
        }
        Ok(Self { version, roots_der })
    }
}

impl From<TrustBundle> for wire::TrustBundle {
    fn from(TrustBundle { version, roots_der }: TrustBundle) -> Self {
        Self { version, roots_der }
    }
}
