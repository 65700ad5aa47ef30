//! How guests are entered, against a host with an sshd of its own that plays the guest.

mod carrying;
mod entering;
mod place;
mod sessions;
