//! Looks for every record in a collector's store, after the collector has ended.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::courier::Delivered;
use super::on_disk::Ledger;

/// The store of a collector that has ended.
pub(crate) struct Audit(Connection);

/// What the store holds of a journal. Two records cannot have one number there: the table's key is
/// the journal and the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub(crate) records: i64,
    /// The lowest and the highest number.
    pub(crate) seqs: (i64, i64),
    pub(crate) postures: i64,
    /// Sum over the short outages of number times mark: it tells where each stands.
    pub(crate) marks: i64,
    /// Intervals that were folded from the records.
    pub(crate) outages: i64,
}

/// What the store holds of a record.
struct Found {
    at_ms: i64,
    /// The number that a courier put into it.
    mark: Option<u32>,
}

impl Audit {
    pub(crate) fn open(store: &Path) -> Result<Self> {
        let opened = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let connection = opened.with_context(|| format!("open {}", store.display()))?;
        let verdict: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        ensure!(verdict == "ok", "the store is damaged: {verdict}");
        let gaps: i64 = connection.query_row("SELECT count(*) FROM gaps", [], |row| row.get(0))?;
        ensure!(gaps == 0, "{gaps} gaps, although nobody declared one");
        Ok(Self(connection))
    }

    /// Every record of a courier is there once, as it was written, and so is its outage.
    pub(crate) fn courier(&self, courier: &Delivered) -> Result<()> {
        let found = self.records(courier.journal)?;
        let marks: Vec<_> = found.values().map(|record| record.mark).collect();
        let written: Vec<_> = courier.written.iter().copied().map(Some).collect();
        ensure!(
            marks == written && found.keys().copied().eq(1..=i64::try_from(written.len())?),
            "of {} records of {} the store holds {}, or others",
            written.len(),
            courier.journal,
            found.len()
        );
        let outages = self.outages(courier.journal)?;
        let records = i64::try_from(written.len())?;
        ensure!(outages == records, "{records} records were applied {outages} times");
        Ok(())
    }

    /// What the store holds of a journal whose records are short outages with a mark, and postures.
    pub(crate) fn journal(&self, journal: Uuid) -> Result<Held> {
        let held = self.0.query_row(
            "SELECT count(*), coalesce(min(r.seq), 0), coalesce(max(r.seq), 0),
                    coalesce(sum(r.kind = 'posture'), 0),
                    coalesce(sum(r.seq * json_extract(r.body, '$.event.bad_cycles')), 0)
             FROM records r JOIN journals j ON r.journal = j.id WHERE j.journal = ?1",
            [journal.as_bytes()],
            |row| {
                Ok(Held {
                    records: row.get(0)?,
                    seqs: (row.get(1)?, row.get(2)?),
                    postures: row.get(3)?,
                    marks: row.get(4)?,
                    outages: 0,
                })
            },
        )?;
        Ok(Held { outages: self.outages(journal)?, ..held })
    }

    fn outages(&self, journal: Uuid) -> Result<i64> {
        let sql = "SELECT count(*) FROM outages o JOIN journals j ON o.journal = j.id
                   WHERE j.journal = ?1";
        Ok(self.0.query_row(sql, [journal.as_bytes()], |row| row.get(0))?)
    }

    /// Every record that an agent knows to be acknowledged is there, as it was on its disk.
    /// Answers how many.
    pub(super) fn agent(&self, ledger: &Ledger) -> Result<u64> {
        ensure!(ledger.acknowledged.len() == 1, "a journal was begun anew");
        let mut count = 0;
        for (journal, acknowledged) in &ledger.acknowledged {
            let found = self.records(*journal)?;
            for seq in 1..=*acknowledged {
                let record = found.get(&i64::try_from(seq)?);
                let record = record.with_context(|| format!("{seq} of {journal} is lost"))?;
                let written = ledger.records.get(&(*journal, seq));
                let written = written.with_context(|| format!("{seq} was never on the disk"))?;
                ensure!(record.at_ms == *written, "{seq} of {journal} is another record");
                count += 1;
            }
        }
        Ok(count)
    }

    fn records(&self, journal: Uuid) -> Result<BTreeMap<i64, Found>> {
        let mut statement = self.0.prepare(
            "SELECT r.seq, r.at_ms, json_extract(r.body, '$.event.bad_cycles')
             FROM records r JOIN journals j ON r.journal = j.id WHERE j.journal = ?1",
        )?;
        let rows = statement.query_map([journal.as_bytes()], |row| {
            Ok((row.get(0)?, Found { at_ms: row.get(1)?, mark: row.get(2)? }))
        })?;
        let rows: Vec<(i64, Found)> = rows.collect::<Result<_, _>>()?;
        let count = rows.len();
        let found: BTreeMap<_, _> = rows.into_iter().collect();
        ensure!(found.len() == count, "a record of {journal} is there twice");
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use haidang_collector::store::{JournalDelivery, Opened, Store, StoreThread};
    use haidang_proto::model::agency::AgentId;
    use haidang_proto::model::record::Delivery;

    use super::super::courier::record;
    use super::*;

    /// A store that took three records of one courier, and then suffered `damage`.
    async fn verdict(damage: &str) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("collector.db");
        let Opened { store, writer, reader } = Store::open(&path)?;
        let run = |thread: StoreThread| std::thread::spawn(move || thread.run());
        let threads = [run(writer), run(reader)];
        let (journal, written) = (Uuid::new_v4(), vec![7, 8, 9]);
        let records = (1..).zip(&written).map(|(seq, mark)| record(seq, *mark)).collect();
        let delivery = Delivery { journal_id: journal, first_seq: 1, records };
        let agent = AgentId(Uuid::new_v4());
        let prepared = JournalDelivery::prepare(agent, &delivery, SystemTime::now());
        store.deliver(prepared.context("small numbers")?).await?;
        drop(store);
        for thread in threads {
            thread.join().expect("it ends");
        }
        Connection::open(&path)?.execute_batch(damage)?;
        let delivered = Delivered { journal, written, deliveries: [0; 2], disturbed: [0; 2] };
        Audit::open(&path)?.courier(&delivered)
    }

    #[tokio::test]
    async fn what_is_lost_changed_or_applied_otherwise_is_found() {
        verdict("").await.expect("nothing is missing");
        for damage in [
            "DELETE FROM records WHERE seq = 3",
            "DELETE FROM records WHERE seq = 1",
            "UPDATE records SET body = replace(body, '8', '6') WHERE seq = 2",
            "DELETE FROM outages WHERE seq = 2",
            "INSERT INTO outages SELECT id + 10, journal, seq + 10, received_ms, began_ms,
                 began_boot, began_boottime_ms, ending, ended_ms, lasted_ms, cause, evidence,
                 short, interrupted FROM outages WHERE seq = 2",
            "INSERT INTO gaps SELECT id, 9, 9, 0 FROM journals",
        ] {
            assert!(verdict(damage).await.is_err(), "{damage}");
        }
    }
}
