//! The one binary: command line, daemon and Lua holder. Thin: it only decides which of them it is.

mod bench;
mod cli;
mod cmd;
mod connect;
mod ctx;
mod exit;
mod help;
mod import;
mod out;
mod repl;
mod select;
mod soak;
mod wait;

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    // A holder is started a thousand times and lives for weeks: nothing of the command line may cost it time or memory.
    match env::args_os().nth(1) {
        Some(verb) if verb == "lua-host" => return cmd::lua_host(),
        Some(verb) if verb == vmoon_driver_lua::zygote::VERB => return vmoon_driver_lua::zygote::main(),
        Some(verb) if verb == vmoon_driver_lua::host::LAUNCHER => return vmoon_driver_lua::host::launch(env::args_os().skip(2)),
        _ => {}
    }
    if let Some(code) = cmd::run::at_once() {
        return code;
    }
    cli::main()
}
