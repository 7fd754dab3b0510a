use std::time::{Duration, SystemTime};

use super::super::receipts;
use super::*;

/// A store as a program left it that knew so many migrations.
fn with_migrations(count: usize) -> Connection {
    let connection = Connection::open_in_memory().expect("memory");
    for migration in &MIGRATIONS[..count] {
        connection.execute_batch(migration).expect("sound");
    }
    connection.pragma_update(None, "user_version", count as u32).expect("it is set");
    connection
}

#[test]
fn records_and_outages_from_before_receipts_are_dropped_in_their_time() {
    let mut connection = with_migrations(4);
    connection
        .execute_batch(
            "INSERT INTO journals VALUES (1, 'agent', x'01', 5);
             WITH RECURSIVE numbers (seq) AS (VALUES (1) UNION ALL SELECT seq + 1 FROM numbers)
                 INSERT INTO records
                     SELECT 1, seq, 1000 * (seq / 3), 0, 'started', '{}' FROM numbers LIMIT 5;
             INSERT INTO outages VALUES
                 (1, 1, 2, 0, 0, x'00', 0, 'healed', 0, 0, 'link_down', '[]', 1, 0),
                 (2, 1, 4, 1000, 0, x'00', 0, 'open', NULL, NULL, 'link_down', '[]', 0, 0);",
        )
        .expect("what an older program wrote");
    migrate(&mut connection).expect("the schema of today");
    let left = |table| {
        let sql = format!("SELECT count(*) FROM {table}");
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("readable")
    };
    let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    assert!(!receipts::prune(&connection, before, 100).expect("pruned"));
    assert_eq!((left("records"), left("outages")), (3, 1), "of second 0 there were two and one");
    let after = before + Duration::from_secs(1);
    assert!(!receipts::prune(&connection, after, 100).expect("pruned"));
    assert_eq!((left("records"), left("outages"), left("receipts")), (0, 1, 0), "one is open");
}
