//! The embedded Lua, whichever [`crate::flavour`] it is: one state on the main thread, driven by the REPL program of `vmoon-lua-wire`.
//!
//! Everything that may raise runs inside a protected call, and no Rust value with a destructor lives across a call that
//! may raise, since Lua's errors are long jumps.

pub(crate) mod arena;
mod coroutine;
mod interrupt;
pub(crate) mod preload;

use arena::Memory;

use super::{
    engine::Engine,
    hub::{Command, Hub, Input, Outcome, Stream},
};
use crate::flavour;
use mlua_sys::{self as ffi, lua_State};
use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, Ordering},
    },
};
use vmoon_core::frame::FailureKind;
use vmoon_lua_wire::{
    self as wire,
    program::{Modules, Options},
};
use vmoon_sys::process::Identity;

/// The name of the REPL program's chunk: its functions are not interrupted and do not appear in tracebacks.
pub(crate) const CHUNK: &CStr = c"=[vmoon]";

/// What it says it is.
pub(super) const RUNTIME: &str = crate::flavour::OURS.says;

/// Compiles the REPL program, for all processes that this one forks.
pub(crate) fn prepare() {
    let main = [wire::program::REPL_ALONE, wire::sandbox::SANDBOX];
    let all: Vec<_> = main.into_iter().chain(wire::program::PARTS).map(|source| (source, CHUNK)).collect();
    preload::compile(&all);
}

/// How the error of a program ends that wants more memory than it may have.
const NO_MEMORY: &[u8] = b"not enough memory";

static HUB: OnceLock<&'static Hub> = OnceLock::new();

fn hub() -> &'static Hub {
    // Set in `Builtin::new`, before any Lua code can run.
    HUB.get().expect("the hub is set before the first Lua call")
}

/// The embedded interpreter.
pub(crate) struct Builtin {
    lua: *mut lua_State,
    eval: c_int,
    is_complete: c_int,
    complete: c_int,
    /// The library's own `math.randomseed`.
    randomseed: c_int,
    /// [`enter`], [`change`] and [`collect`]: before Lua 5.2 pushing a function of C takes memory, of which there may be none.
    enter: c_int,
    change: c_int,
    collect: c_int,
    /// What tells the sandbox of another work directory, if there is a sandbox.
    moved: Option<c_int>,
    /// What was left of its beginning is collected.
    settled: bool,
}

/// A state with all libraries and the REPL program that does not know yet whose it is.
pub(crate) struct Begun {
    lua: *mut lua_State,
    /// The argument of its allocator.
    memory: *mut c_void,
    /// References: `eval`, `is_complete`, `complete`, `math.randomseed`, [`enter`], [`change`] and [`collect`].
    references: [c_int; 7],
    /// As in [`Builtin`], once it is held to something.
    moved: Option<c_int>,
    settled: bool,
}

impl Begun {
    /// Makes it.
    ///
    /// # Errors
    /// A sentence saying what failed: no memory, or a defect of the REPL program.
    pub(crate) fn new() -> Result<Self, String> {
        let memory = Memory::scattered(None);
        let lua = preload::new_state(memory);
        if lua.is_null() {
            return Err("there is no memory for a Lua state".into());
        }
        let mut references = [0; 7];
        // SAFETY: a fresh state; `open` runs protected.
        unsafe {
            ffi::lua_pushcfunction(lua, open);
            if ffi::lua_pcall(lua, 0, 7, 0) != ffi::LUA_OK {
                return Err(String::from_utf8_lossy(&text(lua, -1)).into_owned());
            }
            for (at, reference) in (1..).zip(&mut references) {
                *reference = ffi::lua_tointeger(lua, at) as c_int;
            }
            ffi::lua_settop(lua, 0);
        }
        Ok(Self { lua, memory, references, moved: None, settled: false })
    }

    /// Holds it to what is granted. Which directory is its work directory is said later.
    ///
    /// # Errors
    /// A sentence saying what failed: no memory, or a defect of the sandbox.
    pub(crate) fn hold(&mut self, options: &Options) -> Result<(), String> {
        let settings = if options.grants.is_trusted() { String::new() } else { options.grants.settings() };
        let held = Held { sandbox: wire::sandbox::SANDBOX, settings: &settings, modules: options.modules.as_ref() };
        let lua = self.lua;
        // SAFETY: the state is ours and idle; `confine` runs protected and finds a live pointer.
        unsafe {
            ffi::lua_pushcfunction(lua, confine);
            ffi::lua_pushlightuserdata(lua, ptr::from_ref(&held).cast_mut().cast());
            if ffi::lua_pcall(lua, 1, 1, 0) != ffi::LUA_OK {
                return Err(String::from_utf8_lossy(&text(lua, -1)).into_owned());
            }
            self.moved = (ffi::lua_isnil(lua, 1) == 0).then(|| ffi::lua_tointeger(lua, 1) as c_int);
            ffi::lua_settop(lua, 0);
        }
        Ok(())
    }

    /// Collects what was left of its beginning.
    pub(crate) fn settle(&mut self) {
        collect_all(self.lua, self.references[6]);
        self.settled = true;
    }
}

/// Collects all garbage by this function; what fails of that fails again in the next command.
fn collect_all(lua: *mut lua_State, collect: c_int) {
    // SAFETY: the state is ours and idle; a function that was made before, called protected.
    unsafe {
        ffi::lua_settop(lua, 0);
        ffi::lua_rawgeti(lua, ffi::LUA_REGISTRYINDEX, collect.into());
        ffi::lua_pcall(lua, 0, 0, 0);
        ffi::lua_settop(lua, 0);
    }
}

/// What a state is held to.
struct Held<'a> {
    sandbox: &'static str,
    /// The argument of the sandbox; empty where nothing is to be held.
    settings: &'a str,
    /// Where modules are looked for, if not where the computer has them.
    modules: Option<&'a Modules>,
}

/// A call of one function of the REPL program: with a string and, for a command with arguments or one that is wanted as data,
/// with those.
struct Call<'a> {
    function: c_int,
    text: &'a [u8],
    arguments: &'a [u8],
    data: bool,
}

impl Builtin {
    /// The interpreter of this machine, which works in that directory. `memory` is the most it may allocate, bytes.
    ///
    /// # Errors
    /// A sentence saying what failed: no memory.
    pub(crate) fn new(begun: Begun, hub: &'static Hub, memory: Option<u64>, work: &str) -> Result<Self, String> {
        let _ = HUB.set(hub);
        let Begun { lua, moved, settled, .. } = begun;
        let [eval, is_complete, complete, randomseed, enter, change, collect] = begun.references;
        let mut this = Self { lua, eval, is_complete, complete, randomseed, enter, change, collect, moved, settled };
        // SAFETY: the state and its memory are ours and idle.
        if unsafe { !arena::bound(begun.memory, memory) } {
            return Err("there is no memory for a Lua state".into());
        }
        if moved.is_some() {
            this.change(&Change { randomseed: None, moved, work })?;
        }
        interrupt::install(hub);
        Ok(this)
    }

    /// Calls a function of the REPL program; its results are on the stack from index 1 on.
    fn call(&mut self, call: &Call<'_>, results: c_int) -> c_int {
        // SAFETY: light values need no memory, `enter` runs protected, `call` outlives it.
        unsafe {
            ffi::lua_settop(self.lua, 0);
            ffi::lua_rawgeti(self.lua, ffi::LUA_REGISTRYINDEX, self.enter.into());
            ffi::lua_pushlightuserdata(self.lua, ptr::from_ref(call).cast_mut().cast());
            ffi::lua_pcall(self.lua, 1, results, 0)
        }
    }

    /// The same with one string.
    fn ask(&mut self, function: c_int, text: &[u8], results: c_int) -> c_int {
        self.call(&Call { function, text, arguments: b"", data: false }, results)
    }

    /// Changes what is this machine's own in its state.
    fn change(&mut self, to: &Change<'_>) -> Result<(), String> {
        // SAFETY: light values need no memory, `change` runs protected, `to` outlives it.
        unsafe {
            ffi::lua_settop(self.lua, 0);
            ffi::lua_rawgeti(self.lua, ffi::LUA_REGISTRYINDEX, self.change.into());
            ffi::lua_pushlightuserdata(self.lua, ptr::from_ref(to).cast_mut().cast());
            let done = ffi::lua_pcall(self.lua, 1, 0, 0) == ffi::LUA_OK;
            let result = if done { Ok(()) } else { Err(String::from_utf8_lossy(&text(self.lua, -1)).into_owned()) };
            ffi::lua_settop(self.lua, 0);
            result
        }
    }

    fn text(&self, index: c_int) -> Vec<u8> {
        // SAFETY: the state is ours and no Lua code runs.
        unsafe { text(self.lua, index) }
    }
}

/// The string at an index, or nothing if there is none. Never converts, so never raises.
unsafe fn text(lua: *mut lua_State, index: c_int) -> Vec<u8> {
    // SAFETY: lua_tolstring of a string neither allocates nor raises; the bytes are copied while they are on the stack.
    unsafe {
        if ffi::lua_type(lua, index) != ffi::LUA_TSTRING {
            return Vec::new();
        }
        let mut len = 0;
        let bytes = ffi::lua_tolstring(lua, index, &raw mut len);
        std::slice::from_raw_parts(bytes.cast::<u8>(), len).to_vec()
    }
}

impl Engine for Builtin {
    fn runtime(&self) -> String {
        RUNTIME.to_owned()
    }

    fn eval(&mut self, _: &Hub, command: &Command) -> Outcome {
        interrupt::begin(self.lua, command.id);
        let data = command.wants_data();
        let call = Call { function: self.eval, text: command.code(), arguments: command.arguments(), data };
        let status = self.call(&call, 5);
        let cut = interrupt::end(self.lua);
        flush_c_output();
        let failed = |message: Vec<u8>, traceback: Vec<u8>| {
            if cut {
                // Coroutines and handlers may have put something before the message.
                let message = interrupt::MESSAGE.to_bytes().to_vec();
                return Outcome::Failed { kind: FailureKind::Interrupted, message, traceback };
            }
            Outcome::Failed { kind: FailureKind::Runtime, message, traceback }
        };
        // A program that has caught the interrupt as its last act was interrupted all the same.
        let outcome = if status == ffi::LUA_OK && !(cut && interrupt::was_raised()) {
            match self.text(1).as_slice() {
                b"values" if data => Outcome::Data { data: self.text(5), values: Some(self.text(2)) },
                b"none" if data => Outcome::Data { data: self.text(5), values: None },
                b"values" => Outcome::Values(self.text(2)),
                b"none" => Outcome::Nothing,
                b"incomplete" => Outcome::Incomplete(self.text(2)),
                _ if self.text(4) == b"s" => Outcome::Failed { kind: FailureKind::Syntax, message: self.text(2), traceback: Vec::new() },
                _ => failed(self.text(2), self.text(3)),
            }
        } else {
            // The program itself failed: no memory, or an interrupt in the one place where it is not caught.
            failed(self.text(-1), Vec::new())
        };
        if !flavour::COLLECTS_IN_NEED && matches!(&outcome, Outcome::Failed { message, .. } if message.ends_with(NO_MEMORY)) {
            collect_all(self.lua, self.collect);
        }
        // SAFETY: dropping what is on the stack of an idle state.
        unsafe { ffi::lua_settop(self.lua, 0) };
        outcome
    }

    fn settle(&mut self) {
        // What loading has left behind would only cost memory.
        if !std::mem::replace(&mut self.settled, true) {
            collect_all(self.lua, self.collect);
        }
    }

    fn can_be_copied(&self) -> bool {
        true
    }

    fn copied(&mut self, work: &str, process: Identity) -> Result<(), String> {
        interrupt::copied(process)?;
        self.change(&Change { randomseed: Some(self.randomseed), moved: self.moved, work })
    }

    fn is_complete(&mut self, _: &Hub, code: &[u8]) -> Vec<u8> {
        if self.ask(self.is_complete, code, 2) == ffi::LUA_OK {
            [self.text(1), self.text(2)].concat()
        } else {
            [b"x".to_vec(), self.text(-1)].concat()
        }
    }

    fn complete(&mut self, _: &Hub, text: &[u8]) -> Vec<u8> {
        let (mut from, mut names) = (text.len(), Vec::new());
        if self.ask(self.complete, text, 2) == ffi::LUA_OK {
            // SAFETY: the results are on the stack; raw access to a table of strings neither runs code nor raises.
            unsafe {
                from = (ffi::lua_tointeger(self.lua, 1).max(1) - 1) as usize;
                if ffi::lua_istable(self.lua, 2) != 0 {
                    for index in 1..=ffi::lua_rawlen(self.lua, 2) {
                        ffi::lua_rawgeti(self.lua, 2, index as ffi::lua_Integer);
                        names.push(String::from_utf8_lossy(&self::text(self.lua, -1)).into_owned());
                        ffi::lua_settop(self.lua, 2);
                    }
                }
            }
        }
        serde_json::json!({ "busy": false, "from": from, "names": names }).to_string().into_bytes()
    }
}

/// C modules write through stdio; what they wrote belongs to the command.
fn flush_c_output() {
    // SAFETY: fflush(NULL) flushes every open output stream and touches nothing else.
    unsafe { libc::fflush(ptr::null_mut()) };
}

/// Opens the libraries and loads the REPL program; gives references to its three functions, to `math.randomseed`, to [`enter`], [`change`] and
/// [`collect`].
unsafe extern "C-unwind" fn open(lua: *mut lua_State) -> c_int {
    // SAFETY: runs protected, on the state's own stack; nothing with a destructor lives here.
    unsafe {
        ffi::luaL_openlibs(lua);
        preload::seed(lua);
        if !flavour::ONE_HOOK {
            coroutine::install(lua);
        }
        distribution_paths(lua);
        ffi::lua_getglobal(lua, c"os".as_ptr());
        ffi::lua_getfield(lua, -1, c"execute".as_ptr());
        ffi::lua_pushcclosure(lua, execute, 1);
        ffi::lua_setfield(lua, -2, c"execute".as_ptr());
        ffi::lua_getglobal(lua, c"math".as_ptr());
        ffi::lua_getfield(lua, -1, c"randomseed".as_ptr());
        let randomseed = ffi::luaL_ref(lua, ffi::LUA_REGISTRYINDEX);
        ffi::lua_settop(lua, 0);
        compile(lua, wire::program::REPL_ALONE);
        ffi::lua_createtable(lua, 0, 5);
        let functions: [(&CStr, ffi::lua_CFunction); 5] =
            [(c"emit", emit), (c"flush", flush), (c"ask", ask), (c"exit", exit), (c"part", part)];
        for (name, function) in functions {
            ffi::lua_pushcfunction(lua, function);
            ffi::lua_setfield(lua, -2, name.as_ptr());
        }
        ffi::lua_call(lua, 1, 1);
        for name in [c"eval", c"is_complete", c"complete"] {
            ffi::lua_getfield(lua, 1, name.as_ptr());
            let reference = ffi::luaL_ref(lua, ffi::LUA_REGISTRYINDEX);
            ffi::lua_pushinteger(lua, reference.into());
        }
        ffi::lua_pushinteger(lua, randomseed.into());
        for function in [enter as unsafe extern "C-unwind" fn(*mut lua_State) -> c_int, change, collect] {
            ffi::lua_pushcfunction(lua, function);
            let reference = ffi::luaL_ref(lua, ffi::LUA_REGISTRYINDEX);
            ffi::lua_pushinteger(lua, reference.into());
        }
        7
    }
}

/// Says where modules are and confines the program; argument: a light pointer to a [`Held`]. Gives a reference to what tells the sandbox of another work
/// directory, or nil.
unsafe extern "C-unwind" fn confine(lua: *mut lua_State) -> c_int {
    // SAFETY: runs protected, on the state's own stack; nothing with a destructor lives here.
    unsafe {
        let held = &*ffi::lua_touserdata(lua, 1).cast::<Held<'_>>();
        if let Some(modules) = held.modules {
            module_paths(lua, modules);
        }
        if held.settings.is_empty() {
            ffi::lua_pushnil(lua);
        } else {
            compile(lua, held.sandbox);
            ffi::lua_pushlstring(lua, held.settings.as_ptr().cast(), held.settings.len());
            ffi::lua_call(lua, 1, 1);
            let moved = ffi::luaL_ref(lua, ffi::LUA_REGISTRYINDEX);
            ffi::lua_pushinteger(lua, moved.into());
        }
        1
    }
}

/// Leaves a part of the session's program on the stack, compiled.
unsafe fn compile(lua: *mut lua_State, source: &'static str) {
    // SAFETY: as in `open`, which calls this.
    unsafe {
        if preload::load(lua, source, CHUNK) != ffi::LUA_OK {
            ffi::lua_error(lua);
        }
    }
}

/// Appends the directories where distributions install modules.
unsafe fn distribution_paths(lua: *mut lua_State) {
    // SAFETY: as in `open`, which calls this.
    unsafe {
        ffi::lua_getglobal(lua, c"package".as_ptr());
        for (field, more) in [(c"path", flavour::MORE_PATH), (c"cpath", flavour::MORE_CPATH)] {
            ffi::lua_getfield(lua, -1, field.as_ptr());
            ffi::lua_pushstring(lua, more.as_ptr());
            ffi::lua_concat(lua, 2);
            ffi::lua_setfield(lua, -2, field.as_ptr());
        }
        ffi::lua_settop(lua, 0);
    }
}

/// Looks for modules in these places only. Leaves the stack as it was.
pub(crate) unsafe fn module_paths(lua: *mut lua_State, modules: &Modules) {
    // SAFETY: as in `open`; the strings are borrowed from who called.
    unsafe {
        let top = ffi::lua_gettop(lua);
        ffi::lua_getglobal(lua, c"package".as_ptr());
        for (field, value) in [(c"path", &modules.path), (c"cpath", &modules.cpath)] {
            ffi::lua_pushlstring(lua, value.as_ptr().cast(), value.len());
            ffi::lua_setfield(lua, -2, field.as_ptr());
        }
        ffi::lua_settop(lua, top);
    }
}

/// What is different in the state of another machine.
struct Change<'a> {
    /// The library's own function: `math.random` goes on from elsewhere.
    randomseed: Option<c_int>,
    moved: Option<c_int>,
    work: &'a str,
}

/// Changes it; argument: a light pointer to a [`Change`].
unsafe extern "C-unwind" fn change(lua: *mut lua_State) -> c_int {
    // SAFETY: runs protected; the pointer is to a `Change` that outlives this call.
    unsafe {
        let to = &*ffi::lua_touserdata(lua, 1).cast::<Change<'_>>();
        if let Some(randomseed) = to.randomseed {
            ffi::lua_rawgeti(lua, ffi::LUA_REGISTRYINDEX, randomseed.into());
            preload::seed_by(lua);
        }
        if let Some(moved) = to.moved {
            ffi::lua_rawgeti(lua, ffi::LUA_REGISTRYINDEX, moved.into());
            ffi::lua_pushlstring(lua, to.work.as_ptr().cast(), to.work.len());
            ffi::lua_call(lua, 1, 0);
        }
        0
    }
}

/// Collects all garbage.
unsafe extern "C-unwind" fn collect(lua: *mut lua_State) -> c_int {
    // SAFETY: runs protected.
    unsafe { ffi::lua_gc(lua, ffi::LUA_GCCOLLECT, 0 as c_int) };
    0
}

/// Calls a function of the REPL program; argument: a light pointer to a [`Call`].
unsafe extern "C-unwind" fn enter(lua: *mut lua_State) -> c_int {
    // SAFETY: runs protected; the pointer is to a `Call` that outlives this call.
    unsafe {
        let call = &*ffi::lua_touserdata(lua, 1).cast::<Call<'_>>();
        ffi::lua_rawgeti(lua, ffi::LUA_REGISTRYINDEX, call.function.into());
        ffi::lua_pushlstring(lua, call.text.as_ptr().cast(), call.text.len());
        let mut count = 1;
        if call.data || !call.arguments.is_empty() {
            count = 3;
            if call.arguments.is_empty() {
                ffi::lua_pushnil(lua);
            } else {
                ffi::lua_pushlstring(lua, call.arguments.as_ptr().cast(), call.arguments.len());
            }
            ffi::lua_pushboolean(lua, call.data.into());
        }
        ffi::lua_call(lua, count, ffi::LUA_MULTRET);
        ffi::lua_gettop(lua) - 1
    }
}

/// `host.part(k)`
unsafe extern "C-unwind" fn part(lua: *mut lua_State) -> c_int {
    // SAFETY: called by the session's program; the check raises before anything is borrowed.
    unsafe {
        let at = ffi::luaL_checkinteger(lua, 1);
        let Some(source) = usize::try_from(at - 1).ok().and_then(|at| wire::program::PARTS.get(at)) else { return 0 };
        if preload::load(lua, source, CHUNK) == ffi::LUA_OK {
            return 1;
        }
        ffi::lua_pushnil(lua);
        ffi::lua_insert(lua, -2);
        2
    }
}

/// `host.emit(fd, s)`
unsafe extern "C-unwind" fn emit(lua: *mut lua_State) -> c_int {
    // SAFETY: the checks raise before anything is borrowed; the string stays on the stack while it is read.
    unsafe {
        let fd = ffi::luaL_checkinteger(lua, 1);
        let mut len = 0;
        let bytes = ffi::luaL_checklstring(lua, 2, &raw mut len);
        let stream = if fd == 2 { Stream::Err } else { Stream::Out };
        hub().emit(stream, std::slice::from_raw_parts(bytes.cast(), len));
        0
    }
}

/// `host.flush()`
unsafe extern "C-unwind" fn flush(_: *mut lua_State) -> c_int {
    hub().flush();
    0
}

/// `host.ask()`
unsafe extern "C-unwind" fn ask(lua: *mut lua_State) -> c_int {
    /// The piece being handed over. Pushing it may raise, which would skip a destructor; what is left here then is freed by
    /// the next call.
    static PIECE: AtomicPtr<Vec<u8>> = AtomicPtr::new(ptr::null_mut());
    let interrupted = match hub().ask() {
        Input::Data(piece) => {
            release(PIECE.swap(Box::into_raw(Box::new(piece)), Ordering::Relaxed));
            false
        }
        Input::End => return 0,
        Input::Interrupted => true,
    };
    // SAFETY: the piece is owned by PIECE until it is released below; nothing with a destructor lives here.
    unsafe {
        if interrupted {
            interrupt::raise();
            ffi::lua_pushstring(lua, interrupt::MESSAGE.as_ptr());
            ffi::lua_error(lua);
        }
        let piece = PIECE.load(Ordering::Relaxed);
        ffi::lua_pushlstring(lua, (*piece).as_ptr().cast(), (*piece).len());
    }
    release(PIECE.swap(ptr::null_mut(), Ordering::Relaxed));
    1
}

fn release(piece: *mut Vec<u8>) {
    if !piece.is_null() {
        // SAFETY: made by Box::into_raw in `ask` and taken out of its only place.
        drop(unsafe { Box::from_raw(piece) });
    }
}

/// `host.exit(code)`
unsafe extern "C-unwind" fn exit(lua: *mut lua_State) -> c_int {
    // SAFETY: a plain argument check.
    let code = unsafe { ffi::luaL_optinteger(lua, 1, 0) };
    flush_c_output();
    hub().exit(code as i32)
}

/// `os.execute`, with the child's output in its place among the program's; upvalue: the library's own.
unsafe extern "C-unwind" fn execute(lua: *mut lua_State) -> c_int {
    flush_c_output();
    hub().capture();
    interrupt::children(true);
    // SAFETY: calls the library's function with our arguments; it does not raise for strings, and if an argument check
    // does raise, `children` is put right at the end of the command.
    unsafe {
        ffi::lua_pushvalue(lua, ffi::lua_upvalueindex(1));
        ffi::lua_insert(lua, 1);
        ffi::lua_call(lua, ffi::lua_gettop(lua) - 1, ffi::LUA_MULTRET);
    }
    interrupt::children(false);
    hub().capture();
    // SAFETY: raises in a call of Lua, or reads the stack's height.
    unsafe {
        if interrupt::is_wanted() {
            interrupt::raise();
            ffi::lua_pushstring(lua, interrupt::MESSAGE.as_ptr());
            ffi::lua_error(lua);
        }
        ffi::lua_gettop(lua)
    }
}
