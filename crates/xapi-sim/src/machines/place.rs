//! Addresses on loopback: each VM has one of its own, so that many have the same port.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, TcpListener},
};

/// The port of SSH, and those that stand for it where it may not be bound or somebody listens there on every address.
const PORTS: [u16; 3] = [22, 2222, 22022];

/// Who is where.
#[derive(Debug)]
pub(super) struct Places {
    port: u16,
    /// The next number to try, of the addresses 127.64.0.0 to 127.127.255.255.
    next: u32,
    taken: HashMap<String, Ipv4Addr>,
}

fn address(number: u32) -> Ipv4Addr {
    let [_, high, middle, low] = (number % (1 << 22)).to_be_bytes();
    // Some do not like the ends.
    Ipv4Addr::new(127, 64 + high, middle, low.clamp(2, 250))
}

fn free(address: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

impl Places {
    /// Finds a port that may be bound.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn find() -> io::Result<Self> {
        // Others that do the same begin elsewhere.
        let next = u32::try_from(vmoon_sys::random::number() % (1 << 22)).unwrap_or_default();
        let works = |port: &u16| (0..8).any(|n| free(address(next + n * 7), *port));
        let port = PORTS.into_iter().find(works).ok_or_else(|| io::Error::other("no port of 127.0.0.0/8 can be bound for SSH"))?;
        Ok(Self { port, next, taken: HashMap::new() })
    }

    /// The place of a VM: the one it had before, if it had one.
    ///
    /// # Errors
    /// If nothing is free.
    pub(super) fn of(&mut self, vm: &str) -> io::Result<(Ipv4Addr, u16)> {
        if let Some(address) = self.taken.get(vm) {
            return Ok((*address, self.port));
        }
        for _ in 0..1000 {
            self.next = self.next.wrapping_add(1);
            let found = address(self.next);
            if !self.taken.values().any(|taken| *taken == found) && free(found, self.port) {
                self.taken.insert(vm.to_owned(), found);
                return Ok((found, self.port));
            }
        }
        Err(io::Error::other("no address of 127.0.0.0/8 is free"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_an_address_of_his_own_and_keeps_it() {
        let mut places = Places::find().unwrap();
        let (one, port) = places.of("one").unwrap();
        let (two, _) = places.of("two").unwrap();
        assert_ne!(one, two);
        assert!(one.is_loopback() && PORTS.contains(&port));
        assert_eq!(places.of("one").unwrap().0, one);
        for number in [0, 255, 256, 1 << 21, (1 << 22) - 1, u32::MAX] {
            assert!((64..128).contains(&address(number).octets()[1]), "{number}");
        }
    }
}
