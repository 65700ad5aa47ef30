//! Vocabulary and policy of vmoon.
//!
//! This crate names the things every other crate talks about and holds the rules that decide what may happen to them.
//! It does no I/O, starts no task and reads no clock: whatever it needs to know is passed in, so that every rule can be
//! tested over all its inputs. Drivers, the daemon and the front ends depend on it; it depends on none of them.

pub mod ability;
pub mod codes;
pub mod connection;
pub mod device;
pub mod driver;
pub mod error;
pub mod event;
pub mod frame;
pub mod hosts;
pub mod id;
pub mod idle;
mod link;
pub mod machine;
pub mod name;
pub mod operation;
pub mod package;
pub mod png;
pub mod raw;
pub mod reference;
pub mod ring;
pub mod scrollback;
pub mod session;
mod sighting;
pub mod size;
pub mod spec;
pub mod target;

pub use codes::Code;
pub use error::{Error, Result};
pub use id::{CommandId, ConnectionId, MachineId, OperationId, SessionId};
