//! Putting a roster in force: from its files, at the start, on SIGHUP and from the admin socket.
//!
//! The roster in force is kept in the store, so that a file that is damaged or half edited does
//! not take the collector down. A changed file is taken at the start and on SIGHUP if it removes
//! no agency; what removes one is asked for on the admin socket alone.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Config;
use crate::live::Live;
use crate::roster::{self, Loopback, Roster, RosterDiff, RosterError, Source};
use crate::store::{Store, StoreError, StoredRoster};

/// Bytes of a file that are read, as `roster` bounds them.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A roster that is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is larger than any roster.
    #[error("{path} is larger than 64 MiB and no roster")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is refused whole. Its problems are its text.
    #[error("{0}")]
    Roster(RosterError),
    /// It cannot be kept.
    #[error("cannot keep the roster")]
    Store(#[from] StoreError),
}

/// What becomes of an import.
#[derive(Debug)]
pub enum Imported {
    /// It is the one in force already.
    Same,
    /// It is in force now.
    InForce(RosterDiff),
    /// It removes agencies, and nobody has agreed to that version.
    Unconfirmed {
        /// What it would change.
        diff: RosterDiff,
        /// The version to agree to.
        version: String,
    },
}

/// Content and names of the files of one roster.
#[derive(Debug, Clone)]
pub struct Files {
    /// How messages name roster.csv.
    pub roster_name: String,
    /// How messages name prefixes.csv.
    pub prefixes_name: String,
    /// Their content.
    pub content: StoredRoster,
}

impl Files {
    /// Reads the configured files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(config: &Config) -> Result<Self, ImportError> {
        let prefixes = config.prefixes.as_deref().map(read).transpose()?;
        Ok(Self {
            roster_name: config.roster.display().to_string(),
            prefixes_name: config.prefixes.clone().unwrap_or_default().display().to_string(),
            content: StoredRoster { roster: read(&config.roster)?, prefixes },
        })
    }

    /// What the store holds.
    pub fn stored(content: StoredRoster) -> Self {
        let named = |name: &str| format!("{name} (as imported before)");
        Self { roster_name: named("roster"), prefixes_name: named("prefixes"), content }
    }

    /// Parses them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(&self, loopback: Loopback) -> Result<Roster, ImportError> {
        let StoredRoster { roster, prefixes } = &self.content;
        let prefixes = prefixes.as_ref().map(|bytes| Source { name: &self.prefixes_name, bytes });
        let roster = Source { name: &self.roster_name, bytes: roster };
        roster::parse(roster, prefixes, loopback).map_err(ImportError::Roster)
    }
}

/// Which loopback prefixes a configuration accepts.
pub fn loopback(config: &Config) -> Loopback {
    if config.demo { Loopback::Demo } else { Loopback::Refused }
}

/// Puts rosters in force while the collector runs.
#[derive(Debug, Clone)]
pub struct Importer {
    /// Where it is kept.
    pub store: Store,
    /// Where it is used.
    pub live: Live,
    /// Which loopback prefixes are accepted.
    pub loopback: Loopback,
}

impl Importer {
    /// Puts a roster in force, unless it removes agencies and `agreed` is not its version.
    ///
    /// # Errors
    /// When it is refused or cannot be kept; then the old one stays in force.
    pub async fn import(
        &self,
        files: Files,
        agreed: Option<&str>,
        source: &'static str,
        at: SystemTime,
    ) -> Result<Imported, ImportError> {
        let new = files.parse(self.loopback)?;
        let old = self.live.roster();
        let version = new.version().to_owned();
        let diff = RosterDiff::between(&old, &new);
        if diff.is_empty() && old.version() == version {
            return Ok(Imported::Same);
        }
        if !diff.removed.is_empty() && agreed != Some(version.as_str()) {
            return Ok(Imported::Unconfirmed { diff, version });
        }
        let summary = diff.to_string().lines().last().unwrap_or_default().to_owned();
        self.store.put_roster(version.clone(), files.content, source, summary, at).await?;
        self.live.replace_roster(Arc::new(new));
        tracing::info!(version, "a roster was put in force");
        Ok(Imported::InForce(diff))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ImportError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}
