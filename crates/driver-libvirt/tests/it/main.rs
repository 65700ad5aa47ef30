//! The driver against a real libvirtd with real QEMU guests, emulated, each test in a lab of its own.

mod access;
mod agent;
mod contract;
mod devices;
mod foreign;
mod gone;
mod life;
mod lists;
mod lost;
mod place;
mod remote;
mod repair;
mod session;
mod snapshots;
mod storage;
mod templates;
mod terminal;
