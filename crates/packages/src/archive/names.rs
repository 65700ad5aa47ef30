//! Which names an archive may use, and where its links may lead. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};
use vmoon_core::name::escape;

/// The longest path, bytes, and how deep directories may lie in each other.
const LONGEST: usize = 1024;
const DEEPEST: usize = 64;

/// The path that a name in an archive stands for, relative and without `.`; or why it is refused.
pub(super) fn path(raw: &[u8]) -> Result<PathBuf, String> {
    let shown = || format!("the name \"{}\"", escape(&String::from_utf8_lossy(&raw[..raw.len().min(120)])));
    if raw.contains(&0) {
        return Err(format!("{} holds a NUL byte", shown()));
    }
    if raw.len() > LONGEST {
        return Err(format!("{} is longer than {LONGEST} bytes", shown()));
    }
    if raw.iter().any(|byte| byte.is_ascii_control()) {
        return Err(format!("{} holds control characters", shown()));
    }
    let mut found = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(raw)).components() {
        match part {
            Component::Normal(part) if part.len() > 255 => return Err(format!("{} has a part longer than 255 bytes", shown())),
            Component::Normal(part) => found.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(format!("{} leads upwards", shown())),
            Component::RootDir | Component::Prefix(_) => return Err(format!("{} is absolute", shown())),
        }
    }
    if found.components().count() > DEEPEST {
        return Err(format!("{} lies more than {DEEPEST} directories deep", shown()));
    }
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Directory,
    File,
    Link,
}

/// A link that leads to somewhere inside.
pub(super) struct Link {
    pub(super) path: PathBuf,
    /// Of a hard link the path of a file from the top, of a symbolic one what it holds.
    pub(super) target: PathBuf,
    pub(super) hard: bool,
}

/// All names that were seen. Names that differ in case are different.
#[derive(Default)]
pub(super) struct Tree {
    seen: BTreeMap<PathBuf, What>,
    links: Vec<Link>,
}

impl Tree {
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.seen.iter().filter(|(_, what)| **what != What::Directory).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn directory(&mut self, path: &Path) -> Result<(), String> {
        if !path.as_os_str().is_empty() && self.add(path, What::Directory)?.is_some_and(|what| what != What::Directory) {
            return Err(twice(path));
        }
        Ok(())
    }

    pub(super) fn file(&mut self, path: &Path) -> Result<(), String> {
        self.once(path, What::File)
    }

    pub(super) fn link(&mut self, path: PathBuf, target: &[u8], hard: bool) -> Result<(), String> {
        self.once(&path, What::Link)?;
        let bad = |why: &str| Err(format!("the link {} {why}", show(&path)));
        if target.contains(&0) || target.is_empty() || target.len() > LONGEST {
            return bad("leads to something that is no path");
        }
        let target = Path::new(OsStr::from_bytes(target));
        if target.is_absolute() {
            return bad("leads to an absolute path");
        }
        self.links.push(Link { path, target: target.to_owned(), hard });
        Ok(())
    }

    fn once(&mut self, path: &Path, what: What) -> Result<(), String> {
        if path.as_os_str().is_empty() {
            return Err("it has an entry without a name".into());
        }
        if self.add(path, what)?.is_some() { Err(twice(path)) } else { Ok(()) }
    }

    /// Notes a name and the directories it lies in; gives back what bore it before.
    fn add(&mut self, path: &Path, what: What) -> Result<Option<What>, String> {
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            match self.seen.get(parent) {
                Some(What::Directory) => break,
                Some(_) => return Err(format!("{} lies in {}, which is no directory", show(path), show(parent))),
                None => _ = self.seen.insert(parent.to_owned(), What::Directory),
            }
        }
        let before = self.seen.get(path).copied();
        if before.is_none() {
            self.seen.insert(path.to_owned(), what);
        }
        Ok(before)
    }

    /// The links, once all names are known; or which leads where it may not.
    ///
    /// A symbolic link holds `..` only at its beginning and passes no other link, so what it leads to can be told from the names alone.
    pub(super) fn checked_links(&mut self) -> Result<Vec<Link>, String> {
        let links: BTreeSet<&Path> = self.links.iter().map(|link| link.path.as_path()).collect();
        for link in &self.links {
            let bad = |why: &str| Err(format!("the link {} {why}", show(&link.path)));
            let mut at: PathBuf = if link.hard { PathBuf::new() } else { link.path.parent().map(Path::to_owned).unwrap_or_default() };
            let mut down = false;
            for part in link.target.components() {
                match part {
                    Component::ParentDir if down => return bad("leads upwards from the middle of its path"),
                    Component::ParentDir if !at.pop() => return bad("leads outside"),
                    Component::Normal(part) => {
                        if links.contains(at.as_path()) {
                            return bad("leads through another link");
                        }
                        at.push(part);
                        down = true;
                    }
                    _ => {}
                }
            }
            if link.hard && self.seen.get(&at) != Some(&What::File) {
                return bad("is a hard link to something that is no file of the archive");
            }
        }
        Ok(std::mem::take(&mut self.links))
    }
}

fn twice(path: &Path) -> String {
    format!("the name {} stands in it twice", show(path))
}

fn show(path: &Path) -> String {
    format!("\"{}\"", escape(&path.to_string_lossy()))
}
