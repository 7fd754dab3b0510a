//! Where the programs under test are: beside the running test or program, or where
//! `HAIDANG_BIN_DIR` says; and where the repository's other files are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `haidang-agent`.
    pub agent: PathBuf,
    /// `haidang-collector`.
    pub collector: PathBuf,
}

impl Binaries {
    /// Finds them.
    ///
    /// # Errors
    /// With the command to build them when they are missing.
    pub fn find() -> Result<Self> {
        Ok(Self { agent: program("haidang-agent")?, collector: program("haidang-collector")? })
    }

    /// Copies them to where `nobody` may run them, whatever the build directory allows.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub fn copy_to(&self, directory: &Path) -> Result<Self> {
        let copy = |from: &Path| {
            let to = directory.join(from.file_name().context("a program has a name")?);
            fs::copy(from, &to)
                .with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("make {} executable", to.display()))?;
            Ok::<_, anyhow::Error>(to)
        };
        Ok(Self { agent: copy(&self.agent)?, collector: copy(&self.collector)? })
    }
}

/// A program of the workspace.
///
/// # Errors
/// With the command to build it when it is missing.
pub fn program(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("HAIDANG_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => beside_this_program()?,
    };
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace --bins` first",
        path.display()
    );
    Ok(path)
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("this crate is a folder of the repository").join(path)
}

fn beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("ask where this program is")?;
    let mut directory = this.parent().context("a program lies in a directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("deps lies in the profile's directory")?;
    }
    Ok(directory.into())
}
