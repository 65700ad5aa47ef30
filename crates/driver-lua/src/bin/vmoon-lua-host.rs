//! The holder as a program of its own, for the tests and benchmarks of this crate. `vmoon lua-host` is the same; `vmoon lua-zygote`
//! and `vmoon lua-confine` are what this is with that word as its first argument.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmoon_driver_lua::flavour::main(std::env::args_os())
}
