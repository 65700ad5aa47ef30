//! What a Lua session says on the wire, and the Lua program that says it: the hello of the holder's socket, the text
//! frames between the holder and an external interpreter, and the sources of both programs.
//!
//! Nothing here opens a file, a socket or a process.

pub mod hello;
pub mod modules;
pub mod program;
pub mod sandbox;
pub mod text;

pub use program::{CHUNK_NAME, DRIVER, REPL};
