//! The program that is recorded: the product's own store takes records of several journals at
//! once, and each acknowledgement is said on the standard output, one write each, so that it stands
//! among the operations on files in the order in which they happened.

use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use haidang_collector::store::{JournalDelivery, Opened, Store};
use haidang_proto::model::agency::AgentId;
use haidang_proto::model::record::Delivery;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::dice::Dice;
use crate::kills::courier::record;

/// Begins an acknowledgement on the standard output; journal and number follow.
pub(super) const ACKNOWLEDGED: &str = "ack ";
/// Journals that are delivered at the same time, and share commits.
pub(super) const JOURNALS: usize = 3;
/// The store is opened, filled and closed so many times: each beginning and each end is recorded.
pub(super) const SESSIONS: u32 = 2;
/// Records of one delivery at most.
const BATCH_MAX: u64 = 24;

/// The store's file in its directory.
pub(super) const STORE: &str = "collector.db";

/// Fills the store of a directory, with so many deliveries of each journal in each session.
///
/// # Errors
/// When the store refuses.
pub async fn write(directory: &Path, deliveries: u32, seed: u64) -> Result<()> {
    let mut dice: Vec<_> = (0..JOURNALS).map(|journal| Dice(seed ^ journal as u64)).collect();
    let mut written = [0; JOURNALS];
    for _ in 0..SESSIONS {
        let Opened { store, writer, reader } = Store::open(&directory.join(STORE))?;
        let threads = [std::thread::spawn(|| writer.run()), std::thread::spawn(|| reader.run())];
        let mut tasks = JoinSet::new();
        for (journal, dice) in dice.iter().enumerate() {
            let (store, dice, from) = (store.clone(), dice.clone(), written[journal]);
            tasks.spawn(deliver(store, journal, from, deliveries, dice));
        }
        while let Some(done) = tasks.join_next().await {
            let (journal, last, used) = done.context("a task panicked")??;
            (written[journal], dice[journal]) = (last, used);
        }
        drop(store);
        for thread in threads {
            ensure!(thread.join().is_ok(), "a thread of the store panicked");
        }
    }
    Ok(())
}

async fn deliver(
    store: Store,
    journal: usize,
    mut last: u64,
    deliveries: u32,
    mut dice: Dice,
) -> Result<(usize, u64, Dice)> {
    for _ in 0..deliveries {
        let until = last + dice.within(1..BATCH_MAX + 1);
        let records = (last + 1..=until).map(|seq| record(seq, mark(journal, seq))).collect();
        let delivery = Delivery { journal_id: journal_id(journal), first_seq: 1, records };
        let agent = AgentId(journal_id(journal));
        let prepared = JournalDelivery::prepare(agent, &delivery, SystemTime::now());
        let done = store.deliver(prepared.context("the numbers are small")?).await?;
        last = done.receipt.acknowledged_seq;
        ensure!(last == until, "{until} was to be acknowledged, and {last} was");
        let line = format!("{ACKNOWLEDGED}{journal} {last}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).context("say it")?;
    }
    Ok((journal, last, dice))
}

/// The journal with this number.
pub(super) fn journal_id(journal: usize) -> Uuid {
    Uuid::from_u128(1 + journal as u128)
}

/// What the record with this number carries.
pub(super) fn mark(journal: usize, seq: u64) -> u32 {
    let drawn = Dice((journal as u64) << 48 | seq).within(1..1 << 31);
    u32::try_from(drawn).expect("below 2^31")
}
