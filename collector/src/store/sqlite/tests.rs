use std::thread::JoinHandle;

use super::*;

/// A store that runs, after `prepare` had its writer.
fn running(path: &Path, prepare: impl FnOnce(&Connection)) -> (Store, [JoinHandle<()>; 2]) {
    let Opened { store, writer, reader } = Store::open(path).expect("it opens");
    prepare(&writer.connection);
    let run = |thread: StoreThread| std::thread::spawn(move || thread.run());
    (store, [run(writer), run(reader)])
}

async fn write(store: &Store) -> Result<u64, StoreError> {
    store.version_of("key", "content".into()).await
}

#[tokio::test]
async fn a_store_that_another_program_holds_is_down_until_it_is_let_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    let (store, _threads) = running(&path, |_| ());
    assert_eq!(write(&store).await.expect("written"), 1);
    let holder = Connection::open(&path).expect("it opens");
    holder.execute_batch("BEGIN IMMEDIATE").expect("held for writing");
    assert!(matches!(write(&store).await, Err(StoreError::Unavailable(_))));
    let health = store.health();
    assert!(!health.up && health.lag >= BUSY_WAIT, "{health:?}");
    holder.execute_batch("ROLLBACK").expect("let go");
    assert_eq!(write(&store).await.expect("written"), 1, "what failed left nothing behind");
    assert_eq!(store.health(), StoreHealth { up: true, lag: Duration::ZERO });
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_down() {
    let directory = tempfile::tempdir().expect("a directory");
    let read_only = |writer: &Connection| {
        writer.pragma_update(None, "query_only", true).expect("it is set");
    };
    let (store, _threads) = running(&directory.path().join("store.db"), read_only);
    assert!(matches!(write(&store).await, Err(StoreError::Unavailable(_))));
    assert!(!store.health().up);
}

#[tokio::test]
async fn what_was_down_is_up_once_something_is_written_and_not_by_an_empty_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _threads) = running(&directory.path().join("store.db"), |_| ());
    let spoils_the_commit = |connection: &Connection| -> Result<(), StoreError> {
        Ok(connection.execute_batch(
            "PRAGMA defer_foreign_keys = ON; INSERT INTO gaps VALUES (77, 1, 1, 0)",
        )?)
    };
    store.write(1, spoils_the_commit).await.expect_err("there is no journal 77");
    assert!(!store.health().up);
    store.write(1, |_| Ok(())).await.expect("nothing is asked for");
    assert!(store.health().up);
    let proofs = "SELECT version FROM meta WHERE key = 'proof'";
    let written =
        store.read(|connection| Ok(connection.query_row(proofs, [], |row| row.get::<_, i64>(0))?));
    assert_eq!(written.await.expect("the row is there"), 1);
}

#[test]
fn a_write_that_waits_for_ten_seconds_shows_a_store_that_hangs() {
    let base = Instant::now();
    let health = Health { base, up: AtomicBool::new(true), waiting_since: AtomicU64::new(0) };
    let after = |seconds| health.at(base + Duration::from_secs(seconds));
    assert!(after(3_600).up, "nothing waits");
    health.waits_since(base + Duration::from_secs(5));
    let slow = StoreHealth { up: true, lag: Duration::from_secs(9) };
    assert_eq!((after(14), after(15).up), (slow, false));
    health.written();
    assert!(after(15).up);
}
