//! KVM machines under libvirt: the driver that makes, finds, observes, changes and ends domains of one libvirt daemon.
//!
//! [`LibvirtDriver::connect`] takes an address and returns at once. Inside there are two halves. The pure one turns settings (`settings`) and what a host
//! offers (`caps`) into a plan with everything decided (`plan`, `model`), and that into XML (`render`), images (`qcow2`) and seeds (`vmoon_seed`). The
//! other one talks to libvirt (`driver`), with no program started and no C library. Domains that others made are listed and run like ours, and never changed
//! by being looked at; ours bear a tag in their metadata.

mod caps;
mod device;
mod driver;
mod model;
mod patch;
mod plan;
mod qcow2;
mod render;
mod settings;

pub use driver::{KIND, LibvirtConfig, LibvirtDriver};

#[cfg(test)]
mod tests;
