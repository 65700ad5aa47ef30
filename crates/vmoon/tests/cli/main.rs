//! The real binary, driven as a user drives it. Every home is private, and nothing may be left running in it.

mod bad;
mod clone;
mod data;
mod environments;
mod escapes;
mod files;
mod home;
mod limits;
mod machines;
mod many;
mod mirror;
mod output;
mod packages;
mod sessions;
