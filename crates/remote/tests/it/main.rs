//! `vmoon-remote` against a real sshd on loopback, with keys and files of its own in a temporary directory.

mod cuts;
mod lab;
mod login;
mod sessions;
mod talk;
