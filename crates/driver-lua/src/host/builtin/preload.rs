//! What a zygote has ready before it forks: the programs that every state loads, compiled; and what must differ from state to
//! state although the processes are copies: the seeds.
//!
//! Lua 5.4 makes both its seeds (of string hashes and of `math.random`) of the time in seconds and of addresses (`luai_makeseed`
//! in lstate.c, `randseed` in lmathlib.c), and forked processes have equal addresses. So the state itself is put at a random
//! address, and `math.random` is seeded by the kernel. Lua 5.5 is given its seed, LuaJIT asks the kernel, Lua 5.1 hashes without one.

use super::arena::{Workshop, allocate};
use crate::flavour;
use mlua_sys::{self as ffi, lua_State};
use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::OnceLock,
};
use vmoon_sys::random;

/// Programs by the address of their source.
static COMPILED: OnceLock<Vec<(usize, Box<[u8]>)>> = OnceLock::new();

/// Compiles these programs once for all states of this process and of those it forks. Leaves no holes in the heap, which children would fill.
pub(crate) fn compile(programs: &[(&'static str, &'static CStr)]) {
    let Some(mut workshop) = Workshop::open() else { return };
    // So long that it is a mapping of its own.
    let mut room: Vec<u8> = Vec::with_capacity(1 << 20);
    let mut compiled = |(source, chunk): &(&'static str, &'static CStr)| {
        room.clear();
        // SAFETY: a state of our own, closed again; loading and dumping do not raise, they give a status.
        unsafe {
            let lua = flavour::new_state(allocate, workshop.memory(), 0);
            if lua.is_null() {
                return None;
            }
            let done = ffi::luaL_loadbufferx(lua, source.as_ptr().cast(), source.len(), chunk.as_ptr(), c"t".as_ptr()) == ffi::LUA_OK
                && ffi::lua_dump(lua, append, ptr::from_mut(&mut room).cast(), 0) == 0;
            ffi::lua_close(lua);
            done.then(|| (source.as_ptr() as usize, room.as_slice().into()))
        }
    };
    let _ = COMPILED.set(programs.iter().filter_map(&mut compiled).collect());
}

/// The writer of `lua_dump`: `code` is a vector of bytes.
pub(crate) unsafe extern "C-unwind" fn append(_: *mut lua_State, bytes: *const c_void, len: usize, code: *mut c_void) -> c_int {
    if len == 0 {
        return 0; // Lua 5.5 ends with a piece of nothing at no address
    }
    // SAFETY: Lua gives a readable piece; `code` is the vector that `compile` passed.
    unsafe { (*code.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(bytes.cast(), len)) };
    0
}

/// As `luaL_loadbufferx` of the source, from what [`compile`] has made of it if it has.
///
/// # Safety
/// As that function.
pub(crate) unsafe fn load(lua: *mut lua_State, source: &str, chunk: &CStr) -> c_int {
    let compiled = COMPILED.get().and_then(|all| all.iter().find(|(address, _)| *address == source.as_ptr() as usize));
    // SAFETY: by the caller's promise; the code lives as long as the process, and was made by this very interpreter.
    unsafe {
        match compiled {
            Some((_, code)) => ffi::luaL_loadbufferx(lua, code.as_ptr().cast(), code.len(), chunk.as_ptr(), c"b".as_ptr()),
            None => ffi::luaL_loadbufferx(lua, source.as_ptr().cast(), source.len(), chunk.as_ptr(), c"t".as_ptr()),
        }
    }
}

/// A new state whose allocator has this argument, which nobody else has. Null if there is no memory.
pub(crate) fn new_state(memory: *mut c_void) -> *mut lua_State {
    let mut seed = [0; 4];
    random::fill(&mut seed);
    // SAFETY: what `Memory` gives lives as long as the process.
    unsafe { flavour::new_state(allocate, memory, u32::from_le_bytes(seed)) }
}

/// Seeds `math.random` with 128 bits of the kernel's. Raises nothing but for want of memory.
///
/// # Safety
/// In a protected call, with the standard libraries open and three free slots on the stack.
pub(crate) unsafe fn seed(lua: *mut lua_State) {
    // SAFETY: by the caller's promise.
    unsafe {
        let top = ffi::lua_gettop(lua);
        ffi::lua_getglobal(lua, c"math".as_ptr());
        ffi::lua_getfield(lua, -1, c"randomseed".as_ptr());
        seed_by(lua);
        ffi::lua_settop(lua, top);
    }
}

/// The same by the library's function on top of the stack, which it takes.
///
/// # Safety
/// As [`seed`].
pub(super) unsafe fn seed_by(lua: *mut lua_State) {
    let mut bytes = [0; 16];
    random::fill(&mut bytes);
    let number = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
    // SAFETY: by the caller's promise; nothing with a destructor lives here.
    unsafe {
        let count = flavour::push_seed(lua, [number(0), number(8)]);
        ffi::lua_call(lua, count, 0);
    }
}
