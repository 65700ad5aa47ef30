//! One script over many items: `vmoon run --map`. Each line of the input is a JSON value that the script gets as its argument, in a
//! process and a state of its own; what it returns is the result, as JSON.
//!
//! This process has one thread, reads the input, and forks the processes of the items; whatever one of them does ends that item.
//! This file must not know how results are shown.

mod child;
pub(super) mod installed;
mod lines;
mod order;
mod run;
pub(crate) mod work;

use super::{OURS, Source, access, complain};
use crate::{flavour::Flavour, host::builtin};
use mlua_sys as ffi;
use serde_json::{Map as Settings, Value};
use std::{ffi::OsString, fs::File, io, os::fd::OwnedFd, path::PathBuf, time::Duration};
use vmoon_confine::Prepared;

/// The messages of an item's process.
mod tag {
    /// What it has printed.
    pub(super) const PRINTED: u8 = b'p';
    /// The result as JSON.
    pub(super) const RESULT: u8 = b'r';
    /// Why there is none.
    pub(super) const ERROR: u8 = b'e';
    /// The item is not JSON.
    pub(super) const INPUT: u8 = b'i';
    /// The script has called `os.exit` with this code.
    pub(super) const EXIT: u8 = b'x';
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Map {
    /// The script.
    pub source: Source,
    /// Its table `arg`.
    pub args: Vec<OsString>,
    /// As [`super::Program::runtime`].
    pub runtime: Option<String>,
    /// The file of the items, one JSON value a line; `None` for standard input.
    pub input: Option<PathBuf>,
    /// How many items run at once, at least 1.
    pub jobs: usize,
    /// How often an item that failed is tried again.
    pub retries: u32,
    /// How long an item may take in one attempt.
    pub deadline: Option<Duration>,
    /// Results as they come, not in the order of the items.
    pub unordered: bool,
    /// What the script may do; as [`super::Program::access`].
    pub access: Settings<String, Value>,
    /// As [`super::Program::environment`].
    pub environment: Option<crate::Environment>,
}

/// An item that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number, from 0; blank lines do not count.
    pub index: u64,
    /// The line.
    pub input: Vec<u8>,
    /// The result as JSON, or a sentence.
    pub outcome: Result<String, String>,
    /// The beginning of what the last attempt has printed.
    pub printed: Vec<u8>,
    /// How many bytes it has printed beyond that.
    pub left_out: u64,
    /// How long the last attempt took.
    pub took: Duration,
    /// How often it was tried.
    pub attempts: u32,
}

impl Default for Item {
    fn default() -> Self {
        Self {
            index: 0,
            input: Vec::new(),
            outcome: Ok(String::new()),
            printed: Vec::new(),
            left_out: 0,
            took: Duration::ZERO,
            attempts: 0,
        }
    }
}

impl Item {
    /// About how many bytes it holds.
    fn size(&self) -> usize {
        let outcome = match &self.outcome {
            Ok(text) | Err(text) => text.len(),
        };
        self.input.len() + outcome + self.printed.len()
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Items with a result.
    pub succeeded: u64,
    /// Items with an error.
    pub failed: u64,
    /// Items that run.
    pub running: u64,
    /// Attempts beyond the first of each item.
    pub retried: u64,
    /// The signal that ended it early; what was running then has no result.
    pub signal: Option<i32>,
}

/// Who is told.
pub trait Sink {
    /// An item is done.
    ///
    /// # Errors
    /// Nobody wants to know any more: everything ends.
    fn item(&mut self, item: &Item) -> io::Result<()>;

    /// How far it is, about ten times a second.
    fn progress(&mut self, so_far: &Summary);
}

/// The script, ready to be run many times.
struct Script {
    /// Bytecode of this very interpreter.
    code: Vec<u8>,
    /// Its chunk's name, ended by a zero byte.
    name: Vec<u8>,
    /// `arg[0]`.
    zero: OsString,
    args: Vec<OsString>,
    /// Where else modules are looked for.
    templates: Vec<u8>,
}

/// Runs the script over all items. Must be called while the process has one thread.
///
/// # Errors
/// An exit code: nothing was run, and the reason was told on standard error; or the error of the sink, or of reading the input.
pub fn run(map: &Map, sink: &mut dyn Sink) -> Result<Summary, Failure> {
    super::restore_signals();
    match map.runtime.as_deref().map(|runtime| (runtime, Flavour::of(runtime))) {
        None => {}
        Some((_, Some(flavour))) if flavour.is_ours() => {}
        Some((_, Some(flavour))) => return super::elsewhere::many(flavour, map, sink),
        Some((runtime, None)) => return installed::run(runtime, map, sink),
    }
    let chunk = super::load(&map.source).map_err(Failure::Told)?;
    let access = access::decide(&map.access, &map.source, None, map.environment.as_ref()).map_err(Failure::Told)?;
    let code = compile(&chunk).map_err(|message| {
        complain(&message);
        Failure::Told(1)
    })?;
    let templates = access.folder.as_deref().map(super::vm::templates).unwrap_or_default();
    let script = Script { code, name: chunk.name, zero: chunk.zero, args: map.args.clone(), templates };
    if !access.is_free()
        && let Some(sentence) = access::weakness(&access.rules, &vmoon_confine::probe())
    {
        complain(&sentence);
    }
    builtin::prepare();
    let settings = if access.grants.is_trusted() { String::new() } else { access.grants.settings() };
    let (prepared, nothing) = (Prepared::new(), nothing()?);
    let job = child::Job { script: &script, access: &access, prepared: &prepared, settings: settings.as_bytes(), nothing: &nothing };
    run::run(map, &|item, to| child::run(&job, item, to), sink)
}

/// Nothing, to read from.
fn nothing() -> Result<OwnedFd, Failure> {
    File::open("/dev/null").map(Into::into).map_err(Failure::io("/dev/null cannot be opened"))
}

/// Why there is no summary.
#[derive(Debug)]
pub enum Failure {
    /// The reason was told on standard error; end with this code.
    Told(u8),
    /// The sink has failed, or the input cannot be read, or no process can be started.
    Io(&'static str, io::Error),
}

impl Failure {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io(what, error)
    }

    /// The code of a failure that is ours.
    pub const CODE: u8 = OURS;
}

/// The bytecode of a chunk, or the compiler's message.
fn compile(chunk: &super::Chunk) -> Result<Vec<u8>, String> {
    // SAFETY: a state of our own, closed again; loading and dumping do not raise, they give a status.
    unsafe {
        let l = ffi::luaL_newstate();
        if l.is_null() {
            return Err("there is no memory for a Lua state".into());
        }
        let (text, name) = (chunk.text.as_ptr().cast(), chunk.name.as_ptr().cast());
        let mut code: Vec<u8> = Vec::new();
        let result = if ffi::luaL_loadbufferx(l, text, chunk.text.len(), name, c"t".as_ptr()) == ffi::LUA_OK {
            ffi::lua_dump(l, crate::host::builtin::preload::append, (&raw mut code).cast(), 0);
            Ok(code)
        } else {
            let mut len = 0;
            let message = ffi::lua_tolstring(l, -1, &raw mut len);
            let bytes: &[u8] = if message.is_null() { b"out of memory" } else { std::slice::from_raw_parts(message.cast(), len) };
            Err(String::from_utf8_lossy(bytes).into_owned())
        };
        ffi::lua_close(l);
        result
    }
}
