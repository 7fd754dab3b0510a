//! A disk that keeps no more than it has to: bytes since the last sync of their file, and names
//! since the last sync of their directory, may be there after a power cut or not, each by itself.
//! What a write changes is torn by the sector.

use std::collections::BTreeMap;

use super::recording::Operation;
use crate::dice::Dice;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a power cut takes of everything that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All of it.
    Everything,
    /// None of it: the cut of a program alone.
    Nothing,
    /// Some changes and not others, in sectors.
    AtRandom,
}

/// Files by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The files of one directory.
#[derive(Debug, Default)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    durable_names: BTreeMap<String, usize>,
    names: BTreeMap<String, usize>,
    /// Names that were given (`Some`) or removed since the directory was synced.
    renamings: Vec<(String, Option<usize>)>,
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Disk {
    /// Does what was recorded.
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Opened(file) => drop(self.inode(file)),
            Operation::Wrote { file, offset, bytes } => {
                let change = Change::Write { offset: *offset, bytes: bytes.clone() };
                self.inode(file).changes.push(change);
            }
            Operation::Truncated { file, length } => {
                self.inode(file).changes.push(Change::Length(*length));
            }
            Operation::Synced(file) => {
                let inode = self.inode(file);
                for change in inode.changes.drain(..) {
                    change.apply(&mut inode.durable);
                }
            }
            Operation::DirectorySynced => {
                self.durable_names.clone_from(&self.names);
                self.renamings.clear();
            }
            Operation::Removed(file) => {
                self.names.remove(file);
                self.renamings.push((file.clone(), None));
            }
            Operation::Acknowledged { .. } => {}
        }
    }

    fn inode(&mut self, file: &str) -> &mut Inode {
        let number = self.names.get(file).copied().unwrap_or_else(|| {
            self.inodes.push(Inode::default());
            let number = self.inodes.len() - 1;
            self.names.insert(file.to_owned(), number);
            self.renamings.push((file.to_owned(), Some(number)));
            number
        });
        &mut self.inodes[number]
    }

    /// What is found after a power cut now.
    pub(super) fn after(&self, loss: Loss, dice: &mut Dice) -> Files {
        let mut names = self.durable_names.clone();
        for (name, number) in &self.renamings {
            if loss.spares(dice) {
                match number {
                    Some(number) => names.insert(name.clone(), *number),
                    None => names.remove(name),
                };
            }
        }
        let file = |(name, number): (String, usize)| (name, self.inodes[number].after(loss, dice));
        names.into_iter().map(file).collect()
    }
}

impl Loss {
    fn spares(self, dice: &mut Dice) -> bool {
        match self {
            Self::Everything => false,
            Self::Nothing => true,
            Self::AtRandom => dice.coin(),
        }
    }
}

impl Inode {
    fn after(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.changes {
            match change {
                Change::Write { offset, bytes } if loss == Loss::AtRandom => {
                    let mut at = *offset;
                    let end = offset + bytes.len();
                    while at < end {
                        let next = end.min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
                        if loss.spares(dice) {
                            let bytes = bytes[at - offset..next - offset].to_vec();
                            Change::Write { offset: at, bytes }.apply(&mut content);
                        }
                        at = next;
                    }
                }
                change if loss.spares(dice) => change.apply(&mut content),
                _ => {}
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(offset: usize, bytes: &[u8]) -> Operation {
        Operation::Wrote { file: "a".into(), offset, bytes: bytes.to_vec() }
    }

    #[track_caller]
    fn is(disk: &Disk, loss: Loss, content: Option<&[u8]>) {
        assert_eq!(disk.after(loss, &mut Dice(1)).get("a").map(Vec::as_slice), content);
    }

    #[test]
    fn bytes_need_their_files_sync_and_names_their_directorys() {
        let mut disk = Disk::default();
        disk.apply(&wrote(0, b"one"));
        is(&disk, Loss::Everything, None);
        is(&disk, Loss::Nothing, Some(b"one"));
        disk.apply(&Operation::Synced("a".into()));
        is(&disk, Loss::Everything, None);
        disk.apply(&Operation::DirectorySynced);
        is(&disk, Loss::Everything, Some(b"one"));
        disk.apply(&wrote(1, b"xyz"));
        disk.apply(&Operation::Truncated { file: "a".into(), length: 2 });
        is(&disk, Loss::Everything, Some(b"one"));
        is(&disk, Loss::Nothing, Some(b"ox"));
        disk.apply(&Operation::Removed("a".into()));
        is(&disk, Loss::Everything, Some(b"one"));
        is(&disk, Loss::Nothing, None);
    }

    #[test]
    fn a_write_is_torn_between_sectors_only() {
        let mut disk = Disk::default();
        disk.apply(&wrote(256, &[7; 1024]));
        disk.apply(&Operation::DirectorySynced);
        let mut seen = std::collections::BTreeSet::new();
        let mut dice = Dice(3);
        for _ in 0..64 {
            let file = disk.after(Loss::AtRandom, &mut dice).remove("a").expect("its name stays");
            let at = |offset: usize| file.get(offset).copied().unwrap_or(0);
            let whole = |from: usize, to: usize| (from..to).all(|offset| at(offset) == at(from));
            assert!(whole(256, 512) && whole(512, 1024) && whole(1024, 1280));
            seen.insert((at(256), at(512), at(1024)));
        }
        assert_eq!(seen.len(), 8, "all that can happen does: {seen:?}");
    }
}
