//! Machines with LuaJIT inside: holder, zygote and launcher, as `vmoon` is for its own Lua.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmoon_driver_lua::flavour::main(std::env::args_os())
}
