//! The files that checks read, all of them below one directory: `/`, or a fixture.
//!
//! Every read has a limit in bytes and none follows a path out of the root: paths are resolved by
//! `openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, and by [`Root::without_symlinks`]
//! with `RESOLVE_NO_SYMLINKS` besides, for paths that a user could own. Nothing but a regular
//! file is read, so that a FIFO stops nobody. A file that is not there is `None`; every other
//! failure is an [`Unknown`].

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::finding::Unknown;

/// Bytes of a configuration file that are read: the longest that distributions ship (sudoers,
/// sshd_config, PAM) have a few KiB.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Names in one directory; `/var/lib/dpkg/info`, the largest that is listed, has a few files for
/// each of some thousand packages.
const ENTRIES_MAX: usize = 32_768;
/// Bytes of a symbolic link (PATH_MAX).
const LINK_BYTES_MAX: usize = 4096;
/// Files of sysfs say that they have a page, whatever they hold; the largest pages have 64 KiB.
const SYSFS_STATED_BYTES_MAX: u64 = 64 << 10;
/// A read asks for so much at once, and looks at the deadline in between.
const CHUNK_BYTES: usize = 64 << 10;

/// A directory that stands for the machine.
#[derive(Debug, Clone)]
pub struct Root {
    directory: Rc<OwnedFd>,
    resolve: ResolveFlags,
    deadline: Rc<Cell<Option<Deadline>>>,
    #[cfg(test)]
    overlay: Rc<super::fixtures::Overlay>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    budget: Duration,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A Unix socket.
    Socket,
    /// A device or FIFO.
    Other,
}

/// The inode of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky bits: `mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last change of its content.
    pub modified: SystemTime,
}

impl Root {
    /// Opens the directory.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Unknown> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| Unknown::from_io(path, &errno.into()))?;
        Ok(Self {
            directory: Rc::new(directory),
            resolve: ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            deadline: Rc::default(),
            #[cfg(test)]
            overlay: Rc::default(),
        })
    }

    /// The same root with metadata and refusals that a fixture cannot carry in a repository.
    #[cfg(test)]
    pub(super) fn with_overlay(mut self, overlay: super::fixtures::Overlay) -> Self {
        self.overlay = Rc::new(overlay);
        self
    }

    /// The same root, but symbolic links anywhere in a path are refused.
    #[must_use]
    pub fn without_symlinks(&self) -> Self {
        let mut root = self.clone();
        root.resolve |= ResolveFlags::NO_SYMLINKS;
        root
    }

    /// From now on reads end as [`Unknown::TimedOut`] once the budget is spent.
    pub fn allow(&self, budget: Duration) {
        self.deadline.set(Some(Deadline { at: Instant::now() + budget, budget }));
    }

    /// The text of a file; `None` where there is none. Bytes that are no UTF-8 become U+FFFD, a
    /// NUL makes it malformed.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, or larger than `bytes_max`.
    pub fn text(&self, path: impl AsRef<Path>, bytes_max: u64) -> Result<Option<String>, Unknown> {
        let path = path.as_ref();
        let Some(bytes) = self.bytes(path, bytes_max)? else { return Ok(None) };
        if bytes.contains(&0) {
            return Err(Unknown::malformed(path, "holds NUL bytes, so it is no text"));
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The text of a file that has to be there.
    ///
    /// # Errors
    /// As [`Root::text`], and when it is not there.
    pub fn required_text(&self, path: impl AsRef<Path>, bytes_max: u64) -> Result<String, Unknown> {
        let path = path.as_ref();
        self.text(path, bytes_max)?.ok_or_else(|| Unknown::absent(path))
    }

    /// The bytes of a file; `None` where there is none.
    ///
    /// # Errors
    /// As [`Root::text`].
    pub fn bytes(
        &self,
        path: impl AsRef<Path>,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, Unknown> {
        let path = path.as_ref();
        let Some(mut file) = self.stream(path, bytes_max)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| file.unknown(&error))?;
        Ok(Some(bytes))
    }

    /// At most `length` bytes of a file from `offset` on, fewer where it ends before, for files
    /// too large to be read whole; `None` where there is none.
    ///
    /// # Errors
    /// As [`Root::stream`], and when it cannot be read.
    pub fn part(
        &self,
        path: impl AsRef<Path>,
        offset: u64,
        length: usize,
    ) -> Result<Option<Vec<u8>>, Unknown> {
        let path = path.as_ref();
        let Some(stream) = self.stream(path, u64::MAX)? else { return Ok(None) };
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            self.in_time()?;
            let at = offset.saturating_add(filled as u64);
            match stream.file.read_at(&mut bytes[filled..], at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Unknown::from_io(path, &error)),
            }
        }
        bytes.truncate(filled);
        Ok(Some(bytes))
    }

    /// A file to be read bit by bit; `None` where there is none. Errors of its reads become
    /// unknown by [`Stream::unknown`].
    ///
    /// # Errors
    /// When it cannot be opened, is no regular file, or larger than `bytes_max`.
    pub fn stream(
        &self,
        path: impl AsRef<Path>,
        bytes_max: u64,
    ) -> Result<Option<Stream>, Unknown> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Some(file) = self.openat(path, flags)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed(path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Unknown::malformed(path, "is no regular file"));
        }
        // What is far too large is refused unread.
        let refused_over = bytes_max.max(SYSFS_STATED_BYTES_MAX);
        if u64::try_from(stat.st_size).is_ok_and(|bytes| bytes > refused_over) {
            let what = Path::new("/").join(path).display().to_string();
            return Err(Unknown::TooLarge { what, bytes_max });
        }
        let file = File::from(file);
        let deadline = self.deadline.get();
        Ok(Some(Stream { file, path: path.into(), left: bytes_max, bytes_max, deadline }))
    }

    /// The names in a directory, sorted; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or has more than 32,768 entries.
    pub fn names(&self, path: impl AsRef<Path>) -> Result<Option<Vec<String>>, Unknown> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(directory) = self.openat(path, flags)? else { return Ok(None) };
        let entries = rustix::fs::Dir::new(directory).map_err(|errno| failed(path, errno))?;
        let mut names = Vec::new();
        for entry in entries {
            self.in_time()?;
            let entry = entry.map_err(|errno| failed(path, errno))?;
            let name = entry.file_name().to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            if names.len() == ENTRIES_MAX {
                let problem = format!("has more than {ENTRIES_MAX} entries");
                return Err(Unknown::malformed(path, problem));
            }
            names.push(name.into_owned());
        }
        names.sort_unstable();
        Ok(Some(names))
    }

    /// The inode behind a path, links followed; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, Unknown> {
        self.inode(path.as_ref(), OFlags::empty())
    }

    /// The inode at a path, which may be a link itself; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn link_metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, Unknown> {
        self.inode(path.as_ref(), OFlags::NOFOLLOW)
    }

    /// Where a symbolic link points; `None` where there is none, or it is no link.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn link(&self, path: impl AsRef<Path>) -> Result<Option<String>, Unknown> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(link) = self.openat(path, flags)? else { return Ok(None) };
        match rustix::fs::readlinkat(&link, c"", Vec::with_capacity(LINK_BYTES_MAX)) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            // An O_PATH descriptor of anything but a link.
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(failed(path, errno)),
        }
    }

    fn inode(&self, path: &Path, follow: OFlags) -> Result<Option<Metadata>, Unknown> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | follow;
        let Some(inode) = self.openat(path, flags)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&inode).map_err(|errno| failed(path, errno))?;
        let metadata = Metadata::from(stat);
        #[cfg(test)]
        let metadata = self.overlay.metadata(path, metadata);
        Ok(Some(metadata))
    }

    fn openat(&self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>, Unknown> {
        self.in_time()?;
        #[cfg(test)]
        self.overlay.permits(path, flags.contains(OFlags::PATH))?;
        let relative: PathBuf =
            path.components().filter(|part| !matches!(part, Component::RootDir)).collect();
        let relative = if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative };
        match rustix::fs::openat2(&self.directory, &relative, flags, Mode::empty(), self.resolve) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(Errno::NOSYS) => Err(Unknown::Unsupported(
                "this kernel is older than 5.6 and cannot open files safely (openat2)".into(),
            )),
            Err(Errno::LOOP) => Err(Unknown::malformed(path, "leads through a symbolic link")),
            Err(errno) => Err(failed(path, errno)),
        }
    }

    fn in_time(&self) -> Result<(), Unknown> {
        match self.deadline.get() {
            Some(Deadline { at, budget }) if Instant::now() >= at => Err(Unknown::TimedOut(budget)),
            _ => Ok(()),
        }
    }
}

/// A file within its limits of size and time.
#[derive(Debug)]
pub struct Stream {
    file: File,
    path: PathBuf,
    left: u64,
    bytes_max: u64,
    deadline: Option<Deadline>,
}

/// Marks errors that a [`Stream`] makes itself.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct Limit(Unknown);

impl Stream {
    /// What a failed read means; also for errors that a decompressor hands on.
    pub fn unknown(&self, error: &io::Error) -> Unknown {
        unknown_at(&self.path, error)
    }

    /// Its path, for the errors of whoever takes the stream over.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a failed read of a [`Stream`] of that path means.
pub(super) fn unknown_at(path: &Path, error: &io::Error) -> Unknown {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Limit>());
    match inner {
        Some(Limit(unknown)) => unknown.clone(),
        None if error.raw_os_error().is_some() => Unknown::from_io(path, error),
        None => Unknown::malformed(path, error.to_string()),
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(Deadline { at, budget }) = self.deadline
            && Instant::now() >= at
        {
            return Err(io::Error::other(Limit(Unknown::TimedOut(budget))));
        }
        // One byte beyond the limit tells a file of exactly that size from a larger one.
        let ask = buffer.len().min(CHUNK_BYTES).min(self.left.saturating_add(1) as usize);
        let read = self.file.read(&mut buffer[..ask])?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let what = Path::new("/").join(&self.path).display().to_string();
            io::Error::other(Limit(Unknown::TooLarge { what, bytes_max: self.bytes_max }))
        })?;
        Ok(read)
    }
}

impl From<Stat> for Metadata {
    fn from(stat: Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Socket => Kind::Socket,
            _ => Kind::Other,
        };
        // A time before 1970 is older than any limit, as 1970 is.
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }
}

fn failed(path: &Path, errno: Errno) -> Unknown {
    Unknown::from_io(path, &errno.into())
}

#[cfg(test)]
mod tests;
