//! The verbs, one file each. A verb asks the daemon and hands the answer to [`crate::out`]; it prints nothing itself.

pub(crate) mod access;
pub(crate) mod attach;
pub(crate) mod clone;
pub(crate) mod completions;
pub(crate) mod connection;
pub(crate) mod console;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod daemon;
pub(crate) mod demo;
pub(crate) mod device;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod eval;
pub(crate) mod eval_data;
pub(crate) mod eval_many;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod interrupt;
pub(crate) mod inventory;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod markdown;
pub(crate) mod migrate;
pub(crate) mod operation;
pub(crate) mod pieces;
pub(crate) mod pkg;
pub(crate) mod read;
pub(crate) mod ready;
pub(crate) mod reset;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod run_map;
pub(crate) mod send;
pub(crate) mod session;
pub(crate) mod set;
pub(crate) mod show;
pub(crate) mod snapshot;
pub(crate) mod ssh;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod version;
mod viewer;
pub(crate) mod wait;
pub(crate) mod work;
pub(crate) mod xapi;

use std::process::ExitCode;
use vmoon_core::{Code, CommandId, Error};

/// The holder of one Lua VM: the same program under another first argument.
pub(crate) fn lua_host() -> ExitCode {
    vmoon_driver_lua::host::main(std::env::args_os().skip(2))
}

/// Where the daemon looked for a machine by a session's id: there is no such command.
pub(crate) fn no_such_command(error: Error, id: &CommandId) -> Error {
    match error.code() {
        Code::MachineNotFound | Code::SessionNotFound => Error::new(Code::CommandNotFound, format!("no session has the command {id}"))
            .hint("vmoon session list --ended shows the sessions"),
        _ => error,
    }
}
