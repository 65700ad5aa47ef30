//! Any host that is reached over SSH, as a machine with sessions.
//!
//! For the daemon: build a [`SshConfig`] of plain data and call [`SshDriver::new`], which connects nowhere. [`SshDriver::test`] does,
//! and either tells what it found or fails with
//! * `connection.untrusted`: the detail has `host`, `fingerprint` (`SHA256:…`), `algorithm` and, when another key was expected,
//!   `expected`. To confirm it, put the fingerprint into [`SshConfig::pins`], keep that with the connection, and make a new driver;
//! * `connection.auth`: credentials were refused; new ones go into [`SshConfig::auth`] ([`vmoon_remote::Auth`]: password, passphrase,
//!   identity files, keys as text), again with a new driver. Secrets are given as [`vmoon_remote::Secret`], which is zeroed and never shown;
//! * `driver.unreachable`: the host does not answer.
//!
//! [`SshDriver::link`] tells how the connection stands (idle, connected, reconnecting since, lost and why) and every change of it; the
//! same changes come as notices of `Driver::watch`.
//!
//! The connection has one machine, named after the host. It is never made, started, stopped or deleted by us: `rm` only forgets it. Its channels
//! are `main`, a Lua session that outlives the connection, where the host has a Lua interpreter, and `shell`, a terminal that ends with the
//! connection. Its files are those of the login, over SFTP; packages are carried there ([`environment`]). Both channels begin when they are first used. A shell's life ends with it; the next observation shows the next life.

mod driver;

pub use driver::{Greeting, SshConfig, SshDriver};
pub use vmoon_remote::{Auth, Secret, environment};
