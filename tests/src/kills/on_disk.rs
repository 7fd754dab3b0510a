//! What an agent's disk holds of its journal, read by the description of its shape alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use haidang_proto::model::record::decode_record;
use uuid::Uuid;

const HEADER_BYTES: usize = 52;
const FRAME_HEAD_BYTES: usize = 12;

/// Everything that was ever seen of one agent's journals.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// When each record was written, in milliseconds since 1970, by (journal, seq).
    pub(super) records: BTreeMap<(Uuid, u64), i64>,
    /// The highest acknowledgement of each journal.
    pub(super) acknowledged: BTreeMap<Uuid, u64>,
}

impl Ledger {
    /// Adds what a directory holds.
    ///
    /// # Errors
    /// When a sequence number stands for another record than before, or anything but the end of
    /// the newest segment is not as described.
    pub(super) fn read(&mut self, directory: &Path) -> Result<()> {
        let mut paths: Vec<_> = fs::read_dir(directory)
            .with_context(|| format!("list {}", directory.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        paths.sort();
        for path in paths {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            self.segment(&bytes).with_context(|| format!("the segment {}", path.display()))?;
        }
        Ok(())
    }

    fn segment(&mut self, bytes: &[u8]) -> Result<()> {
        // Killed while it was made.
        let Some((header, mut rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(()) };
        ensure!(header.starts_with(b"HDJRNL01"), "has another beginning");
        let journal = Uuid::from_slice(&header[8..24])?;
        self.acknowledge(journal, u64::from_le_bytes(header[32..40].try_into()?));
        while let Some((head, after)) = rest.split_at_checked(FRAME_HEAD_BYTES) {
            let length = usize::try_from(u32::from_le_bytes(head[..4].try_into()?))?;
            let Some((body, next)) = after.split_at_checked(length) else { break };
            match body.split_first().context("a frame is empty")? {
                (1, record) => self.record(journal, record)?,
                (2, seq) => self.acknowledge(journal, u64::from_le_bytes(seq.try_into()?)),
                (3, []) => {}
                (kind, _) => bail!("a frame is of kind {kind}"),
            }
            rest = next;
        }
        Ok(())
    }

    fn record(&mut self, journal: Uuid, bytes: &[u8]) -> Result<()> {
        let record = decode_record(bytes)?;
        let at_ms = unix_ms(record.at.wall)?;
        let before = self.records.insert((journal, record.seq), at_ms);
        ensure!(
            before.is_none_or(|before| before == at_ms),
            "number {} of {journal} stands for two records",
            record.seq
        );
        Ok(())
    }

    fn acknowledge(&mut self, journal: Uuid, seq: u64) {
        let held = self.acknowledged.entry(journal).or_default();
        *held = seq.max(*held);
    }
}

fn unix_ms(at: SystemTime) -> Result<i64> {
    Ok(i64::try_from(at.duration_since(UNIX_EPOCH)?.as_millis())?)
}
