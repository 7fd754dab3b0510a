//! The journal: records on disk until the collector has them, across crashes and power cuts.
//!
//! # Shape on disk
//! A directory of segment files, each named for the first sequence number it may hold. A segment
//! is a header and frames (`frame` gives the bytes): a record; an acknowledgement, by which
//! everything up to it is done with; a clean stop. Only the newest segment is written to, and a
//! record counts as written when `fdatasync` has returned. A clean stop is one whose frame is the
//! last of all.
//!
//! # Bounds
//! Half of `bytes_max` is the journal: [`SEGMENTS_MAX`] segments, the oldest of which is deleted
//! when another is needed, or when its newest record is older than `age_max`. What was not yet
//! acknowledged in it counts as dropped. The other half is for one damaged journal that was set
//! aside. There are no temporary files.
//!
//! # Damage
//! A frame that ends before its length, at the very end of the newest segment, is a write that a
//! power cut interrupted: nobody was told that it was written, so it is cut off and counted.
//! Anything else that does not read back, and an acknowledgement of records that the journal does
//! not have, is damage: the directory is set aside under another name, and a new journal with a
//! new id begins, because a sequence number must never stand for two records.
//!
//! # An older state of the disk
//! A journal that comes back with an image of the disk numbers new records as it numbered others
//! before. The collector notices by comparing ([`Receipt::conflicting_seq`]), and the journal
//! [forks](Journal::fork): what is new moves to a journal with a new id, and nothing is lost or
//! delivered twice. That journal is built in a directory beside, and takes the place of the old one
//! by renaming; `directory` says how a crash in between is mended.
//!
//! [`Receipt::conflicting_seq`]: haidang_proto::model::record::Receipt::conflicting_seq

mod directory;
pub(crate) mod frame;
pub mod keeper;
mod reading;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use haidang_proto::model::record::{Delivery, Event, Moment, RECORDS_MAX, Record};
use haidang_proto::model::report::JournalStatus;
use uuid::Uuid;

use crate::config;

use self::directory::Directory;
use self::frame::{FRAME_BYTES_MAX, Frame, HEADER_BYTES, Header, Step};
use self::reading::{Found, Reading};

/// Segments of a journal. Dropping the oldest loses an eighth of it.
const SEGMENTS_MAX: usize = 8;
/// Bytes of records in one batch: four seconds of the slowest line in use, 64 kbit/s, at half its
/// rate.
const BATCH_BYTES_MAX: u64 = 16 << 10;

/// The journal of one agent. Every call may wait for the disk.
#[derive(Debug)]
pub struct Journal {
    directory: Directory,
    limits: Limits,
    id: Uuid,
    /// Oldest first; the last one is written to. Never empty.
    segments: VecDeque<Segment>,
    newest: File,
    /// Whether the newest segment may end with bytes of a failed write.
    is_newest_soiled: bool,
    next_seq: u64,
    acknowledged_seq: u64,
    dropped: u64,
    set_aside: u32,
    torn_tails: u32,
    previous_stop_was_clean: bool,
}

/// A journal that could not do what it was asked. What it held before is still there.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory or a file in it.
    #[error("cannot {action} {}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record is larger than any.
    #[error("a record of {bytes} bytes is larger than {FRAME_BYTES_MAX}; it was not written")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    segment_bytes: u64,
    age: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    first_seq: u64,
    bytes: u64,
    first_at: Option<SystemTime>,
    last_at: Option<SystemTime>,
}

impl Journal {
    /// Opens the journal in the directory `path`, or begins one.
    ///
    /// # Errors
    /// When the directory cannot be read or written. Damage is no error.
    pub fn open(path: &Path, limits: &config::Journal) -> Result<Self, JournalError> {
        let limits = Limits {
            segment_bytes: limits.bytes_max / 2 / SEGMENTS_MAX as u64,
            age: limits.age_max,
        };
        directory::finish_replacement(path)?;
        let directory = Directory::open(path)?;
        match reading::read(&directory)? {
            Reading::Sound(found) => Self::resume(directory, limits, found),
            Reading::Empty { torn_tails } => {
                directory.clear()?;
                let mut journal = Self::begin(directory, limits)?;
                journal.torn_tails = torn_tails;
                Ok(journal)
            }
            Reading::Damaged(problem) => {
                set_aside(&directory, problem)?;
                let mut journal = Self::begin(directory, limits)?;
                journal.set_aside = 1;
                Ok(journal)
            }
        }
    }

    /// Writes a record down. When this returns, a power cut cannot take it back.
    ///
    /// # Errors
    /// When the disk refuses: nothing was written, and the record counts as dropped.
    pub fn append(&mut self, at: Moment, event: Event) -> Result<u64, JournalError> {
        let seq = self.next_seq;
        let bytes = frame::encode(&Frame::Record(Record { seq, at, event }));
        let written = self
            .expire(at.wall)
            .and_then(|()| self.make_room(bytes.len(), at.wall))
            .and_then(|()| self.write(&bytes))
            .and_then(|()| self.sync());
        if let Err(error) = written {
            self.dropped += 1;
            return Err(error);
        }
        self.wrote(at.wall);
        Ok(seq)
    }

    /// The oldest records that are not acknowledged: at most [`RECORDS_MAX`] of them and, beyond
    /// the first, about 16 KiB. `None` when there are none.
    ///
    /// # Errors
    /// When a segment cannot be opened, or a damaged journal cannot be set aside.
    pub fn batch(&mut self, now: SystemTime) -> Result<Option<Delivery>, JournalError> {
        self.expire(now)?;
        let first_seq = self.first_seq();
        if first_seq == self.next_seq {
            return Ok(None);
        }
        match self.read_from(first_seq)? {
            Ok(records) => Ok(Some(Delivery { journal_id: self.id, first_seq, records })),
            Err(problem) => {
                self.restart(problem)?;
                Ok(None)
            }
        }
    }

    /// Everything up to `seq` of the journal `id` is durable at the collector.
    ///
    /// # Errors
    /// When the disk refuses; the records will then be delivered again, which changes nothing.
    pub fn acknowledge(&mut self, id: Uuid, seq: u64) -> Result<(), JournalError> {
        if id != self.id || seq <= self.acknowledged_seq {
            return Ok(());
        }
        if seq >= self.next_seq {
            return self.restart("the collector has records that the journal lost");
        }
        self.acknowledged_seq = seq;
        // Not synced: a lost acknowledgement costs a second delivery, an fsync costs the disk.
        let bytes = frame::encode(&Frame::Acknowledged(seq));
        let now = newest(&mut self.segments).last_at.unwrap_or(SystemTime::UNIX_EPOCH);
        self.make_room(bytes.len(), now)?;
        self.write(&bytes)?;
        while self.segments.get(1).is_some_and(|next| next.first_seq <= seq + 1) {
            self.drop_oldest()?;
        }
        Ok(())
    }

    /// The number `seq` of the journal `id` stands for another record at the collector: what is
    /// here from that record on begins a new journal, with a new id, and waits for delivery.
    ///
    /// # Errors
    /// When the disk refuses: the journal is as before, and the collector will notice again.
    pub fn fork(&mut self, id: Uuid, seq: u64) -> Result<(), JournalError> {
        if id != self.id || seq >= self.next_seq {
            return Ok(());
        }
        let mut new = Self::begin(Directory::beside(self.directory.path())?, self.limits)?;
        let mut next = seq.max(self.first_seq());
        while next < self.next_seq {
            match self.read_from(next)? {
                Ok(records) => {
                    next += records.len() as u64;
                    records.into_iter().try_for_each(|record| new.copy(record))?;
                }
                Err(problem) => return self.restart(problem),
            }
        }
        new.sync()?;
        let aside = new.directory.replace(self.directory.path())?;
        tracing::warn!(
            aside = %aside.display(),
            "the journal was an old copy of itself; what is new in it goes on in another one"
        );
        new.set_aside = self.set_aside.saturating_add(1);
        new.torn_tails = self.torn_tails;
        new.previous_stop_was_clean = self.previous_stop_was_clean;
        *self = new;
        Ok(())
    }

    /// Marks a clean stop.
    ///
    /// # Errors
    /// When the disk refuses; the next start then takes this stop for a crash.
    pub fn stop(mut self) -> Result<(), JournalError> {
        let bytes = frame::encode(&Frame::CleanStop);
        self.write(&bytes)?;
        self.sync()
    }

    /// Its id: a new journal has a new one.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The oldest sequence number that is still here and not acknowledged; the next one when
    /// there is none.
    pub fn first_seq(&self) -> u64 {
        let oldest = self.segments.front().map_or(self.next_seq, |segment| segment.first_seq);
        oldest.max(self.acknowledged_seq + 1)
    }

    /// What a report tells of it.
    pub fn status(&self) -> JournalStatus {
        JournalStatus {
            waiting_records: self.next_seq - self.first_seq(),
            dropped_records: self.dropped,
            set_aside: self.set_aside,
        }
    }

    /// Whether the process before this one stopped cleanly.
    pub fn previous_stop_was_clean(&self) -> bool {
        self.previous_stop_was_clean
    }

    /// Interrupted writes that were cut off when it was opened.
    pub fn torn_tails(&self) -> u32 {
        self.torn_tails
    }

    fn begin(directory: Directory, limits: Limits) -> Result<Self, JournalError> {
        let id = Uuid::new_v4();
        let header = Header { journal_id: id, first_seq: 1, acknowledged_seq: 0, dropped: 0 };
        let (newest, segment) = create(&directory, header)?;
        Ok(Self {
            directory,
            limits,
            id,
            segments: VecDeque::from([segment]),
            newest,
            is_newest_soiled: false,
            next_seq: 1,
            acknowledged_seq: 0,
            dropped: 0,
            set_aside: 0,
            torn_tails: 0,
            previous_stop_was_clean: false,
        })
    }

    fn resume(directory: Directory, limits: Limits, found: Found) -> Result<Self, JournalError> {
        let name = found.segments.back().map_or(0, |segment| segment.first_seq);
        let newest = directory.open_to_append(&segment_name(name))?;
        Ok(Self {
            directory,
            limits,
            id: found.id,
            is_newest_soiled: found.torn_tails > 0,
            torn_tails: found.torn_tails,
            segments: found.segments,
            newest,
            next_seq: found.next_seq,
            acknowledged_seq: found.acknowledged_seq,
            dropped: found.dropped,
            set_aside: 0,
            previous_stop_was_clean: found.stopped_cleanly,
        })
    }

    /// Sets what is there aside and begins anew.
    fn restart(&mut self, problem: &'static str) -> Result<(), JournalError> {
        set_aside(&self.directory, problem)?;
        let directory = Directory::open(self.directory.path())?;
        let set_aside = self.set_aside.saturating_add(1);
        *self = Self { set_aside, ..Self::begin(directory, self.limits)? };
        Ok(())
    }

    /// Begins a new segment where the newest is full, or has grown so old that its age would keep
    /// newer records from counting by theirs.
    fn make_room(&mut self, bytes: usize, now: SystemTime) -> Result<(), JournalError> {
        if bytes > FRAME_BYTES_MAX {
            return Err(JournalError::TooLarge { bytes });
        }
        if self.needs_segment(bytes, now) { self.rotate() } else { Ok(()) }
    }

    fn needs_segment(&mut self, bytes: usize, now: SystemTime) -> bool {
        let share_of_age = self.limits.age / SEGMENTS_MAX as u32;
        let newest = newest(&mut self.segments);
        let is_full = newest.bytes + bytes as u64 > self.limits.segment_bytes;
        is_full || newest.first_at.is_some_and(|first| age(now, first) > share_of_age)
    }

    /// Takes over a record of another journal, under the next number. Durable with the next
    /// [`Self::sync`].
    fn copy(&mut self, Record { seq: _, at, event }: Record) -> Result<(), JournalError> {
        let record = Record { seq: self.next_seq, at, event };
        let bytes = frame::encode(&Frame::Record(record));
        if self.needs_segment(bytes.len(), at.wall) {
            self.sync()?;
            self.rotate()?;
        }
        self.write(&bytes)?;
        self.wrote(at.wall);
        Ok(())
    }

    fn wrote(&mut self, at: SystemTime) {
        let newest = newest(&mut self.segments);
        newest.first_at = newest.first_at.or(Some(at));
        newest.last_at = Some(at);
        self.next_seq += 1;
    }

    fn rotate(&mut self) -> Result<(), JournalError> {
        self.mend()?;
        if newest(&mut self.segments).first_seq == self.next_seq {
            return self.empty_newest();
        }
        while self.segments.len() >= SEGMENTS_MAX {
            self.drop_oldest()?;
        }
        let header = Header {
            journal_id: self.id,
            first_seq: self.next_seq,
            acknowledged_seq: self.acknowledged_seq,
            dropped: self.dropped,
        };
        let (file, segment) = create(&self.directory, header)?;
        self.newest = file;
        self.segments.push_back(segment);
        Ok(())
    }

    /// The newest segment holds acknowledgements alone: only the last of them counts.
    fn empty_newest(&mut self) -> Result<(), JournalError> {
        newest(&mut self.segments).bytes = HEADER_BYTES as u64;
        self.is_newest_soiled = true;
        self.mend()?;
        self.write(&frame::encode(&Frame::Acknowledged(self.acknowledged_seq)))
    }

    /// Drops what is too old to be of use.
    fn expire(&mut self, now: SystemTime) -> Result<(), JournalError> {
        let limit = self.limits.age;
        let too_old = |segment: &Segment| segment.last_at.is_some_and(|at| age(now, at) > limit);
        if too_old(newest(&mut self.segments)) {
            self.rotate()?;
        }
        while self.segments.len() > 1 && self.segments.front().is_some_and(too_old) {
            self.drop_oldest()?;
        }
        Ok(())
    }

    /// Deletes the oldest segment; there is a newer one. What nobody has acknowledged of it counts
    /// as dropped.
    fn drop_oldest(&mut self) -> Result<(), JournalError> {
        let (Some(oldest), Some(next)) = (self.segments.front(), self.segments.get(1)) else {
            return Ok(());
        };
        let lost = next.first_seq.saturating_sub(self.first_seq());
        self.directory.remove(&segment_name(oldest.first_seq))?;
        self.dropped += lost;
        self.segments.pop_front();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        self.mend()?;
        let newest = newest(&mut self.segments);
        self.is_newest_soiled = true;
        self.directory.write(&mut self.newest, &segment_name(newest.first_seq), bytes)?;
        self.is_newest_soiled = false;
        newest.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything written durable. After a failure the kernel may have dropped the pages, so
    /// the frame is taken back: it was never reported as written.
    fn sync(&mut self) -> Result<(), JournalError> {
        let newest = newest(&mut self.segments);
        let name = segment_name(newest.first_seq);
        self.directory.sync(&self.newest, &name, newest.bytes).inspect_err(|_| {
            self.is_newest_soiled = true;
        })
    }

    /// Cuts off what a failed write may have left behind.
    fn mend(&mut self) -> Result<(), JournalError> {
        if !self.is_newest_soiled {
            return Ok(());
        }
        let newest = newest(&mut self.segments);
        let name = segment_name(newest.first_seq);
        self.directory.truncate(&self.newest, &name, newest.bytes)?;
        self.is_newest_soiled = false;
        Ok(())
    }

    fn read_from(&self, seq: u64) -> Result<Result<Vec<Record>, &'static str>, JournalError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let newer = self.segments.iter().skip(1).map(|next| next.first_seq);
        for (segment, end) in self.segments.iter().zip(newer.chain([self.next_seq])) {
            if end <= seq {
                continue;
            }
            let file = self.directory.open_to_read(&segment_name(segment.first_seq))?;
            let mut frames = frame::Frames::new(BufReader::new(file), segment.bytes);
            if let Err(problem) = frames.header() {
                return Ok(Err(problem));
            }
            loop {
                let (record, size) = match frames.step() {
                    Step::Frame(Frame::Record(record), size) => (record, size),
                    Step::Frame(Frame::Acknowledged(_) | Frame::CleanStop, _) => continue,
                    Step::End => break,
                    Step::Torn => return Ok(Err("a segment has become shorter")),
                    Step::Damaged(problem) => return Ok(Err(problem)),
                };
                if record.seq < seq {
                    continue;
                }
                bytes += size;
                if !records.is_empty() && (records.len() >= RECORDS_MAX || bytes > BATCH_BYTES_MAX)
                {
                    return Ok(Ok(records));
                }
                records.push(record);
            }
        }
        Ok(Ok(records))
    }
}

fn set_aside(directory: &Directory, problem: &'static str) -> Result<(), JournalError> {
    let aside = directory.set_aside()?;
    tracing::warn!(problem, aside = %aside.display(), "the journal was damaged and set aside");
    Ok(())
}

fn create(directory: &Directory, header: Header) -> Result<(File, Segment), JournalError> {
    let bytes = frame::encode_header(&header);
    let file = directory.create(&segment_name(header.first_seq), &bytes)?;
    let bytes = bytes.len() as u64;
    let segment = Segment { first_seq: header.first_seq, bytes, first_at: None, last_at: None };
    Ok((file, segment))
}

fn newest(segments: &mut VecDeque<Segment>) -> &mut Segment {
    segments.back_mut().expect("a journal has a segment from its beginning on")
}

/// Age by the wall clock; a record from the future has none.
fn age(now: SystemTime, at: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or_default()
}

fn segment_name(first_seq: u64) -> String {
    format!("{first_seq:020}.journal")
}

#[cfg(test)]
mod tests;
