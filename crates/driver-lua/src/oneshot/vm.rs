//! The embedded Lua as the standalone `lua` runs a script: all libraries, `arg`, `...`, a traceback for an error, Ctrl-C.
//!
//! Raw calls, because this path is measured against the standalone interpreter. Frames that Lua may jump out of hold no
//! value with a destructor.

use super::{Chunk, DEADLINE, INTERRUPTED, OURS, access::Access, complain};
use crate::flavour;
use crate::host::builtin::{
    CHUNK,
    arena::{Memory, allocate},
    module_paths, preload,
};
use mlua_sys::{self as ffi, lua_State};
use std::{
    ffi::{OsString, c_char, c_int},
    os::unix::ffi::OsStrExt as _,
    ptr::null_mut,
    sync::atomic::{AtomicPtr, AtomicU8, Ordering::Relaxed},
};
use vmoon_lua_wire::program::Modules;

/// The state that runs, for the signal handlers.
static RUNNING: AtomicPtr<lua_State> = AtomicPtr::new(null_mut());
/// The signal that came, 0 for none.
static CUT: AtomicU8 = AtomicU8::new(0);

struct Job<'a> {
    chunks: &'a [Chunk],
    args: &'a [OsString],
    /// What the libraries are told that they grant; empty where nothing is to be held.
    settings: &'a [u8],
    /// Where else modules are looked for: templates, or nothing.
    templates: &'a [u8],
    /// Where modules are looked for, if not where the computer has them.
    modules: Option<&'a Modules>,
    code: u8,
}

/// Runs the chunks one after the other until one fails; the exit code.
pub(super) fn run(chunks: &[Chunk], args: &[OsString], access: &Access) -> u8 {
    let settings = if access.grants.is_trusted() { String::new() } else { access.grants.settings() };
    let templates = access.folder.as_deref().map(templates).unwrap_or_default();
    let mut job = Job { chunks, args, settings: settings.as_bytes(), templates: &templates, modules: access.modules.as_ref(), code: OURS };
    // SAFETY: the state is made, used and closed here by one thread; `job` outlives the call that is given its address.
    unsafe {
        let l = match access.memory {
            Some(_) if flavour::ALLOCATES => preload::new_state(Memory::leaked(access.memory)),
            _ => ffi::luaL_newstate(),
        };
        if l.is_null() {
            complain("there is no memory for a Lua state");
            return OURS;
        }
        if access.memory.is_some() && !flavour::ALLOCATES {
            // What is there already was allocated by realloc, too.
            ffi::lua_setallocf(l, allocate, Memory::leaked(access.memory));
        }
        ffi::lua_pushcfunction(l, protected);
        ffi::lua_pushlightuserdata(l, (&raw mut job).cast());
        if ffi::lua_pcall(l, 1, 0, 0) != ffi::LUA_OK {
            report(l);
            job.code = 1;
        }
        ffi::lua_close(l);
    }
    job.code
}

unsafe extern "C-unwind" fn protected(l: *mut lua_State) -> c_int {
    // SAFETY: called by `run` with the address of its `job`; nothing below holds a value with a destructor across a call
    // that may raise an error.
    unsafe {
        let job = &mut *ffi::lua_touserdata(l, 1).cast::<Job>();
        ffi::luaL_openlibs(l);
        modules(l, job.modules);
        confine(l, job);
        flavour::generations(l);
        arguments(l, job);
        // Taken before the program can replace it.
        ffi::lua_getglobal(l, c"print".as_ptr());
        let print = ffi::lua_gettop(l);
        for chunk in job.chunks {
            job.code = one(l, chunk, job.args, print);
            ffi::lua_settop(l, print);
            if job.code != 0 {
                break;
            }
        }
    }
    0
}

/// Runs one chunk and prints its values if that is wanted; the exit code. `print` is the index of the function.
unsafe fn one(l: *mut lua_State, chunk: &Chunk, args: &[OsString], print: c_int) -> u8 {
    // SAFETY: inside the protected call; no value with a destructor lives across a call that may raise an error.
    unsafe {
        if compile(l, chunk) != ffi::LUA_OK {
            report(l);
            return 1;
        }
        ffi::luaL_checkstack(l, args.len() as c_int + 4, c"too many arguments to script".as_ptr());
        // Below the function, so that it is below its results.
        ffi::lua_pushvalue(l, print);
        ffi::lua_insert(l, -2);
        let below = ffi::lua_gettop(l) - 1;
        for arg in args {
            push(l, arg.as_bytes());
        }
        let status = call(l, args.len() as c_int);
        let cut = CUT.load(Relaxed);
        if status != ffi::LUA_OK {
            report(l);
            return match c_int::from(cut) {
                libc::SIGINT => INTERRUPTED,
                libc::SIGALRM => DEADLINE,
                _ => 1,
            };
        }
        let results = ffi::lua_gettop(l) - below;
        if chunk.print && results > 0 {
            show(l, below + 1);
            if ffi::lua_pcall(l, results, 0, 0) != ffi::LUA_OK {
                report(l);
                return 1;
            }
        }
    }
    0
}

unsafe fn push(l: *mut lua_State, bytes: &[u8]) {
    // SAFETY: the caller has made room on the stack.
    unsafe { ffi::lua_pushlstring(l, bytes.as_ptr().cast(), bytes.len()) };
}

/// Sets `package.path` and `package.cpath`: to those of an environment, or else to the usual ones unless variables say where modules are.
pub(super) unsafe fn modules(l: *mut lua_State, environment: Option<&Modules>) {
    if let Some(modules) = environment {
        // SAFETY: inside the protected call.
        return unsafe { module_paths(l, modules) };
    }
    // SAFETY: inside the protected call; the names of variables are C strings.
    unsafe {
        ffi::lua_getglobal(l, c"package".as_ptr());
        for (names, field, value) in
            [(flavour::PATH_VARIABLES, c"path", flavour::LUA_PATH), (flavour::CPATH_VARIABLES, c"cpath", flavour::LUA_CPATH)]
        {
            if names.iter().all(|name| libc::getenv(name.as_ptr()).is_null()) {
                ffi::lua_pushstring(l, value.as_ptr());
                ffi::lua_setfield(l, -2, field.as_ptr());
            }
        }
        ffi::lua_settop(l, -2);
    }
}

/// Where modules beside the program are, as Lua looks for them; nothing if the folder's name would be taken for something else.
pub(super) fn templates(folder: &std::path::Path) -> Vec<u8> {
    let folder = folder.as_os_str().as_bytes();
    if folder.iter().any(|byte| matches!(byte, b';' | b'?')) {
        return Vec::new();
    }
    [b";", folder, b"/?.lua;", folder, b"/?/init.lua"].concat()
}

/// Looks for modules in these templates, too, after everywhere else.
pub(super) unsafe fn beside(l: *mut lua_State, templates: &[u8]) {
    if templates.is_empty() {
        return;
    }
    // SAFETY: inside the protected call; the stack is left as high as it was.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::lua_getglobal(l, c"package".as_ptr());
        ffi::lua_getfield(l, -1, c"path".as_ptr());
        push(l, templates);
        ffi::lua_concat(l, 2);
        ffi::lua_setfield(l, -2, c"path".as_ptr());
        ffi::lua_settop(l, top);
    }
}

/// Holds the libraries to what is granted; the program's own folder is the last place where modules are looked for.
unsafe fn confine(l: *mut lua_State, job: &Job<'_>) {
    // SAFETY: inside the protected call; every branch leaves the stack as high as it was.
    unsafe {
        let top = ffi::lua_gettop(l);
        beside(l, job.templates);
        if !job.settings.is_empty() {
            let sandbox = vmoon_lua_wire::sandbox::SANDBOX;
            let (text, name) = (sandbox.as_ptr().cast(), CHUNK.as_ptr());
            if ffi::luaL_loadbufferx(l, text, sandbox.len(), name, c"t".as_ptr()) != ffi::LUA_OK {
                ffi::lua_error(l);
            }
            push(l, job.settings);
            ffi::lua_call(l, 1, 0);
        }
        ffi::lua_settop(l, top);
    }
}

unsafe fn arguments(l: *mut lua_State, job: &Job<'_>) {
    // SAFETY: inside the protected call, three slots of the twenty that are always there.
    unsafe {
        ffi::lua_createtable(l, job.args.len() as c_int, 2);
        push(l, b"vmoon");
        ffi::lua_rawseti(l, -2, -1);
        push(l, job.chunks.first().map_or(&b""[..], |chunk| chunk.zero.as_bytes()));
        ffi::lua_rawseti(l, -2, 0);
        for (at, arg) in (1..).zip(job.args) {
            push(l, arg.as_bytes());
            ffi::lua_rawseti(l, -2, at);
        }
        ffi::lua_setglobal(l, c"arg".as_ptr());
    }
}

/// Leaves the function, or the compiler's message, on the stack.
unsafe fn compile(l: *mut lua_State, chunk: &Chunk) -> c_int {
    // SAFETY: text and name live as long as the chunk, and the name ends with a zero byte.
    unsafe {
        let (text, name) = (chunk.text.as_ptr().cast(), chunk.name.as_ptr().cast());
        ffi::luaL_loadbufferx(l, text, chunk.text.len(), name, c"t".as_ptr())
    }
}

/// Calls the function below `n` arguments so that signals reach it.
unsafe fn call(l: *mut lua_State, n: c_int) -> c_int {
    // SAFETY: the function and its arguments are on the stack; the handlers see a state that lives while they are installed.
    unsafe {
        let base = ffi::lua_gettop(l) - n;
        ffi::lua_pushcfunction(l, handler);
        ffi::lua_insert(l, base);
        RUNNING.store(l, Relaxed);
        let on_signal = on_signal as extern "C" fn(c_int);
        for signal in [libc::SIGINT, libc::SIGALRM] {
            libc::signal(signal, on_signal as libc::sighandler_t);
        }
        let used_up = used_up as extern "C" fn(c_int);
        libc::signal(libc::SIGXCPU, used_up as libc::sighandler_t);
        let status = ffi::lua_pcall(l, n, ffi::LUA_MULTRET, base);
        // The deadline may still come while the results are shown; an interrupt then ends the process.
        libc::signal(libc::SIGINT, libc::SIG_DFL);
        libc::signal(libc::SIGALRM, libc::SIG_IGN);
        RUNNING.store(null_mut(), Relaxed);
        ffi::lua_sethook(l, None, 0, 0);
        ffi::lua_remove(l, base);
        status
    }
}

/// Its processor time is used up: says so, and ends as it would have without us.
extern "C" fn used_up(signal: c_int) {
    const WORDS: &[u8] = b"vmoon: the program has used up its processor time (--cpu) and was ended\n";
    // SAFETY: signal-safety(7) lists write, signal and raise.
    unsafe {
        libc::write(2, WORDS.as_ptr().cast(), WORDS.len());
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Arms the hook, as the standalone interpreter does. A second SIGINT ends the process.
extern "C" fn on_signal(signal: c_int) {
    // SAFETY: signal and lua_sethook may be called in a handler; the state is live while it is in RUNNING.
    unsafe {
        if signal == libc::SIGINT {
            libc::signal(signal, libc::SIG_DFL);
        }
        CUT.store(signal as u8, Relaxed);
        let l = RUNNING.load(Relaxed);
        if !l.is_null() {
            let mask = ffi::LUA_MASKCALL | ffi::LUA_MASKRET | ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT;
            ffi::lua_sethook(l, Some(stop), mask, 1);
        }
    }
}

unsafe extern "C-unwind" fn stop(l: *mut lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: a hook may raise an error. The deadline's hook stays, so that no pcall of the program swallows it.
    unsafe {
        if c_int::from(CUT.load(Relaxed)) == libc::SIGALRM {
            ffi::luaL_error(l, c"the deadline has passed".as_ptr());
        } else {
            ffi::lua_sethook(l, None, 0, 0);
            ffi::luaL_error(l, c"interrupted!".as_ptr());
        }
    }
}

/// Adds the traceback to an error; as `msgh` of the standalone interpreter.
unsafe extern "C-unwind" fn handler(l: *mut lua_State) -> c_int {
    // SAFETY: called by Lua with the error value as its argument.
    unsafe {
        let mut message = ffi::lua_tolstring(l, 1, null_mut());
        if message.is_null() {
            if ffi::luaL_callmeta(l, 1, c"__tostring".as_ptr()) != 0 && ffi::lua_type(l, -1) == ffi::LUA_TSTRING {
                return 1;
            }
            let kind = ffi::lua_typename(l, ffi::lua_type(l, 1));
            message = ffi::lua_pushfstring(l, c"(error object is a %s value)".as_ptr(), kind);
        }
        // The hook of a deadline must not strike in here.
        let (hook, mask) = (ffi::lua_gethook(l), ffi::lua_gethookmask(l));
        ffi::lua_sethook(l, None, 0, 0);
        ffi::luaL_traceback(l, l, message, 1);
        if c_int::from(CUT.load(Relaxed)) == libc::SIGALRM {
            ffi::lua_sethook(l, hook, mask, 1);
        }
        1
    }
}

/// Prints the message on top of the stack, as bytes, to standard error.
unsafe fn report(l: *mut lua_State) {
    // SAFETY: there is a value on top; what lua_tolstring gives lives while it stays there.
    unsafe {
        let mut len = 0;
        let text: *const c_char = ffi::lua_tolstring(l, -1, &raw mut len);
        let bytes = if text.is_null() { &b"(error object is not a string)"[..] } else { std::slice::from_raw_parts(text.cast(), len) };
        // What the program has printed comes before its error.
        libc::fflush(null_mut());
        for part in [b"vmoon: ", bytes, b"\n"] {
            let mut rest = part;
            while !rest.is_empty() {
                let n = libc::write(2, rest.as_ptr().cast(), rest.len());
                if n <= 0 {
                    return;
                }
                rest = &rest[n as usize..];
            }
        }
    }
}

/// Replaces the tables from this index up by their text, as a session shows them.
unsafe fn show(l: *mut lua_State, from: c_int) {
    // SAFETY: inside the protected call; every branch leaves the stack as high as it was.
    unsafe {
        let top = ffi::lua_gettop(l);
        if (from..=top).all(|at| ffi::lua_type(l, at) != ffi::LUA_TTABLE) {
            return;
        }
        ffi::luaL_checkstack(l, 8, null_mut());
        let (text, name) = (vmoon_lua_wire::REPL, c"=[vmoon]");
        ffi::lua_pushcfunction(l, nothing);
        ffi::lua_pop(l, 1);
        if ffi::luaL_loadbufferx(l, text.as_ptr().cast(), text.len(), name.as_ptr(), c"t".as_ptr()) == ffi::LUA_OK {
            ffi::lua_createtable(l, 0, 4);
            for field in [c"emit", c"flush", c"ask", c"exit"] {
                ffi::lua_pushcfunction(l, nothing);
                ffi::lua_setfield(l, -2, field.as_ptr());
            }
            if ffi::lua_pcall(l, 1, 1, 0) == ffi::LUA_OK && ffi::lua_type(l, -1) == ffi::LUA_TTABLE {
                for at in from..=top {
                    if ffi::lua_type(l, at) == ffi::LUA_TTABLE {
                        ffi::lua_getfield(l, top + 1, c"pretty".as_ptr());
                        ffi::lua_pushvalue(l, at);
                        if ffi::lua_pcall(l, 1, 1, 0) == ffi::LUA_OK {
                            ffi::lua_copy(l, -1, at);
                        }
                        ffi::lua_settop(l, top + 1);
                    }
                }
            }
        }
        ffi::lua_settop(l, top);
    }
}

unsafe extern "C-unwind" fn nothing(_: *mut lua_State) -> c_int {
    0
}
