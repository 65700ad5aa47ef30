//! Local Lua VMs.
//!
//! Every running VM is a process of its own, the *holder*: [`host`] is all of it, without an async runtime. [`LuaDriver`]
//! makes, starts, watches and ends them for the daemon. The two know each other only through files, a socket and the
//! frames of `vmoon-core`; neither needs the other to be alive.

pub mod bench;
pub mod driver;
pub mod environments;
pub mod flavour;
pub(crate) mod forking;
pub mod fuzzing;
pub(crate) mod grants;
pub(crate) mod homes;
pub mod host;
pub(crate) mod layout;
pub(crate) mod link;
pub mod oneshot;
pub(crate) mod probe;
pub(crate) mod ring;
pub(crate) mod settings;
pub mod zygote;

pub use driver::{LuaConfig, LuaDriver};
pub use environments::{Environment, Environments};
