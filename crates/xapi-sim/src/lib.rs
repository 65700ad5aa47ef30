//! A XAPI server for tests and demonstration: both wire protocols, sessions, every class and field of the data model, references, errors, tasks, events.
//!
//! What a class has is not written by hand: the table of [`vmoon_xapi::model`] has the names and types of the published data model, and
//! [`engine`] serves every accessor from it. What does something is in [`verbs`]; what is not there is refused loudly with `NOT_IMPLEMENTED`.
//! It keeps everything in memory. Its oddities are those that a real xapi 26.17 was seen to have.

mod apart;
mod certificate;
pub mod engine;
mod events;
pub mod fault;
mod handlers;
mod images;
pub mod machines;
pub mod replay;
pub mod seed;
mod server;
mod sim;
#[cfg(test)]
mod spoilt;
mod store;
mod values;
mod verbs;
mod wire;
pub mod xmldb;

/// The data model, and what XAPI says instead of a reference to nothing.
mod model {
    pub(crate) use vmoon_xapi::{
        model::{Accessor, Call, Class, Field, Model, Param, Type},
        value::NULL,
    };
}

pub use apart::Apart;
pub use certificate::{Authority, Certificate};
pub use handlers::Consoles;
pub use server::{Server, Settings};
pub use sim::{Cut, Faults, Sim};
