//! `coroutine.resume` and `coroutine.wrap` that tell which Lua thread runs, so that an interrupt finds it. Otherwise they do
//! what those of Lua 5.4 do (lcorolib.c).

use super::interrupt;
use crate::flavour;
use mlua_sys::{self as ffi, lua_State};
use std::ffi::c_int;

/// Replaces the two functions.
///
/// # Safety
/// `lua` must be a valid state with its libraries open, inside a protected call.
pub(super) unsafe fn install(lua: *mut lua_State) {
    // SAFETY: promised by the caller.
    unsafe {
        ffi::lua_getglobal(lua, c"coroutine".as_ptr());
        ffi::lua_pushcfunction(lua, resume);
        ffi::lua_setfield(lua, -2, c"resume".as_ptr());
        ffi::lua_pushcfunction(lua, wrap);
        ffi::lua_setfield(lua, -2, c"wrap".as_ptr());
        ffi::lua_settop(lua, -2);
    }
}

/// Resumes `co` with the topmost `count` values of `lua`; the number of results now on top of `lua`, or -1 with the error there.
unsafe fn transfer(lua: *mut lua_State, co: *mut lua_State, count: c_int) -> c_int {
    // SAFETY: both are valid threads of one state; every push is preceded by a check of the stack.
    unsafe {
        if ffi::lua_checkstack(co, count) == 0 {
            ffi::lua_pushstring(lua, c"too many arguments to resume".as_ptr());
            return -1;
        }
        if let Some(why) = flavour::unresumable(lua, co) {
            ffi::lua_pushstring(lua, why.as_ptr());
            return -1;
        }
        ffi::lua_xmove(lua, co, count);
        interrupt::switch(co);
        let mut results = 0;
        let status = ffi::lua_resume(co, lua, count, &raw mut results);
        interrupt::switch(lua);
        if status != ffi::LUA_OK && status != ffi::LUA_YIELD {
            ffi::lua_xmove(co, lua, 1);
            return -1;
        }
        if ffi::lua_checkstack(lua, results + 1) == 0 {
            ffi::lua_settop(co, -results - 1);
            ffi::lua_pushstring(lua, c"too many results to resume".as_ptr());
            return -1;
        }
        ffi::lua_xmove(co, lua, results);
        results
    }
}

unsafe extern "C-unwind" fn resume(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; the argument is checked before it is used.
    unsafe {
        let co = ffi::lua_tothread(lua, 1);
        if co.is_null() {
            ffi::luaL_checktype(lua, 1, ffi::LUA_TTHREAD);
        }
        let results = transfer(lua, co, ffi::lua_gettop(lua) - 1);
        if results < 0 {
            ffi::lua_pushboolean(lua, 0);
            ffi::lua_insert(lua, -2);
            return 2;
        }
        ffi::lua_pushboolean(lua, 1);
        ffi::lua_insert(lua, -(results + 1));
        results + 1
    }
}

unsafe extern "C-unwind" fn wrap(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; the argument is checked before it is used.
    unsafe {
        ffi::luaL_checktype(lua, 1, ffi::LUA_TFUNCTION);
        let co = ffi::lua_newthread(lua);
        ffi::lua_pushvalue(lua, 1);
        ffi::lua_xmove(lua, co, 1);
        ffi::lua_pushcclosure(lua, wrapped, 1);
        1
    }
}

unsafe extern "C-unwind" fn wrapped(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; the upvalue is the thread that `wrap` made.
    unsafe {
        let co = ffi::lua_tothread(lua, ffi::lua_upvalueindex(1));
        let results = transfer(lua, co, ffi::lua_gettop(lua));
        if results >= 0 {
            return results;
        }
        let mut status = ffi::lua_status(co);
        if status != ffi::LUA_OK && status != ffi::LUA_YIELD {
            // Closes its to-be-closed variables, which may replace the error.
            status = flavour::close_thread(co, lua);
            ffi::lua_xmove(co, lua, 1);
        }
        if status != ffi::LUA_ERRMEM && ffi::lua_type(lua, -1) == ffi::LUA_TSTRING {
            ffi::luaL_where(lua, 1);
            ffi::lua_insert(lua, -2);
            ffi::lua_concat(lua, 2);
        }
        ffi::lua_error(lua)
    }
}
