//! What was done to an environment, one entry for each switch.

use super::{Environment, Guard, failed};
use crate::lock::Lock;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
};
use vmoon_core::{Error, Result};
use vmoon_sys::atomic;

/// One switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// To which generation.
    pub generation: u64,
    /// From which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was done: `create`, `install`, `update`, `remove`, `sync`, `bootstrap`, `import`, `rollback`.
    pub what: String,
    /// What was asked for, in the words it was asked in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
    /// What changed: `+ name version`, `- name version`, `~ name from -> to`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

/// A generation that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationInfo {
    /// How it came to be.
    #[serde(flatten)]
    pub entry: Entry,
    /// Whether it is current.
    pub current: bool,
}

/// The most of a history that is read, bytes; the newest part.
const LONGEST: u64 = 4 << 20;

/// What differs between two locks, sorted by name.
pub(crate) fn changes(old: &Lock, new: &Lock) -> Vec<String> {
    let mut names: Vec<_> = old.rocks.keys().chain(new.rocks.keys()).collect();
    names.sort();
    names.dedup();
    let line = |name| match (old.rocks.get(name), new.rocks.get(name)) {
        (None, Some(rock)) => Some(format!("+ {name} {}", rock.version)),
        (Some(rock), None) => Some(format!("- {name} {}", rock.version)),
        (Some(from), Some(to)) if from.version != to.version => Some(format!("~ {name} {} -> {}", from.version, to.version)),
        (Some(from), Some(to)) if from.sha256 != to.sha256 => Some(format!("~ {name} {} (another file)", to.version)),
        _ => None,
    };
    names.into_iter().filter_map(line).collect()
}

impl Environment {
    /// How a generation came to be.
    ///
    /// # Errors
    /// [`vmoon_core::Code::NotFound`], [`vmoon_core::Code::EnvironmentDamaged`].
    pub fn entry(&self, generation: u64) -> Result<Entry> {
        match atomic::read_json(&self.tree(generation).join("entry.json")) {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => Err(self.no_generation(generation)),
            Err(error) => Err(self.damaged(error.chain())),
        }
    }

    /// The generations that are there, ascending. One whose entry cannot be read is left out.
    ///
    /// # Errors
    /// [`vmoon_core::Code::EnvironmentDamaged`], [`vmoon_core::Code::FileFailed`].
    pub fn infos(&self) -> Result<Vec<GenerationInfo>> {
        let current = self.current()?;
        let entries = self.generations()?.into_iter().filter_map(|number| self.entry(number).ok());
        Ok(entries.map(|entry| GenerationInfo { current: entry.generation == current, entry }).collect())
    }

    /// All switches, oldest first. A line that was not written to its end is left out.
    ///
    /// # Errors
    /// [`vmoon_core::Code::FileFailed`].
    pub fn history(&self) -> Result<Vec<Entry>> {
        let path = self.dir.join("history.jsonl");
        let text = match fs::File::open(&path) {
            Ok(mut file) => {
                use std::io::{Read as _, Seek as _, SeekFrom};
                let mut bytes = Vec::new();
                let length = file.metadata().map_err(|error| failed("read", &path, error))?.len();
                let read =
                    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST))).and_then(|_| file.take(LONGEST).read_to_end(&mut bytes));
                read.map_err(|error| failed("read", &path, error))?;
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", &path, error)),
        };
        Ok(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Adds a line to the history.
    pub(super) fn note(&self, entry: &Entry) -> Result<()> {
        let path = self.dir.join("history.jsonl");
        let mut line = serde_json::to_vec(entry).map_err(|error| Error::internal("an entry has no JSON form").source(error))?;
        line.push(b'\n');
        // A line that was cut must not spoil this one.
        line.insert(0, b'\n');
        let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(|error| failed("open", &path, error))?;
        file.write_all(&line).map_err(|error| failed("write", &path, error))
    }

    /// Writes the line that somebody who was killed could not write any more.
    pub(super) fn catch_up(&self, guard: &Guard) -> Result<()> {
        self.held(guard)?;
        let Ok(current) = self.current() else { return Ok(()) };
        if self.history()?.last().is_none_or(|last| last.generation != current)
            && let Ok(entry) = self.entry(current)
        {
            return self.note(&entry);
        }
        Ok(())
    }

    /// The highest number that a generation has or had.
    pub(super) fn highest(&self) -> Result<u64> {
        let there = self.generations()?.last().copied().unwrap_or(0);
        Ok(self.history()?.iter().map(|entry| entry.generation).fold(there, u64::max))
    }
}
