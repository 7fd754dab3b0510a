//! What is wrong with a configuration file, in words that name file, line and key.

use std::path::{Path, PathBuf};

use super::limits::Problem;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} is larger than {bytes_max} bytes; it is no agent configuration", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The text is not TOML of the expected form: an unknown key, a wrong type, a missing value.
    #[error("{}:{line}: {problem}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What was found and expected, with the key.
        problem: String,
    },
    /// A value breaks a limit.
    #[error("{}:{line}: {key} {problem}", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// Line of the key, or of its table, from 1.
        line: usize,
        /// The key, with its table.
        key: String,
        /// What was expected of it.
        problem: String,
    },
}

impl ConfigError {
    pub(super) fn form(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let key = key_at(text, start);
        let message = error.message().replace('\n', " ");
        let problem = if key.is_empty() || message.contains(&format!("`{key}`")) {
            message
        } else {
            format!("{key}: {message}")
        };
        Self::Form { path: path.into(), line: line_of(text, start), problem }
    }

    pub(super) fn limit(path: &Path, text: &str, Problem { at, problem }: Problem) -> Self {
        let start = at.position(text).unwrap_or(0);
        Self::Limit { path: path.into(), line: line_of(text, start), key: at.to_string(), problem }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The key of the line at `offset`, or what stands there in its place.
fn key_at(text: &str, offset: usize) -> &str {
    let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let offset = offset.unwrap_or(0);
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or("");
    line.split_once('=').map_or("", |(key, _)| key.trim())
}
