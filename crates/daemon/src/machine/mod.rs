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
mod work;

pub(crate) use handle::{Machine, Start};
pub(crate) use work::Work;
