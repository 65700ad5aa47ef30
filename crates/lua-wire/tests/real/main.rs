//! The session's Lua program in the real interpreters: lua5.1 to lua5.4 and LuaJIT, over the same pipes the holder uses.

mod data;
mod interrupts;
mod language;
mod session;
mod streams;
