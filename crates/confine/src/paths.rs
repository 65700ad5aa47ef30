//! From a path that a user names to one that can be granted. Looks at the file system; what may be granted is judged by [`crate::grant`].

use crate::grant::{self, Kind};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A path that can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Absolute, existing, without symbolic links. When the rules are applied it is opened without following any: a link that is put in its way
    /// afterwards makes applying fail and grants nothing.
    pub path: PathBuf,
    /// What somebody should know who grants it, if anything.
    pub warning: Option<String>,
}

/// Follows all symbolic links of `path`, which must be absolute and exist, and judges what is found. `state` is the directory of vmoon's own state and
/// `home` that of the user, both without symbolic links.
///
/// # Errors
/// A sentence that names the path and says why it cannot be granted.
pub fn resolve(path: &Path, kind: Kind, state: &Path, home: Option<&Path>) -> Result<Granted, String> {
    let refused = |why: String| format!("{} {why}", path.display());
    if !path.is_absolute() {
        return Err(refused("is not absolute".into()));
    }
    let found = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refused("does not exist".into()),
        _ => refused(format!("cannot be reached: {error}")),
    })?;
    let warning = grant::check(&found, kind, state, home).map_err(|why| {
        if found == path { refused(why) } else { format!("{} leads to {}, which {why}", path.display(), found.display()) }
    })?;
    Ok(Granted { path: found, warning })
}
