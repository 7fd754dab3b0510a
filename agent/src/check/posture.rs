//! The machine's security order in `check`: by severity, the gravest first, with what was seen,
//! and for what is not in order why it matters and what to do.
//!
//! In JSON the key `posture` is added to the document of the path, one object for each check:
//! `{check, severity, verdict, reason, observed, took_us, title, why, remedy}`; the last three as
//! `{vi, en}`. `outcome` becomes the worse of both parts.

use haidang_proto::model::posture::{Outcome as Answered, Severity, UnknownReason};
use serde_json::{Value, json};

use crate::language::{Key, Language};
use crate::posture::Catalogue;
use crate::posture::catalogue::{Bilingual, Entry};
use crate::posture::pass::Answer;

use super::table::{WIDTH, wrapped};
use super::{Outcome, Style};

/// What one look at the machine's order found.
#[derive(Debug, Clone)]
pub struct PostureLook {
    /// What is said of the checks.
    pub catalogue: Catalogue,
    /// What they answered.
    pub answers: Vec<Answer>,
}

impl PostureLook {
    /// The worst of the answers.
    pub fn outcome(&self) -> Outcome {
        let outcomes = self.answers.iter().map(|answer| outcome(answer.outcome));
        // A look without any answer has seen nothing.
        outcomes.max().unwrap_or(Outcome::Unknown)
    }

    /// The table for a person.
    pub fn table(&self, language: Language, style: Style) -> String {
        let mut page = format!("{}\n", Key::PostureHeading.text(language));
        for severity in Severity::ALL {
            page.push_str(&format!("\n{}\n", severity_name(*severity).text(language)));
            let mut answers: Vec<&Answer> =
                self.answers.iter().filter(|one| one.check.severity() == *severity).collect();
            answers
                .sort_by_key(|answer| (std::cmp::Reverse(outcome(answer.outcome)), answer.check));
            for answer in answers {
                self.answer(&mut page, answer, language, style);
            }
        }
        page
    }

    fn answer(&self, page: &mut String, answer: &Answer, language: Language, style: Style) {
        let Some(entry) = self.catalogue.entry(answer.check) else { return };
        let (verdict, colour) = match answer.outcome {
            Answered::Pass => (Key::VerdictPass, 32),
            Answered::NotApplicable => (Key::VerdictNotApplicable, 36),
            Answered::Unknown(_) => (Key::VerdictUnknown, 33),
            Answered::Fail(_) => (Key::VerdictFail, 31),
        };
        let verdict = verdict.text(language);
        let shown = match style {
            Style::Plain => verdict.to_owned(),
            Style::Coloured => format!("\u{1b}[{colour}m{verdict}\u{1b}[0m"),
        };
        // The title is bounded so that it fits beside the longest verdict.
        page.push_str(&format!("  {}: {shown}\n", entry.title.text(language)));
        let mut line = |name: Key, text: &str| {
            let text = format!("{}: {}", name.text(language), printable(text));
            for line in wrapped(&text, WIDTH - 4) {
                page.push_str(&format!("    {line}\n"));
            }
        };
        line(Key::Seen, &answer.observed);
        match answer.outcome {
            Answered::Pass | Answered::NotApplicable => {}
            Answered::Unknown(UnknownReason::PermissionDenied) => {
                line(Key::Remedy, Key::NeedsPrivilege.text(language));
            }
            Answered::Fail(_) | Answered::Unknown(_) => {
                line(Key::Why, entry.why.text(language));
                line(Key::Remedy, entry.remedy.text(language));
            }
        }
    }

    /// The JSON document of the path, with the answers.
    ///
    /// # Errors
    /// When the document is no JSON object.
    pub fn added_to(&self, document: &str) -> Result<String, serde_json::Error> {
        let mut page: serde_json::Map<String, Value> = serde_json::from_str(document)?;
        let path = match page.get("outcome").and_then(Value::as_str) {
            Some("good") => Outcome::Good,
            Some("fails") => Outcome::Fails,
            _ => Outcome::Unknown,
        };
        page.insert("outcome".into(), json!(path.max(self.outcome())));
        let entries = self.answers.iter().filter_map(|answer| {
            self.catalogue.entry(answer.check).map(|entry| object(answer, entry))
        });
        page.insert("posture".into(), entries.collect());
        serde_json::to_string_pretty(&page)
    }
}

fn object(answer: &Answer, entry: &Entry) -> Value {
    json!({
        "check": answer.check.as_str(),
        "severity": answer.check.severity(),
        "verdict": answer.outcome.as_str(),
        "reason": answer.outcome.reason().as_str(),
        "observed": answer.observed,
        "took_us": u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX),
        "title": both(&entry.title),
        "why": both(&entry.why),
        "remedy": both(&entry.remedy),
    })
}

fn both(text: &Bilingual) -> Value {
    json!({ "vi": text.text(Language::Vi), "en": text.text(Language::En) })
}

const fn outcome(answered: Answered) -> Outcome {
    match answered {
        Answered::Pass | Answered::NotApplicable => Outcome::Good,
        Answered::Fail(_) => Outcome::Fails,
        Answered::Unknown(_) => Outcome::Unknown,
    }
}

const fn severity_name(severity: Severity) -> Key {
    match severity {
        Severity::Critical => Key::SeverityCritical,
        Severity::High => Key::SeverityHigh,
        Severity::Medium => Key::SeverityMedium,
        Severity::Low => Key::SeverityLow,
    }
}

/// Text from files, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use haidang_proto::model::posture::{CheckId, FailReason};

    use super::*;

    fn look(answered: impl Fn(CheckId) -> Answered) -> PostureLook {
        let answers = CheckId::ALL.iter().map(|check| Answer {
            check: *check,
            outcome: answered(*check),
            observed: "seen\u{1b}[31m ".repeat(12),
            took: Duration::from_micros(5),
        });
        PostureLook { catalogue: Catalogue::load().unwrap(), answers: answers.collect() }
    }

    #[test]
    fn every_line_fits_eighty_columns_in_both_languages_and_carries_no_escape() {
        let unknown = Answered::Unknown(UnknownReason::ParseError);
        for answered in [Answered::Pass, Answered::Fail(FailReason::Absent), unknown] {
            for language in [Language::Vi, Language::En] {
                let page = look(|_| answered).table(language, Style::Plain);
                assert!(!page.contains('\u{1b}'));
                let long = page.lines().find(|line| line.chars().count() > WIDTH);
                assert_eq!(long, None);
            }
        }
    }

    #[test]
    fn one_failure_fails_the_whole_and_unknown_outweighs_passes() {
        let fail = Answered::Fail(FailReason::Absent);
        let unknown = Answered::Unknown(UnknownReason::Timeout);
        let with = |bad| {
            look(move |check| if check == CheckId::ScreenLock { bad } else { Answered::Pass })
                .outcome()
        };
        assert_eq!(with(Answered::NotApplicable).exit_status(), 0);
        assert_eq!(with(fail).exit_status(), 1);
        assert_eq!(with(unknown).exit_status(), 2);
    }

    #[test]
    fn json_takes_the_worse_outcome_and_keeps_the_path() {
        let page = look(|_| Answered::Fail(FailReason::Absent));
        let text = page.added_to(r#"{"outcome": "good", "flags": []}"#).unwrap();
        let page: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(page["outcome"], "fails");
        assert_eq!(page["flags"], json!([]));
        assert_eq!(page["posture"].as_array().map(Vec::len), Some(CheckId::ALL.len()));
        assert_eq!(page["posture"][0]["reason"], "absent");
    }
}
