use std::fs;

use haidang_proto::model::verdict::DownCause;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const LIMITS: config::Journal =
    config::Journal { bytes_max: 256 << 10, age_max: Duration::from_secs(90 * 86_400) };

fn at(seconds: u64) -> Moment {
    Moment {
        boot_id: Uuid::from_u128(1),
        boottime: Duration::from_secs(seconds),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds),
    }
}

fn event(bad_cycles: u32) -> Event {
    Event::ShortOutage { first_seen: at(0), bad_cycles, cause: DownCause::CoreUnreachable }
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    fn open(&self) -> Journal {
        Journal::open(&self.path(), &LIMITS).unwrap()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    fn bytes_on_disk(&self) -> u64 {
        let size = |directory: PathBuf| -> u64 {
            let entries = fs::read_dir(directory).into_iter().flatten();
            entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
        };
        size(self.path()) + size(self.0.path().join("journal.damaged"))
    }
}

fn fill(journal: &mut Journal, records: u32) {
    for n in 1..=records {
        journal.append(at(n.into()), event(n)).unwrap();
    }
}

/// Everything that waits, by acknowledging batch after batch.
fn drain(journal: &mut Journal) -> Vec<Record> {
    let mut all = Vec::new();
    while let Some(batch) = journal.batch(at(0).wall).unwrap() {
        assert!(!batch.records.is_empty());
        assert_eq!(batch.records[0].seq, batch.first_seq);
        let last = batch.records.last().unwrap().seq;
        all.extend(batch.records);
        journal.acknowledge(batch.journal_id, last).unwrap();
    }
    all
}

#[test]
fn records_survive_a_restart_in_order_until_they_are_acknowledged() {
    let place = Place::new();
    let mut journal = place.open();
    let id = journal.id();
    fill(&mut journal, 20);
    journal.acknowledge(id, 5).unwrap();
    drop(journal);
    let mut journal = place.open();
    assert_eq!((journal.id(), journal.first_seq()), (id, 6));
    assert_eq!(journal.status().waiting_records, 15);
    assert_eq!(
        drain(&mut journal).iter().map(|r| r.seq).collect::<Vec<_>>(),
        (6..=20).collect::<Vec<_>>()
    );
    drop(journal);
    let mut journal = place.open();
    assert_eq!(journal.batch(at(0).wall).unwrap(), None);
    assert_eq!(journal.append(at(30), event(1)).unwrap(), 21);
}

#[test]
fn only_a_clean_stop_counts_as_one() {
    let place = Place::new();
    let mut journal = place.open();
    assert!(!journal.previous_stop_was_clean());
    fill(&mut journal, 1);
    journal.stop().unwrap();
    let journal = place.open();
    assert!(journal.previous_stop_was_clean());
    journal.stop().unwrap();
    let mut journal = place.open();
    assert!(journal.previous_stop_was_clean());
    fill(&mut journal, 1);
    drop(journal);
    assert!(!place.open().previous_stop_was_clean());
}

#[test]
fn a_full_journal_drops_the_oldest_and_says_so() {
    let place = Place::new();
    let mut journal = place.open();
    fill(&mut journal, 4000);
    assert!(place.bytes_on_disk() <= LIMITS.bytes_max / 2, "{}", place.bytes_on_disk());
    let status = journal.status();
    assert!(status.dropped_records > 0);
    assert_eq!(status.dropped_records + status.waiting_records, 4000);
    assert_eq!(journal.first_seq(), status.dropped_records + 1);
    drop(journal);
    let mut journal = place.open();
    assert_eq!(journal.status(), status);
    let rest = drain(&mut journal);
    assert_eq!(rest.last().map(|record| record.seq), Some(4000));
    assert_eq!(rest.len() as u64, status.waiting_records);
    assert_eq!(journal.status().dropped_records, status.dropped_records);
}

#[test]
fn old_records_are_dropped_even_when_nothing_is_written() {
    let place = Place::new();
    let mut journal = place.open();
    fill(&mut journal, 3);
    let later = at(0).wall + LIMITS.age_max;
    assert_eq!(journal.batch(later).unwrap().map(|batch| batch.records.len()), Some(3));
    let later = later + Duration::from_secs(10);
    assert_eq!(journal.batch(later).unwrap(), None);
    assert_eq!(journal.status().dropped_records, 3);
    assert_eq!(journal.append(at(9), event(1)).unwrap(), 4);
}

#[test]
fn a_power_cut_takes_nothing_that_was_written() {
    let place = Place::new();
    let mut journal = place.open();
    let id = journal.id();
    for n in 1..=600 {
        journal.append(at(n), event(1)).unwrap();
        if n % 50 == 0 {
            let acknowledged = journal.acknowledged_seq;
            journal.directory.cut_power();
            drop(journal);
            journal = place.open();
            assert_eq!((journal.id(), journal.next_seq), (id, n + 1));
            journal.acknowledge(id, (acknowledged + 20).min(n)).unwrap();
        }
    }
    assert_eq!(journal.status().set_aside, 0);
}

/// What was promised to whoever used the journal.
#[derive(Debug, Default)]
struct Promised {
    /// The last record that counts as written.
    written: u64,
    acknowledged: u64,
}

/// Writes, acknowledges and rotates until it is done or the disk is dead. Says whether it is done.
fn works(journal: &mut Journal, promised: &mut Promised) -> bool {
    for n in 1..=30_u32 {
        let appended = journal.append(at(n.into()), event(n));
        let Ok(seq) = appended else { return false };
        promised.written = seq;
        if n % 4 == 0 {
            // The collector has it, whether or not the disk takes note.
            promised.acknowledged = u64::from(n) - 2;
            if journal.acknowledge(journal.id(), promised.acknowledged).is_err() {
                return false;
            }
        }
        if n % 5 == 0 && journal.rotate().is_err() {
            return false;
        }
    }
    true
}

/// A power cut after any operation of the disk, with what was not synced lost, or still there.
#[test]
fn a_power_cut_at_any_operation_takes_nothing_that_was_written() {
    for (is_lost, operations) in (0..).flat_map(|n| [(true, n), (false, n)]) {
        let place = Place::new();
        let mut journal = place.open();
        let id = journal.id();
        let mut promised = Promised::default();
        journal.directory.dies_after(operations);
        let is_done = works(&mut journal, &mut promised);
        if is_lost {
            journal.directory.cut_power();
        }
        drop(journal);
        let mut journal = place.open();
        let case = format!("{operations} operations, lost: {is_lost}, {promised:?}");
        assert_eq!((journal.id(), journal.status().set_aside), (id, 0), "{case}");
        assert_eq!(journal.status().dropped_records, 0, "{case}");
        let first = journal.first_seq();
        assert!(first <= promised.acknowledged + 1, "{case}: {first}");
        let waiting = drain(&mut journal);
        // A record that was not promised may be there; it is whole then, and the only one.
        let last = waiting.last().map_or(first - 1, |record| record.seq);
        assert!([promised.written, promised.written + 1].contains(&last), "{case}: {last}");
        let whole = |record: &Record| record.event == event(u32::try_from(record.seq).unwrap());
        assert!(waiting.iter().all(whole), "{case}");
        assert_eq!(journal.append(at(99), event(99)).unwrap(), last + 1, "{case}");
        if is_done && !is_lost {
            assert!(operations > 80, "the disk lived longer than {operations} operations");
            return;
        }
    }
}

#[test]
fn an_acknowledgement_of_lost_records_begins_a_new_journal() {
    let place = Place::new();
    let mut journal = place.open();
    let id = journal.id();
    fill(&mut journal, 3);
    journal.acknowledge(id, 9).unwrap();
    assert_ne!(journal.id(), id);
    assert_eq!(journal.status(), JournalStatus { set_aside: 1, ..Default::default() });
    assert_eq!(journal.append(at(1), event(1)).unwrap(), 1);
    journal.acknowledge(id, 1).unwrap();
    assert_eq!(journal.status().waiting_records, 1, "an answer for the old journal is void");
}

/// What the disk image of an agency's machine brings back.
fn copied(from: &Place) -> Place {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    for path in from.segments() {
        fs::copy(&path, place.path().join(path.file_name().unwrap())).unwrap();
    }
    place
}

#[test]
fn an_old_copy_goes_on_as_a_new_journal_with_what_is_new_in_it() {
    let place = Place::new();
    let mut journal = place.open();
    let id = journal.id();
    fill(&mut journal, 30);
    journal.acknowledge(id, 20).unwrap();
    let image = copied(&place);
    let mut restored = image.open();
    for n in 31..=1000 {
        restored.append(at(n), event(u32::try_from(n).unwrap())).unwrap();
    }
    restored.fork(id, 31).unwrap();
    let new = restored.id();
    assert_ne!(new, id);
    assert_eq!(restored.status().set_aside, 1);
    restored.fork(id, 31).unwrap();
    restored.acknowledge(id, 40).unwrap();
    assert_eq!((restored.id(), restored.first_seq()), (new, 1), "answers for the old one are void");
    restored.append(at(1001), event(1001)).unwrap();
    drop(restored);
    let mut restored = image.open();
    assert_eq!(restored.id(), new);
    let records = drain(&mut restored);
    let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=971).collect::<Vec<_>>());
    let events: Vec<Event> = records.into_iter().map(|record| record.event).collect();
    assert_eq!(events, (31..=1001).map(event).collect::<Vec<_>>());
    assert!(image.bytes_on_disk() <= LIMITS.bytes_max);
    assert_eq!(fs::read_dir(image.0.path()).unwrap().count(), 2, "nothing is left beside");
}

/// The moments of a fork at which a crash leaves more or less than two directories.
#[test]
fn a_fork_that_was_interrupted_is_finished_or_was_never_begun() {
    let beside = |place: &Place, suffix: &str| place.0.path().join(format!("journal{suffix}"));
    for (case, moment) in [".building", ".next", ""].into_iter().enumerate() {
        let place = Place::new();
        let mut journal = place.open();
        let old = journal.id();
        fill(&mut journal, 9);
        journal.fork(old, 4).unwrap();
        let new = journal.id();
        drop(journal);
        // Back from the end of the fork to that moment.
        if moment.is_empty() {
            fs::rename(place.path(), beside(&place, ".next")).unwrap();
        } else {
            fs::rename(place.path(), beside(&place, moment)).unwrap();
            fs::rename(beside(&place, ".damaged"), place.path()).unwrap();
        }
        let mut journal = place.open();
        let (id, waiting) = if moment.is_empty() { (new, 6) } else { (old, 9) };
        assert_eq!((journal.id(), journal.status().waiting_records), (id, waiting), "case {case}");
        assert_eq!(drain(&mut journal).len() as u64, waiting, "case {case}");
        assert!(!beside(&place, ".next").exists() && !beside(&place, ".building").exists());
    }
}

#[test]
fn damaged_journals_never_add_up() {
    let place = Place::new();
    for _ in 0..3 {
        let mut journal = place.open();
        fill(&mut journal, 4000);
        let first = place.segments()[0].clone();
        let mut bytes = fs::read(&first).unwrap();
        bytes[100] ^= 1;
        fs::write(&first, bytes).unwrap();
    }
    let journal = place.open();
    assert_eq!(journal.status(), JournalStatus { set_aside: 1, ..Default::default() });
    assert!(place.bytes_on_disk() <= LIMITS.bytes_max);
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 2);
}

#[test]
fn damage_under_way_is_noticed_when_it_is_read() {
    let place = Place::new();
    let mut journal = place.open();
    fill(&mut journal, 3);
    let path = place.segments()[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[80] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(journal.batch(at(0).wall).unwrap(), None);
    assert_eq!(journal.status().set_aside, 1);
}

/// A journal of two segments as bytes: (name, content).
fn written(records: u32) -> (Uuid, Vec<(PathBuf, Vec<u8>)>) {
    let place = Place::new();
    let mut journal = place.open();
    fill(&mut journal, records / 2);
    journal.rotate().unwrap();
    for n in records / 2 + 1..=records {
        journal.append(at(n.into()), event(n)).unwrap();
    }
    let id = journal.id();
    journal.acknowledge(id, 2).unwrap();
    let file = |path: PathBuf| (path.file_name().unwrap().into(), fs::read(path).unwrap());
    (id, place.segments().into_iter().map(file).collect())
}

fn reopened(files: &[(PathBuf, Vec<u8>)]) -> (Place, Journal) {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    for (name, bytes) in files {
        fs::write(place.path().join(name), bytes).unwrap();
    }
    let journal = place.open();
    (place, journal)
}

/// Where each frame of a segment ends, and the record in it, if it is one.
fn ends(bytes: &[u8]) -> Vec<(usize, Option<Record>)> {
    let mut frames = frame::Frames::new(bytes, bytes.len() as u64);
    frames.header().unwrap();
    let mut end = HEADER_BYTES;
    let mut ends = Vec::new();
    while let Step::Frame(frame, size) = frames.step() {
        end += usize::try_from(size).unwrap();
        ends.push((end, if let Frame::Record(record) = frame { Some(record) } else { None }));
    }
    ends
}

#[test]
fn a_journal_cut_at_any_byte_keeps_exactly_what_was_whole() {
    let (id, files) = written(8);
    let whole = |bytes: &[u8], end: usize| -> Vec<Record> {
        let within = ends(bytes).into_iter().filter(|(ends, _)| *ends <= end);
        within.filter_map(|(_, record)| record).collect()
    };
    // Cut before its header's end, the newest segment never was: its acknowledgement went with it.
    for end in 0..=files[1].1.len() {
        let mut cut = files.clone();
        cut[1].1.truncate(end);
        let (place, mut journal) = reopened(&cut);
        assert_eq!((journal.id(), journal.status().set_aside), (id, 0), "cut at {end}");
        let mut kept = whole(&files[0].1, files[0].1.len());
        kept.extend(whole(&files[1].1, end));
        let acknowledged = journal.acknowledged_seq;
        assert!(acknowledged == 0 || (acknowledged == 2 && end == files[1].1.len()));
        // What follows is as good as ever, and no number stands for two records.
        let seq = journal.append(at(99), event(99)).unwrap();
        assert_eq!(Some(seq), kept.last().map(|record| record.seq + 1), "cut at {end}");
        drop(journal);
        let mut journal = place.open();
        assert_eq!(journal.status().set_aside, 0, "cut at {end}");
        let mut waiting = drain(&mut journal);
        assert_eq!(waiting.pop().map(|record| record.event), Some(event(99)), "cut at {end}");
        kept.retain(|record| record.seq > acknowledged);
        assert_eq!(waiting, kept, "cut at {end}");
    }
    for end in 0..files[0].1.len() {
        let mut cut = files.clone();
        cut[0].1.truncate(end);
        let (_place, journal) = reopened(&cut);
        assert_ne!(journal.id(), id, "a hole in the middle, at {end}, is damage");
        assert_eq!(journal.status(), JournalStatus { set_aside: 1, ..Default::default() });
    }
}

#[test]
fn any_flipped_bit_sets_the_journal_aside() {
    let (id, files) = written(8);
    for (nth, (_, bytes)) in files.iter().enumerate() {
        // One bit of each byte, each of the eight in turn: `frame` tries them all.
        for bit in (0..bytes.len()).map(|byte| byte * 8 + byte % 8) {
            let mut flipped = files.clone();
            flipped[nth].1[bit / 8] ^= 1 << (bit % 8);
            let (_place, journal) = reopened(&flipped);
            assert_ne!(journal.id(), id, "bit {bit} of segment {nth}");
            assert_eq!(journal.status(), JournalStatus { set_aside: 1, ..Default::default() });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn any_files_give_a_journal_that_works(
        files in prop::collection::vec((0_u64..4, prop::collection::vec(any::<u8>(), 0..200)), 0..4),
    ) {
        let files: Vec<_> = files
            .into_iter()
            .map(|(name, bytes)| (PathBuf::from(segment_name(name)), bytes))
            .collect();
        let (place, mut journal) = reopened(&files);
        let seq = journal.append(at(1), event(1)).unwrap();
        drop(journal);
        let mut journal = place.open();
        prop_assert_eq!(drain(&mut journal).last().map(|record| record.seq), Some(seq));
    }

    /// Against a plain list: whatever the order of writing, acknowledging, crashing and
    /// stopping, what waits is what was written and not acknowledged.
    #[test]
    fn it_behaves_like_a_list(steps in prop::collection::vec(0_u8..5, 1..60)) {
        let place = Place::new();
        let mut journal = place.open();
        let id = journal.id();
        let (mut written, mut acknowledged) = (0, 0);
        for step in steps {
            match step {
                0 | 1 => {
                    journal.append(at(written), event(1)).unwrap();
                    written += 1;
                }
                2 => {
                    acknowledged = (acknowledged + 2).min(written);
                    journal.acknowledge(id, acknowledged).unwrap();
                }
                3 if journal.segments.len() < SEGMENTS_MAX => journal.rotate().unwrap(),
                _ => {
                    drop(journal);
                    journal = place.open();
                }
            }
            prop_assert_eq!(journal.status().waiting_records, written - acknowledged);
            prop_assert_eq!(journal.first_seq(), acknowledged + 1);
        }
        let seqs: Vec<u64> = drain(&mut journal).iter().map(|record| record.seq).collect();
        prop_assert_eq!(seqs, (acknowledged + 1..=written).collect::<Vec<_>>());
    }
}
