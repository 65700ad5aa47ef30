//! SSH connections and the sessions that outlive them.
//!
//! [`Host`] keeps one connection to a host, makes it again after a loss and says how it stands; [`Route`] says how to get there and
//! [`route::resolve`] makes one of what a user writes and of `~/.ssh/config`. A [`Connection`] runs programs ([`Connection::exec`]), moves
//! files ([`Connection::files`]) and opens shells ([`shell`]). What drivers offer of machines that are entered so is in [`over`]. Nothing here writes to this computer's disk.

mod auth;
pub mod config;
mod connect;
pub mod environment;
mod exec;
mod files;
pub mod fuzzing;
pub mod guest;
mod host;
mod keys;
pub mod over;
mod prompt;
pub mod quote;
pub mod route;
mod secret;
pub mod sftp;
pub mod shell;
mod target;
mod trust;

pub use auth::Auth;
pub use connect::{Connection, Hop, Route};
pub use exec::{Echo, OUTPUT};
pub use files::HostFiles;
pub use host::{Host, Link, WeakHost};
pub use keys::KeyPair;
pub use secret::Secret;
pub use sftp::Files;
pub use target::Target;
pub use trust::Trust;
