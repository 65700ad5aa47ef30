//! What a zygote has ready before it forks: the programs that every state loads, compiled; and what must differ from state to
//! state although the processes are copies: the seeds.
//!
//! Lua 5.4 makes both its seeds (of string hashes and of `math.random`) of the time in seconds and of addresses (`luai_makeseed`
//! in lstate.c, `randseed` in lmathlib.c), and forked processes have equal addresses. So the state itself is put at a random
//! address, and `math.random` is seeded by the kernel. Lua 5.5 is given its seed, LuaJIT asks the kernel, Lua 5.1 hashes without one.

use crate::flavour;
use mlua_sys::{self as ffi, lua_Alloc, lua_State};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::OnceLock,
};
use vmoon_sys::random;

/// Programs by the address of their source.
static COMPILED: OnceLock<Vec<(usize, Vec<u8>)>> = OnceLock::new();

const PAGE: usize = 4096;
/// States are put within this distance: one table of the kernel's third level, so that a random place costs no further ones.
const REACH: usize = 1 << 30;
/// How often a taken address is tried.
const TRIES: usize = 16;

/// Compiles these programs once for all states of this process and of those it forks.
pub(crate) fn compile(programs: &[(&'static str, &'static CStr)]) {
    let compiled = |(source, chunk): &(&'static str, &'static CStr)| {
        // SAFETY: a state of our own, closed again; loading and dumping do not raise, they give a status.
        unsafe {
            let lua = ffi::luaL_newstate();
            if lua.is_null() {
                return None;
            }
            let mut code: Vec<u8> = Vec::new();
            let done = ffi::luaL_loadbufferx(lua, source.as_ptr().cast(), source.len(), chunk.as_ptr(), c"t".as_ptr()) == ffi::LUA_OK
                && ffi::lua_dump(lua, append, ptr::from_mut(&mut code).cast(), 0) == 0;
            ffi::lua_close(lua);
            done.then_some((source.as_ptr() as usize, code))
        }
    };
    let _ = COMPILED.set(programs.iter().filter_map(compiled).collect());
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

/// As `lua_newstate`, with the state at a random address, so that strings hash differently in every process.
///
/// # Safety
/// As that function. The state is never closed: its first block is not of `allocate`.
pub(crate) unsafe fn new_state(allocate: lua_Alloc, memory: *mut c_void) -> *mut lua_State {
    let mut seed = [0; 4];
    random::fill(&mut seed);
    let seed = u32::from_le_bytes(seed);
    if !flavour::SEEDED_BY_ADDRESS {
        // SAFETY: by the caller's promise.
        return unsafe { flavour::new_state(allocate, memory, seed) };
    }
    let mut first = First { block: scattered(), used: false, allocate, memory };
    // SAFETY: `first` lives until the allocator is replaced, which is before anybody else uses the state.
    unsafe {
        let lua = flavour::new_state(allocate_first, ptr::from_mut(&mut first).cast(), seed);
        if !lua.is_null() {
            ffi::lua_setallocf(lua, allocate, memory);
        }
        lua
    }
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

/// The allocator while a state is made.
struct First {
    /// Where the state goes; null if there is no such place.
    block: *mut c_void,
    /// It has gone there.
    used: bool,
    allocate: lua_Alloc,
    memory: *mut c_void,
}

unsafe extern "C" fn allocate_first(first: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: `first` is what `new_state` passed and nobody else uses it meanwhile; the rest is between Lua and its allocator.
    unsafe {
        let first = &mut *first.cast::<First>();
        // The first block is the state itself, about 1.5 KiB, which is never moved.
        let begins = !std::mem::replace(&mut first.used, true);
        if begins && block.is_null() && new <= PAGE / 2 && !first.block.is_null() {
            return first.block;
        }
        if new == 0 && !block.is_null() && block == first.block {
            return ptr::null_mut(); // there was no memory for the rest
        }
        (first.allocate)(first.memory, block, old, new)
    }
}

/// Half a page at a random address near our other mappings: 18 bits of the page, 7 of the place in it, and the kernel's own
/// choice of the rest. Null if there is no memory.
fn scattered() -> *mut c_void {
    let mut bytes = [0; 8 * TRIES];
    random::fill(&mut bytes);
    // Stacks and large allocations are near the C library, too.
    let base = libc::getpid as *const () as usize & !(REACH - 1);
    for word in bytes.chunks_exact(8) {
        let random = word.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) as usize;
        let page = base + (random % (REACH / PAGE)) * PAGE;
        let within = (random >> 32) % (PAGE / 2 / 16) * 16;
        // SAFETY: a new mapping; where something is mapped already the call fails (MAP_FIXED_NOREPLACE, mmap(2)).
        let mapped = unsafe {
            mmap_anonymous(page as *mut c_void, PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE)
        };
        if let Ok(mapped) = mapped {
            // SAFETY: within the page that was just mapped.
            return unsafe { mapped.byte_add(within) };
        }
    }
    ptr::null_mut()
}
