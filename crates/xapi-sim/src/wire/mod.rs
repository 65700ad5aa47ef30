//! The two protocols. Pure.

pub(crate) mod json;
pub(crate) mod xml;
