//! A private directory of small JSON records, one file each: listed, read, replaced whole, removed.

use crate::{atomic, paths::private_dir};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};
use vmoon_core::{Error, Result};

/// What the file of a record ends with.
const ENDING: &str = ".json";

/// The directory. It is made when the first record is kept.
#[derive(Clone, Debug)]
pub struct Records(PathBuf);

impl Records {
    /// The records in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 200 || name.starts_with(['.', '-']) || !name.bytes().all(plain) {
            return Err(Error::internal(format!("\"{}\" cannot name a record", name.escape_debug())));
        }
        Ok(self.0.join(format!("{name}{ENDING}")))
    }

    /// The names of all records.
    ///
    /// # Errors
    /// `permission` or `file.failed`.
    pub fn names(&self) -> Result<Vec<String>> {
        let failed = |error| Error::io(format_args!("list {}", self.0.display()), error);
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // What begins with a dot is half written.
            names.extend(name.to_str().and_then(|name| name.strip_suffix(ENDING)).filter(|name| !name.starts_with('.')).map(str::to_owned));
        }
        Ok(names)
    }

    /// One record; `None` if there is none of that name.
    ///
    /// # Errors
    /// `internal` for a name that is none, `permission` or `file.failed`, the latter also for what is no such record.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        atomic::read_json(&self.path(name)?)
    }

    /// Keeps a record, replacing the former one.
    ///
    /// # Errors
    /// `internal` for a name that is none; `disk.full`, `permission` or `file.failed`: the former one then still stands.
    pub fn put<T: Serialize>(&self, name: &str, record: &T) -> Result<()> {
        let path = self.path(name)?;
        private_dir(&self.0)?;
        atomic::write_json(&path, record)
    }

    /// Removes a record, if it is there.
    ///
    /// # Errors
    /// `internal` for a name that is none, `permission` or `file.failed`.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(format_args!("remove {}", path.display()), error)),
            _ => Ok(()),
        }
    }

    /// Removes all of them, and the directory.
    ///
    /// # Errors
    /// `permission` or `file.failed`.
    pub fn clear(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(format_args!("remove {}", self.0.display()), error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn records_are_listed_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("a/b"));
        assert!(records.names().unwrap().is_empty());
        assert_eq!(records.get::<u32>("x").unwrap(), None);
        records.remove("x").unwrap();
        records.clear().unwrap();
        records.put("x", &1).unwrap();
        records.put("x", &2).unwrap();
        records.put("y.z", &3).unwrap();
        let mut names = records.names().unwrap();
        names.sort();
        assert_eq!((names, records.get::<u32>("x").unwrap()), (vec!["x".to_owned(), "y.z".to_owned()], Some(2)));
        let mode = std::fs::metadata(records.dir()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        records.remove("x").unwrap();
        assert_eq!(records.get::<u32>("x").unwrap(), None);
        records.clear().unwrap();
        assert!(records.names().unwrap().is_empty());
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        for name in ["", ".", "..", "../x", "a/b", "-x", "a\0", "a\n", &"x".repeat(201)] {
            assert!(records.put(name, &1).is_err() && records.get::<u32>(name).is_err() && records.remove(name).is_err(), "{name:?}");
        }
    }
}
