//! The broker of profile `net` against real sockets on loopback: what is granted works like without it, and nothing else is reached.

mod calls;
mod granted;
mod life;
mod lookups;
mod process;
mod races;
mod refused;
