//! The first layer: no new privileges by execve(2), and none of those that root has.

use crate::report::Error;
use crate::rules::Layer;
use std::io;

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: two words for each set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Set {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// What a process may still come to by execve(2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bounding {
    /// Nothing will be executed: `no_new_privs` alone is enough.
    Keep,
    /// A program will be executed: empty the bounding set as well, 41 calls.
    Empty,
}

/// Sets `no_new_privs` and empties all sets of capabilities; also the ambient one, which is never more than the permitted.
pub(crate) fn drop_all(bounding: Bounding) -> Result<(), Error> {
    no_new_privs(Layer::Privileges)?;
    if bounding == Bounding::Empty {
        // Until a number that the kernel does not know. Who lacks CAP_SETPCAP cannot, and gains nothing from the set either.
        for capability in 0..64 {
            // SAFETY: as above.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
                break;
            }
        }
    }
    let header = Header { version: VERSION, pid: 0 };
    let none = [Set::default(); 2];
    // SAFETY: capset(2) reads a header and two sets, which live.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } != 0 {
        let sentence = format!("the capabilities could not be dropped: {}", io::Error::last_os_error());
        return Err(Error::new(Layer::Privileges, sentence));
    }
    Ok(())
}

/// Sets `no_new_privs` alone, which this layer needs.
pub(crate) fn no_new_privs(layer: Layer) -> Result<(), Error> {
    // SAFETY: prctl(2) with numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(Error::new(layer, format!("no_new_privs was refused: {}", io::Error::last_os_error())));
    }
    Ok(())
}
