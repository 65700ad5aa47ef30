//! The address that a program passes to `connect`: read from its bytes, brought to one form, written again. Pure; the bytes are hostile.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The largest address that is looked at: `sizeof(struct sockaddr_storage)`, the kernel's own limit.
pub(super) const LARGEST: usize = 128;
/// `sizeof(struct sockaddr_in)`.
const V4_SIZE: usize = 16;
/// `sizeof(struct sockaddr_in6)`.
const V6_SIZE: usize = 28;
/// `SIN6_LEN_RFC2133`: the kernel takes an address without the scope, too.
const V6_SHORT: usize = 24;

/// An address and port, in the form that is compared: no IPv4 address in IPv6 clothes, and "this host" written as loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    /// The interface of an IPv6 address that needs one, or 0.
    pub(super) scope: u32,
    /// Whether the program gave an IPv6 address, so that its socket is given one too.
    pub(super) six: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

/// What a program asks of `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To dissolve the connection (`AF_UNSPEC`).
    Disconnect,
    /// To connect.
    Connect(Target),
}

/// Reads the bytes of a `struct sockaddr` on a socket of the Internet.
///
/// # Errors
/// The errno that the kernel would give: too short, or of another family.
pub(super) fn read(bytes: &[u8]) -> Result<Asked, i32> {
    let family = bytes.first_chunk::<2>().map(|two| i32::from(u16::from_ne_bytes(*two))).ok_or(libc::EINVAL)?;
    let port = bytes.get(2..4).map(|two| u16::from_be_bytes([two[0], two[1]]));
    match family {
        libc::AF_UNSPEC => Ok(Asked::Disconnect),
        libc::AF_INET if bytes.len() >= V4_SIZE => {
            let octets: [u8; 4] = bytes[4..8].try_into().map_err(|_| libc::EINVAL)?;
            let ip = plain(IpAddr::V4(octets.into()));
            Ok(Asked::Connect(Target { ip, port: port.ok_or(libc::EINVAL)?, scope: 0, six: false }))
        }
        libc::AF_INET6 if bytes.len() >= V6_SHORT => {
            let octets: [u8; 16] = bytes[8..24].try_into().map_err(|_| libc::EINVAL)?;
            let ip = plain(IpAddr::V6(octets.into()));
            let scope = bytes.get(24..V6_SIZE).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes);
            let scope = if ip.is_ipv6() { scope } else { 0 };
            Ok(Asked::Connect(Target { ip, port: port.ok_or(libc::EINVAL)?, scope, six: true }))
        }
        libc::AF_INET | libc::AF_INET6 => Err(libc::EINVAL),
        _ => Err(libc::EAFNOSUPPORT),
    }
}

/// The bytes of a `struct sockaddr` for the target: what the kernel is given, never the program's own bytes.
pub(super) fn write(target: &Target) -> Vec<u8> {
    let family = if target.six { libc::AF_INET6 } else { libc::AF_INET };
    let mut bytes = u16::try_from(family).unwrap_or_default().to_ne_bytes().to_vec();
    bytes.extend(target.port.to_be_bytes());
    match (target.six, target.ip) {
        (false, IpAddr::V4(ip)) => bytes.extend(ip.octets()),
        // Cannot come from `read`; the kernel refuses the address 255.255.255.255 on a TCP socket.
        (false, IpAddr::V6(_)) => bytes.extend(Ipv4Addr::BROADCAST.octets()),
        (true, ip) => {
            let six = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            bytes.extend([0; 4]);
            bytes.extend(six.octets());
            bytes.extend(target.scope.to_ne_bytes());
        }
    }
    bytes.resize(if target.six { V6_SIZE } else { V4_SIZE }, 0);
    bytes
}

/// One form per host: mapped addresses are IPv4; the unspecified address, to which Linux connects as to this host, is loopback.
pub(super) fn plain(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(ip: &str, six: bool) -> Target {
        Target { ip: ip.parse().unwrap(), port: 443, scope: 0, six }
    }

    fn bytes_of(ip: &str, six: bool) -> Vec<u8> {
        write(&target(ip, six))
    }

    #[test]
    fn each_form_of_an_address_is_read_as_one() {
        assert_eq!(read(&bytes_of("192.0.2.7", false)), Ok(Asked::Connect(target("192.0.2.7", false))));
        assert_eq!(read(&bytes_of("192.0.2.7", true)), Ok(Asked::Connect(target("192.0.2.7", true))));
        assert_eq!(read(&bytes_of("2001:db8::1", true)), Ok(Asked::Connect(target("2001:db8::1", true))));
        assert_eq!(read(&bytes_of("0.0.0.0", false)), Ok(Asked::Connect(target("127.0.0.1", false))));
        assert_eq!(read(&bytes_of("::", true)), Ok(Asked::Connect(target("::1", true))));
        assert_eq!(read(&bytes_of("::ffff:0.0.0.0", true)), Ok(Asked::Connect(target("127.0.0.1", true))));
    }

    #[test]
    fn what_is_written_for_a_mapped_address_is_mapped() {
        let bytes = write(&target("192.0.2.7", true));
        assert_eq!(bytes.len(), V6_SIZE);
        assert_eq!(&bytes[8..24], &"::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap().octets());
    }

    #[test]
    fn the_scope_is_kept_and_may_be_absent() {
        let link = Target { scope: 3, ..target("fe80::1", true) };
        assert_eq!(read(&write(&link)), Ok(Asked::Connect(link)));
        assert_eq!(read(&write(&link)[..24]), Ok(Asked::Connect(target("fe80::1", true))));
    }

    #[test]
    fn every_cut_and_every_family_has_an_answer() {
        for whole in [bytes_of("192.0.2.7", false), bytes_of("2001:db8::1", true)] {
            for end in 0..whole.len().min(V6_SHORT) {
                if end < V4_SIZE || whole.len() == V6_SIZE {
                    assert_eq!(read(&whole[..end]), Err(libc::EINVAL), "{end}");
                }
            }
        }
        for family in 0..=u16::MAX {
            let mut bytes = [0xff; LARGEST];
            bytes[..2].copy_from_slice(&family.to_ne_bytes());
            match i32::from(family) {
                libc::AF_UNSPEC => assert_eq!(read(&bytes), Ok(Asked::Disconnect)),
                libc::AF_INET | libc::AF_INET6 => assert!(matches!(read(&bytes), Ok(Asked::Connect(_)))),
                _ => assert_eq!(read(&bytes), Err(libc::EAFNOSUPPORT)),
            }
        }
    }
}
