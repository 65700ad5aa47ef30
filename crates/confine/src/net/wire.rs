//! Questions for names and their answers, as single packets. Pure; both readers take any bytes, because one end is the confined program.
//!
//! Question: number (u32), then the name. Answer: number (u32), status (u8), count (u8), addresses. An address: 4 or 6 (u8), 16 bytes (the first four
//! of them for IPv4), interface (u32). Numbers are little-endian. Between broker and resolver the number of the host stands for its name.

use super::grants::{Address, MOST_ADDRESSES};
use std::net::IpAddr;

/// No packet is longer than this, bytes.
pub(super) const LARGEST: usize = 6 + MOST_ADDRESSES * ADDRESS;
/// One address, bytes.
const ADDRESS: usize = 21;
/// The longest name that is asked for, bytes.
pub(super) const LONGEST_NAME: usize = 253;

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// With addresses.
    Found,
    /// The name is not granted.
    NotGranted,
    /// It has no address, or the servers could not be asked.
    Nothing,
    /// There are too many questions; later.
    Busy,
}

impl Status {
    const ALL: [Status; 4] = [Status::Found, Status::NotGranted, Status::Nothing, Status::Busy];
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) number: u32,
    pub(super) status: Status,
    pub(super) addresses: Vec<Address>,
}

/// The packet of a question.
pub(super) fn question(number: u32, name: &str) -> Vec<u8> {
    [&number.to_le_bytes(), name.as_bytes()].concat()
}

/// Reads a question: its number and name.
pub(super) fn read_question(packet: &[u8]) -> Option<(u32, &str)> {
    let (number, name) = packet.split_first_chunk::<4>()?;
    let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= LONGEST_NAME)?;
    Some((u32::from_le_bytes(*number), name))
}

impl Answer {
    /// Its packet.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut packet = self.number.to_le_bytes().to_vec();
        let addresses = &self.addresses[..self.addresses.len().min(MOST_ADDRESSES)];
        packet.push(Status::ALL.iter().position(|status| *status == self.status).unwrap_or_default() as u8);
        packet.push(addresses.len() as u8);
        for Address { ip, scope } in addresses {
            let mut bytes = [0; 16];
            match ip {
                IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => bytes.copy_from_slice(&ip.octets()),
            }
            packet.push(if ip.is_ipv4() { 4 } else { 6 });
            packet.extend(bytes);
            packet.extend(scope.to_le_bytes());
        }
        packet
    }

    /// Reads a packet; `None` if it is not exactly one answer.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let (number, rest) = packet.split_first_chunk::<4>()?;
        let ([status, count], rest) = rest.split_first_chunk::<2>()?;
        let status = *Status::ALL.get(usize::from(*status))?;
        if rest.len() != usize::from(*count) * ADDRESS || usize::from(*count) > MOST_ADDRESSES {
            return None;
        }
        let addresses = rest.chunks_exact(ADDRESS).map(read_address).collect::<Option<_>>()?;
        Some(Self { number: u32::from_le_bytes(*number), status, addresses })
    }
}

fn read_address(bytes: &[u8]) -> Option<Address> {
    let (kind, bytes) = bytes.split_first()?;
    let (ip, scope) = bytes.split_first_chunk::<16>()?;
    let scope = u32::from_le_bytes(scope.try_into().ok()?);
    let ip: IpAddr = match kind {
        4 => [ip[0], ip[1], ip[2], ip[3]].into(),
        6 => (*ip).into(),
        _ => return None,
    };
    Some(Address { ip, scope })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let address = |ip: &str| Address { ip: ip.parse().unwrap(), scope: 7 };
        let addresses = vec![address("192.0.2.1"), address("2001:db8::1")];
        let answer = Answer { number: 0xdead_beef, status: Status::Found, addresses };
        let packet = answer.write();
        assert_eq!(Answer::read(&packet), Some(answer));
        for end in 0..packet.len() {
            assert_eq!(Answer::read(&packet[..end]), None, "{end}");
        }
        assert_eq!(read_question(&question(9, "example.org")), Some((9, "example.org")));
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        // A fixed generator (xorshift): the same bytes in every run.
        let mut state = 0x2545_f491_4f6c_dd1du64;
        for round in 0..20_000usize {
            let mut packet = Vec::with_capacity(round % 800);
            for _ in 0..round % 800 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                packet.push(state as u8);
            }
            if packet.len() > 5 && round % 2 == 0 {
                packet[4] %= 5;
                packet[5] = ((packet.len() - 6) / ADDRESS) as u8;
            }
            if let Some(answer) = Answer::read(&packet) {
                assert!(answer.addresses.len() <= MOST_ADDRESSES);
            }
            assert!(read_question(&packet).is_none_or(|(_, name)| name.len() <= LONGEST_NAME));
        }
    }

    #[test]
    fn the_largest_answer_fits() {
        let one = Address { ip: IpAddr::from([192, 0, 2, 1]), scope: 0 };
        let answer = Answer { number: 1, status: Status::Found, addresses: vec![one; 200] };
        assert_eq!(answer.write().len(), LARGEST);
    }
}
