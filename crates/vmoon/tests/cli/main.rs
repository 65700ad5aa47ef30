//! The real binary, driven as a user drives it. Every home is private, and nothing may be left running in it.

mod bad;
mod home;
mod machines;
mod output;
mod sessions;
