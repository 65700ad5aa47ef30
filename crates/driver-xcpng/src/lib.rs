//! VMs on XCP-ng and XenServer pools, by XAPI.
//!
//! For the daemon: build an [`XcpngConfig`] and call [`XcpngDriver::new`], which connects nowhere. What the driver needs to be let in is asked of
//! [`Keys`] whenever it connects, so a login needs no new driver. Its failures are
//! * `connection.locked`: there is no password;
//! * `connection.auth`: it was refused; the driver asks for it again with the next call;
//! * `connection.untrusted`: the detail has `host`, `fingerprint` and, when another certificate was expected, `expected`;
//! * `driver.unreachable`: no member of the pool answers.
//!
//! A machine is known by the uuid of its VM. What we make bears two entries in `other_config`: `vmoon:id` with our id and the VM's own uuid, so
//! that a copy somebody makes of it is not taken for it, and `vmoon:complete`, written last. Disks that we make bear `vmoon:id`, and only those are deleted with their VM.

mod driver;
mod errors;
mod settings;
mod tags;

pub use driver::{Keys, XcpngConfig, XcpngDriver};
