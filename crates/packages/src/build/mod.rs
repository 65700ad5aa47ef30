//! From a rock and its source to the tree of its files. Each is built once: the cache keeps what came of it, by everything that it depends on.

mod builtin;
mod confine;
mod elf;
mod external;
pub mod headers;
mod luarocks;
mod patch;
mod ready;
mod recipe;
mod stage;

use crate::{
    archive,
    cache::{Blob, Cache, Work, remove},
    digest,
    evaluate::{Evaluator, MAX_ROCKSPEC},
    fetch, files,
    lock::Arch,
    lua_version::LuaVersion,
    name::RockName,
    rockspec::{InstallEntry, PLATFORMS, Rockspec},
    version::Version,
};
use serde::{Deserialize, Serialize};
use stage::{Stage, inside, wrong};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::{atomic, stop::Stop};

pub use confine::{Confine, Job, Launcher};
pub use recipe::Recipe;
pub use stage::FileRecord;
pub(crate) use stage::checked;

/// Goes up when the same input gives other files.
const BUILDER: u32 = 1;
/// The most of a transcript that is kept, bytes.
const TRANSCRIPT: usize = 4 << 20;

/// A source, fetched.
#[derive(Clone, Debug)]
pub struct Source {
    /// It: an archive, or a single file.
    pub blob: Blob,
    /// Where it came from, as the rockspec says.
    pub url: String,
}

/// What to build.
#[derive(Debug)]
pub struct Order<'a> {
    /// The rock.
    pub name: &'a RockName,
    /// Its version.
    pub version: &'a Version,
    /// In which form it is there.
    pub arch: &'a Arch,
    /// For which Lua.
    pub lua: LuaVersion,
    /// The rock, or its rockspec.
    pub rock: &'a Blob,
    /// Its source, if it is there as a rockspec.
    pub source: Option<&'a Source>,
}

/// What came of it, in the cache.
#[derive(Clone, Debug)]
pub struct Built {
    /// Where the files are: `tree` below it, and `transcript.txt` if a program was run.
    pub dir: PathBuf,
    /// The files.
    pub files: Vec<FileRecord>,
    /// The modules that are among them, sorted.
    pub modules: Vec<String>,
    /// Whether something was compiled.
    pub compiled: bool,
    /// Whether it was there already.
    pub cached: bool,
}

/// Why a build failed, and what was said.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// What the programs said; empty if none was run.
    pub transcript: String,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, transcript: String::new() }
    }
}

/// What is noted beside a tree.
#[derive(Serialize, Deserialize)]
struct Record {
    files: Vec<FileRecord>,
    modules: Vec<String>,
    compiled: bool,
}

/// What the programs of one build say.
#[derive(Default)]
struct Transcript(Mutex<String>);

impl Transcript {
    fn line(&self, text: &str) {
        self.text(&["$ ", text, "\n"].concat());
    }

    fn text(&self, text: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = TRANSCRIPT.saturating_sub(all.len());
        all.push_str(&text[..text.floor_char_boundary(room)]);
    }

    fn take(self) -> String {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Builds rocks.
pub struct Builder {
    cache: Cache,
    confine: Arc<dyn Confine>,
    evaluator: Arc<dyn Evaluator>,
    jobs: usize,
    programs: Vec<PathBuf>,
}

impl Builder {
    /// One that keeps what it builds in this cache, and compiles so many modules at once.
    pub fn new(cache: Cache, confine: Arc<dyn Confine>, evaluator: Arc<dyn Evaluator>, jobs: usize) -> Self {
        let programs = fetch::PROGRAMS.map(PathBuf::from).into();
        Self { cache, confine, evaluator, jobs, programs }
    }

    /// Looks for compilers and build tools in these directories instead of the usual ones.
    pub fn with_programs(mut self, programs: Vec<PathBuf>) -> Self {
        self.programs = programs;
        self
    }

    /// What decides about the result.
    fn key(order: &Order<'_>) -> String {
        let none = String::new();
        let parts = [
            &BUILDER.to_string(),
            order.lua.as_str(),
            std::env::consts::ARCH,
            order.name.as_str(),
            order.version.as_str(),
            order.arch.as_str(),
            &order.rock.sha256,
            order.source.map_or(&none, |source| &source.blob.sha256),
        ];
        digest::sha256(parts.join("\n").as_bytes())
    }

    /// What came of this order when it was built before.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn cached(&self, order: &Order<'_>) -> Result<Option<Built>> {
        let dir = self.cache.built().join(Self::key(order));
        let record = atomic::read_json::<Record>(&dir.join("record.json"));
        // What cannot be read is built again.
        let Ok(Some(Record { files, modules, compiled })) = record else { return Ok(None) };
        Ok(Some(Built { dir, files, modules, compiled, cached: true }))
    }

    /// Forgets what came of an order: its files are not what they were.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(&self, built: &Built) -> Result<()> {
        remove(&built.dir)
    }

    /// Reads a rockspec.
    ///
    /// # Errors
    /// Those of the evaluator; [`Code::PackageInvalid`] for one of another rock than is said, or that is not for this system.
    pub fn rockspec(&self, text: &[u8], name: &RockName, version: &Version) -> Result<Rockspec> {
        if text.len() > MAX_ROCKSPEC {
            return Err(Error::new(Code::PackageInvalid, format!("the rockspec of {name} has more than {MAX_ROCKSPEC} bytes")));
        }
        let kept = files::kept(&self.cache, text).and_then(|kept| serde_json::from_slice(&kept).ok());
        let globals = match kept {
            Some(globals) => globals,
            None => {
                let globals = self.evaluator.rockspec(text)?;
                if let Ok(answer) = serde_json::to_vec(&globals) {
                    files::keep(&self.cache, text, &answer);
                }
                globals
            }
        };
        let spec = Rockspec::from_value(&globals, PLATFORMS)?;
        if spec.package != *name || spec.version != *version {
            let found = format!("{} {}", spec.package, spec.version);
            return Err(Error::new(Code::PackageInvalid, format!("the rockspec of {name} {version} is one of {found}"))
                .hint("the server's files are mixed up; tell whoever keeps it"));
        }
        Ok(spec)
    }

    /// Builds a rock, or finds it built.
    ///
    /// # Errors
    /// [`Code::PackageBuild`], [`Code::PackageArchive`], [`Code::PackageInvalid`], [`Code::PackageChecksum`] where the rockspec promises another MD5,
    /// [`Code::Cancelled`], [`Code::DiskFull`], [`Code::FileFailed`].
    pub fn build(&self, order: &Order<'_>, stop: &Stop) -> Result<Built, Failed> {
        if let Some(built) = self.cached(order)? {
            return Ok(built);
        }
        let work = self.cache.work()?;
        let transcript = Transcript::default();
        match self.make(order, &work, &transcript, stop) {
            Ok(record) => Ok(self.keep(order, &work, record, transcript)?),
            Err(error) => Err(Failed { error, transcript: transcript.take() }),
        }
    }

    fn keep(&self, order: &Order<'_>, work: &Work, record: Record, transcript: Transcript) -> Result<Built> {
        let out = work.path().join("out");
        atomic::write_json(&out.join("record.json"), &record)?;
        let said = transcript.take();
        if !said.is_empty() {
            atomic::write(&out.join("transcript.txt"), said.as_bytes())?;
        }
        let dir = self.cache.built().join(Self::key(order));
        let renamed = match fs::rename(&out, &dir) {
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                match self.cached(order)? {
                    // Somebody else was quicker.
                    Some(built) => return Ok(built),
                    None => remove(&dir).map(|()| fs::rename(&out, &dir))?,
                }
            }
            renamed => renamed,
        };
        renamed.map_err(|error| Error::io(format_args!("keep what was built as {}", dir.display()), error))?;
        let Record { files, modules, compiled } = record;
        Ok(Built { dir, files, modules, compiled, cached: false })
    }

    fn make(&self, order: &Order<'_>, work: &Work, transcript: &Transcript, stop: &Stop) -> Result<Record> {
        let (name, version, lua) = (order.name, order.version, order.lua);
        let made = |dir: &str| {
            let path = work.path().join(dir);
            fs::create_dir(&path).map_err(|error| Error::io(format_args!("make {}", path.display()), error)).map(|()| path)
        };
        made("tmp")?;
        let out = made("out")?;
        let mut stage = Stage::new(out.join("tree"), lua, name, version)?;
        let limits = archive::Limits::default();
        let read = |path: &Path| fs::read(path).map_err(|error| Error::io(format_args!("read {}", path.display()), error));
        let (text, rock) = match order.arch {
            Arch::Rockspec => (read(&order.rock.path)?, None),
            arch => {
                let rock = work.path().join("rock");
                archive::unpack(&order.rock.path, &arch.file_name(name, version), &rock, limits, stop)?;
                let rockspec = rock.join(format!("{name}-{version}.rockspec"));
                let rockspec = if rockspec.is_file() { rockspec } else { only_rockspec(&rock, name)? };
                (read(&rockspec)?, Some(rock))
            }
        };
        let spec = self.rockspec(&text, name, version)?;
        stage.rockspec(&text)?;
        if let (Some(rock), Arch::All | Arch::Binary(_)) = (&rock, order.arch) {
            if let Arch::Binary(_) = order.arch
                && *order.arch != Arch::here()
            {
                return Err(wrong(format!("{name} {version} is there for {} only, and this computer is {}", order.arch, Arch::here())));
            }
            ready::install(&spec, rock, lua, &mut stage)?;
            let (files, modules) = stage.finish();
            return Ok(Record { files, modules, compiled: false });
        }
        let source = self.source(order, &spec, rock.as_deref(), work, stop)?;
        patch::apply_all(&spec.build.patches, &source)?;
        let headers = headers::place(lua, self.cache.root())?;
        let external = external::External::find(&spec, lua, &headers, &self.programs)?;
        let compile = builtin::Compile {
            confine: &*self.confine,
            work,
            source: &source,
            headers: &headers,
            lua,
            external: &external,
            jobs: self.jobs,
            programs: &self.programs,
            stop,
        };
        let compiled = match spec.build.kind.as_str() {
            "builtin" | "module" => builtin::modules(&spec, &mut stage, &compile, transcript)?,
            "none" => false,
            _ => {
                luarocks::build(&spec, &text, &mut stage, &compile, transcript)?;
                let (files, modules) = stage.finish();
                return Ok(Record { files, modules, compiled: true });
            }
        };
        install(&spec, &source, &mut stage)?;
        let (files, modules) = stage.finish();
        Ok(Record { files, modules, compiled })
    }

    /// Unpacks the source and tells which folder of it is meant.
    fn source(&self, order: &Order<'_>, spec: &Rockspec, rock: Option<&Path>, work: &Work, stop: &Stop) -> Result<PathBuf> {
        let into = work.path().join("source");
        let repository = matches!(fetch::locate(&spec.source.url), Ok(fetch::Location::Git(_)));
        let named = spec.source.file.clone().unwrap_or_else(|| fetch::file_name(&spec.source.url));
        let archive_name = match (repository, named.is_empty()) {
            (true, _) => "source.tar".to_owned(),
            (false, true) => return Err(wrong(format!("the rockspec of {} does not tell what its source is called", order.name))),
            (false, false) => named.clone(),
        };
        let file = match (order.source, rock) {
            (Some(source), _) => source.blob.path.clone(),
            (None, Some(rock)) => {
                // A `.src.rock` holds the archive, or for a repository its files.
                let packed = rock.join(&named);
                if repository || !packed.is_file() {
                    return top(rock, spec, &named, repository);
                }
                packed
            }
            (None, None) => return Err(Error::internal("a rockspec was to be built without its source")),
        };
        if let Some(promised) = spec.source.md5.as_ref().filter(|_| !repository) {
            let opened = File::open(&file).map_err(|error| Error::io("read the source", error))?;
            let found = digest::md5_of(opened).map_err(|error| Error::io("read the source", error))?;
            if !found.eq_ignore_ascii_case(promised.trim()) {
                return Err(Error::new(
                    Code::PackageChecksum,
                    format!("the source of {} has MD5 {found}, and its rockspec promises {}", order.name, escape(promised)),
                )
                .hint("the source was changed after the rockspec was written; take another version, or ask who made it"));
            }
        }
        archive::unpack(&file, &archive_name, &into, archive::Limits::default(), stop)?;
        top(&into, spec, &named, repository)
    }
}

/// A rock made by hand may have a rockspec that is spelt otherwise (`Penlight-1.0-1.rockspec`).
fn only_rockspec(rock: &Path, name: &RockName) -> Result<PathBuf> {
    let entries = fs::read_dir(rock).map_err(|error| Error::io("look into a rock", error))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "rockspec") && path.is_file())
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(Error::new(Code::PackageArchive, format!("the rock {name} does not hold its rockspec"))),
    }
}

/// The folder that holds the source: the one that the rockspec names, that of the archive's name, or the only one.
fn top(root: &Path, spec: &Rockspec, named: &str, repository: bool) -> Result<PathBuf> {
    let plain = |dir: &str| {
        let path = root.join(dir);
        path.is_dir() && inside(root, dir).is_ok_and(|found| found.is_dir())
    };
    // A repository is cloned into a folder that bears its name; here it is unpacked without one.
    let base = fetch::file_name(&spec.source.url);
    let base = base.strip_suffix(".git").unwrap_or(&base);
    if let Some(dir) = spec.source.dir.as_deref().or(spec.source.module.as_deref()).map(|dir| dir.trim_end_matches('/')) {
        if plain(dir) {
            return Ok(root.join(dir));
        }
        if let Some(rest) = dir.strip_prefix(base).filter(|rest| repository && (rest.is_empty() || rest.starts_with('/'))) {
            let rest = rest.trim_start_matches('/');
            if rest.is_empty() {
                return Ok(root.to_owned());
            }
            if plain(rest) {
                return Ok(root.join(rest));
            }
        }
        return Err(
            wrong(format!("the source of {} has no folder {}", spec.package, escape(dir))).hint("the rockspec does not fit its source")
        );
    }
    if repository {
        return Ok(if plain(base) && only_folder(root)?.is_some() { root.join(base) } else { root.to_owned() });
    }
    let stem =
        [".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".zip", ".tar"].iter().find_map(|end| named.strip_suffix(end)).unwrap_or(named);
    if plain(stem) {
        return Ok(root.join(stem));
    }
    Ok(only_folder(root)?.unwrap_or_else(|| root.to_owned()))
}

/// The one folder, if there is nothing beside it but the rockspec of a rock.
fn only_folder(root: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(root).map_err(|error| Error::io("look into the source", error))?;
    let mut folders = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(path);
        } else if path.extension().is_none_or(|end| end != "rockspec") {
            return Ok(None);
        }
    }
    Ok(if folders.len() == 1 { folders.pop() } else { None })
}

/// Puts in place what `build.install` and `build.copy_directories` name.
fn install(spec: &Rockspec, source: &Path, stage: &mut Stage<'_>) -> Result<()> {
    let base = |entry: &InstallEntry| entry.file.rsplit('/').next().unwrap_or(&entry.file).to_owned();
    for entry in &spec.build.install.lua {
        let file = inside(source, &entry.file)?;
        match &entry.name {
            Some(module) => stage.lua_module(module, &file)?,
            None => stage.library(false, &base(entry), &file)?,
        }
    }
    for entry in &spec.build.install.lib {
        let file = inside(source, &entry.file)?;
        match &entry.name {
            Some(module) => stage.c_module(module, &file)?,
            None => stage.library(true, &base(entry), &file)?,
        }
    }
    for entry in &spec.build.install.bin {
        let name = entry.name.clone().unwrap_or_else(|| base(entry));
        stage.command(&name, &inside(source, &entry.file)?, spec.deploy.wrap_bin_scripts)?;
    }
    for entry in &spec.build.install.conf {
        let name = entry.name.clone().unwrap_or_else(|| base(entry));
        stage.put_file(&stage.beside(&format!("conf/{name}")), &inside(source, &entry.file)?, false)?;
    }
    for dir in &spec.build.copy_directories {
        stage.directory(dir, &inside(source, dir)?)?;
    }
    Ok(())
}
