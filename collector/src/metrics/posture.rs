//! The series of posture: per agency, per parent where there are too many agencies, per machine
//! where that is switched on. Counts write their zeros; times are absent when not known.

use std::collections::BTreeMap;

use haidang_proto::model::posture::{CHECKS, CheckId, CheckSet, Severity};

use crate::posture::AgencyPosture;
use crate::snapshot::{AgencyView, AgentView, Snapshot};

use super::exposition::id;
use super::table;
use super::text::Text;

/// Agencies up to which each has its checks: 80 series apiece, 80,000 in all.
pub(super) const CHECKS_AGENCIES_MAX: usize = 1_000;
/// Series of one agency's or parent's checks.
pub(super) const CHECK_SERIES: usize = CHECKS * 2;

/// Critical checks: an alert for each of them holds at any size of the fleet.
const CRITICAL: CheckSet = CheckSet::of(Severity::Critical);
/// Series of one agency's critical checks.
pub(super) const CRITICAL_SERIES: usize = CRITICAL.len();

pub(super) fn critical(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let mut lines = text.lines(&table::AGENCY_POSTURE_CRITICAL, "agency", id(snapshot, view));
    for check in CRITICAL.iter() {
        lines.series().plain("check", check.as_str()).count(view.posture.fail[check as usize]);
    }
}

pub(super) fn certificate(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if let Some(ends) = view.posture.certificate_ends {
        text.series(&table::AGENCY_POSTURE_CERTIFICATE)
            .plain("agency", id(snapshot, view))
            .time(ends);
    }
}

pub(super) fn machines(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let AgencyPosture { compliant, covered, critical, .. } = view.posture;
    let mut lines = text.lines(&table::AGENCY_POSTURE_MACHINES, "agency", id(snapshot, view));
    for (stat, count) in [("compliant", compliant), ("covered", covered), ("critical", critical)] {
        lines.series().plain("stat", stat).count(count);
    }
}

pub(super) fn score(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let AgencyPosture { score_p10, score_worst, .. } = view.posture;
    let mut lines = text.lines(&table::AGENCY_POSTURE_SCORE, "agency", id(snapshot, view));
    for (stat, score) in [("p10", score_p10), ("worst", score_worst)] {
        lines.series().plain("stat", stat).float(f64::from(score) / 100.0);
    }
}

pub(super) fn findings(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let posture = &view.posture;
    let mut lines = text.lines(&table::AGENCY_POSTURE_FINDINGS, "agency", id(snapshot, view));
    for severity in Severity::ALL {
        let checks = || CheckId::ALL.iter().filter(|check| check.severity() == *severity);
        let sum = |counts: &[u32; CHECKS]| checks().map(|check| counts[*check as usize]).sum();
        let (fail, unknown): (u32, u32) = (sum(&posture.fail), sum(&posture.unknown));
        lines.series().plain("severity", severity.as_str()).count(fail.saturating_add(unknown));
    }
}

pub(super) fn policy_laxer(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    text.series(&table::AGENCY_POLICY_LAXER)
        .plain("agency", id(snapshot, view))
        .count(view.posture.policy.laxer);
}

pub(super) fn update_pending(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if let Some(since) = view.posture.update_pending_since {
        text.series(&table::AGENCY_UPDATE_PENDING).plain("agency", id(snapshot, view)).time(since);
    }
}

pub(super) fn signatures(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if let Some(made) = view.posture.signatures_made {
        text.series(&table::AGENCY_SIGNATURES).plain("agency", id(snapshot, view)).time(made);
    }
}

pub(super) fn checks(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let posture = &view.posture;
    let mut lines = text.lines(&table::AGENCY_POSTURE_CHECKS, "agency", id(snapshot, view));
    for (result, counts) in [("fail", &posture.fail), ("unknown", &posture.unknown)] {
        for (check, machines) in CheckId::ALL.iter().zip(counts) {
            lines.series().plain("check", check.as_str()).plain("result", result).count(*machines);
        }
    }
}

/// Above so many agencies, their checks are added up by parent. Returns whether they fitted.
pub(super) fn checks_by_parent(text: &mut Text, snapshot: &Snapshot, series_max: usize) -> bool {
    text.header(&table::PARENT_POSTURE_CHECKS);
    if snapshot.agencies.len() <= CHECKS_AGENCIES_MAX {
        return true;
    }
    let mut parents: BTreeMap<&str, [[u32; CHECKS]; 2]> = BTreeMap::new();
    for view in &snapshot.agencies {
        let parent = snapshot.roster.agencies()[view.row].parent.as_str();
        let sums = parents.entry(parent).or_insert([[0; CHECKS]; 2]);
        for (sums, counts) in sums.iter_mut().zip([&view.posture.fail, &view.posture.unknown]) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum = sum.saturating_add(*count);
            }
        }
    }
    if text.series + parents.len() * CHECK_SERIES > series_max {
        return false;
    }
    for (parent, sums) in parents {
        let mut lines = text.lines(&table::PARENT_POSTURE_CHECKS, "parent", parent);
        for (result, counts) in ["fail", "unknown"].into_iter().zip(sums) {
            for (check, machines) in CheckId::ALL.iter().zip(counts) {
                lines
                    .series()
                    .plain("check", check.as_str())
                    .plain("result", result)
                    .count(machines);
            }
        }
    }
    true
}

/// Exceptions, expired ones too: they are few, and are looked for in every agency of the roster.
pub(super) fn exceptions(text: &mut Text, snapshot: &Snapshot) {
    text.header(&table::AGENCY_EXCEPTION_EXPIRY);
    for view in &snapshot.agencies {
        let agency = &snapshot.roster.agencies()[view.row].id;
        for exception in snapshot.exceptions.of(agency) {
            text.series(&table::AGENCY_EXCEPTION_EXPIRY)
                .plain("agency", agency.as_str())
                .plain("check", exception.check.as_str())
                .time(exception.expires);
        }
    }
}

pub(super) fn machine_score(text: &mut Text, view: &AgentView) {
    let mut id = uuid::Uuid::encode_buffer();
    text.series(&table::AGENT_POSTURE_SCORE)
        .plain("agency", view.agency.as_str())
        .plain("agent", view.agent.0.as_hyphenated().encode_lower(&mut id))
        .float(f64::from(view.posture.figures.score) / 100.0);
}
