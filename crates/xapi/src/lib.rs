//! An asynchronous client of XAPI, the API of XCP-ng and XenServer: JSON-RPC 2.0 over kept-alive TLS connections.
//!
//! ```no_run
//! # async fn example() -> Result<(), vmoon_xapi::Error> {
//! use vmoon_xapi::{Client, Config, Password};
//! let mut config = Config::new("xcp1.example", "root", Password::new("secret"));
//! config.pin("xcp1.example", "9F:2C:00:…".parse()?);
//! let client = Client::new(config)?;
//! let names = client.read("VM.get_all_records", vec![]).await?;
//! # Ok(()) }
//! ```
//!
//! The wire is that of the xapi project (`ocaml/xapi/api_server.ml` and `doc/content/xen-api/wire-protocol.md` of xen-api 26.17); what is odd about
//! it is said where it is handled. The crate knows nothing of what it is used for.
//!
//! * [`Client`] logs in when it is first used, renews a session that has ended, follows a pool's coordinator, and logs out when it is closed.
//! * [`task`] runs calls that take long, with progress and cancel.
//! * [`console`], [`transfer`] and [`rrd`] are what is no call: consoles, import and export, statistics.
//! * [`watch`] keeps a copy of records up to date by events; nothing is polled.
//! * [`trust`] says whose certificate is taken for whom.
//! * [`model`] is the table of all classes, fields and calls, by which calls are checked that people write.
//! * [`records`] are the classes that are used most, tolerant of fields and values that are not known yet.

pub mod cache;
pub mod client;
mod config;
pub mod console;
mod error;
pub mod fuzzing;
mod http;
mod members;
pub mod model;
pub mod records;
mod rpc;
pub mod rrd;
mod secret;
mod skim;
#[cfg(test)]
mod spoilt;
pub mod task;
pub mod transfer;
pub mod trust;
pub mod value;
pub mod watch;
mod xml;

pub use client::Client;
pub use config::Config;
pub use console::Console;
pub use error::{Error, Failure, Result};
pub use secret::Password;
pub use transfer::Transfer;
pub use value::Ref;
