//! Names for C modules of confined machines: the three functions by which the C library looks names up, exported by the program
//! (build.rs), so that a module such as LuaSocket finds ours first. In a machine with the profile `net` they ask its broker; everywhere
//! else they are the C library's.

use libc::{addrinfo, c_char, c_int, hostent};
use vmoon_confine::net::resolve;

/// As getaddrinfo(3).
///
/// # Safety
/// As of the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: passed on as it came.
    unsafe { resolve::getaddrinfo(node, service, hints, result) }
}

/// As freeaddrinfo(3).
///
/// # Safety
/// As of the C library's: a list that [`getaddrinfo`] gave.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn freeaddrinfo(list: *mut addrinfo) {
    // SAFETY: passed on as it came.
    unsafe { resolve::freeaddrinfo(list) }
}

/// As gethostbyname(3).
///
/// # Safety
/// As of the C library's: a string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: passed on as it came.
    unsafe { resolve::gethostbyname(name) }
}
