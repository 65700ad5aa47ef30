//! Fetching, building, installing.

mod building;
mod environments;
mod fetching;
mod lux;
mod server;
pub(crate) mod shop;
mod speed;
