//! One agent, as small as it can be: there are tens of thousands.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::quality::Quality;
use haidang_proto::model::report::Report;

use crate::posture::MachinePosture;
use crate::snapshot::{Conflict, QualityView, ReportView};

use super::Now;
use super::process::{Processes, Turn};

/// Where the last message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Dedicated listener, inside the agency's prefixes: proves the path.
    Verified,
    /// Dedicated listener, outside the agency's prefixes.
    OutsidePrefixes,
    /// Dedicated listener, inside another agency's prefixes.
    ForeignPrefix,
    /// The roster names no prefixes for the agency: nothing can be verified.
    PrefixesUnknown,
    /// Fallback listener.
    Fallback,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) mono: Duration,
    pub(super) wall: SystemTime,
    pub(super) source: IpAddr,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) agency: AgencyId,
    pub(super) certificate_expiry: SystemTime,
    pub(super) heard: Option<Heard>,
    pub(super) last_verified: Option<SystemTime>,
    pub(super) stopped: Option<GoodbyeReason>,
    pub(super) conflict: Option<Conflict>,
    pub(super) report: Option<Arc<ReportView>>,
    pub(super) posture: Option<MachinePosture>,
    processes: Processes,
}

impl Agent {
    pub(super) const fn new(agency: AgencyId, certificate_expiry: SystemTime) -> Self {
        Self {
            agency,
            certificate_expiry,
            heard: None,
            last_verified: None,
            stopped: None,
            conflict: None,
            report: None,
            posture: None,
            processes: Processes::NONE,
        }
    }

    /// Whose turn it is: a newer report of the known process, a new process, or neither.
    pub(super) fn turn(&mut self, report: &Report, grace: Duration, mono: Duration) -> Turn {
        self.processes.turn(report.process_nonce, report.sequence, grace, mono)
    }

    /// Whether the process that stops is the one that is known.
    pub(super) fn is_current(&self, nonce: [u8; 16]) -> bool {
        self.processes.is_current(nonce)
    }

    /// An operator has decided whose identity it is: nothing of before counts.
    pub(super) fn settle(&mut self) {
        self.conflict = None;
        self.processes = Processes::NONE;
        self.heard = None;
        self.report = None;
    }

    /// Holds the report's words.
    pub(super) fn take(&mut self, report: Report, heard: Heard, now: Now) {
        let Report { connectivity, sent_at, agent_version, journal, host, .. } = report;
        let former = self.report.as_ref();
        let host = host.map(Arc::new).or_else(|| former.and_then(|former| former.host.clone()));
        self.heard = Some(heard);
        self.stopped = None;
        self.report = Some(Arc::new(ReportView {
            verdict: connectivity.verdict,
            flags: connectivity.flags,
            evidence: connectivity.evidence,
            surroundings: connectivity.surroundings,
            quality: quality_view(&connectivity.quality),
            agent_version,
            journal,
            clock_skew_seconds: skew_seconds(sent_at, now.wall),
            host,
        }));
    }

    /// Age of the last message, unless the agent stopped cleanly after it, or its identity
    /// speaks from two machines.
    pub(super) fn age(&self, mono: Duration) -> Option<Duration> {
        let counts = self.stopped.is_none() && self.conflict.is_none();
        let heard = self.heard.filter(|_| counts)?;
        Some(mono.saturating_sub(heard.mono))
    }

    /// Age of the last message if that one was verified.
    pub(super) fn verified_age(&self, mono: Duration) -> Option<Duration> {
        let verified = self.heard.is_some_and(|heard| heard.place == Place::Verified);
        self.age(mono).filter(|_| verified)
    }
}

fn quality_view(quality: &Quality) -> Option<QualityView> {
    Some(QualityView {
        rtt_p50: quality.rtt.percentile(0.5)?,
        rtt_p95: quality.rtt.percentile(0.95)?,
        loss_ratio: quality.loss_ratio()?,
        jitter: quality.pdv()?,
    })
}

fn skew_seconds(theirs: SystemTime, ours: SystemTime) -> f64 {
    match theirs.duration_since(ours) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(error) => -error.duration().as_secs_f64(),
    }
}
