//! Peers that come as Python packages: gRPC's own implementation, sslyze and rotel, in a virtual
//! environment beside the build that `tests/python/install` fills with exactly what the repository
//! pins.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::binaries::repository;

/// The Python that has them.
///
/// # Errors
/// With the command that installs them, when they are missing or not what is pinned now.
pub fn interpreter() -> Result<PathBuf> {
    Ok(environment()?.join("bin/python"))
}

/// A file of a package.
///
/// # Errors
/// Likewise.
pub fn package(file: &str) -> Result<PathBuf> {
    Ok(environment()?.join("lib/python3.11/site-packages").join(file))
}

fn environment() -> Result<PathBuf> {
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
    Ok(place)
}
