//! Tests of the daemon over the simulated driver: the same bodies against the service in process and over the socket, and a
//! kill between every two steps.

mod abilities;
mod bodies;
mod connections;
mod devices;
mod found;
mod harness;
mod policy;
mod recovery;
mod resting;
mod sessions;
mod wire;
