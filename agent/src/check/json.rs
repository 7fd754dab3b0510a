//! The JSON of `check --json`, for programs. Fields are only ever added; `format` grows when one
//! changes its meaning.
//!
//! | field | meaning |
//! |---|---|
//! | `format` | 1 |
//! | `outcome` | `good`, `fails` or `unknown`: exit status 0, 1, 2 |
//! | `verdict` | `{state, cause}` of this one look; `cause` is null when connected |
//! | `diagnosis` | `{vi, en}`: one sentence |
//! | `call` | `nobody`, `own_machine`, `own_lan`, `carrier`, `core`, `service` |
//! | `flags` | labels of findings |
//! | `findings` | the same in words: `{flag, vi, en, call}` |
//! | `agency` | the agency's id; null when not enrolled or not readable |
//! | `checks` | rows: `{layer, subject, outcome, result, detail}`; layer and result in English |
//! | `missing` | `{what, vi, en, detail}`: what is not set up, and what to do |
//! | `ways` | with `--path`: `{anchor, address, end, detail, hops}`; `end` is `reached`, `refused`, `silent`, `not_sent` or `forbidden`; a hop is `{hop, answered, by, rtt_ms}` with `answered` one of `router`, `target`, `refused`, `silent` |
//! | `evidence` | facts as reports carry them: `{kind, subject, value}` |
//! | `host` | host facts; null when they could not be read |
//!
//! Without a usable configuration only `format`, `outcome`, `verdict`, `diagnosis`, `call` and
//! `missing` are there.

use haidang_proto::model::flag::Flag;
use haidang_proto::model::verdict::{UnknownCause, Verdict};
use serde_json::{Value, json};

use crate::connectivity::facts;
use crate::language::{Key, Language, diagnosis, finding};

use super::missing::Missing;
use super::rows::Row;
use super::{Checkup, Enrolment, Outcome};

const FORMAT: u32 = 1;

pub(super) fn checkup(checkup: &Checkup<'_>) -> String {
    let agency = match checkup.enrolment {
        Enrolment::Enrolled(agency) => Some(agency),
        Enrolment::NotEnrolled | Enrolment::Unreadable(_) => None,
    };
    let mut page = opening(checkup.outcome(), checkup.verdict(), &checkup.missing());
    page["flags"] = json!(checkup.flags());
    page["findings"] = checkup.flags().iter().map(found).collect();
    page["agency"] = json!(agency);
    page["checks"] = checkup.rows().iter().map(row).collect();
    page["ways"] = super::ways::json(checkup.ways);
    page["evidence"] = json!(facts(checkup.cycle));
    page["host"] = json!(checkup.host);
    printed(&page)
}

pub(super) fn without_config(missing: &Missing) -> String {
    let verdict = Verdict::Unknown(UnknownCause::NotMeasured);
    printed(&opening(Outcome::Unknown, verdict, std::slice::from_ref(missing)))
}

/// What is there in either case.
fn opening(outcome: Outcome, verdict: Verdict, missing: &[Missing]) -> Value {
    let (sentence, party) = diagnosis(verdict);
    // A note weighs nothing, so the whole is good.
    let outcome = if outcome == Outcome::Note { Outcome::Good } else { outcome };
    json!({
        "format": FORMAT,
        "outcome": outcome,
        "verdict": verdict,
        "diagnosis": both(sentence),
        "call": party.as_str(),
        "missing": missing.iter().map(absent).collect::<Value>(),
    })
}

fn both(key: Key) -> Value {
    json!({ "vi": key.text(Language::Vi), "en": key.text(Language::En) })
}

fn found(flag: Flag) -> Value {
    let (sentence, party) = finding(flag);
    let mut entry = both(sentence);
    entry["flag"] = json!(flag.as_str());
    entry["call"] = json!(party.as_str());
    entry
}

fn absent(missing: &Missing) -> Value {
    let mut entry = both(missing.key);
    entry["what"] = json!(missing.label);
    entry["detail"] = json!(missing.detail);
    entry
}

fn row(row: &Row) -> Value {
    json!({
        "layer": row.layer.text(Language::En),
        "subject": row.subject,
        "outcome": row.outcome,
        "result": row.result.text(Language::En),
        "detail": row.detail,
    })
}

fn printed(page: &Value) -> String {
    let mut text = serde_json::to_string_pretty(page).expect("a Value has only string keys");
    text.push('\n');
    text
}
