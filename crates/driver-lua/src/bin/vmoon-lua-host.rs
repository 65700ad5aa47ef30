//! The holder as a program of its own, for the tests and benchmarks of this crate. `vmoon lua-host` is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmoon_driver_lua::host::main(std::env::args_os().skip(1))
}
