//! The address is changed while it is looked at: the forbidden port is never reached.

use crate::calls::*;
use crate::process::*;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

/// So many calls, each while another thread writes to the address.
const ROUNDS: usize = 5_000;

#[test]
fn an_address_that_changes_during_the_call_reaches_nothing_else() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (trap, elsewhere) = forbidden(Ipv4Addr::LOCALHOST);
    confined(&[grant(address)], |_guard| {
        let shared: Vec<AtomicU8> = bytes(address).into_iter().map(AtomicU8::new).collect();
        let (good, bad) = (bytes(address), bytes(elsewhere));
        let (mut connected, mut refused) = (0, 0);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for from in [&bad, &good] {
                        for at in 2..8 {
                            shared[at].store(from[at], Ordering::Relaxed);
                        }
                        thread::yield_now();
                    }
                }
            });
            for _ in 0..ROUNDS {
                let fd = tcp(address, 0);
                // SAFETY: the bytes live through the call; that another thread changes them is what is tested, and the kernel copies them.
                match result(unsafe { libc::connect(fd, shared.as_ptr().cast(), 16) }) {
                    Ok(_) => connected += 1,
                    Err(libc::EACCES) => refused += 1,
                    Err(other) => panic!("errno {other}"),
                }
                close(fd);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(connected > 0 && refused > 0, "the race did not happen: {connected} connected, {refused} refused");
    });
    trap.was_not_reached();
}

#[test]
fn a_descriptor_that_changes_during_the_call_reaches_nothing_else() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (trap, elsewhere) = forbidden(Ipv4Addr::LOCALHOST);
    confined(&[grant(address)], |_guard| {
        let (slot, one, other) = (500, tcp(address, 0), tcp(address, 0));
        // SAFETY: takes numbers; the slot is nobody else's.
        unsafe { libc::dup2(one, slot) };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for from in [one, other] {
                        // SAFETY: as above.
                        unsafe { libc::dup2(from, slot) };
                    }
                }
            });
            for round in 0..ROUNDS {
                let target = if round % 2 == 0 { address } else { elsewhere };
                match connect(slot, target) {
                    Ok(()) | Err(libc::EISCONN) if round % 2 == 0 => drop(connect_raw(slot, &[0; 16])),
                    Err(libc::EACCES) if round % 2 == 1 => {}
                    other => panic!("{round}: {other:?}"),
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    trap.was_not_reached();
}
