//! Answers as an operator reads them: tables with one row a line, columns between tabs, so that
//! they can be cut, sorted and searched.

use std::fmt::Write as _;
use std::time::SystemTime;

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::posture::{Requirements, Threshold};

use super::AdminAnswer;
use crate::posture::{Decision, Exception, Policies, Policy, PolicyTerms, Scope};
use crate::roster::Roster;
use crate::store::{AuditRow, IdentityRow};
use crate::token::Token;

pub(super) fn done(output: impl Into<String>) -> AdminAnswer {
    AdminAnswer::Done { output: output.into(), note: String::new() }
}

pub(super) fn refused(message: impl Into<String>) -> AdminAnswer {
    AdminAnswer::Refused { message: message.into() }
}

pub(super) fn token_table(tokens: &[Token], now: SystemTime) -> String {
    let mut table = String::from("id\tagency\tstate\tuses\texpires\tcreated\tnote\n");
    for token in tokens {
        let state = match (token.revoked, token.uses_left) {
            (Some(_), _) => "revoked",
            (None, _) if now >= token.expires => "expired",
            (None, 0) => "used_up",
            (None, _) => "open",
        };
        line(
            &mut table,
            format_args!(
                "{}\t{}\t{state}\t{}/{}\t{}\t{}\t{}",
                token.id,
                token.agency,
                token.uses_total - token.uses_left.min(token.uses_total),
                token.uses_total,
                moment(token.expires),
                moment(token.created),
                token.note,
            ),
        );
    }
    table
}

pub(super) fn agent_table(identities: &[IdentityRow]) -> String {
    let mut table = String::from(
        "agent\tagency\tstate\thost\tenrolled\tfrom\tlast_heard\tlast_verified\tcertificate_until\tconflict\n",
    );
    for row in identities {
        let identity = &row.identity;
        let conflict = row
            .conflict
            .map_or_else(String::new, |both| format!("{} {}", both.accepted, both.returned));
        line(
            &mut table,
            format_args!(
                "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{conflict}",
                identity.agent,
                identity.agency,
                identity.state.as_str(),
                row.hostname,
                moment(row.enrolled),
                row.enrolled_from,
                row.last_heard.map_or_else(String::new, moment),
                row.last_verified.map_or_else(String::new, moment),
                moment(identity.not_after),
            ),
        );
    }
    table
}

pub(super) fn exception_table(exceptions: &[Exception], now: SystemTime) -> String {
    let mut table = String::from("agency\tcheck\tstate\texpires\tcreated\towner\treason\n");
    for exception in exceptions {
        let state = if exception.holds(now) { "in_force" } else { "expired" };
        line(
            &mut table,
            format_args!(
                "{}\t{}\t{state}\t{}\t{}\t{}\t{}",
                exception.agency,
                exception.check,
                moment(exception.expires),
                moment(exception.created),
                exception.owner,
                exception.reason,
            ),
        );
    }
    table
}

/// What is asked in the end, one thing a line, with what the catalogue asks beside it.
pub(super) fn policy_table(policies: &Policies, scope: &Scope) -> String {
    let mut table = String::from("asked\tvalue\tcatalogue\tby\tlaxer\n");
    let terms = policies.terms(scope);
    let (asked, laxer) = (&terms.requirements, terms.laxer());
    let decided = |scope: &Scope| policies.decision(scope).map(|decision| &decision.terms);
    let by = |says: &dyn Fn(&PolicyTerms) -> bool| match scope {
        Scope::Agency(_) if decided(scope).is_some_and(says) => "agency",
        _ if decided(&Scope::All).is_some_and(says) => "all",
        _ => "catalogue",
    };
    let mut row = |name: &str, value: String, usual: String, by: &str| {
        let is_laxer = if laxer.iter().any(|label| label == name) { "yes" } else { "no" };
        line(&mut table, format_args!("{name}\t{value}\t{usual}\t{by}\t{is_laxer}"));
    };
    let usual = Policy::DEFAULT;
    let score = terms.score_min.unwrap_or(usual.score_min).to_string();
    row("score_min", score, usual.score_min.to_string(), by(&|t| t.score_min.is_some()));
    let level = asked.level.map_or_else(|| "none".into(), |level| level.number().to_string());
    row("level", level, "none".into(), by(&|t| t.requirements.level.is_some()));
    let weighs = terms.weighs_usb_storage.unwrap_or(usual.weighs_usb_storage);
    let usual = usual.weighs_usb_storage.to_string();
    let by_whom = by(&|t| t.weighs_usb_storage.is_some());
    row("usb_storage_restricted.weighs", weighs.to_string(), usual, by_whom);
    for threshold in Threshold::ALL {
        let (value, usual) = (asked.threshold(*threshold), threshold.usual());
        let by_whom = by(&|t| t.requirements.decided(*threshold).is_some());
        row(&threshold.to_string(), value.to_string(), usual.to_string(), by_whom);
    }
    let ports = ports(asked).unwrap_or_else(|| "the machine's own".into());
    let by_whom = by(&|t| t.requirements.allowed_ports.is_some());
    row("exposed_services.allowed_ports", ports, "the machine's own".into(), by_whom);
    table
}

/// Decisions; `*` is for all agencies.
pub(super) fn decision_table(decisions: &[(&Scope, &Decision)]) -> String {
    let mut table = String::from("agency\tdecided\tlaxer\towner\treason\tterms\n");
    for (scope, decision) in decisions {
        let Decision { terms, owner, reason, decided, .. } = decision;
        let (laxer, words) = (terms.laxer().len(), policy_words(terms));
        line(
            &mut table,
            format_args!("{scope}\t{}\t{laxer}\t{owner}\t{reason}\t{words}", moment(*decided)),
        );
    }
    table
}

/// Terms in one line, for audit and lists.
pub(super) fn policy_words(terms: &PolicyTerms) -> String {
    let asked = &terms.requirements;
    let mut words: Vec<String> = Vec::new();
    words.extend(terms.score_min.map(|score| format!("score_min {score}")));
    words.extend(asked.level.map(|level| format!("level {}", level.number())));
    words.extend(terms.weighs_usb_storage.map(|it| format!("usb_storage_restricted.weighs {it}")));
    words.extend(asked.thresholds.iter().map(|(threshold, value)| format!("{threshold} {value}")));
    words.extend(ports(asked).map(|ports| format!("allowed_ports {ports}")));
    if words.is_empty() { "what the catalogue asks".into() } else { words.join(", ") }
}

fn ports(asked: &Requirements) -> Option<String> {
    let ports = asked.allowed_ports.as_ref()?;
    let listed = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Some(if listed.is_empty() { "none".into() } else { listed })
}

pub(super) fn audit_table(rows: &[AuditRow]) -> String {
    let mut table = String::from("at\taction\tsubject\tfrom\tdetail\n");
    for AuditRow { at, action, subject, source, detail, .. } in rows {
        let at = moment(*at);
        line(&mut table, format_args!("{at}\t{action}\t{subject}\t{source}\t{detail}"));
    }
    table
}

pub(super) fn roster_table(roster: &Roster, only: Option<&AgencyId>) -> String {
    let mut table = String::from("id\tkind\tparent\tname\tprefixes\tgateways\n");
    for agency in roster.agencies().iter().filter(|one| only.is_none_or(|only| one.id == *only)) {
        let prefixes =
            joined(agency.source_prefixes().iter().map(|dated| dated.prefix.to_string()));
        let gateways = joined(agency.gateways.iter().map(ToString::to_string));
        line(
            &mut table,
            format_args!(
                "{}\t{}\t{}\t{}\t{prefixes}\t{gateways}",
                agency.id, agency.kind, agency.parent, agency.name
            ),
        );
    }
    table
}

/// RFC 3339 in UTC, to the second.
pub(super) fn moment(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

fn line(table: &mut String, row: std::fmt::Arguments<'_>) {
    writeln!(table, "{row}").expect("writing to a string cannot fail");
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(";")
}
