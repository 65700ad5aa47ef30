//! A XAPI server for tests and demonstration: both wire protocols, sessions, every class and field of the data model, references, errors, tasks, events.
//!
//! What a class has is not written by hand: `src/model.txt` holds the names and types of the published data model (made by `examples/table.rs`), and
//! [`engine`] serves every accessor from it. What does something is in [`verbs`]; what is not there is refused loudly with `NOT_IMPLEMENTED`.
//! It keeps everything in memory. Its oddities are those that a real xapi 26.17 was seen to have.

pub mod engine;
pub mod fault;
pub mod model;
pub mod seed;
mod server;
mod sim;
mod store;
mod verbs;
mod wire;

pub use server::{Server, Settings};
pub use sim::Sim;
