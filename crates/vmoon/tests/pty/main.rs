//! The real binary as people meet it: `vmoon run` with its streams and exit codes, and sessions on a real pseudo-terminal.

mod attach;
mod confined;
mod console;
#[cfg(feature = "demo")]
mod demo;
mod home;
mod hosts;
mod map;
mod pool;
mod run;
mod ssh;
mod terminal;
