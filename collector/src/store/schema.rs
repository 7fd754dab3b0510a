//! The shape on disk. Times are milliseconds since 1970 UTC; UUIDs and serials are blobs where
//! they are keys of many rows and text where an operator reads them. `PRAGMA user_version` is
//! the number of migrations that were applied.

use rusqlite::Connection;

use super::StoreError;

/// Applied in order, each in one transaction with the new version number. Never edited once
/// released; a change of the shape is another entry.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (
        key     TEXT PRIMARY KEY,
        content TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE identities (
        agent            TEXT PRIMARY KEY,
        agency           TEXT NOT NULL,
        state            TEXT NOT NULL,
        serial           BLOB NOT NULL,
        not_after_ms     INTEGER NOT NULL,
        next_serial      BLOB,
        next_not_after_ms INTEGER,
        fingerprint      BLOB NOT NULL,
        hostname         TEXT NOT NULL,
        token            TEXT NOT NULL,
        enrolled_ms      INTEGER NOT NULL,
        enrolled_from    TEXT NOT NULL,
        last_heard_ms    INTEGER,
        last_verified_ms INTEGER,
        pinned           INTEGER NOT NULL DEFAULT 0,
        conflict         TEXT
    ) STRICT;
    CREATE INDEX identities_by_agency ON identities (agency);
    CREATE TABLE tokens (
        id            TEXT PRIMARY KEY,
        agency        TEXT NOT NULL,
        secret_sha256 BLOB NOT NULL,
        uses_total    INTEGER NOT NULL,
        uses_left     INTEGER NOT NULL CHECK (uses_left >= 0),
        expires_ms    INTEGER NOT NULL,
        note          TEXT NOT NULL,
        created_ms    INTEGER NOT NULL,
        revoked_ms    INTEGER
    ) STRICT;
    CREATE TABLE audit (
        id      INTEGER PRIMARY KEY,
        at_ms   INTEGER NOT NULL,
        action  TEXT NOT NULL,
        subject TEXT NOT NULL,
        source  TEXT NOT NULL,
        detail  TEXT NOT NULL
    ) STRICT;
    CREATE TABLE journals (
        id               INTEGER PRIMARY KEY,
        agent            TEXT NOT NULL,
        journal          BLOB NOT NULL,
        acknowledged_seq INTEGER NOT NULL,
        UNIQUE (agent, journal)
    ) STRICT;
    CREATE TABLE gaps (
        journal    INTEGER NOT NULL REFERENCES journals (id),
        first_seq  INTEGER NOT NULL,
        last_seq   INTEGER NOT NULL,
        noticed_ms INTEGER NOT NULL,
        PRIMARY KEY (journal, first_seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE records (
        journal     INTEGER NOT NULL REFERENCES journals (id),
        seq         INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        at_ms       INTEGER NOT NULL,
        kind        TEXT NOT NULL,
        body        TEXT NOT NULL,
        PRIMARY KEY (journal, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX records_by_receipt ON records (received_ms);
    CREATE TABLE agency_transitions (
        id         INTEGER PRIMARY KEY,
        agency     TEXT NOT NULL,
        at_ms      INTEGER NOT NULL,
        from_state TEXT NOT NULL,
        to_state   TEXT NOT NULL,
        detail     TEXT NOT NULL,
        suppressed TEXT
    ) STRICT;
    CREATE INDEX agency_transitions_by_agency ON agency_transitions (agency, id);
    CREATE TABLE rosters (
        id          INTEGER PRIMARY KEY,
        version     TEXT NOT NULL,
        imported_ms INTEGER NOT NULL,
        roster      BLOB NOT NULL,
        prefixes    BLOB
    ) STRICT;
",
    "
    CREATE TABLE outages (
        id                INTEGER PRIMARY KEY,
        journal           INTEGER NOT NULL REFERENCES journals (id),
        seq               INTEGER NOT NULL,
        received_ms       INTEGER NOT NULL,
        began_ms          INTEGER NOT NULL,
        began_boot        BLOB NOT NULL,
        began_boottime_ms INTEGER NOT NULL,
        ending            TEXT NOT NULL,
        ended_ms          INTEGER,
        lasted_ms         INTEGER,
        cause             TEXT NOT NULL,
        evidence          TEXT NOT NULL,
        short             INTEGER NOT NULL,
        interrupted       INTEGER NOT NULL,
        UNIQUE (journal, seq)
    ) STRICT;
    CREATE UNIQUE INDEX open_outage_of_journal ON outages (journal) WHERE ending = 'open';
    CREATE INDEX outages_by_beginning ON outages (journal, began_ms);
    CREATE INDEX outages_by_receipt ON outages (received_ms);
 ",
    "
    CREATE TABLE postures (
        agent TEXT PRIMARY KEY,
        body  TEXT NOT NULL
    ) STRICT;
    CREATE TABLE posture_exceptions (
        agency     TEXT NOT NULL,
        check_id   TEXT NOT NULL,
        owner      TEXT NOT NULL,
        reason     TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        PRIMARY KEY (agency, check_id)
    ) STRICT;
    CREATE TABLE posture_policies (
        agency    TEXT PRIMARY KEY,
        score_min INTEGER NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE policies (
        scope      TEXT PRIMARY KEY,
        terms      TEXT NOT NULL,
        owner      TEXT NOT NULL,
        reason     TEXT NOT NULL,
        decided_ms INTEGER NOT NULL,
        revision   INTEGER NOT NULL
    ) STRICT;
    INSERT INTO policies
        SELECT agency, json_object('score_min', score_min), '', '', 0, 1 FROM posture_policies;
    DROP TABLE posture_policies;
",
    "
    CREATE TABLE receipts (
        received_ms INTEGER NOT NULL,
        journal     INTEGER NOT NULL REFERENCES journals (id),
        first_seq   INTEGER NOT NULL,
        last_seq    INTEGER NOT NULL,
        PRIMARY KEY (received_ms, journal, first_seq)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO receipts
        SELECT received_ms, journal, min(seq), max(seq) FROM
            (SELECT received_ms, journal, seq FROM records
             UNION ALL SELECT received_ms, journal, seq FROM outages)
        GROUP BY received_ms, journal;
    DROP INDEX records_by_receipt;
    DROP INDEX outages_by_receipt;
",
];

/// Brings a store to this program's schema.
///
/// # Errors
/// When it is newer than this program, or cannot be written.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS) {
        if version <= found {
            continue;
        }
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

/// The version of a piece of content that changes now and then: the one it had before if it is
/// the same, otherwise one more.
pub(super) fn version_of(
    connection: &Connection,
    key: &str,
    content: &str,
) -> Result<u64, StoreError> {
    connection.execute(
        "INSERT INTO meta (key, content, version) VALUES (?1, ?2, 1)
         ON CONFLICT (key) DO UPDATE SET content = ?2, version = version + (content <> ?2)",
        [key, content],
    )?;
    let version: i64 =
        connection.query_row("SELECT version FROM meta WHERE key = ?1", [key], |row| row.get(0))?;
    Ok(u64::try_from(version).unwrap_or(1))
}

/// The content under a key.
pub(super) fn content_of(connection: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    use rusqlite::OptionalExtension as _;
    let sql = "SELECT content FROM meta WHERE key = ?1";
    Ok(connection.query_row(sql, [key], |row| row.get(0)).optional()?)
}

#[cfg(test)]
mod tests;
