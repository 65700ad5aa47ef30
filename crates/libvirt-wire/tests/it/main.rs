//! Tests of the client: of its decoders with every kind of bytes, against a peer that lies, and against a real daemon with a real guest.

mod access;
mod daemon;
mod decoding;
mod guest;
mod lab;
mod peer;
mod peers;
mod storage;
mod streams;
