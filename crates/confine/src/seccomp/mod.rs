//! Seccomp: which system calls the process may make. This file installs; `policy` says which, `program` compiles.

pub(crate) mod policy;
mod program;

use crate::report::Error;
use crate::rules::Layer;
use policy::Variant;
use program::Program;
use std::io;

/// `AUDIT_ARCH_X86_64` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
/// `AUDIT_ARCH_AARCH64` of `linux/audit.h`.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// A compiled filter.
#[derive(Clone, Debug)]
pub(crate) struct Filter(Program);

impl Filter {
    /// Compiles it: some microseconds, so do it before there is a process to be confined.
    pub(crate) fn new(variant: Variant) -> Self {
        Self(program::compile(ARCHITECTURE, &policy::verdicts(variant), libc::EPERM as u16, policy::UNKNOWN_FROM))
    }

    /// How many instructions it has; the kernel takes 4096.
    pub(crate) fn instructions(&self) -> usize {
        self.0.len()
    }

    /// Installs it for the calling thread and those it starts. `no_new_privs` must be set. `token` is what allows a fork, where the variant
    /// has one at all; nothing of it is left in memory.
    pub(crate) fn install(&self, token: u64) -> Result<(), Error> {
        let mut code = self.0.for_process(std::process::id(), token);
        let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
        // SAFETY: the call reads as many instructions as are there.
        let result = match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) } {
            0 => Ok(()),
            _ => Err(Error::new(Layer::Seccomp, format!("the filter was refused: {}", io::Error::last_os_error()))),
        };
        for instruction in &mut code {
            // SAFETY: a valid, aligned place. Volatile: the compiler knows that nobody reads it any more.
            unsafe { std::ptr::write_volatile(&raw mut instruction.k, 0) };
        }
        result
    }
}

/// Whether this kernel has filters that can refuse with an error number (Linux 4.14 can be asked).
///
/// # Errors
/// Why not, as a sentence.
pub(crate) fn supported() -> Result<(), String> {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the call reads one number.
    if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) } == 0 {
        return Ok(());
    }
    Err(format!("this kernel has no seccomp filters: {}", io::Error::last_os_error()))
}
