//! The bytes of a segment: a header, then frames. Pure; numbers are little-endian.
//!
//! ```text
//! header  "HDJRNL01" · journal id (16) · first seq (8) · acknowledged seq (8) · dropped (8)
//!         · CRC-32 of what precedes (4)                                          = 52 bytes
//! frame   length of the body (4) · CRC-32 of the length (4) · CRC-32 of the body (4) · body
//! body    1 · record as a protobuf message  |  2 · acknowledged seq (8)  |  3 (clean stop)
//! ```
//! The length has a checksum of its own, so that a damaged length cannot pass for a frame that a
//! power cut interrupted. A tail of zeros is such a frame: file systems may extend a file before
//! its data are written.

use std::io::{self, Read};

use haidang_proto::model::record::{Record, decode_record, encode_record};
use uuid::Uuid;

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 52;
/// Bytes of a frame: 32 facts of 2 × 128 bytes fit seven times.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 10;

const MAGIC: &[u8; 8] = b"HDJRNL01";
const FRAME_HEAD_BYTES: usize = 12;
const RECORD: u8 = 1;
const ACKNOWLEDGED: u8 = 2;
const CLEAN_STOP: u8 = 3;

/// What a segment says of itself and of the journal at its making.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) journal_id: Uuid,
    /// The first record that this segment may hold.
    pub(super) first_seq: u64,
    pub(super) acknowledged_seq: u64,
    pub(super) dropped: u64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Record(Record),
    Acknowledged(u64),
    CleanStop,
}

/// What comes next in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A whole frame, and its size.
    Frame(Frame, u64),
    /// The segment ends between two frames.
    End,
    /// The segment ends within a frame.
    Torn,
    /// Something else, or it could not be read.
    Damaged(&'static str),
}

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(header.journal_id.as_bytes());
    for number in [header.first_seq, header.acknowledged_seq, header.dropped] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

pub(super) fn encode(frame: &Frame) -> Vec<u8> {
    let body = match frame {
        Frame::Record(record) => [&[RECORD], encode_record(record).as_slice()].concat(),
        Frame::Acknowledged(seq) => [&[ACKNOWLEDGED], seq.to_le_bytes().as_slice()].concat(),
        Frame::CleanStop => vec![CLEAN_STOP],
    };
    // A body beyond 4 GiB cannot be: its texts and lists are bounded by the record's encoding.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + body.len());
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&crc32fast::hash(&length).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The frames of one segment, read one at a time.
pub(super) struct Frames<R> {
    source: R,
    /// Bytes of the segment that were not read yet.
    left: u64,
}

impl<R: Read> Frames<R> {
    /// A segment of `bytes` bytes, from its first.
    pub(super) fn new(source: R, bytes: u64) -> Self {
        Self { source, left: bytes }
    }

    /// The header, which comes first.
    pub(super) fn header(&mut self) -> Result<Header, &'static str> {
        let mut bytes = [0; HEADER_BYTES];
        if self.left < HEADER_BYTES as u64 || self.fill(&mut bytes).is_err() {
            return Err("a segment is shorter than its header");
        }
        let (body, crc) = bytes.split_at(HEADER_BYTES - 4);
        if crc != crc32fast::hash(body).to_le_bytes() || !body.starts_with(MAGIC) {
            return Err("a segment's header does not match its checksum");
        }
        let number = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
        };
        Ok(Header {
            journal_id: Uuid::from_bytes(bytes[8..24].try_into().expect("sixteen bytes")),
            first_seq: number(24),
            acknowledged_seq: number(32),
            dropped: number(40),
        })
    }

    /// The next frame.
    pub(super) fn step(&mut self) -> Step {
        match self.read() {
            Ok(step) => step,
            Err(_) => Step::Damaged("a segment cannot be read to its end"),
        }
    }

    fn read(&mut self) -> io::Result<Step> {
        if self.left == 0 {
            return Ok(Step::End);
        }
        if self.left < FRAME_HEAD_BYTES as u64 {
            return Ok(Step::Torn);
        }
        let mut head = [0; FRAME_HEAD_BYTES];
        self.fill(&mut head)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, b0, b1, b2, b3] = head;
        let length = [l0, l1, l2, l3];
        if head == [0; FRAME_HEAD_BYTES] && self.rest_is_zero()? {
            return Ok(Step::Torn);
        }
        if crc32fast::hash(&length).to_le_bytes() != [c0, c1, c2, c3] {
            return Ok(Step::Damaged("a frame's length does not match its checksum"));
        }
        let length = u32::from_le_bytes(length);
        if length as usize > FRAME_BYTES_MAX {
            return Ok(Step::Damaged("a frame is longer than any"));
        }
        if u64::from(length) > self.left {
            return Ok(Step::Torn);
        }
        let mut body = vec![0; length as usize];
        self.fill(&mut body)?;
        if crc32fast::hash(&body).to_le_bytes() != [b0, b1, b2, b3] {
            return Ok(Step::Damaged("a frame does not match its checksum"));
        }
        let size = (FRAME_HEAD_BYTES + body.len()) as u64;
        Ok(decode(&body)
            .map_or(Step::Damaged("a frame is of no known kind"), |frame| Step::Frame(frame, size)))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.source.read_exact(bytes)?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Ok(())
    }

    fn rest_is_zero(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 512];
        while self.left > 0 {
            let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.fill(&mut bytes[..count])?;
            if bytes[..count].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Reads bytes as a segment, for [`crate::parsers`]: what is read as a frame comes back from its
/// own encoding.
pub(crate) fn any_bytes(bytes: &[u8]) {
    let mut frames = Frames::new(bytes, bytes.len() as u64);
    let _ = frames.header();
    while let Step::Frame(frame, _) = frames.step() {
        let kept = encode(&frame);
        let mut again = Frames::new(kept.as_slice(), kept.len() as u64);
        assert!(matches!(again.step(), Step::Frame(read, _) if encode(&read) == kept));
    }
    // Checksums stand in the way of guesses, so that the bodies are also tried without.
    if let Some(frame) = decode(bytes) {
        let kept = encode(&frame);
        assert!(decode(&kept[FRAME_HEAD_BYTES..]).is_some_and(|read| encode(&read) == kept));
    }
}

fn decode(body: &[u8]) -> Option<Frame> {
    match body.split_first()? {
        (&RECORD, record) => decode_record(record).ok().map(Frame::Record),
        (&ACKNOWLEDGED, seq) => Some(Frame::Acknowledged(u64::from_le_bytes(seq.try_into().ok()?))),
        (&CLEAN_STOP, []) => Some(Frame::CleanStop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps(bytes: &[u8]) -> Vec<Step> {
        let mut frames = Frames::new(bytes, bytes.len() as u64);
        let mut steps = Vec::new();
        loop {
            steps.push(frames.step());
            if !matches!(steps.last(), Some(Step::Frame(..))) {
                return steps;
            }
        }
    }

    #[test]
    fn a_header_survives_and_any_flipped_bit_shows() {
        let header = Header {
            journal_id: Uuid::from_u128(9),
            first_seq: 4,
            acknowledged_seq: 2,
            dropped: 7,
        };
        let bytes = encode_header(&header);
        assert_eq!(Frames::new(bytes.as_slice(), 52).header(), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Frames::new(flipped.as_slice(), 52).header().is_err(), "bit {bit}");
        }
    }

    #[test]
    fn zeros_after_the_last_frame_are_a_torn_tail() {
        let mut bytes = encode(&Frame::Acknowledged(3));
        let size = bytes.len() as u64;
        bytes.extend([0; 700]);
        let first = Step::Frame(Frame::Acknowledged(3), size);
        assert_eq!(steps(&bytes), [first.clone(), Step::Torn]);
        *bytes.last_mut().unwrap() = 1;
        assert!(matches!(steps(&bytes).as_slice(), [one, Step::Damaged(_)] if *one == first));
    }

    proptest! {
        #[test]
        fn nothing_on_disk_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            steps(&bytes);
            let _ = Frames::new(bytes.as_slice(), bytes.len() as u64).header();
        }
    }
}
