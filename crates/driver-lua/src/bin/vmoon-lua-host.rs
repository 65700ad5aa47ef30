//! The holder as a program of its own, for the tests and benchmarks of this crate. `vmoon lua-host` is the same; `vmoon lua-zygote`
//! and `vmoon lua-confine` are what this is with that word as its first argument.

use std::process::ExitCode;
use vmoon_driver_lua::{host, zygote};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == zygote::VERB).is_some() {
        return zygote::main();
    }
    if args.next_if(|first| first == host::LAUNCHER).is_some() {
        return host::launch(args);
    }
    host::main(args)
}
