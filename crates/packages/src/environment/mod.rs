//! Environments: trees of installed rocks in generations. A change builds a new generation beside the old ones; one rename makes it current. Whoever is
//! killed at any moment has changed everything or nothing.
//!
//! ```text
//! <state>/environments/NAME/
//!   environment.toml     Lua version, servers, profile
//!   lock                 locked (flock(2)) by whoever changes something
//!   current              a link to generations/N, replaced by rename
//!   history.jsonl        one line for each switch
//!   generations/N/       share/lua/V, lib/lua/V, lib/luarocks/rocks-V, bin, libexec: as LuaRocks lays out a tree
//!     rocks.lock         what is in it
//!     files.json         each file with its SHA-256, by rock
//!     entry.json         how it came to be
//!     transcripts/       what compilers and build tools said
//! <state>/environments/.new-…/       one that is being made: it gets its name when its first packages are in
//! ```
//!
//! What is made current is on the disk before: see [`vmoon_sys::durable`].
//!
//! Files of generations are hard links where they are the same. Nobody writes to them: they are read-only, and whoever looks compares check sums.

mod draft;
mod exchange;
mod history;
mod staged;
mod verify;

use crate::{cache::remove, lock::Lock, lua_version::LuaVersion, servers::Server};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};
use vmoon_core::{Code, Error, Result, name as names};
use vmoon_sys::{atomic, clock, durable, paths, random};

pub(crate) use draft::spoilt;
pub use draft::{Draft, GenerationFiles, RockFiles};
pub use exchange::Exported;
pub(crate) use history::changes;
pub use history::{Entry, GenerationInfo};
pub use staged::Staged;
pub use verify::{Problem, ProblemKind, Verified};

/// What was said of an environment when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// For which Lua.
    pub lua: LuaVersion,
    /// The profile it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// When it was made, milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_ms: u64,
    /// The servers that are asked, in order.
    #[serde(default)]
    pub servers: Vec<Server>,
}

/// All environments of one user.
#[derive(Clone, Debug)]
pub struct Environments {
    root: PathBuf,
}

/// One environment.
#[derive(Clone, Debug)]
pub struct Environment {
    name: String,
    dir: PathBuf,
    /// Nobody sees it yet: see [`Staged`].
    staged: bool,
}

/// The right to change an environment, until it is dropped.
#[derive(Debug)]
pub struct Guard {
    dir: PathBuf,
    lock: File,
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format_args!("{what} {}", path.display()), error)
}

impl Environments {
    /// Those below a state directory; the directory is made if it is missing.
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::FileFailed`].
    pub fn open(state: &Path) -> Result<Self> {
        let root = state.join("environments");
        paths::private_dir(&root)?;
        Ok(Self { root: root.canonicalize().map_err(|error| failed("look at", &root, error))? })
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The names, sorted.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.root).map_err(|error| failed("read", &self.root, error))?;
        let named = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| names::check(name).is_ok());
        let mut all: Vec<String> = named.filter(|name| self.root.join(name).join("environment.toml").is_file()).collect();
        all.sort();
        Ok(all)
    }

    /// Finds one by its name.
    ///
    /// # Errors
    /// [`Code::NameInvalid`], [`Code::EnvironmentNotFound`].
    pub fn find(&self, name: &str) -> Result<Environment> {
        names::check(name)?;
        let dir = self.root.join(name);
        if dir.join("environment.toml").is_file() {
            return Ok(Environment { name: name.to_owned(), dir, staged: false });
        }
        let all = self.names()?;
        let hint = match all.len() {
            0 => format!("make it: vmoon env create {name}"),
            1..=8 => format!("there are: {}", all.join(", ")),
            _ => "see: vmoon env list".to_owned(),
        };
        Err(Error::new(Code::EnvironmentNotFound, format!("no environment is named {name}")).hint(hint))
    }

    /// Makes one, with a first generation that is empty.
    ///
    /// # Errors
    /// [`Code::NameInvalid`], [`Code::EnvironmentExists`], [`Code::DiskFull`], [`Code::FileFailed`].
    pub fn create(&self, name: &str, description: &Description) -> Result<Environment> {
        self.stage(name, description)?.publish()
    }

    /// Removes one with all its generations. Whoever calls has made sure that nobody uses it, or does not care.
    ///
    /// # Errors
    /// [`Code::EnvironmentBusy`], [`Code::FileFailed`].
    pub fn remove(&self, environment: &Environment) -> Result<()> {
        let _guard = environment.guard()?;
        let gone = self.root.join(format!(".gone-{}", &random::key()[..16]));
        fs::rename(&environment.dir, &gone).map_err(|error| failed("remove", &environment.dir, error))?;
        remove(&gone)
    }

    /// Removes what was not made, or not removed, to its end.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root).map_err(|error| failed("read", &self.root, error))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let free = || match File::open(entry.path().join("lock")) {
                Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
                Err(_) => name.starts_with(".gone-"),
            };
            if (name.starts_with(".new-") || name.starts_with(".gone-")) && free() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl Guard {
    fn take(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join("lock");
        let opened =
            OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(|error| failed("open", &path, error))?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), lock: opened }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Error::new(Code::EnvironmentBusy, format!("somebody else changes the environment {name}"))
                    .hint("wait until that has ended: vmoon operation list"))
            }
            Err(error) => Err(failed("lock", &path, error.into())),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being started just now has the descriptor until it executes its program.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl Environment {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it is for.
    ///
    /// # Errors
    /// [`Code::EnvironmentDamaged`], [`Code::FileFailed`].
    pub fn description(&self) -> Result<Description> {
        let path = self.dir.join("environment.toml");
        let text = fs::read_to_string(&path).map_err(|error| failed("read", &path, error))?;
        toml::from_str(&text).map_err(|error| self.damaged(format!("environment.toml: {}", error.message())))
    }

    /// Changes what it is for. The Lua version stays: its trees are for that one.
    ///
    /// # Errors
    /// [`Code::DiskFull`], [`Code::FileFailed`].
    pub fn describe(&self, guard: &Guard, description: &Description) -> Result<()> {
        self.held(guard)?;
        let text = toml::to_string(description).map_err(|error| Error::internal("a description has no TOML form").source(error))?;
        let path = self.dir.join("environment.toml");
        if self.staged { atomic::write(&path, text.as_bytes()) } else { durable::write(&path, text.as_bytes()) }
    }

    /// Takes the right to change it, and removes what a change has left that was killed.
    ///
    /// # Errors
    /// [`Code::EnvironmentBusy`] if somebody else has it.
    pub fn guard(&self) -> Result<Guard> {
        let guard = Guard::take(&self.dir, &self.name)?;
        for dir in [self.dir.clone(), self.dir.join("generations")] {
            for entry in fs::read_dir(&dir).map_err(|error| failed("read", &dir, error))?.flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    let path = entry.path();
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        remove(&path)?;
                    } else {
                        fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
                    }
                }
            }
        }
        self.catch_up(&guard)?;
        Ok(guard)
    }

    fn held(&self, guard: &Guard) -> Result<()> {
        if guard.dir == self.dir { Ok(()) } else { Err(Error::internal("an environment was changed under the lock of another one")) }
    }

    fn damaged(&self, why: String) -> Error {
        Error::new(Code::EnvironmentDamaged, format!("the environment {} is damaged: {why}", self.name))
            .hint("vmoon env rollback goes back to an earlier state")
    }

    /// The number of the current generation.
    ///
    /// # Errors
    /// [`Code::EnvironmentDamaged`].
    pub fn current(&self) -> Result<u64> {
        let link = fs::read_link(self.dir.join("current")).map_err(|error| self.damaged(format!("no generation is current: {error}")))?;
        let number = link.strip_prefix("generations").ok().and_then(|number| number.to_str()?.parse().ok());
        number.ok_or_else(|| self.damaged(format!("current leads to {}", names::escape(&link.to_string_lossy()))))
    }

    /// Where a generation is.
    pub fn tree(&self, generation: u64) -> PathBuf {
        self.dir.join("generations").join(generation.to_string())
    }

    /// The numbers of all generations that are there, ascending.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn generations(&self) -> Result<Vec<u64>> {
        let dir = self.dir.join("generations");
        let entries = fs::read_dir(&dir).map_err(|error| failed("read", &dir, error))?;
        let mut all: Vec<u64> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// The lock of a generation.
    ///
    /// # Errors
    /// [`Code::EnvironmentDamaged`], [`Code::NotFound`] if there is no such generation.
    pub fn lock_of(&self, generation: u64) -> Result<Lock> {
        let path = self.tree(generation).join("rocks.lock");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.no_generation(generation)),
            Err(error) => return Err(failed("read", &path, error)),
        };
        Lock::from_toml(&text).map_err(|error| self.damaged(format!("rocks.lock: {}", error.chain())))
    }

    /// The lock of the current generation.
    ///
    /// # Errors
    /// As [`Environment::lock_of`].
    pub fn lock(&self) -> Result<Lock> {
        self.lock_of(self.current()?)
    }

    /// The files of a generation.
    ///
    /// # Errors
    /// [`Code::EnvironmentDamaged`], [`Code::NotFound`].
    pub fn files(&self, generation: u64) -> Result<GenerationFiles> {
        match atomic::read_json(&self.tree(generation).join("files.json")) {
            Ok(Some(files)) => Ok(files),
            Ok(None) => Err(self.no_generation(generation)),
            Err(error) => Err(self.damaged(error.chain())),
        }
    }

    fn no_generation(&self, generation: u64) -> Error {
        let all = self.generations().unwrap_or_default().iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        Error::new(Code::NotFound, format!("the environment {} has no generation {generation}", self.name))
            .hint(format!("there are: {all}"))
    }

    /// Makes a generation current. After a power cut it is, or the one before.
    fn switch(&self, generation: u64) -> Result<()> {
        if !self.staged {
            durable::file_system(&self.dir)?;
        }
        let beside = self.dir.join(format!(".current-{}", &random::key()[..16]));
        let link = self.dir.join("current");
        symlink(Path::new("generations").join(generation.to_string()), &beside).map_err(|error| failed("make", &beside, error))?;
        fs::rename(&beside, &link).map_err(|error| failed("switch", &link, error))?;
        if self.staged { Ok(()) } else { durable::directory(&self.dir) }
    }

    /// Goes back to a generation: the one that the current one was made from, or that with this number. Gives back its number.
    ///
    /// # Errors
    /// [`Code::NotFound`] if it is not there any more, [`Code::FileFailed`].
    pub fn rollback(&self, guard: &Guard, to: Option<u64>) -> Result<u64> {
        self.held(guard)?;
        let current = self.current()?;
        let target = match to {
            Some(number) => number,
            None => self.entry(current)?.parent.ok_or_else(|| {
                Error::new(Code::NotFound, format!("generation {current} of the environment {} is its first", self.name))
                    .hint("there is nothing to go back to")
            })?,
        };
        if !self.tree(target).join("files.json").is_file() {
            return Err(self.no_generation(target));
        }
        if target != current {
            self.switch(target)?;
            let changes = history::changes(&self.lock_of(current)?, &self.lock_of(target)?);
            self.note(&Entry {
                generation: target,
                parent: Some(current),
                at_ms: clock::now_ms(),
                what: "rollback".into(),
                changes,
                ..Entry::default()
            })?;
        }
        Ok(target)
    }

    /// Removes old generations: not the current one, not the `keep` newest others, not those that are in use. Gives back which.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn collect(&self, guard: &Guard, keep: usize, in_use: &dyn Fn(u64) -> bool) -> Result<Vec<u64>> {
        self.held(guard)?;
        let current = self.current()?;
        let others = self.generations()?.into_iter().rev().filter(|number| *number != current);
        let old: Vec<u64> = others.skip(keep).filter(|number| !in_use(*number)).collect();
        for number in &old {
            let path = self.tree(*number);
            let gone = path.with_file_name(format!(".gone-{number}"));
            fs::rename(&path, &gone).map_err(|error| failed("remove", &path, error))?;
            remove(&gone)?;
        }
        Ok(old)
    }
}
