//! What people and mappings say of a check: one data block for each, in the `.toml` file beside
//! the module that judges it. A block without either language, without a mapping, or for a check
//! that does not exist is an error, which a test meets before any user does.
//!
//! | key | meaning |
//! |---|---|
//! | `id` | label of [`CheckId`]; severity stands there, because the collector weighs by it |
//! | `title`, `why`, `remedy` | `{ vi, en }`: what is asked, why it matters, what to do |
//! | `privilege` | what the process needs to read the evidence |
//! | `thresholds` | numbers that a site may choose otherwise; the unit stands in the name |
//! | `mappings` | `{ standard, edition, control }`; our reading, for legal review |
//! | `without_fixture` | a verdict that this check cannot reach, and why |

use std::collections::BTreeMap;

use haidang_proto::model::posture::CheckId;
use serde::Deserialize;

use crate::language::Language;

/// One block.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The check.
    #[serde(deserialize_with = "check_id")]
    pub id: CheckId,
    /// What is asked, in a few words.
    pub title: Bilingual,
    /// Why it matters.
    pub why: Bilingual,
    /// What to do when it fails.
    pub remedy: Bilingual,
    /// What reading the evidence takes.
    pub privilege: Privilege,
    /// Numbers of the verdict, by name with unit.
    #[serde(default)]
    pub thresholds: BTreeMap<String, u64>,
    /// Where standards ask for it.
    pub mappings: Vec<Mapping>,
    /// Verdicts that this check cannot reach, and why.
    #[serde(default)]
    pub without_fixture: BTreeMap<String, String>,
}

/// A text in both languages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bilingual {
    vi: String,
    en: String,
}

impl Bilingual {
    /// The text in a language.
    pub fn text(&self, language: Language) -> &str {
        match language {
            Language::Vi => &self.vi,
            Language::En => &self.en,
        }
    }
}

/// What the process needs beyond being any user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Nothing.
    None,
    /// CAP_DAC_READ_SEARCH, or root.
    DacReadSearch,
    /// CAP_NET_ADMIN, or root.
    NetAdmin,
    /// CAP_AUDIT_CONTROL, or root.
    AuditControl,
}

/// Where a standard asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The standard: `cis_controls`, `tcvn_14423`, `tcvn_11930`, `ssg`, `lynis`.
    pub standard: String,
    /// Its edition.
    pub edition: String,
    /// The clause, control, rule or test.
    pub control: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    check: Vec<Entry>,
}

/// The blocks of one file.
///
/// # Errors
/// When the text is no catalogue. The files are part of the program, and a test reads them all.
pub fn parse(text: &str) -> Result<Vec<Entry>, toml::de::Error> {
    toml::from_str::<File>(text).map(|file| file.check)
}

fn check_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<CheckId, D::Error> {
    let label = String::deserialize(deserializer)?;
    CheckId::from_label(&label)
        .ok_or_else(|| serde::de::Error::custom(format!("there is no check {label:?}")))
}
