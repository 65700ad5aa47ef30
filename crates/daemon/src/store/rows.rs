//! The rows of the store, and the jobs that read and write them.

use super::Tx;
use rusqlite::{OptionalExtension, Result, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vmoon_core::{
    ConnectionId, MachineId, OperationId, SessionId,
    connection::Connection,
    driver::{Channel, Exit, Handle},
    error::ErrorRecord,
    machine::Status,
    operation::{OpRecord, Undo},
    session::SessionState,
    spec::MachineSpec,
};

/// How many ended operations are kept.
const KEPT: i64 = 2_000;
/// After how many operations old ones are dropped.
const PRUNE: u64 = 128;

/// A machine as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineRow {
    /// Its identifier.
    pub id: MachineId,
    /// Its connection.
    pub connection: ConnectionId,
    /// Its name.
    pub name: String,
    /// What was asked for; `None` for machines we did not make.
    pub spec: Option<MachineSpec>,
    /// The driver's plan, which its creation is finished from after a crash.
    pub plan: Option<vmoon_core::driver::Plan>,
    /// The driver's handle, once it is known.
    #[serde(skip)]
    pub handle: Option<Handle>,
    /// What the policy knows.
    pub status: Status,
    /// The operation that holds it.
    pub operation: Option<OperationId>,
    /// When it was created.
    pub created_ms: u64,
    /// When its state last changed.
    pub since_ms: u64,
    /// How its last run ended.
    pub exit: Option<Exit>,
    /// The last failed operation's error.
    pub last_error: Option<ErrorRecord>,
    /// Rises with every change.
    pub generation: u64,
    /// Start it when its creation is done.
    #[serde(default)]
    pub start_after: bool,
}

/// An operation as it is stored.
pub(crate) type OpRow = OpRecord;

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SessionRow {
    /// Its identifier.
    pub id: SessionId,
    /// Its machine.
    pub machine: MachineId,
    /// Its name, which is its channel's.
    pub name: String,
    /// Its channel.
    pub channel: Channel,
    /// Its state.
    pub state: SessionState,
    /// When it was opened.
    pub opened_ms: u64,
}

/// The JSON of a row. Rows are plain data, which always serialises.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Reads JSON from a column.
pub(super) fn parsed<T: DeserializeOwned>(column: usize, text: String) -> Result<T> {
    serde_json::from_str(&text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}

impl Tx<'_> {
    /// Stores a connection.
    ///
    /// # Errors
    /// Those of SQLite, here and below.
    pub(crate) fn put_connection(&mut self, connection: &Connection) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT INTO connections (id, name, body) VALUES (?1, ?2, ?3) ON CONFLICT(id) DO UPDATE SET name = ?2, body = ?3",
            )?
            .execute(params![connection.id.to_string(), connection.name, json(connection)])?;
        Ok(())
    }

    /// Every connection, in the order they were added.
    pub(crate) fn connections(&self) -> Result<Vec<Connection>> {
        self.all("SELECT body FROM connections ORDER BY rowid")
    }

    /// Drops a connection and every record of its machines; their operations can still be read.
    pub(crate) fn delete_connection(&mut self, id: ConnectionId) -> Result<()> {
        let id = id.to_string();
        self.sql.execute("DELETE FROM sessions WHERE machine IN (SELECT id FROM machines WHERE connection = ?1)", [&id])?;
        self.sql.execute("DELETE FROM machines WHERE connection = ?1", [&id])?;
        self.sql.execute("DELETE FROM connections WHERE id = ?1", [&id])?;
        Ok(())
    }

    /// A setting of the daemon's own.
    pub(crate) fn setting(&self, key: &str) -> Result<Option<String>> {
        self.sql.prepare_cached("SELECT value FROM settings WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()
    }

    /// Stores a setting, or drops it.
    pub(crate) fn put_setting(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => self.sql.execute("INSERT OR REPLACE INTO settings (key, value) VALUES (?1, ?2)", [key, value])?,
            None => self.sql.execute("DELETE FROM settings WHERE key = ?1", [key])?,
        };
        Ok(())
    }

    /// Every machine.
    pub(crate) fn machines(&self) -> Result<Vec<MachineRow>> {
        let mut query = self.sql.prepare_cached("SELECT body, handle FROM machines ORDER BY id")?;
        let rows = query.query_map([], |row| {
            let mut machine: MachineRow = parsed(0, row.get(0)?)?;
            machine.handle = row.get::<_, Option<String>>(1)?.map(Handle);
            Ok(machine)
        })?;
        rows.collect()
    }

    /// Stores a machine, new or changed.
    pub(crate) fn put_machine(&mut self, machine: &MachineRow) -> Result<()> {
        let (id, status, body) = (machine.id.to_string(), json(&machine.status.state), json(machine));
        let handle = machine.handle.as_ref().map(|h| &h.0);
        // The index of names is written whenever a name is set, also to what it was: most changes are of something else.
        let changed = self
            .sql
            .prepare_cached("UPDATE machines SET status = ?3, handle = ?4, body = ?5 WHERE id = ?1 AND name = ?2")?
            .execute(params![id, machine.name, status, handle, body])?;
        if changed == 0 {
            self.sql
                .prepare_cached(
                    "INSERT INTO machines (id, connection, name, ours, status, handle, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT(id) DO UPDATE SET name = ?3, status = ?5, handle = ?6, body = ?7",
                )?
                .execute(params![id, machine.connection.to_string(), machine.name, machine.spec.is_some(), status, handle, body])?;
        }
        Ok(())
    }

    /// Whether the connection has a machine of ours by that name.
    pub(crate) fn name_taken(&self, connection: ConnectionId, name: &str) -> Result<bool> {
        self.sql
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM machines WHERE connection = ?1 AND name = ?2 AND ours)")?
            .query_row(params![connection.to_string(), name], |row| row.get(0))
    }

    /// Drops a machine and its sessions; its operations can still be read.
    pub(crate) fn delete_machine(&mut self, id: MachineId) -> Result<()> {
        let id = id.to_string();
        self.sql.execute("DELETE FROM machines WHERE id = ?1", [&id])?;
        self.sql.execute("DELETE FROM sessions WHERE machine = ?1", [&id])?;
        Ok(())
    }

    /// The operations of the last days, newest first.
    pub(crate) fn operations(&self, running: bool, limit: usize) -> Result<Vec<OpRow>> {
        let text = if running {
            "SELECT body FROM operations WHERE ended_ms IS NULL ORDER BY started_ms DESC, id DESC LIMIT ?1"
        } else {
            "SELECT body FROM operations ORDER BY started_ms DESC, id DESC LIMIT ?1"
        };
        let mut query = self.sql.prepare_cached(text)?;
        let rows = query.query_map([limit as i64], |row| parsed(0, row.get(0)?))?;
        rows.collect()
    }

    /// One operation.
    pub(crate) fn operation(&self, id: OperationId) -> Result<Option<OpRow>> {
        let text: Option<String> = self
            .sql
            .prepare_cached("SELECT body FROM operations WHERE id = ?1")?
            .query_row([id.to_string()], |row| row.get(0))
            .optional()?;
        text.map(|text| parsed(0, text)).transpose()
    }

    /// Stores an operation, new or changed. Of those that have ended, about everybody's newest 2000 are kept: old ones are dropped now and then,
    /// since looking for them costs more than the rest. The oldest are those with the smallest ids, which begin with the time.
    pub(crate) fn put_operation(&mut self, op: &OpRow) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT INTO operations (id, machine, started_ms, ended_ms, body) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT(id) DO UPDATE SET ended_ms = ?4, body = ?5",
            )?
            .execute(params![op.id.to_string(), op.machine.to_string(), op.started_ms as i64, op.ended_ms.map(|ms| ms as i64), json(op)])?;
        if op.ended_ms.is_some() {
            self.ended.set(self.ended.get() + 1);
            if self.ended.get().is_multiple_of(PRUNE) {
                self.sql
                    .prepare_cached(
                        "DELETE FROM operations WHERE ended_ms IS NOT NULL AND id <=
                         (SELECT id FROM operations ORDER BY id DESC LIMIT 1 OFFSET ?1)",
                    )?
                    .execute([KEPT])?;
            }
        }
        Ok(())
    }

    /// The undo values of an operation, oldest first.
    pub(crate) fn undos(&self, op: OperationId) -> Result<Vec<Undo>> {
        let mut query = self.sql.prepare_cached("SELECT body FROM undos WHERE operation = ?1 ORDER BY position")?;
        let rows = query.query_map([op.to_string()], |row| parsed(0, row.get(0)?))?;
        rows.collect()
    }

    /// Adds an undo value to an operation.
    pub(crate) fn put_undo(&mut self, op: OperationId, undo: &Undo) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT INTO undos (operation, position, body) VALUES (?1, (SELECT count(*) FROM undos WHERE operation = ?1), ?2)",
            )?
            .execute(params![op.to_string(), json(undo)])?;
        Ok(())
    }

    /// Every session, oldest first.
    pub(crate) fn sessions(&self) -> Result<Vec<SessionRow>> {
        self.all("SELECT body FROM sessions ORDER BY opened_ms, id")
    }

    /// Stores a session, new or changed.
    pub(crate) fn put_session(&mut self, session: &SessionRow) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT INTO sessions (id, machine, opened_ms, body) VALUES (?1, ?2, ?3, ?4) ON CONFLICT(machine, id) DO UPDATE SET body = ?4",
            )?
            .execute(params![session.id.to_string(), session.machine.to_string(), session.opened_ms as i64, json(session)])?;
        Ok(())
    }

    /// Stores what changed of a session; one that was dropped meanwhile stays dropped.
    pub(crate) fn update_session(&mut self, session: &SessionRow) -> Result<()> {
        self.sql.prepare_cached("UPDATE sessions SET body = ?3 WHERE machine = ?1 AND id = ?2")?.execute(params![
            session.machine.to_string(),
            session.id.to_string(),
            json(session)
        ])?;
        Ok(())
    }

    /// Drops the sessions of machines that are gone.
    pub(crate) fn drop_orphaned_sessions(&mut self) -> Result<()> {
        self.sql.execute("DELETE FROM sessions WHERE machine NOT IN (SELECT id FROM machines)", [])?;
        Ok(())
    }

    /// Drops the undo values of an operation whose every trace is settled.
    pub(crate) fn drop_undos(&mut self, op: OperationId) -> Result<()> {
        self.sql.prepare_cached("DELETE FROM undos WHERE operation = ?1")?.execute([op.to_string()])?;
        Ok(())
    }

    /// Drops a session.
    pub(crate) fn delete_session(&mut self, machine: MachineId, id: SessionId) -> Result<()> {
        self.sql.prepare_cached("DELETE FROM sessions WHERE machine = ?1 AND id = ?2")?.execute([machine.to_string(), id.to_string()])?;
        Ok(())
    }

    fn all<T: DeserializeOwned>(&self, text: &str) -> Result<Vec<T>> {
        let mut query = self.sql.prepare_cached(text)?;
        let rows = query.query_map([], |row| parsed(0, row.get(0)?))?;
        rows.collect()
    }
}
