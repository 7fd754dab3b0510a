//! Every parser of bytes from outside, by name: what the fuzz targets in `tests/fuzz` call, and
//! what `tests/tests/parsers.rs` replays their corpus through.
//!
//! A parser is added by one line in `parsers.rs` of its crate and one seed in
//! `tests/fuzz/corpus/<name>/`; the fuzz program and the replay find both by themselves.

mod api;
mod mutation;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use haidang_proto::parsers::Parser;

use crate::binaries::repository;

pub use mutation::Mutations;

/// All of them; names are unique.
pub fn all() -> Vec<Parser> {
    let own: &[Parser] = &[("api_request", api::any_bytes)];
    let mut all: Vec<Parser> = haidang_agent::parsers::all().collect();
    for more in [
        haidang_proto::parsers::ALL,
        haidang_probe::parsers::ALL,
        haidang_collector::parsers::ALL,
        own,
    ] {
        all.extend(more);
    }
    all
}

/// Where the seeds of a parser are committed.
pub fn corpus_directory(name: &str) -> PathBuf {
    repository("tests/fuzz/corpus").join(name)
}

/// The seeds of a parser with their file names, in the order of these.
///
/// # Errors
/// When there are none, or they cannot be read.
pub fn corpus(name: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let directory = corpus_directory(name);
    let entries = fs::read_dir(&directory);
    let entries = entries.with_context(|| format!("read {}", directory.display()))?;
    let mut seeds = Vec::new();
    for entry in entries {
        let path = entry.context("read an entry")?.path();
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        seeds.push((file, bytes));
    }
    ensure!(!seeds.is_empty(), "{} has no seed", directory.display());
    seeds.sort();
    Ok(seeds)
}
