//! The schema of the store and its migrations. A migration, once released, is never edited; a new one is appended.

use super::failed;
use rusqlite::Connection;
use vmoon_core::{Code, Error, Result};

/// Step N brings version N to N+1.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE connections (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
CREATE TABLE machines (
    id TEXT PRIMARY KEY, connection TEXT NOT NULL REFERENCES connections(id), name TEXT NOT NULL, ours INTEGER NOT NULL,
    status TEXT NOT NULL, handle TEXT, body TEXT NOT NULL
) STRICT;
-- Names of machines we make are unique per connection; foreign names may repeat.
CREATE UNIQUE INDEX machine_names ON machines(connection, name) WHERE ours;
CREATE TABLE operations (
    id TEXT PRIMARY KEY, machine TEXT NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER, body TEXT NOT NULL
) STRICT;
CREATE INDEX operations_by_machine ON operations(machine, ended_ms);
CREATE TABLE undos (operation TEXT NOT NULL REFERENCES operations(id) ON DELETE CASCADE, position INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (operation, position)) STRICT;
CREATE TABLE sessions (id TEXT PRIMARY KEY, machine TEXT NOT NULL, opened_ms INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX sessions_by_machine ON sessions(machine);
-- AUTOINCREMENT: a number is never used twice, not even after the newest events were deleted.
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, machine TEXT, body TEXT NOT NULL) STRICT;
CREATE INDEX events_by_machine ON events(machine, seq);
",
    "
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
",
    // Each commit writes every page it has touched, so a row lies in one tree: the key's own, and an index only where something is looked for
    // by it. A row's number is the greatest and one more: the newest event is never deleted, so none is used twice.
    "
CREATE TABLE new_machines (
    id TEXT PRIMARY KEY, connection TEXT NOT NULL REFERENCES connections(id), name TEXT NOT NULL, ours INTEGER NOT NULL,
    status TEXT NOT NULL, handle TEXT, body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO new_machines SELECT id, connection, name, ours, status, handle, body FROM machines;
DROP TABLE machines;
ALTER TABLE new_machines RENAME TO machines;
CREATE UNIQUE INDEX machine_names ON machines(connection, name) WHERE ours;

CREATE TABLE old_undos (operation TEXT NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
INSERT INTO old_undos SELECT operation, position, body FROM undos;
DROP TABLE undos;
CREATE TABLE new_operations (
    id TEXT PRIMARY KEY, machine TEXT NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER, body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO new_operations SELECT id, machine, started_ms, ended_ms, body FROM operations;
DROP TABLE operations;
ALTER TABLE new_operations RENAME TO operations;
CREATE TABLE undos (operation TEXT NOT NULL REFERENCES operations(id) ON DELETE CASCADE, position INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (operation, position)) STRICT, WITHOUT ROWID;
INSERT INTO undos SELECT operation, position, body FROM old_undos;
DROP TABLE old_undos;

CREATE TABLE new_sessions (id TEXT NOT NULL, machine TEXT NOT NULL, opened_ms INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (machine, id)) STRICT, WITHOUT ROWID;
INSERT INTO new_sessions SELECT id, machine, opened_ms, body FROM sessions;
DROP TABLE sessions;
ALTER TABLE new_sessions RENAME TO sessions;

CREATE TABLE new_events (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, machine TEXT, body TEXT NOT NULL) STRICT;
INSERT INTO new_events SELECT seq, at_ms, machine, body FROM events ORDER BY seq;
DROP TABLE events;
ALTER TABLE new_events RENAME TO events;
",
];

/// Brings the database to the newest version, each step in a transaction.
pub(super) fn migrate(sql: &mut Connection) -> Result<()> {
    migrate_to(sql, MIGRATIONS.len())
}

/// Brings the database to that version, if it is older.
pub(super) fn migrate_to(sql: &mut Connection, wanted: usize) -> Result<()> {
    let version: usize = sql.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).map_err(|e| failed(&e))? as usize;
    if version > MIGRATIONS.len() {
        return Err(Error::new(
            Code::StoreNewer,
            format!("the store is of version {version}; this vmoon knows versions up to {}", MIGRATIONS.len()),
        )
        .hint("use the newer vmoon that wrote it"));
    }
    for (index, step) in MIGRATIONS.iter().enumerate().take(wanted).skip(version) {
        let transaction = sql.transaction().map_err(|e| failed(&e))?;
        transaction.execute_batch(step).map_err(|e| failed(&e))?;
        transaction.pragma_update(None, "user_version", (index + 1) as i64).map_err(|e| failed(&e))?;
        transaction.commit().map_err(|e| failed(&e))?;
    }
    Ok(())
}
