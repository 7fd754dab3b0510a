//! Small files that must be whole: written beside, synced, renamed over, directory synced. A
//! reader, and a machine after a power cut, finds the old content or the new one. And the
//! directories that they are in.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Replaces the file `path`, or makes it, with the permission bits `mode`.
///
/// # Errors
/// When the disk refuses; the file is then as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = beside(path);
    // One that a crash left behind would keep its own permissions.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(&beside, bytes, mode)?;
    fs::rename(&beside, path)?;
    sync_directory_of(path)
}

/// Makes a file that is not there yet, durable but for its directory entry.
///
/// # Errors
/// When it is there, or the disk refuses.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a directory with its parents, durable, or takes one that is there.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|one| !one.exists()).collect();
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    missing.into_iter().try_for_each(sync_directory_of)
}

/// Makes renames and new entries beside `path` durable.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        None => Ok(()),
        Some(here) if here.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(directory) => File::open(directory)?.sync_all(),
    }
}

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is larger than allowed"));
    }
    Ok(bytes)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_made_with_its_parents_once() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("one/two");
        make_directory(&path, 0o700).unwrap();
        make_directory(&path, 0o755).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        // Where a relative path ends.
        sync_directory_of(Path::new("here")).unwrap();
        sync_directory_of(Path::new("")).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_to_its_mode() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key.pem");
        fs::write(beside(&path), "left behind by a crash").unwrap();
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"two");
        assert!(read(&path, 2).is_err());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
