//! Tests of the crate at its boundaries, against real interpreters and builds, and a rocks server that the tests make: over `file://`, loopback HTTP and HTTPS,
//! with faults; and beside the real `luarocks`.

mod biology;
mod evaluate;
mod luarocks;
mod manifests;
mod mirror;
mod noise;
mod profiles;
mod sandbox;
mod servers;
mod solving;
mod work;
