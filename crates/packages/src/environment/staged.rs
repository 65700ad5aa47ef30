//! An environment that is being made: complete when it gets its name, and gone when that does not come about.

use super::{Description, Entry, Environment, Environments, Guard, failed, remove};
use crate::lock::Lock;
use std::{fs, io, path::PathBuf};
use vmoon_core::{Code, Error, Result, name as names};
use vmoon_sys::{clock, durable, paths, random};

/// An environment that nobody sees yet. Dropped, it is gone; what a killed process has left of one is swept away by [`Environments::sweep`].
#[derive(Debug)]
pub struct Staged {
    environment: Environment,
    guard: Option<Guard>,
    /// Where all of them are.
    root: PathBuf,
}

fn exists(name: &str) -> Error {
    Error::new(Code::EnvironmentExists, format!("an environment is named {name} already")).hint("choose another name, or remove it")
}

impl Environments {
    /// Begins one, with a first generation that is empty.
    ///
    /// # Errors
    /// [`Code::NameInvalid`], [`Code::EnvironmentExists`], [`Code::DiskFull`], [`Code::FileFailed`].
    pub fn stage(&self, name: &str, description: &Description) -> Result<Staged> {
        names::check(name)?;
        self.sweep()?;
        if fs::symlink_metadata(self.root.join(name)).is_ok() {
            return Err(exists(name));
        }
        let dir = self.root.join(format!(".new-{}", &random::key()[..16]));
        let environment = Environment { name: name.to_owned(), dir: dir.clone(), staged: true };
        let mut staged = Staged { environment, guard: None, root: self.root.clone() };
        paths::private_dir(&dir)?;
        // Held until it bears its name, so that nobody takes it for a left-over.
        let guard = Guard::take(&dir, name)?;
        staged.environment.describe(&guard, description)?;
        fs::create_dir(dir.join("generations")).map_err(|error| failed("make", &dir, error))?;
        let draft = staged.environment.draft(&guard, description.lua)?;
        draft.finish(&Lock::empty(description.lua), &Entry { what: "create".into(), at_ms: clock::now_ms(), ..Entry::default() })?;
        staged.guard = Some(guard);
        Ok(staged)
    }
}

impl Staged {
    /// What is being made, and the right to change it.
    ///
    /// # Errors
    /// [`Code::Internal`]: never but for a defect.
    pub fn parts(&self) -> Result<(&Environment, &Guard)> {
        let guard = self.guard.as_ref().ok_or_else(|| Error::internal("an environment is made without its lock"))?;
        Ok((&self.environment, guard))
    }

    /// Gives it its name. After a power cut it is there as a whole, or not at all.
    ///
    /// # Errors
    /// [`Code::EnvironmentExists`] if somebody was quicker, [`Code::DiskFull`], [`Code::FileFailed`]; nothing is left of it then.
    pub fn publish(mut self) -> Result<Environment> {
        let name = self.environment.name.clone();
        let dir = self.root.join(&name);
        durable::file_system(&self.environment.dir)?;
        fs::rename(&self.environment.dir, &dir).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => exists(&name),
            _ => failed("make", &dir, error),
        })?;
        self.guard = None;
        self.environment.dir.clone_from(&dir);
        let made = Environment { name, dir, staged: false };
        // It is there, whatever the disk says to this.
        if let Err(error) = durable::directory(&self.root) {
            tracing::warn!(environment = made.name, error = error.chain(), "the name of an environment was not forced to the disk");
        }
        Ok(made)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.environment.dir.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".new-")) {
            // What cannot be removed now is swept away later.
            let _ = remove(&self.environment.dir);
        }
    }
}
