//! The launcher of builders as a program of its own, for the tests and examples of this crate. `vmoon lua-confine` is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmoon_confine::launch::main(std::env::args_os().skip(2))
}
