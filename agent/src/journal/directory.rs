//! The journal's directory: every call that touches the disk, and what makes each durable.
//!
//! A directory takes another one's place in three renamings: whole and synced, `<name>.building`
//! becomes `<name>.next`; `<name>` is set aside as `<name>.damaged`; `<name>.next` becomes `<name>`.
//! [`finish_replacement`] therefore knows after a crash: `.next` without `<name>` is what counts,
//! and beside it `.next` and `.building` are attempts that did not come to their end.
//!
//! In tests it also keeps a ledger of what was made durable, so that a power cut can be played:
//! killing a process would leave everything in the page cache and could not show a missing sync.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::JournalError;
use crate::durable;

/// What a directory is called while it is made, and when it is whole.
const BUILDING: &str = ".building";
const NEXT: &str = ".next";
/// What one is called that was set aside.
const DAMAGED: &str = ".damaged";
/// Segments are read at all up to this many: more were not made by a journal.
const FILES_MAX: usize = 64;

/// A directory of segments.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    #[cfg(test)]
    ledger: std::cell::RefCell<ledger::Ledger>,
}

impl Directory {
    /// Opens the directory, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        durable::make_directory(path, 0o700).map_err(failed("make directory", path))?;
        if let Some(parent) = path.parent() {
            sync_directory(parent)?;
        }
        Ok(Self {
            path: path.into(),
            #[cfg(test)]
            ledger: std::cell::RefCell::new(ledger::Ledger::of(path)),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// First sequence number, by name, and size of each segment, oldest first.
    pub(super) fn segments(&self) -> Result<Vec<(u64, u64)>, JournalError> {
        let failed = || failed("list", &self.path);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())?.take(FILES_MAX) {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".journal"));
            if let Some(first_seq) = stem.and_then(|stem| stem.parse().ok()) {
                segments.push((first_seq, entry.metadata().map_err(failed())?.len()));
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    pub(super) fn open_to_read(&self, name: &str) -> Result<File, JournalError> {
        let path = self.path.join(name);
        File::open(&path).map_err(failed("open", &path))
    }

    pub(super) fn open_to_append(&self, name: &str) -> Result<File, JournalError> {
        let path = self.path.join(name);
        OpenOptions::new().append(true).open(&path).map_err(failed("open", &path))
    }

    /// Makes a segment and its entry durable before it returns.
    pub(super) fn create(&self, name: &str, header: &[u8]) -> Result<File, JournalError> {
        let path = self.path.join(name);
        #[cfg(test)]
        self.operates(&path)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        self.write(&mut file, name, header)?;
        self.sync(&file, name, header.len() as u64)?;
        self.sync_entries()?;
        self.open_to_append(name)
    }

    /// Writes to the end of a segment, where a power cut can still take it back.
    pub(super) fn write(
        &self,
        file: &mut File,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), JournalError> {
        let path = self.path.join(name);
        #[cfg(test)]
        self.operates(&path).inspect_err(|_| file.write_all(&bytes[..bytes.len() / 2]).unwrap())?;
        file.write_all(bytes).map_err(failed("write to", &path))
    }

    /// Makes the first `bytes` bytes of a segment, all there are, durable.
    pub(super) fn sync(&self, file: &File, name: &str, bytes: u64) -> Result<(), JournalError> {
        #[cfg(test)]
        self.operates(&self.path.join(name))?;
        file.sync_data().map_err(failed("sync", &self.path.join(name)))?;
        #[cfg(test)]
        self.ledger.borrow_mut().synced(name, bytes);
        #[cfg(not(test))]
        let _ = bytes;
        Ok(())
    }

    pub(super) fn truncate(&self, file: &File, name: &str, bytes: u64) -> Result<(), JournalError> {
        #[cfg(test)]
        self.operates(&self.path.join(name))?;
        file.set_len(bytes).map_err(failed("truncate", &self.path.join(name)))?;
        self.sync(file, name, bytes)
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), JournalError> {
        let path = self.path.join(name);
        #[cfg(test)]
        self.operates(&path)?;
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        self.sync_entries()
    }

    /// Removes what an interrupted beginning left behind.
    pub(super) fn clear(&self) -> Result<(), JournalError> {
        for (first_seq, _) in self.segments()? {
            self.remove(&super::segment_name(first_seq))?;
        }
        Ok(())
    }

    /// Moves everything to a directory beside this one, in place of what was set aside before,
    /// and begins an empty one.
    pub(super) fn set_aside(&self) -> Result<PathBuf, JournalError> {
        let aside = set_aside(&self.path)?;
        Self::open(&self.path)?;
        Ok(aside)
    }

    /// Begins an empty directory that is to take the place of the one at `path`. What was set
    /// aside before makes room for it.
    pub(super) fn beside(path: &Path) -> Result<Self, JournalError> {
        remove_all(&with_suffix(path, DAMAGED))?;
        let building = with_suffix(path, BUILDING);
        remove_all(&building)?;
        Self::open(&building)
    }

    /// Takes the place of the directory at `path`, which is set aside; says where.
    pub(super) fn replace(&mut self, path: &Path) -> Result<PathBuf, JournalError> {
        let next = with_suffix(path, NEXT);
        remove_all(&next)?;
        rename(&self.path, &next)?;
        self.path = next;
        let aside = set_aside(path)?;
        rename(&self.path, path)?;
        self.path = path.into();
        Ok(aside)
    }

    fn sync_entries(&self) -> Result<(), JournalError> {
        #[cfg(test)]
        self.operates(&self.path)?;
        sync_directory(&self.path)?;
        #[cfg(test)]
        self.ledger.borrow_mut().entries_synced(&self.path);
        Ok(())
    }

    /// Fails once the disk has done as many operations as it was told.
    #[cfg(test)]
    fn operates(&self, path: &Path) -> Result<(), JournalError> {
        self.ledger.borrow_mut().operate().map_err(failed("use the dead disk at", path))
    }

    /// Lets the disk die after so many operations: a write then ends half-way.
    #[cfg(test)]
    pub(super) fn dies_after(&self, operations: u32) {
        self.ledger.borrow_mut().operations_left = Some(operations);
    }

    /// What a power cut leaves of the directory: only what was synced.
    #[cfg(test)]
    pub(super) fn cut_power(&self) {
        self.ledger.borrow().forget_unsynced(&self.path);
    }
}

/// Brings a replacement to its end, or removes what is left of it, whichever a crash calls for.
pub(super) fn finish_replacement(path: &Path) -> Result<(), JournalError> {
    let next = with_suffix(path, NEXT);
    if next.exists() && !path.exists() {
        rename(&next, path)?;
    }
    remove_all(&next)?;
    remove_all(&with_suffix(path, BUILDING))
}

fn set_aside(path: &Path) -> Result<PathBuf, JournalError> {
    let aside = with_suffix(path, DAMAGED);
    remove_all(&aside)?;
    rename(path, &aside)?;
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

fn remove_all(path: &Path) -> Result<(), JournalError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Durable when it returns: both names are in the same directory.
fn rename(from: &Path, to: &Path) -> Result<(), JournalError> {
    fs::rename(from, to).map_err(failed("rename", from))?;
    to.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(path: &Path) -> Result<(), JournalError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |source| JournalError::Disk { action, path: path.into(), source }
}

#[cfg(test)]
mod ledger {
    use std::collections::{HashMap, HashSet};
    use std::fs::{self, OpenOptions};
    use std::io;
    use std::path::Path;

    /// What a power cut could not take.
    #[derive(Debug, Default)]
    pub(super) struct Ledger {
        bytes: HashMap<String, u64>,
        entries: HashSet<String>,
        /// Until the disk dies; `None` while it is to live.
        pub(super) operations_left: Option<u32>,
    }

    impl Ledger {
        /// What is there when a directory is opened has survived already.
        pub(super) fn of(directory: &Path) -> Self {
            let mut ledger = Self::default();
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                ledger.synced(&name(&entry), entry.metadata().unwrap().len());
            }
            ledger.entries_synced(directory);
            ledger
        }

        pub(super) fn operate(&mut self) -> io::Result<()> {
            if let Some(left) = &mut self.operations_left {
                *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the power is off"))?;
            }
            Ok(())
        }

        pub(super) fn synced(&mut self, name: &str, bytes: u64) {
            self.bytes.insert(name.into(), bytes);
        }

        pub(super) fn entries_synced(&mut self, directory: &Path) {
            let entries = fs::read_dir(directory).unwrap();
            self.entries = entries.map(|entry| name(&entry.unwrap())).collect();
        }

        pub(super) fn forget_unsynced(&self, directory: &Path) {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let file = OpenOptions::new().write(true).open(entry.path()).unwrap();
                match self.bytes.get(&name(&entry)) {
                    Some(bytes) if self.entries.contains(&name(&entry)) => {
                        file.set_len(*bytes).unwrap();
                    }
                    _ => fs::remove_file(entry.path()).unwrap(),
                }
            }
        }
    }

    fn name(entry: &fs::DirEntry) -> String {
        entry.file_name().into_string().unwrap()
    }
}
