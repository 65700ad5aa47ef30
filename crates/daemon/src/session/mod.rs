//! Sessions: one task each, which owns the link and the transcript; attachments that read at their own pace.

pub(crate) mod activity;
mod attach;
mod collect;
pub(crate) mod commands;
mod linking;
mod requests;
mod resting;
mod shared;
mod streaming;
pub(crate) mod task;
pub(crate) mod transcript;

pub(crate) use attach::Attached;
pub(crate) use collect::collect;
pub(crate) use shared::{Live, Shared};
