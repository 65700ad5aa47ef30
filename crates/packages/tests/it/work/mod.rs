//! Fetching, building, installing.

mod building;
mod environments;
mod fetching;
mod server;
pub(crate) mod shop;
mod speed;
