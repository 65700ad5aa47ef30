//! The Lua sources of a session, and how an external interpreter is told to run them without anything being installed.
//!
//! The command line carries only constants; paths and sources go through the input pipe. This file must not know how the
//! interpreter is started.

use crate::{
    sandbox::{Grants, SANDBOX},
    text,
};
use serde::{Deserialize, Serialize};

/// The session's Lua side, for every Lua version: a chunk called with the table `host`, giving the table of functions
/// described in `lua/repl.lua`. Load it under [`CHUNK_NAME`], by which it knows its own frames in a traceback.
pub const REPL: &str = concat!(
    "local PRETTY, COMPLETE, INPUT, JSON = [==[",
    include_str!("lua/pretty.lua"),
    "]==], [==[",
    include_str!("lua/complete.lua"),
    "]==], [==[",
    include_str!("lua/input.lua"),
    "]==], [==[",
    include_str!("lua/json.lua"),
    "]==]\n",
    include_str!("lua/repl.lua")
);

/// [`REPL`] without its parts, for a host that has them ready: `host.part(k)` gives the k-th of [`PARTS`], compiled.
pub const REPL_ALONE: &str = concat!("local PRETTY, COMPLETE, INPUT, JSON = 1, 2, 3, 4\n", include_str!("lua/repl.lua"));

/// The parts of [`REPL`] that not every session needs.
pub const PARTS: [&str; 4] =
    [include_str!("lua/pretty.lua"), include_str!("lua/complete.lua"), include_str!("lua/input.lua"), include_str!("lua/json.lua")];

/// What runs [`REPL`] in an external interpreter and speaks [`crate::text`] frames; see `lua/driver.lua`.
pub const DRIVER: &str = include_str!("lua/driver.lua");

/// What runs one script on one item of many in an external interpreter; see `lua/map.lua`.
const MAP: &str = include_str!("lua/map.lua");

/// The chunk name of these programs.
pub const CHUNK_NAME: &str = "=[vmoon]";

/// The descriptor the interpreter reads its frames from. Opened by path, so it must be a pipe or a FIFO.
pub const INPUT_FD: i32 = 3;
/// The descriptor it writes its frames to.
pub const OUTPUT_FD: i32 = 4;

/// How often SIGINT can be used before the session changes to looking for the flag file.
pub const RESUMES: u32 = 100;

/// The first `-e`: reads a length, that many bytes of [`DRIVER`] or of what else is to be run, and runs it.
const STAGE0: &str = "local i=assert(io.open('/dev/fd/3','rb')) \
    assert((loadstring or load)(i:read(tonumber(i:read('*l'))),'=[vmoon]'))(i)";

/// How a running command is interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterruptMode {
    /// By SIGINT, which costs nothing while unused. In LuaJIT it cannot end a compiled loop.
    #[default]
    Signal,
    /// By a flag file that a count hook looks for: always works, but Lua 5.4 runs at less than half its speed and LuaJIT
    /// does not compile.
    Hook,
}

impl InterruptMode {
    /// As the driver names it: `sig` or `hook`.
    pub const fn as_str(self) -> &'static str {
        match self {
            InterruptMode::Signal => "sig",
            InterruptMode::Hook => "hook",
        }
    }

    /// Reads the driver's name for it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "sig" => Some(InterruptMode::Signal),
            "hook" => Some(InterruptMode::Hook),
            _ => None,
        }
    }
}

/// Where modules are looked for, as `package.path` and `package.cpath`; neither holds a line feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modules {
    /// Templates of modules in Lua.
    pub path: String,
    /// Templates of modules in C.
    pub cpath: String,
}

/// What the session's Lua side is told at its start, whichever interpreter runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// What the libraries grant; everything by default.
    pub grants: Grants,
    /// How an external interpreter is interrupted; the embedded one needs no choice.
    pub interrupt: InterruptMode,
    /// Where modules are looked for; the interpreter's own places if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules: Option<Modules>,
    /// Speak no newer protocol with the daemon than this one, as a holder of an older build does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
}

/// The arguments behind the interpreter's own name. Every `-e` arms the interpreter's SIGINT handler anew.
pub fn arguments() -> Vec<&'static str> {
    let mut all = vec!["-e", STAGE0];
    for _ in 0..RESUMES {
        all.extend(["-e", "_VMOON()"]);
    }
    all
}

/// The bytes to write to the input pipe first: driver, settings, session program and, unless everything is granted, the sandbox.
/// `flag` is the path of the flag file, without line feeds; the interpreter only looks whether it is there.
pub fn preamble(flag: &str, options: &Options) -> Vec<u8> {
    let mut out = format!("{}\n{DRIVER}", DRIVER.len()).into_bytes();
    let flag = flag.replace('\n', "");
    let (mode, confined) = (options.interrupt.as_str(), u8::from(!options.grants.is_trusted()));
    let mut settings = format!("out=/dev/fd/{OUTPUT_FD}\nflag={flag}\nmode={mode}\nresumes={RESUMES}\nconfined={confined}\n");
    if let Some(Modules { path, cpath }) = &options.modules {
        settings.push_str(&format!("path={}\ncpath={}\n", path.replace('\n', ""), cpath.replace('\n', "")));
    }
    text::encode(b'G', 0, settings.as_bytes(), &mut out);
    text::encode(b'L', 0, REPL.as_bytes(), &mut out);
    if confined == 1 {
        text::encode(b'L', 0, SANDBOX.as_bytes(), &mut out);
        text::encode(b'G', 0, options.grants.settings().as_bytes(), &mut out);
    }
    out
}

/// One script and the item that it is run on, for an interpreter that is started with [`item_arguments`].
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// For its random numbers.
    pub seed: u32,
    /// Where modules are looked for; the interpreter's own places if not said.
    pub modules: Option<&'a Modules>,
    /// Where they are looked for besides, as Lua's templates; empty or beginning with a semicolon.
    pub beside: &'a [u8],
    /// What the libraries grant, in words; `None` for everything.
    pub grants: Option<&'a str>,
    /// The name of the script's chunk.
    pub name: &'a [u8],
    /// Its text.
    pub code: &'a [u8],
    /// The table `arg`, from 0 on.
    pub args: &'a [&'a [u8]],
    /// JSON; if empty, the script is only compiled.
    pub item: &'a [u8],
}

impl Item<'_> {
    /// What the interpreter is to find at [`INPUT_FD`]. It answers at [`OUTPUT_FD`], see the head of `lua/map.lua`.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = format!("{}\n{MAP}", MAP.len()).into_bytes();
        let mut part = |bytes: &[u8]| {
            out.extend_from_slice(format!("{}\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
        };
        part((self.seed >> 1).to_string().as_bytes());
        let (path, cpath) = self.modules.map_or(("", ""), |modules| (&modules.path, &modules.cpath));
        let sandbox = if self.grants.is_some() { SANDBOX } else { "" };
        let count = self.args.len().to_string();
        let first = [path.as_bytes(), cpath.as_bytes(), self.beside, REPL.as_bytes(), sandbox.as_bytes()];
        let then = [self.grants.unwrap_or_default().as_bytes(), self.name, self.code, self.item, count.as_bytes()];
        first.iter().chain(&then).chain(self.args).for_each(|bytes| part(bytes));
        out
    }
}

/// The arguments behind the interpreter's own name that make it read an [`Item`].
pub fn item_arguments() -> [&'static str; 2] {
    ["-e", STAGE0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_survive_being_quoted() {
        for part in PARTS {
            assert!(!part.contains("]==") && part.starts_with("--"), "a long string would end early or lose its first line feed");
        }
    }

    #[test]
    fn a_path_cannot_forge_a_setting() {
        let bytes = preamble("/x\nmode=hook", &Options::default());
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("flag=/xmode=hook\nmode=sig\n"));
    }
}
