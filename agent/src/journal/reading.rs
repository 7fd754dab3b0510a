//! Reads a journal's directory at the start: every segment once, a frame at a time, and decides
//! what is a torn tail and what is damage.

use std::collections::VecDeque;
use std::io::{BufReader, Read};

use uuid::Uuid;

use super::directory::Directory;
use super::frame::{self, Frame, HEADER_BYTES, Step};
use super::{JournalError, Segment, segment_name};

/// What a directory holds.
pub(super) enum Reading {
    /// No segment, or only the beginnings of a first one.
    Empty {
        torn_tails: u32,
    },
    Sound(Found),
    Damaged(&'static str),
}

pub(super) struct Found {
    pub(super) id: Uuid,
    pub(super) segments: VecDeque<Segment>,
    pub(super) next_seq: u64,
    pub(super) acknowledged_seq: u64,
    pub(super) dropped: u64,
    pub(super) torn_tails: u32,
    pub(super) stopped_cleanly: bool,
}

/// Reads every segment once, a frame at a time.
pub(super) fn read(directory: &Directory) -> Result<Reading, JournalError> {
    let files = directory.segments()?;
    let mut found: Option<Found> = None;
    let count = files.len();
    for (nth, (first_seq, bytes)) in files.into_iter().enumerate() {
        let is_newest = nth + 1 == count;
        let name = segment_name(first_seq);
        let file = directory.open_to_read(&name)?;
        match read_segment(BufReader::new(file), first_seq, bytes, is_newest, &mut found) {
            Ok(End::Whole) => {}
            Ok(End::TornFrame) => {
                if let Some(found) = &mut found {
                    found.torn_tails = 1;
                }
            }
            Ok(End::TornHeader) => {
                // The crash came while the segment was made; nothing was written to it yet.
                directory.remove(&name)?;
                match &mut found {
                    Some(found) => found.torn_tails = 1,
                    None => return Ok(Reading::Empty { torn_tails: 1 }),
                }
            }
            Err(problem) => return Ok(Reading::Damaged(problem)),
        }
    }
    Ok(found.map_or(Reading::Empty { torn_tails: 0 }, Reading::Sound))
}

/// How a segment ends.
enum End {
    Whole,
    TornFrame,
    TornHeader,
}

fn read_segment(
    file: impl Read,
    first_seq: u64,
    bytes: u64,
    is_newest: bool,
    found: &mut Option<Found>,
) -> Result<End, &'static str> {
    let mut frames = frame::Frames::new(file, bytes);
    let header = match frames.header() {
        Ok(header) => header,
        Err(_) if is_newest && bytes < HEADER_BYTES as u64 => return Ok(End::TornHeader),
        Err(problem) => return Err(problem),
    };
    if header.first_seq != first_seq {
        return Err("a segment has another name than its header");
    }
    let found = found.get_or_insert_with(|| Found {
        id: header.journal_id,
        segments: VecDeque::new(),
        next_seq: first_seq,
        acknowledged_seq: header.acknowledged_seq,
        dropped: header.dropped,
        torn_tails: 0,
        stopped_cleanly: false,
    });
    if found.id != header.journal_id || found.next_seq != first_seq {
        return Err("a segment does not follow the one before it");
    }
    found.acknowledged_seq = found.acknowledged_seq.max(header.acknowledged_seq);
    found.dropped = found.dropped.max(header.dropped);
    found.stopped_cleanly = false;
    let mut segment =
        Segment { first_seq, bytes: HEADER_BYTES as u64, first_at: None, last_at: None };
    let end = loop {
        let (frame, size) = match frames.step() {
            Step::Frame(frame, size) => (frame, size),
            Step::End => break End::Whole,
            Step::Torn if is_newest => break End::TornFrame,
            Step::Torn => return Err("a segment that is not the newest ends within a frame"),
            Step::Damaged(problem) => return Err(problem),
        };
        segment.bytes += size;
        found.stopped_cleanly = matches!(frame, Frame::CleanStop);
        match frame {
            Frame::Record(record) if record.seq == found.next_seq => {
                found.next_seq += 1;
                segment.first_at = segment.first_at.or(Some(record.at.wall));
                segment.last_at = Some(record.at.wall);
            }
            Frame::Record(_) => return Err("a record is out of sequence"),
            Frame::Acknowledged(seq) if seq < found.next_seq => {
                found.acknowledged_seq = found.acknowledged_seq.max(seq);
            }
            Frame::Acknowledged(_) => return Err("an acknowledgement is ahead of the records"),
            Frame::CleanStop => {}
        }
    };
    found.stopped_cleanly &= matches!(end, End::Whole);
    found.segments.push_back(segment);
    Ok(end)
}
