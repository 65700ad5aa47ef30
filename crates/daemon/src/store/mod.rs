//! The store: one SQLite database, owned by one thread; everyone else sends it a job and awaits the answer.
//!
//! Jobs that wait together share one transaction, each but the first behind a savepoint of its own, so that a batch of creates costs one
//! commit. A job's events get their numbers inside its transaction and are published after the commit: an event that
//! somebody has seen is never forgotten, and no number is used twice, whatever kills the daemon.

mod reserve;
mod rows;
mod schema;

pub(crate) use reserve::free_in;
pub(crate) use rows::{MachineRow, SessionRow};

use crate::hooks::Hooks;
use reserve::Reserve;
use rusqlite::{Connection as Sql, params};
use std::{
    cell::Cell,
    path::Path,
    sync::mpsc::{self, Receiver, Sender},
};
use tokio::sync::{broadcast, oneshot};
use vmoon_core::{
    Code, Error, Result,
    event::{Event, EventKind},
};

/// How many events are kept.
const EVENTS_KEPT: u64 = 20_000;
/// How many events a slow follower may lag behind before it has missed some.
const EVENTS_AHEAD: usize = 4_096;
/// How many statements stay compiled: more than there are.
const STATEMENTS: usize = 64;
/// How many jobs share a transaction at most.
const BATCH: usize = 256;

type Work = Box<dyn FnOnce(&mut Tx<'_>) -> Done + Send>;
type Done = Box<dyn FnOnce(std::result::Result<(), &rusqlite::Error>) + Send>;

/// What is to be done in a transaction.
struct Job {
    work: Work,
    /// It makes room on the disk, so it may use what is kept for that.
    frees: bool,
}

/// A handle to the store's thread.
#[derive(Clone)]
pub(crate) struct Store {
    jobs: Sender<Job>,
    events: broadcast::Sender<Event>,
    hooks: Hooks,
}

/// What a job works on.
pub(crate) struct Tx<'a> {
    sql: &'a Sql,
    /// How many ends of operations were stored since the start.
    ended: &'a Cell<u64>,
    events: Vec<Event>,
    failed: bool,
}

/// What an event speaks of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct About {
    /// The machine.
    pub machine: Option<vmoon_core::MachineId>,
    /// The session.
    pub session: Option<vmoon_core::SessionId>,
    /// The operation.
    pub operation: Option<vmoon_core::OperationId>,
    /// The connection, if it is about one.
    pub connection: Option<vmoon_core::ConnectionId>,
}

impl Store {
    /// Opens or makes the database and brings its schema up to date.
    ///
    /// # Errors
    /// [`Code::StoreNewer`] if a newer vmoon wrote it, [`Code::StoreFailed`] if it cannot be used.
    pub(crate) fn open(path: &Path, hooks: Hooks) -> Result<Self> {
        let mut sql = Sql::open(path).map_err(|e| failed(&e))?;
        // WAL with synchronous=NORMAL: a kill of the process loses nothing; a power cut may lose the newest commits, which
        // the observation of the real machines then corrects. The log is moved into the database, which waits for the disk twice,
        // every 32 MiB: a machine's creation writes about 60 KiB of it. Nobody else opens it while a daemon lives, so it is locked once and not for each
        // transaction, and the index of the log needs no shared memory. What a savepoint may have to take back is kept in memory.
        sql.execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=5000; PRAGMA wal_autocheckpoint=8000; PRAGMA temp_store=MEMORY;")
            .map_err(|e| failed(&e))?;
        sql.set_prepared_statement_cache_capacity(STATEMENTS);
        schema::migrate(&mut sql)?;
        let (jobs, queue) = mpsc::channel();
        let (events, _) = broadcast::channel(EVENTS_AHEAD);
        let publish = events.clone();
        let reserve = Reserve::beside(path);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || serve(&sql, &queue, &publish, reserve))
            .map_err(|e| Error::io("start the store's thread", e))?;
        Ok(Self { jobs, events, hooks })
    }

    /// Runs a job in a transaction. When it returns `Ok`, its effects survive a kill and its events are published.
    ///
    /// # Errors
    /// [`Code::StoreFailed`] or [`Code::DiskFull`]: nothing was changed.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static) -> Result<T> {
        self.run_one(job, false).await
    }

    /// As [`Self::run`]; if `frees`, it makes room on the disk, and is stored also on one that is full.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn run_one<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
        frees: bool,
    ) -> Result<T> {
        self.hooks.at("store.before").await;
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |tx| {
            let outcome = job(tx);
            tx.failed = outcome.is_err();
            Box::new(move |commit| {
                let result = match (outcome, commit) {
                    (Ok(value), Ok(())) => Ok(value),
                    (Err(error), _) => Err(failed(&error)),
                    (Ok(_), Err(error)) => Err(failed(error)),
                };
                // Whoever asked may be gone; the work is done all the same.
                let _ = answer.send(result);
            })
        });
        let gone = || Error::new(Code::StoreFailed, "the store's thread has ended");
        self.jobs.send(Job { work, frees }).map_err(|_| gone())?;
        // A commit takes less time than falling asleep and being woken.
        crate::awake::stay_for_commit();
        let result = answered.await.map_err(|_| gone())?;
        self.hooks.at("store.after").await;
        result
    }

    /// Publishes an event that goes with no other change.
    pub(crate) fn announce(&self, kind: EventKind, about: About, text: impl Into<String>) {
        let text = text.into();
        let work: Work = Box::new(move |tx| {
            tx.failed = tx.event(kind, about, text).is_err();
            Box::new(|_| {})
        });
        let _ = self.jobs.send(Job { work, frees: false });
    }

    /// Follows events from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

fn serve(sql: &Sql, queue: &Receiver<Job>, publish: &broadcast::Sender<Event>, mut reserve: Reserve) {
    let ended = Cell::new(0);
    let mut refused = false;
    while let Ok(first) = queue.recv() {
        let mut answers: Vec<Done> = Vec::new();
        let mut events = Vec::new();
        let outcome = (|| {
            // At once for writing: a transaction that begins with a read and writes later can be refused without waiting.
            let transaction = Transaction::begin(sql)?;
            let mut next = Some(first);
            while let Some(Job { work, frees }) = next.take() {
                if frees {
                    reserve.give(refused);
                }
                // The first one can be taken back with the whole transaction.
                let first = answers.is_empty();
                if !first {
                    say(sql, "SAVEPOINT job")?;
                }
                let mut tx = Tx { sql, ended: &ended, events: Vec::new(), failed: false };
                answers.push(work(&mut tx));
                let (failed, new) = (tx.failed, std::mem::take(&mut tx.events));
                match (failed, first) {
                    (false, _) => events.extend(new),
                    (true, false) => say(sql, "ROLLBACK TO job")?,
                    (true, true) => transaction.again()?,
                }
                if !first {
                    say(sql, "RELEASE job")?;
                }
                if answers.len() < BATCH {
                    next = queue.try_recv().ok();
                }
            }
            transaction.commit()
        })();
        refused = outcome.is_err();
        if outcome.is_ok() {
            reserve.restore();
            for event in events {
                // No follower is no error.
                let _ = publish.send(event);
            }
        }
        for answer in answers {
            answer(outcome.as_ref().copied());
        }
    }
}

/// A transaction for writing; dropping it takes back what was not committed. Unlike rusqlite's its words are compiled once, which is a tenth of a commit.
struct Transaction<'a>(&'a Sql);

impl<'a> Transaction<'a> {
    fn begin(sql: &'a Sql) -> rusqlite::Result<Self> {
        say(sql, "BEGIN IMMEDIATE")?;
        Ok(Self(sql))
    }

    fn commit(self) -> rusqlite::Result<()> {
        say(self.0, "COMMIT")
    }

    /// Takes everything back and begins anew.
    fn again(&self) -> rusqlite::Result<()> {
        // Taken back by SQLite itself, as it does when the disk is full?
        if !self.0.is_autocommit() {
            say(self.0, "ROLLBACK")?;
        }
        say(self.0, "BEGIN IMMEDIATE")
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Committed, or taken back by SQLite itself as it does when the disk is full.
        if !self.0.is_autocommit() {
            let _ = say(self.0, "ROLLBACK");
        }
    }
}

/// Executes a statement that has no values and brings none.
fn say(sql: &Sql, words: &str) -> rusqlite::Result<()> {
    sql.prepare_cached(words)?.execute([]).map(drop)
}

/// Says what a failure of SQLite means.
fn failed(error: &rusqlite::Error) -> Error {
    let code = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Code::DiskFull,
        _ => Code::StoreFailed,
    };
    Error::new(code, format!("the store could not be written: {error}")).hint("free some space; nothing was changed")
}

impl Tx<'_> {
    /// Adds an event; it is published after the commit.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(crate) fn event(&mut self, kind: EventKind, about: About, text: impl Into<String>) -> rusqlite::Result<()> {
        let mut event = Event {
            seq: 0,
            at_ms: vmoon_sys::clock::now_ms(),
            kind,
            machine: about.machine,
            session: about.session,
            operation: about.operation,
            connection: about.connection,
            text: text.into(),
        };
        self.sql.prepare_cached("INSERT INTO events (at_ms, machine, body) VALUES (?1, ?2, ?3)")?.execute(params![
            event.at_ms as i64,
            event.machine.map(|id| id.to_string()),
            rows::json(&event)
        ])?;
        event.seq = self.sql.last_insert_rowid() as u64;
        if event.seq.is_multiple_of(1_000) {
            self.sql.execute("DELETE FROM events WHERE seq <= ?1", [event.seq.saturating_sub(EVENTS_KEPT) as i64])?;
        }
        self.events.push(event);
        Ok(())
    }

    /// The events after `since` that are kept, and the newest number that is not kept any more.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(crate) fn events(&self, since: u64, machine: Option<vmoon_core::MachineId>, limit: usize) -> rusqlite::Result<(Vec<Event>, u64)> {
        let oldest: Option<i64> = self.sql.query_row("SELECT min(seq) FROM events", [], |row| row.get(0))?;
        let mut query = self
            .sql
            .prepare_cached("SELECT seq, body FROM events WHERE seq > ?1 AND (?2 IS NULL OR machine = ?2) ORDER BY seq LIMIT ?3")?;
        let found = query.query_map(params![since as i64, machine.map(|id| id.to_string()), limit as i64], |row| {
            let mut event: Event = rows::parsed(1, row.get(1)?)?;
            event.seq = row.get::<_, i64>(0)? as u64;
            Ok(event)
        })?;
        Ok((found.collect::<rusqlite::Result<_>>()?, oldest.map_or(0, |seq| seq as u64 - 1)))
    }
}

#[cfg(test)]
mod tests;
