//! The toolbox that touches the operating system: paths, clocks, processes, files, sockets.
//!
//! It knows nothing of machines or sessions beyond the error type. Everything here is small, synchronous where that does
//! not block, and usable from the holder process, which has no async runtime.

pub mod atomic;
pub mod child;
pub mod clock;
pub mod copy;
pub mod durable;
pub mod face;
pub mod fork;
pub mod image;
pub mod login;
pub mod memory;
pub mod passing;
pub mod paths;
pub mod peer;
pub mod process;
pub mod random;
pub mod records;
pub mod run;
pub mod secrets;
pub mod speak;
pub mod stop;
pub mod tree;
pub mod usage;
