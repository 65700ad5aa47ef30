//! Which generation of an environment is current: what a program needs that only wants to run with it. It reads two small things and
//! takes no lock: a switch is one rename, so whoever looks sees the old generation or the new one, whole.

use serde::Deserialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use vmoon_core::{
    Code, Error, Result,
    name::{self, escape},
    package::LUA_VERSIONS,
};
use vmoon_sys::paths;

/// The directory of all environments, below the state directory.
const ENVIRONMENTS: &str = "environments";
/// What is said of an environment.
const DESCRIPTION: &str = "environment.toml";
/// The link to the generation that is current.
const CURRENT: &str = "current";
/// The directory of generations.
const GENERATIONS: &str = "generations";

/// The current generation of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The environment's name.
    pub name: String,
    /// The Lua version its packages are for: `5.1` to `5.5`.
    pub lua: String,
    /// The number of the generation.
    pub generation: u64,
    /// Its tree, an absolute path without symbolic links.
    pub tree: PathBuf,
    /// The directory of all generations of the environment, likewise.
    pub generations: PathBuf,
}

/// The part of a description that is needed here.
#[derive(Deserialize)]
struct Description {
    lua: String,
}

/// The directory of all environments, made if it is missing; an absolute path without symbolic links.
///
/// # Errors
/// Those of the file system.
pub fn root(state: &Path) -> Result<PathBuf> {
    let root = state.join(ENVIRONMENTS);
    match root.canonicalize() {
        Ok(root) => return Ok(root),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&root, error)),
        Err(_) => {}
    }
    paths::private_dir(&root)?;
    root.canonicalize().map_err(|error| failed(&root, error))
}

/// Finds an environment by its name.
///
/// # Errors
/// [`Code::NameInvalid`], [`Code::EnvironmentNotFound`]; [`Code::EnvironmentDamaged`] where its directory does not hold what it should.
pub fn find(state: &Path, name: &str) -> Result<Current> {
    name::check(name)?;
    let root = state.join(ENVIRONMENTS);
    let dir = match root.join(name).canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(&root, name)),
        Err(error) => return Err(failed(&root.join(name), error)),
    };
    let description = dir.join(DESCRIPTION);
    let text = match fs::read_to_string(&description) {
        Ok(text) => text,
        // One that is being made, or was not made to its end.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(&root, name)),
        Err(error) => return Err(failed(&description, error)),
    };
    let damaged = |why: String| Error::new(Code::EnvironmentDamaged, format!("the environment {name} is damaged: {why}"));
    let Description { lua } = toml::from_str(&text).map_err(|error| damaged(format!("{DESCRIPTION}: {}", error.message())))?;
    if !LUA_VERSIONS.contains(&lua.as_str()) {
        return Err(damaged(format!("{DESCRIPTION}: lua is \"{}\", which is none of {}", escape(&lua), LUA_VERSIONS.join(", "))));
    }
    let link = fs::read_link(dir.join(CURRENT)).map_err(|error| damaged(format!("no generation is current: {error}")))?;
    let number = link.strip_prefix(GENERATIONS).ok().and_then(|number| number.to_str()?.parse().ok());
    let generation = number.ok_or_else(|| damaged(format!("{CURRENT} leads to {}", escape(&link.to_string_lossy()))))?;
    let generations = dir.join(GENERATIONS);
    let tree = generations.join(format!("{generation}"));
    if !tree.is_dir() {
        return Err(damaged(format!("generation {generation} is not there")));
    }
    Ok(Current { name: name.to_owned(), lua, generation, tree, generations })
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(format_args!("look at {}", path.display()), error)
}

/// No such environment; those that there are, if they are few.
fn missing(root: &Path, name: &str) -> Error {
    let mut names: Vec<String> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(DESCRIPTION).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let error = Error::new(Code::EnvironmentNotFound, format!("no environment is named {name}"));
    match names.len() {
        0 => error.hint(format!("make it: vmoon env create {name}")),
        1..=8 => error.hint(format!("there are: {}", names.join(", "))),
        _ => error.hint("see: vmoon env list"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn state() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("environments/e");
        fs::create_dir_all(dir.join("generations/7/share/lua/5.4")).unwrap();
        fs::write(dir.join(DESCRIPTION), "lua = \"5.4\"\nservers = []\n[later]\nx = 1\n").unwrap();
        symlink("generations/7", dir.join(CURRENT)).unwrap();
        state
    }

    #[test]
    fn the_current_generation_is_found() {
        let state = state();
        let found = find(state.path(), "e").unwrap();
        assert_eq!((found.lua.as_str(), found.generation), ("5.4", 7));
        assert!(found.tree.ends_with("environments/e/generations/7") && found.tree.starts_with(root(state.path()).unwrap()));
    }

    #[test]
    fn what_is_missing_or_damaged_is_said() {
        let state = state();
        let error = find(state.path(), "f").unwrap_err();
        assert_eq!((error.code(), error.hint_text()), (Code::EnvironmentNotFound, Some("there are: e")));
        for bad in ["../e", "", "a/b", "-x", "e\n"] {
            assert_eq!(find(state.path(), bad).unwrap_err().code(), Code::NameInvalid, "{bad:?}");
        }
        let dir = state.path().join("environments/e");
        for link in ["generations/8", "../../elsewhere", "generations/x"] {
            fs::remove_file(dir.join(CURRENT)).unwrap();
            symlink(link, dir.join(CURRENT)).unwrap();
            assert_eq!(find(state.path(), "e").unwrap_err().code(), Code::EnvironmentDamaged, "{link}");
        }
        fs::write(dir.join(DESCRIPTION), "lua = \"6\"").unwrap();
        assert_eq!(find(state.path(), "e").unwrap_err().code(), Code::EnvironmentDamaged);
        fs::remove_file(dir.join(DESCRIPTION)).unwrap();
        assert_eq!(find(state.path(), "e").unwrap_err().code(), Code::EnvironmentNotFound);
        assert!(find(Path::new("/nonexistent"), "e").unwrap_err().hint_text().unwrap().contains("env create"));
    }
}
