//! One agent, as small as it can be: there are tens of thousands.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::quality::Quality;
use haidang_proto::model::report::Report;

use crate::snapshot::{QualityView, ReportView};

use super::Now;

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
    pub(super) process_nonce: Option<[u8; 16]>,
    pub(super) stopped: Option<GoodbyeReason>,
    pub(super) report: Option<Arc<ReportView>>,
    sequence: u64,
}

impl Agent {
    pub(super) fn new(agency: AgencyId, certificate_expiry: SystemTime) -> Self {
        Self {
            agency,
            certificate_expiry,
            heard: None,
            last_verified: None,
            process_nonce: None,
            stopped: None,
            report: None,
            sequence: 0,
        }
    }

    /// Whether the report is newer than what is held: another process, or a later one of the
    /// same.
    pub(super) fn is_news(&self, report: &Report) -> bool {
        self.process_nonce != Some(report.process_nonce) || report.sequence > self.sequence
    }

    /// Holds the report's words.
    pub(super) fn take(&mut self, report: Report, now: Now) {
        self.process_nonce = Some(report.process_nonce);
        self.sequence = report.sequence;
        let host = report
            .host
            .or_else(|| self.report.as_ref().and_then(|former| former.host.clone()));
        self.report = Some(Arc::new(ReportView {
            verdict: report.connectivity.verdict,
            flags: report.connectivity.flags,
            evidence: report.connectivity.evidence,
            quality: quality_view(&report.connectivity.quality),
            agent_version: report.agent_version,
            journal: report.journal,
            clock_skew_seconds: skew_seconds(report.sent_at, now.wall),
            host,
        }));
    }

    /// Age of the last message, unless the agent stopped cleanly after it.
    pub(super) fn age(&self, mono: Duration) -> Option<Duration> {
        if self.stopped.is_some() {
            return None;
        }
        self.heard.map(|heard| mono.saturating_sub(heard.mono))
    }

    /// Age of the last message if that one was verified.
    pub(super) fn verified_age(&self, mono: Duration) -> Option<Duration> {
        self.age(mono).filter(|_| self.heard.is_some_and(|heard| heard.place == Place::Verified))
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
