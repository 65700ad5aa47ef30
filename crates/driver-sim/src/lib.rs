//! A simulated driver that behaves like a real one, and the contract suite that every driver passes.
//!
//! * [`World`] is the outside: its machines, disks and clock live on when a driver or a whole daemon is dropped. Tests crank
//!   its clock, script its [`Fault`]s, meddle with its machines and cut connections between any two steps.
//! * [`SimDriver`] is one connection to a world.
//! * [`contract`] holds one test for each MUST of [`vmoon_core::driver`]. A driver's tests are one [`contract::Fixture`] and
//!   one line: [`contract_tests!`].
//! * [`Hostile`] makes hostile bytes from a seed.
//!
//! Nothing here does I/O, reads a clock or knows another driver.

mod abilities;
pub mod contract;
mod devices;
mod driver;
mod fault;
mod holder;
mod hostile;
mod link;
mod machine;
mod notices;
mod world;

pub use driver::{Door, SimDriver};
pub use fault::{Fault, Gate};
pub use hostile::Hostile;
pub use machine::{Guest, Overflow, StopAnswer};
pub use world::World;

#[doc(hidden)]
pub use tokio as __tokio;
