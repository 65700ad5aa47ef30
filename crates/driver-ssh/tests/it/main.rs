//! The driver against a real sshd on loopback.

mod contract;
mod driver;
