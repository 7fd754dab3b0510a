//! Answers as an operator reads them: tables with one row a line, columns between tabs, so that
//! they can be cut, sorted and searched.

use std::fmt::Write as _;
use std::time::SystemTime;

use haidang_proto::model::agency::AgencyId;

use super::AdminAnswer;
use crate::posture::Exception;
use crate::roster::Roster;
use crate::store::IdentityRow;
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
