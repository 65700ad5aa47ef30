//! The tree of one rock while it is put together: where each kind of file belongs, and what was put there. Files never change afterwards.

use crate::{cache::walk, digest::Hasher, lua_version::LuaVersion, name::RockName, version::Version};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};
use vmoon_core::{Code, Error, Result, name::escape};

/// One file of a rock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path from the top of the tree.
    pub path: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size, bytes.
    pub size: u64,
    /// Whether it can be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// The tree of one rock.
pub(super) struct Stage<'a> {
    root: PathBuf,
    lua: LuaVersion,
    name: &'a RockName,
    version: &'a Version,
    files: BTreeMap<String, FileRecord>,
}

/// A mistake in what a rock wants.
pub(super) fn wrong(what: impl Into<String>) -> Error {
    Error::new(Code::PackageBuild, what.into())
}

impl<'a> Stage<'a> {
    pub(super) fn new(root: PathBuf, lua: LuaVersion, name: &'a RockName, version: &'a Version) -> Result<Self> {
        fs::create_dir(&root).map_err(|error| Error::io(format_args!("make the directory {}", root.display()), error))?;
        Ok(Self { root, lua, name, version, files: BTreeMap::new() })
    }

    /// What was put in, and the modules that are among it.
    pub(super) fn finish(self) -> (Vec<FileRecord>, Vec<String>) {
        let mut modules: Vec<String> = self.files.keys().filter_map(|path| module_of(path, self.lua)).collect();
        modules.sort();
        modules.dedup();
        (self.files.into_values().collect(), modules)
    }

    /// The directory of what is no module: `lib/luarocks/rocks-5.4/NAME/VERSION`.
    pub(super) fn beside(&self, rest: &str) -> String {
        format!("lib/luarocks/rocks-{}/{}/{}/{rest}", self.lua, self.name, self.version)
    }

    pub(super) fn rockspec(&mut self, text: &[u8]) -> Result<()> {
        let path = self.beside(&format!("{}-{}.rockspec", self.name, self.version));
        self.put(&path, text, false)
    }

    /// A Lua module from a file; `a.b` from `init.lua` is `a/b/init.lua`, as LuaRocks does it.
    pub(super) fn lua_module(&mut self, module: &str, from: &Path) -> Result<()> {
        let init = from.file_name().is_some_and(|name| name == "init.lua") && module != "init" && !module.ends_with(".init");
        let end = if init { "/init.lua" } else { ".lua" };
        self.put_file(&format!("share/lua/{}/{}{end}", self.lua, module.replace('.', "/")), from, false)
    }

    pub(super) fn c_module(&mut self, module: &str, from: &Path) -> Result<()> {
        self.put_file(&format!("lib/lua/{}/{}.so", self.lua, module.replace('.', "/")), from, true)
    }

    /// A file that belongs into the directory of Lua modules or of C modules, by its path there.
    pub(super) fn library(&mut self, native: bool, path: &str, from: &Path) -> Result<()> {
        let top = if native { "lib" } else { "share" };
        self.put_file(&format!("{top}/lua/{}/{path}", self.lua), from, native)
    }

    /// A command. One in Lua gets a wrapper that finds the modules of the tree.
    pub(super) fn command(&mut self, name: &str, from: &Path, wrap: bool) -> Result<()> {
        let mut head = Vec::new();
        File::open(from).and_then(|file| file.take(512).read_to_end(&mut head)).map_err(|error| read_failed(from, error))?;
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let in_lua = if line.starts_with(b"#!") { line.windows(3).any(|word| word == b"lua") } else { !head.contains(&0) };
        if !(wrap && in_lua) {
            return self.put_file(&format!("bin/{name}"), from, true);
        }
        self.put_file(&format!("libexec/{name}"), from, false)?;
        let wrapper = format!("#!/usr/bin/env lua{}\n{}", self.lua, include_str!("wrapper.lua"));
        self.put(&format!("bin/{name}"), wrapper.as_bytes(), true)
    }

    /// A whole directory beside the modules.
    pub(super) fn directory(&mut self, name: &str, from: &Path) -> Result<()> {
        let mut found = Vec::new();
        walk(from, &mut |path, meta| found.push((path.to_owned(), meta.is_file(), meta.permissions().mode() & 0o100 != 0)))?;
        for (path, is_file, executable) in found {
            let inside = path.strip_prefix(from).unwrap_or(&path).to_str();
            let inside = inside.ok_or_else(|| wrong(format!("{} has a name that is not UTF-8", escape(&path.to_string_lossy()))))?;
            // Links among documents lead to files that are copied anyway.
            if is_file {
                self.put_file(&self.beside(&format!("{name}/{inside}")), &path, executable)?;
            }
        }
        Ok(())
    }

    pub(super) fn put(&mut self, path: &str, bytes: &[u8], executable: bool) -> Result<()> {
        self.write(path, bytes, executable)
    }

    pub(super) fn put_file(&mut self, path: &str, from: &Path, executable: bool) -> Result<()> {
        let file = File::open(from).map_err(|error| read_failed(from, error))?;
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(wrong(format!("{} is no file", escape(&from.to_string_lossy()))));
        }
        self.write(path, file, executable)
    }

    fn write(&mut self, path: &str, mut content: impl Read, executable: bool) -> Result<()> {
        checked(path)?;
        if self.files.contains_key(path) {
            return Err(wrong(format!("the rock gives the file {path} twice")));
        }
        let target = self.root.join(path);
        let failed = |error| Error::io(format_args!("write {path}"), error);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mode = if executable { 0o555 } else { 0o444 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&target).map_err(failed)?;
        let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; 64 << 10]);
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(failed)?;
            size += n as u64;
        }
        self.files.insert(path.to_owned(), FileRecord { path: path.to_owned(), sha256: hasher.finish(), size, executable });
        Ok(())
    }
}

fn read_failed(path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return wrong(format!("the source has no file {}", escape(&path.to_string_lossy())));
    }
    Error::io(format_args!("read {}", path.display()), error)
}

/// A path in a tree: relative, plain, and without anything that is hard to show.
pub(crate) fn checked(path: &str) -> Result<()> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
        && !path.is_empty()
        && path.len() <= 1000
        && !path.ends_with('/')
        && !path.contains("//")
        && !path.chars().any(char::is_control);
    if plain { Ok(()) } else { Err(wrong(format!("\"{}\" is no path inside a tree", escape(path)))) }
}

/// A file of the source by its path there, which must not lead out of it.
pub(super) fn inside(source: &Path, path: &str) -> Result<PathBuf> {
    let missing = || wrong(format!("the source has no file {}", escape(path)));
    let root = source.canonicalize().map_err(|error| Error::io("look at the source", error))?;
    let found = root.join(path).canonicalize().map_err(|_| missing())?;
    if found.starts_with(&root) { Ok(found) } else { Err(wrong(format!("{} leads out of the source", escape(path)))) }
}

/// The module that a file is, by its path in a tree.
pub(crate) fn module_of(path: &str, lua: LuaVersion) -> Option<String> {
    let share = path.strip_prefix("share/lua/").and_then(|rest| rest.strip_prefix(lua.as_str())?.strip_prefix('/'));
    let name = match share {
        Some(rest) => {
            let stem = rest.strip_suffix(".lua")?;
            stem.strip_suffix("/init").unwrap_or(stem)
        }
        None => path.strip_prefix("lib/lua/")?.strip_prefix(lua.as_str())?.strip_prefix('/')?.strip_suffix(".so")?,
    };
    Some(name.replace('/', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_their_files() {
        for (path, module) in [
            ("share/lua/5.4/pl/init.lua", Some("pl")),
            ("share/lua/5.4/pl/path.lua", Some("pl.path")),
            ("lib/lua/5.4/socket/core.so", Some("socket.core")),
            ("share/lua/5.1/x.lua", None),
            ("share/lua/5.4/x.txt", None),
            ("bin/x", None),
        ] {
            assert_eq!(module_of(path, LuaVersion::V54).as_deref(), module, "{path}");
        }
        for bad in ["", "/x", "../x", "a/../b", "a//b", "a/", "a\nb", "./x"] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
    }
}
