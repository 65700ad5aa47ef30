//! For tests and demonstration: a Linux guest that boots in two or three seconds under plain emulation, with SSH, SFTP and Lua.
//!
//! [`Guest::kept`] gives its kernel and its one file system, an initramfs made of what Debian has: the cloud kernel, busybox, dropbear, OpenSSH's SFTP
//! server, Lua 5.4 and QEMU's guest agent. It is made the first time and kept in the target directory of cargo. Nothing of it is installed on the computer:
//! `cargo xtask install` unpacks the packages there.
//!
//! The guest obeys a NoCloud seed as cloud-init would, as far as vmoon relies on that: `seed.lua` says what. Its user data must be JSON, which is YAML,
//! after `#cloud-config`. Everything is gone when it is switched off, but what is on its disks.
//!
//! | Word of the kernel's command line | What it does |
//! |---|---|
//! | `name=…` | its host name, unless a seed gives one |
//! | `deaf` | the power button does nothing, and neither does a request to shut down |
//! | `mute` | no guest agent |
//! | `nolua` | no Lua that a user would find |
//! | `nossh` | no SSH server |
//! | `noip` | it never asks for an address |
//! | `home` | the first disk that it may write on keeps the users' homes; one without a file system gets one |

mod cpio;
mod guest;
pub mod kept;

pub use guest::Guest;
