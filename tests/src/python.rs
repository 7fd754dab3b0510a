//! Peers in Python: gRPC's own implementation and sslyze, in a virtual environment beside the build
//! that `tests/python/install` fills with exactly what the repository pins.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::binaries::repository;

/// The Python that has them.
///
/// # Errors
/// With the command that installs them, when they are missing or not what is pinned now.
pub fn interpreter() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let place = cache.join("haidang/python");
    let read = |path: PathBuf| {
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let file = |name: &str| repository("tests/python").join(name);
    let pinned = read(file("requirements.txt"))? + &read(file("sources.txt"))?;
    let installed = fs::read_to_string(place.join("installed")).unwrap_or_default();
    ensure!(
        installed == pinned,
        "{} has not the Python packages that the repository pins: run `tests/python/install` first",
        place.display()
    );
    Ok(place.join("bin/python"))
}
