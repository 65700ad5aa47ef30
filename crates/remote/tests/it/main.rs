//! `vmoon-remote` against a real sshd on loopback, with keys and files of its own in a temporary directory.

mod cuts;
mod environments;
mod files;
mod hasty;
mod holder;
mod lab;
mod login;
mod misfits;
mod passwords;
mod sessions;
mod talk;
