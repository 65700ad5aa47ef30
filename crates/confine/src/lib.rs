//! What a process may do: capability profiles, and the layers of the kernel that hold it to them.
//!
//! [`rules`] is policy: plain data, decided by the driver, pure. The rest applies it to the calling process.

pub mod rules;

pub use rules::{Layer, Limits, Profile, Rules};
