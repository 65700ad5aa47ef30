//! The real binary, driven as a user drives it. Every home is private, and nothing may be left running in it.

mod bad;
mod clone;
mod data;
#[path = "../../../packages/tests/it/mirror/debs.rs"]
mod debs;
mod elsewhere;
mod environments;
mod escapes;
mod files;
mod full_disk;
mod guests;
mod home;
mod hosts;
mod limits;
mod machines;
mod many;
mod mirror;
mod output;
mod package_trouble;
mod packages;
mod pools;
mod profiles;
mod sessions;
