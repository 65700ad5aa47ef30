//! The client against a server that speaks as XAPI does, over real TLS on loopback, and against peers that do not.

mod events;
mod faults;
mod fixtures;
mod peers;
mod server;
mod sessions;
mod tasks;
