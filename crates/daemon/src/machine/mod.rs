//! Machines: one task each, and what everyone else sees of it.

mod effects;
mod handle;
mod inputs;
mod journal;
mod sessions;
mod stepping;
pub(crate) mod task;
mod view;
mod words;

pub(crate) use handle::{Machine, Start};
