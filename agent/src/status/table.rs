//! The document as a table for a person, in one language. Pure.

use std::fmt::Write;

use haidang_proto::model::flag::Flag;
use haidang_proto::model::verdict::all_verdicts;

use crate::language::{Key, Language, diagnosis, finding, state};

use super::{Document, PostureReport, StandingLabel, UplinkReport};

pub(super) fn render(document: &Document, language: Language) -> String {
    let text = |key: Key| key.text(language);
    let Document { path, uplink, journal, .. } = document;
    let verdict = all_verdicts().into_iter().find(|verdict| {
        verdict.state() == path.state && verdict.cause() == path.cause.as_deref().unwrap_or("")
    });
    let mut rows: Vec<(&str, String)> = Vec::new();
    let shown = verdict.map_or(path.state.clone(), |verdict| text(state(verdict)).into());
    rows.push((text(Key::StatusPath), shown));
    rows.push((text(Key::StatusSince), path.since.clone()));
    if let Some(verdict) = verdict {
        rows.push(("", text(diagnosis(verdict).0).into()));
    }
    for label in &path.flags {
        let flag = Flag::ALL.iter().find(|flag| flag.as_str() == label);
        let shown = flag.map_or(label.as_str(), |flag| text(finding(*flag).0));
        rows.push((text(Key::Findings), shown.into()));
    }
    for fact in &path.evidence {
        rows.push(("", format!("{} {}: {}", fact.kind, fact.subject, fact.value)));
    }
    if let Some(agency) = &uplink.agency {
        let name = uplink.agency_name.as_deref().unwrap_or("");
        rows.push((text(Key::StatusAgency), format!("{name} ({agency})")));
    }
    let optional =
        [(Key::StatusAgent, &uplink.agent), (Key::StatusCertificateEnds, &uplink.certificate_ends)];
    for (key, value) in optional {
        rows.extend(value.clone().map(|value| (text(key), value)));
    }
    rows.push((text(Key::StatusUplink), standing(uplink, language)));
    let none = || text(Key::StatusNone).to_owned();
    rows.push((text(Key::StatusLastReport), uplink.reported_at.clone().unwrap_or_else(none)));
    rows.extend(uplink.problem.clone().map(|problem| (text(Key::StatusProblem), problem)));
    if uplink.is_clock_doubted {
        rows.push(("", text(Key::ClockDoubted).into()));
    }
    rows.push((text(Key::StatusWaiting), journal.waiting_records.to_string()));
    rows.push((text(Key::StatusDropped), journal.dropped_records.to_string()));
    rows.extend(posture(&document.posture, language));
    layout(text(Key::StatusTitle), &rows)
}

/// How many checks have each verdict, which took longest, and which are parked.
fn posture(posture: &PostureReport, language: Language) -> Vec<(&'static str, String)> {
    let text = |key: Key| key.text(language);
    let Some(longest) = posture.checks.iter().max_by_key(|check| check.took_us) else {
        return vec![(text(Key::StatusPosture), text(Key::StatusNone).into())];
    };
    let count = |verdict: &str| {
        posture.checks.iter().filter(|check| check.outcome.as_str() == verdict).count()
    };
    let verdicts = [
        (Key::VerdictPass, "pass"),
        (Key::VerdictFail, "fail"),
        (Key::VerdictUnknown, "unknown"),
        (Key::VerdictNotApplicable, "not_applicable"),
    ];
    let counts = verdicts.map(|(key, label)| format!("{} {}", count(label), text(key)));
    let milliseconds = |took_us: u64| format!("{}.{} ms", took_us / 1000, took_us / 100 % 10);
    let all_us = posture.checks.iter().fold(0_u64, |all, check| all.saturating_add(check.took_us));
    let mut rows = vec![
        (text(Key::StatusPosture), counts.join(", ")),
        (text(Key::StatusEvaluation), milliseconds(all_us)),
        (
            text(Key::StatusLongestCheck),
            format!("{} {}", longest.check, milliseconds(longest.took_us)),
        ),
    ];
    let parked = posture.checks.iter().filter(|check| check.is_parked);
    rows.extend(parked.map(|check| (text(Key::StatusParked), check.check.to_string())));
    rows
}

fn standing(uplink: &UplinkReport, language: Language) -> String {
    let key = match uplink.standing {
        StandingLabel::NotEnrolled => Key::StandingNotEnrolled,
        StandingLabel::Unusable => Key::StandingUnusable,
        StandingLabel::Connecting => Key::StandingConnecting,
        StandingLabel::Reporting if uplink.is_fallback => Key::StandingReportingFallback,
        StandingLabel::Reporting => Key::StandingReporting,
        StandingLabel::Revoked => Key::StandingRevoked,
    };
    let collector = uplink.collector.as_deref().unwrap_or("");
    format!("{} {collector}", key.text(language)).trim_end().to_owned()
}

fn layout(title: &str, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let mut out = format!("{title}\n\n");
    for (label, value) in rows {
        let pad = width - label.chars().count();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{label}{:pad$}  {value}", "");
    }
    out
}
