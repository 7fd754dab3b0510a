//! The table: at most 80 columns, whatever names and peers say. Vietnamese letters are composed,
//! so that one `char` is one column.

use haidang_proto::model::verdict::{Family, Verdict};

use crate::language::{Key, Language, diagnosis, finding, state};

use super::missing::Missing;
use super::rows::Row;
use super::{Checkup, Outcome, Style};

pub(super) const WIDTH: usize = 80;
/// Columns of mark, layer and subject, each with the space behind it.
const MARK: usize = 2;
const LAYER: usize = 17;
const SUBJECT: usize = 27;

pub(super) fn checkup(checkup: &Checkup<'_>, language: Language, style: Style) -> String {
    let mut page = Page { text: String::new(), language, style };
    page.line(Key::Title.text(language));
    if let Some(host) = checkup.host {
        page.field(Key::Machine, &format!("{}, {}, {}", host.hostname, host.os, host.kernel));
    }
    page.blank();
    page.heading();
    checkup.rows().iter().for_each(|row| page.row(row));
    for way in checkup.ways {
        page.blank();
        super::ways::lines(way, language).iter().for_each(|line| page.line(line));
    }
    page.blank();
    page.verdict(checkup.verdict());
    let findings: Vec<_> = checkup.flags().iter().map(finding).collect();
    if !findings.is_empty() {
        page.blank();
        page.line(&format!("{}:", Key::Findings.text(language)));
        for (sentence, party) in findings {
            let [sentence, call, party] =
                [sentence, Key::Call, party.key()].map(|key| key.text(language));
            page.item(&format!("{sentence} {call}: {party}."));
        }
    }
    page.blank();
    page.missing(&checkup.missing());
    page.text
}

pub(super) fn without_config(missing: &Missing, language: Language, style: Style) -> String {
    let mut page = Page { text: String::new(), language, style };
    page.line(Key::Title.text(language));
    page.blank();
    let unmeasured = haidang_proto::model::verdict::UnknownCause::NotMeasured;
    page.verdict(Verdict::Unknown(unmeasured));
    page.blank();
    page.missing(std::slice::from_ref(missing));
    page.text
}

/// A page that grows by lines.
struct Page {
    text: String,
    language: Language,
    style: Style,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn heading(&mut self) {
        let [layer, subject, result] = [Key::ColumnWhat, Key::ColumnSubject, Key::ColumnResult]
            .map(|key| key.text(self.language));
        self.line(&format!("{:MARK$}{layer:LAYER$}{subject:SUBJECT$}{result}", ""));
    }

    fn row(&mut self, row: &Row) {
        let layer = cell(row.layer.text(self.language), LAYER);
        let subject = cell(&row.subject, SUBJECT);
        let result = row.result.text(self.language);
        let result =
            if row.detail.is_empty() { result.into() } else { format!("{result} {}", row.detail) };
        let mark = match row.outcome {
            Outcome::Good => '✓',
            Outcome::Note => '!',
            Outcome::Unknown => '?',
            Outcome::Fails => '✗',
        };
        let mark = self.painted(&mark.to_string(), row.outcome);
        let indent = MARK + LAYER + SUBJECT;
        let mut lines = wrapped(&result, WIDTH - indent).into_iter();
        let first = lines.next().unwrap_or_default();
        self.line(format!("{mark} {layer}{subject}{first}").trim_end());
        lines.for_each(|rest| self.line(&format!("{:indent$}{rest}", "")));
    }

    fn verdict(&mut self, verdict: Verdict) {
        let (sentence, party) = diagnosis(verdict);
        let outcome = match (verdict, verdict.family()) {
            (Verdict::Connected, _) => Outcome::Good,
            (_, Family::Unknown) => Outcome::Unknown,
            (_, Family::Up | Family::Down) => Outcome::Fails,
        };
        let name = Key::Verdict.text(self.language);
        let state = self.painted(state(verdict).text(self.language), outcome);
        self.line(&format!("{name}: {state}"));
        self.item(sentence.text(self.language));
        self.field(Key::Call, party.key().text(self.language));
    }

    fn missing(&mut self, missing: &[Missing]) {
        if missing.is_empty() {
            return self.line(Key::AllInPlace.text(self.language));
        }
        self.line(&format!("{}:", Key::MissingHeading.text(self.language)));
        for one in missing {
            let words = one.key.text(self.language);
            if one.detail.is_empty() {
                self.item(words);
            } else {
                self.item(&format!("{words} ({})", one.detail));
            }
        }
    }

    fn field(&mut self, key: Key, value: &str) {
        let text = format!("{}: {value}", key.text(self.language));
        wrapped(&text, WIDTH).iter().for_each(|line| self.line(line));
    }

    fn item(&mut self, text: &str) {
        for (at, line) in wrapped(text, WIDTH - 4).iter().enumerate() {
            self.line(&format!("{}{line}", if at == 0 { "  - " } else { "    " }));
        }
    }

    fn painted(&self, text: &str, outcome: Outcome) -> String {
        let colour = match outcome {
            Outcome::Good => 32,
            Outcome::Note => 36,
            Outcome::Unknown => 33,
            Outcome::Fails => 31,
        };
        match self.style {
            Style::Plain => text.into(),
            Style::Coloured => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
        }
    }
}

/// Text of exactly `width` columns, the last of them a space.
fn cell(text: &str, width: usize) -> String {
    let room = width - 1;
    let cut: String = if text.chars().count() > room {
        text.chars().take(room - 1).chain(['…']).collect()
    } else {
        text.into()
    };
    format!("{cut:width$}")
}

/// Lines of at most `width` columns, broken at spaces, and within words longer than a line.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + rest.len() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        while used + rest.len() > width {
            let tail = rest.split_off(width - used);
            line.extend(rest);
            lines.push(std::mem::take(&mut line));
            (rest, used) = (tail, 0);
        }
        used += rest.len();
        line.extend(rest);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}
