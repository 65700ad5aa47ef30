//! The process of one item: a new state, confined, that gives the item to the script and its result to the parent.
//!
//! It writes messages to descriptor [`TO`]: a tag, a length of four bytes, and so many bytes. Raw calls; frames that Lua may jump out
//! of hold no value with a destructor.

use super::{super::access::Access, Script, tag};
use crate::host::builtin::{CHUNK, arena::Memory, preload};
use mlua_sys::{self as ffi, lua_State};
use std::{
    ffi::{CStr, c_char, c_int},
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    sync::{Mutex, PoisonError},
};
use vmoon_confine::Prepared;
use vmoon_lua_wire as wire;

/// Where messages go.
const TO: RawFd = 3;
/// How much output is kept before it is sent, bytes.
const KEPT: usize = 8 << 10;
/// The longest message of an error, bytes.
const LONGEST_ERROR: usize = 64 << 10;

/// What the program has printed and was not sent yet: behind each stretch's stream nothing is kept, both go to one place.
static PRINTED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// What every item's process is given by its parent's memory.
pub(super) struct Job<'a> {
    pub(super) script: &'a Script,
    pub(super) access: &'a Access,
    pub(super) prepared: &'a Prepared,
    /// The argument of the sandbox; empty where nothing is to be held.
    pub(super) settings: &'a [u8],
    /// Nothing, to read from.
    pub(super) nothing: &'a OwnedFd,
}

/// What the protected call finds.
struct Call<'a> {
    job: &'a Job<'a>,
    text: &'a [u8],
}

/// Runs the script on the item; the code of the process. To be called in a process that was just forked; the caller ends it at once.
pub(super) fn run(job: &Job<'_>, text: &[u8], to: &OwnedFd) -> i32 {
    become_one(job, to);
    match job.access.confine(job.prepared) {
        Ok(_) => {}
        Err(why) => {
            send(tag::ERROR, &[why.as_bytes()]);
            return 1;
        }
    }
    let call = Call { job, text };
    // SAFETY: the allocator's argument lives for ever, the process ends without closing the state, `call` outlives the protected call.
    unsafe {
        let l = preload::new_state(Memory::scattered(job.access.memory));
        if l.is_null() {
            send(tag::ERROR, &[b"there is no memory for a Lua state"]);
            return 1;
        }
        ffi::lua_pushcfunction(l, protected);
        ffi::lua_pushlightuserdata(l, (&raw const call).cast_mut().cast());
        if ffi::lua_pcall(l, 1, 0, 0) != ffi::LUA_OK {
            let message = string(l, -1);
            let message = if message.is_empty() { b"the error is not a string" } else { message };
            send(tag::ERROR, &[&message[..message.len().min(LONGEST_ERROR)]]);
        }
    }
    0
}

/// Gives up what the parent has open and takes nothing of its signals.
fn become_one(job: &Job<'_>, to: &OwnedFd) {
    // SAFETY: plain system calls in a process with one thread that never goes back to its parent's code; the descriptors that are
    // closed belong to values that are never dropped here.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Ctrl-C reaches the whole group; the parent decides.
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::dup2(job.nothing.as_raw_fd(), 0);
        // What C code prints must not come between the results.
        libc::dup2(2, 1);
        if to.as_raw_fd() == TO {
            libc::fcntl(TO, libc::F_SETFD, 0);
        } else {
            libc::dup2(to.as_raw_fd(), TO);
        }
        libc::close_range(TO as u32 + 1, u32::MAX, 0);
    }
    vmoon_sys::fork::unblock_signals();
}

/// Sends one message. If the parent has gone there is nobody to tell.
fn send(tag: u8, parts: &[&[u8]]) {
    flush();
    let length: usize = parts.iter().map(|part| part.len()).sum();
    write(&[tag]);
    write(&(length as u32).to_le_bytes());
    parts.iter().for_each(|part| write(part));
}

fn write(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: as many bytes as are there.
        let n = unsafe { libc::write(TO, bytes.as_ptr().cast(), bytes.len()) };
        if n <= 0 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return;
        }
        bytes = &bytes[n.max(0) as usize..];
    }
}

/// Sends what was printed.
fn flush() {
    let printed = std::mem::take(&mut *PRINTED.lock().unwrap_or_else(PoisonError::into_inner));
    if !printed.is_empty() {
        write(&[tag::PRINTED]);
        write(&(printed.len() as u32).to_le_bytes());
        write(&printed);
    }
}

/// The string at an index, or nothing; it lives while it is there.
unsafe fn string<'a>(l: *mut lua_State, at: c_int) -> &'a [u8] {
    // SAFETY: lua_tolstring of a string neither allocates nor raises.
    unsafe {
        if ffi::lua_type(l, at) != ffi::LUA_TSTRING {
            return b"";
        }
        let mut len = 0;
        let bytes = ffi::lua_tolstring(l, at, &raw mut len);
        std::slice::from_raw_parts(bytes.cast(), len)
    }
}

unsafe fn push(l: *mut lua_State, bytes: &[u8]) {
    // SAFETY: the caller has made room on the stack.
    unsafe { ffi::lua_pushlstring(l, bytes.as_ptr().cast(), bytes.len()) };
}

/// Loads a program of ours and leaves it on the stack.
unsafe fn load(l: *mut lua_State, source: &'static str) {
    // SAFETY: inside the protected call.
    unsafe {
        if preload::load(l, source, CHUNK) != ffi::LUA_OK {
            ffi::lua_error(l);
        }
    }
}

unsafe extern "C-unwind" fn protected(l: *mut lua_State) -> c_int {
    // SAFETY: called by `run` with the address of its `call`; nothing below holds a value with a destructor across a call that
    // may raise an error. Indices 2 to 4 keep what is used after the script has run.
    unsafe {
        let call = &*ffi::lua_touserdata(l, 1).cast::<Call<'_>>();
        libraries(l, call.job);
        // The module of data: taken before the program can replace it.
        ffi::lua_getglobal(l, c"package".as_ptr());
        ffi::lua_getfield(l, -1, c"preload".as_ptr());
        ffi::lua_getfield(l, -1, c"vmoon".as_ptr());
        ffi::lua_call(l, 0, 1);
        ffi::lua_insert(l, 2);
        ffi::lua_settop(l, 2);
        for name in [c"decode", c"encode", c"null"] {
            ffi::lua_getfield(l, 2, name.as_ptr());
        }
        ffi::lua_remove(l, 2);
        hold(l, call.job);
        arguments(l, call.job.script);
        let script = call.job.script;
        let code = script.code.as_ptr().cast();
        if ffi::luaL_loadbufferx(l, code, script.code.len(), script.name.as_ptr().cast(), c"b".as_ptr()) != ffi::LUA_OK {
            ffi::lua_error(l);
        }
        // decode(text): the value, or nil and a sentence; null is nil for the script.
        ffi::lua_pushvalue(l, 2);
        push(l, call.text);
        ffi::lua_call(l, 1, 2);
        if ffi::lua_type(l, -2) == ffi::LUA_TNIL {
            send(tag::INPUT, &[string(l, -1)]);
            return 0;
        }
        ffi::lua_settop(l, -2);
        if ffi::lua_rawequal(l, -1, 4) != 0 {
            ffi::lua_pushnil(l);
            ffi::lua_replace(l, -2);
        }
        ffi::lua_pushcfunction(l, message);
        ffi::lua_insert(l, 5);
        if ffi::lua_pcall(l, 1, 1, 5) != ffi::LUA_OK {
            ffi::lua_error(l);
        }
        ffi::lua_pushvalue(l, 3);
        ffi::lua_insert(l, -2);
        ffi::lua_call(l, 1, 1);
        send(tag::RESULT, &[string(l, -1)]);
    }
    0
}

/// The error as a string.
unsafe extern "C-unwind" fn message(l: *mut lua_State) -> c_int {
    // SAFETY: called by Lua with the error as its argument.
    unsafe {
        if ffi::lua_type(l, 1) != ffi::LUA_TSTRING
            && (ffi::luaL_callmeta(l, 1, c"__tostring".as_ptr()) == 0 || ffi::lua_type(l, -1) != ffi::LUA_TSTRING)
        {
            let kind = ffi::lua_typename(l, ffi::lua_type(l, 1));
            ffi::lua_pushfstring(l, c"(error object is a %s value)".as_ptr(), kind);
        }
        1
    }
}

/// All libraries, with a seed of their own, and the session's program, which makes them print to us. Leaves the stack as it was.
unsafe fn libraries(l: *mut lua_State, job: &Job<'_>) {
    // SAFETY: inside the protected call.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::luaL_openlibs(l);
        preload::seed(l);
        super::super::vm::modules(l, job.access.modules.as_ref());
        super::super::vm::beside(l, &job.script.templates);
        load(l, wire::REPL);
        ffi::lua_createtable(l, 0, 4);
        let functions: [(&CStr, ffi::lua_CFunction); 4] = [(c"emit", emit), (c"flush", nothing), (c"ask", nothing), (c"exit", exit)];
        for (name, function) in functions {
            ffi::lua_pushcfunction(l, function);
            ffi::lua_setfield(l, -2, name.as_ptr());
        }
        ffi::lua_call(l, 1, 0);
        ffi::lua_settop(l, top);
    }
}

/// Holds the libraries to what is granted.
unsafe fn hold(l: *mut lua_State, job: &Job<'_>) {
    // SAFETY: inside the protected call.
    unsafe {
        if !job.settings.is_empty() {
            load(l, wire::sandbox::SANDBOX);
            push(l, job.settings);
            ffi::lua_call(l, 1, 0);
        }
    }
}

unsafe fn arguments(l: *mut lua_State, script: &Script) {
    // SAFETY: inside the protected call.
    unsafe {
        ffi::lua_createtable(l, script.args.len() as c_int, 1);
        push(l, script.zero.as_bytes());
        ffi::lua_rawseti(l, -2, 0);
        for (at, arg) in (1..).zip(&script.args) {
            push(l, arg.as_bytes());
            ffi::lua_rawseti(l, -2, at);
        }
        ffi::lua_setglobal(l, c"arg".as_ptr());
    }
}

/// `host.emit(fd, s)`
unsafe extern "C-unwind" fn emit(l: *mut lua_State) -> c_int {
    // SAFETY: the check raises before anything is borrowed; the string stays on the stack while it is read.
    unsafe {
        let mut len = 0;
        let bytes: *const c_char = ffi::luaL_checklstring(l, 2, &raw mut len);
        let mut bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), len);
        // In pieces, so that no string of the program is copied as a whole.
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(KEPT));
            bytes = rest;
            let full = {
                let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
                printed.extend_from_slice(piece);
                printed.len() >= KEPT
            };
            if full {
                flush();
            }
        }
        0
    }
}

/// `host.flush()` and `host.ask()`: what is printed goes when there is enough of it, and there is no input.
unsafe extern "C-unwind" fn nothing(_: *mut lua_State) -> c_int {
    0
}

/// `host.exit(code)`
unsafe extern "C-unwind" fn exit(l: *mut lua_State) -> c_int {
    // SAFETY: a plain argument check, and the end of the process.
    unsafe {
        let code = ffi::luaL_optinteger(l, 1, 0) as c_int;
        send(tag::EXIT, &[&code.to_le_bytes()]);
        libc::_exit(code)
    }
}
