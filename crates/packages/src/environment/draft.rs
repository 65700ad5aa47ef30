//! A generation while it is put together, and the moment in which it becomes current.

use super::{Entry, Environment, Guard, failed};
use crate::{
    build::{FileRecord, checked},
    cache::remove,
    digest,
    lock::Lock,
    lua_version::LuaVersion,
    name::RockName,
    version::Version,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::{atomic, random};

/// The files of one rock in a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RockFiles {
    /// The rock's version.
    pub version: Version,
    /// Its files.
    pub files: Vec<FileRecord>,
}

/// The files of a generation, by rock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationFiles {
    /// The rocks.
    pub rocks: BTreeMap<RockName, RockFiles>,
}

/// A generation that nobody sees yet. Dropped, it is gone.
pub struct Draft<'a> {
    environment: &'a Environment,
    path: PathBuf,
    files: GenerationFiles,
    /// Which rock gives which file.
    owners: BTreeMap<String, RockName>,
    made: HashSet<PathBuf>,
}

/// Looks whether all files of a rock are what they were. Gives back the first that is not.
///
/// # Errors
/// One cannot be read.
pub(crate) fn spoilt(tree: &Path, files: &[FileRecord]) -> Result<Option<String>> {
    for record in files {
        if checked(&record.path).is_err() || !is_whole(tree, record)? {
            return Ok(Some(record.path.clone()));
        }
    }
    Ok(None)
}

/// Whether a file is there, is a file, and has the content it should have.
pub(super) fn is_whole(tree: &Path, record: &FileRecord) -> Result<bool> {
    let path = tree.join(&record.path);
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() && meta.len() == record.size => {}
        Ok(_) => return Ok(false),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(false),
        Err(error) => return Err(failed("look at", &path, error)),
    }
    let found = File::open(&path).and_then(digest::sha256_of).map_err(|error| failed("read", &path, error))?;
    Ok(found.0 == record.sha256)
}

impl Environment {
    /// Begins a new generation.
    ///
    /// # Errors
    /// [`Code::DiskFull`], [`Code::FileFailed`].
    pub fn draft(&self, guard: &Guard, lua: LuaVersion) -> Result<Draft<'_>> {
        self.held(guard)?;
        let path = self.dir.join("generations").join(format!(".new-{}", &random::key()[..16]));
        let draft = Draft { environment: self, path, files: GenerationFiles::default(), owners: BTreeMap::new(), made: HashSet::new() };
        for dir in [format!("share/lua/{lua}"), format!("lib/lua/{lua}"), "bin".into()] {
            let dir = draft.path.join(dir);
            fs::create_dir_all(&dir).map_err(|error| failed("make", &dir, error))?;
        }
        Ok(draft)
    }
}

impl Draft<'_> {
    /// Puts a rock in: its files are those of `tree`, shared where the file system can. `transcript` is what was said when it was built.
    ///
    /// # Errors
    /// [`Code::PackageConflict`] if another rock gives the same file, [`Code::DiskFull`], [`Code::FileFailed`].
    pub fn add(&mut self, name: &RockName, version: &Version, tree: &Path, files: &[FileRecord], transcript: Option<&Path>) -> Result<()> {
        let mut conflicts = Vec::new();
        for record in files {
            checked(&record.path)?;
            if let Some(other) = self.owners.get(&record.path) {
                conflicts.push((record.path.as_str(), other));
            }
        }
        if let Some((path, other)) = conflicts.first() {
            let more = if conflicts.len() > 1 { format!(" and {} more", conflicts.len() - 1) } else { String::new() };
            return Err(Error::new(Code::PackageConflict, format!("{other} and {name} both give the file {path}{more}"))
                .hint("one environment cannot hold both; make a second one: vmoon env create"));
        }
        for record in files {
            let target = self.path.join(&record.path);
            self.folder(&target)?;
            share(&tree.join(&record.path), &target)?;
            self.owners.insert(record.path.clone(), name.clone());
        }
        if let Some(transcript) = transcript.filter(|path| path.is_file()) {
            let target = self.path.join("transcripts").join(format!("{name}.txt"));
            self.folder(&target)?;
            share(transcript, &target)?;
        }
        self.files.rocks.insert(name.clone(), RockFiles { version: version.clone(), files: files.to_vec() });
        Ok(())
    }

    fn folder(&mut self, file: &Path) -> Result<()> {
        let Some(parent) = file.parent() else { return Ok(()) };
        if !self.made.contains(parent) {
            fs::create_dir_all(parent).map_err(|error| failed("make", parent, error))?;
            self.made.insert(parent.to_owned());
        }
        Ok(())
    }

    /// Completes it and makes it current. Gives back its number.
    ///
    /// # Errors
    /// [`Code::DiskFull`], [`Code::FileFailed`]; the environment is as it was then.
    pub fn finish(self, lock: &Lock, entry: &Entry) -> Result<u64> {
        self.finish_with(lock, entry, &|_| {})
    }

    /// As [`Draft::finish`], telling which step was reached.
    ///
    /// # Errors
    /// As [`Draft::finish`].
    pub fn finish_with(self, lock: &Lock, entry: &Entry, step: &dyn Fn(&str)) -> Result<u64> {
        let environment = self.environment;
        let parent = environment.current().ok();
        let number = environment.highest()? + 1;
        let entry = Entry { generation: number, parent, ..entry.clone() };
        atomic::write_json(&self.path.join("files.json"), &self.files)?;
        step("files");
        atomic::write(&self.path.join("rocks.lock"), lock.to_toml()?.as_bytes())?;
        step("lock");
        atomic::write_json(&self.path.join("entry.json"), &entry)?;
        step("entry");
        let target = environment.tree(number);
        fs::rename(&self.path, &target).map_err(|error| failed("make", &target, error))?;
        step("renamed");
        if let Err(error) = environment.switch(number) {
            // It was never current; if it cannot be removed either, it is an old generation like others.
            let _ = remove(&target);
            return Err(error);
        }
        step("switched");
        // It is current, whatever becomes of the note; `catch_up` writes it later if this fails.
        if let Err(error) = environment.note(&entry) {
            tracing::warn!(environment = environment.name(), error = error.chain(), "the history could not be written");
        }
        step("noted");
        Ok(number)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // What cannot be removed is removed by whoever takes the lock next.
        let _ = remove(&self.path);
    }
}

/// What link(2) says where two names cannot be one file.
const CANNOT_SHARE: [Errno; 3] = [Errno::XDEV, Errno::MLINK, Errno::PERM];

/// Makes `target` the same file as `source`, or a copy where the file system cannot share it.
fn share(source: &Path, target: &Path) -> Result<()> {
    match fs::hard_link(source, target) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error().is_some_and(|number| CANNOT_SHARE.iter().any(|errno| errno.raw_os_error() == number)) => {
            fs::copy(source, target).map(|_| ()).map_err(|error| failed("copy", source, error))
        }
        Err(error) => Err(failed("install", source, error)),
    }
}
