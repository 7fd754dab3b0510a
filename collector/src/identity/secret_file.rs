//! Private files and directories: keys are 0600 in a directory of 0700, written to a temporary
//! name, synced, renamed, and the directory synced, so that a crash leaves the old file or the
//! new one and never half of either.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Bytes of a key or certificate file that are read: a chain of ten certificates fits.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Permissions beyond the owner's.
const OTHERS: u32 = 0o077;

/// A private file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// A directory cannot be made.
    #[error("cannot make the directory {path}; give its parent to the service's user")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}; let the service's user own it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}; see that the disk has room and the service's user owns it")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read a key.
    #[error("{path} has mode {mode:04o} and others can read the key; run: chmod 0600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Longer than any key.
    #[error("{path} is larger than 64 KiB and no key or certificate")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Makes a directory of 0700 with its parents, durable, or takes one that exists and closes it to
/// others.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), SecretFileError> {
    let failed = |source| SecretFileError::Directory { path: path.to_owned(), source };
    let missing: Vec<_> = path.ancestors().take_while(|one| !one.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    missing.into_iter().try_for_each(sync_directory_of).map_err(failed)?;
    let permissions = fs::metadata(path).map_err(failed)?.permissions();
    if permissions.mode() & OTHERS != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Writes a file of 0600 that replaces the old one at once.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let failed = |source| SecretFileError::Write { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    sync_directory_of(path).map_err(failed)
}

/// Makes what was made or renamed beside `path` durable.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        None => Ok(()),
        Some(here) if here.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(directory) => File::open(directory)?.sync_all(),
    }
}

/// Reads a key, unless others can read it too.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file, so that nothing can be exchanged in between.
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & OTHERS != 0 {
        return Err(SecretFileError::Exposed { path: path.to_owned(), mode: mode & 0o7777 });
    }
    read_capped(path, file)
}

/// Reads a file that is no secret.
pub(super) fn read_public(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let file = File::open(path)
        .map_err(|source| SecretFileError::Read { path: path.to_owned(), source })?;
    read_capped(path, file)
}

fn read_capped(path: &Path, file: File) -> Result<Zeroizing<String>, SecretFileError> {
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|source| SecretFileError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(SecretFileError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_replaced_whole_and_read_by_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join("a/b");
        make_private_dir(&folder).expect("it is made");
        let path = folder.join("key");
        for content in ["first", "second"] {
            write_private(&path, content.as_bytes()).expect("it is written");
            assert_eq!(&**read_private(&path).expect("it is private"), content);
        }
        assert_eq!(fs::metadata(&folder).expect("exists").mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&folder).expect("readable").count(), 1, "no temporary stays");

        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            let error = read_private(&path).expect_err("others can read it");
            assert!(error.to_string().contains("chmod 0600"), "{error}");
        }
    }
}
