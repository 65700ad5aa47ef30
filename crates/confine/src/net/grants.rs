//! What is granted, and which addresses the granted names have: the broker's policy. Pure: time is milliseconds passed in, lookups are asked for.
//!
//! A name is looked up when something first depends on it, and again no sooner than [`REFRESH`] after the last answer, so that a program that tries
//! every address makes no flood of queries. An address once seen stays good for [`KEEP`]: names that are answered in turns would fail otherwise.

use super::address::{Target, plain};
use crate::rules::Host;
use std::net::{IpAddr, Ipv6Addr};

/// How soon after an answer a name may be looked up again, milliseconds.
pub(super) const REFRESH: u64 = 15_000;
/// How long an address is good after it was last seen in an answer, milliseconds.
pub(super) const KEEP: u64 = 600_000;
/// How long a lookup may take, milliseconds; then those who wait for it are refused.
pub(super) const DEADLINE: u64 = 10_000;
/// How many addresses are kept for one name.
pub(super) const MOST_ADDRESSES: usize = 32;
/// How many hosts may be granted to one process.
pub(super) const MOST_HOSTS: usize = 128;

/// An address of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    /// The interface of an IPv6 address that needs one, or 0.
    pub(super) scope: u32,
}

/// Whether a connection may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is to a granted host and port.
    Granted,
    /// That depends on these names, which must be looked up first.
    Ask(Vec<usize>),
    /// That depends on names that are being looked up.
    Wait,
    /// It is not.
    Refused,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its addresses.
    Addresses(Vec<Address>),
    /// It must be looked up first.
    Ask(usize),
    /// It is being looked up.
    Wait,
    /// It was looked up and has none, or could not be.
    Nothing,
    /// It is not granted.
    NotGranted,
}

/// Where the lookup of a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    Never,
    Asked { since: u64 },
    Done { at: u64 },
}

#[derive(Debug)]
struct Grant {
    /// In lower case, without the dot at the end.
    host: String,
    ports: Vec<u16>,
    /// Addresses and when they were last seen; of a literal forever.
    addresses: Vec<(Address, u64)>,
    /// `None` for an address.
    lookup: Option<Lookup>,
}

/// The hosts that one process may connect to.
#[derive(Debug)]
pub(super) struct Grants {
    grants: Vec<Grant>,
}

impl Grants {
    /// Reads the list.
    ///
    /// # Errors
    /// A sentence that says which host is not one and why.
    pub(super) fn new(hosts: &[Host]) -> Result<Self, String> {
        if hosts.len() > MOST_HOSTS {
            return Err(format!("{} hosts are granted, at most {MOST_HOSTS} can be", hosts.len()));
        }
        let mut grants: Vec<Grant> = Vec::new();
        for Host { host, port } in hosts {
            if *port == 0 {
                return Err(format!("{host:?}: port 0 cannot be connected to"));
            }
            let name = normal(host).ok_or_else(|| format!("{host:?} is neither a name nor an address"))?;
            if let Some(grant) = grants.iter_mut().find(|grant| grant.host == name) {
                grant.ports.push(*port);
                continue;
            }
            let literal = literal(&name).map(|ip| (Address { ip, scope: 0 }, u64::MAX));
            let lookup = literal.is_none().then_some(Lookup::Never);
            grants.push(Grant { host: name, ports: vec![*port], addresses: literal.into_iter().collect(), lookup });
        }
        Ok(Self { grants })
    }

    /// The names by their numbers; `None` where an address is granted.
    pub(super) fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.grants.iter().map(|grant| grant.lookup.map(|_| grant.host.as_str()))
    }

    /// Decides about one connection.
    pub(super) fn decide(&self, target: &Target, now: u64) -> Verdict {
        let (mut ask, mut waiting) = (Vec::new(), false);
        for (number, grant) in self.grants.iter().enumerate() {
            if target.port == 0 || !grant.ports.contains(&target.port) {
                continue;
            }
            let is = |a: &Address| a.ip == target.ip && (a.scope == 0 || a.scope == target.scope);
            if grant.fresh(now).any(|a| is(&a)) {
                return Verdict::Granted;
            }
            match grant.due(now) {
                Due::Now => ask.push(number),
                Due::Asked => waiting = true,
                Due::Not => {}
            }
        }
        match (ask.is_empty(), waiting) {
            (false, _) => Verdict::Ask(ask),
            (true, true) => Verdict::Wait,
            (true, false) => Verdict::Refused,
        }
    }

    /// What is known of a name that the program looks up.
    pub(super) fn known(&self, name: &str, now: u64) -> Known {
        let Some(name) = normal(name) else { return Known::NotGranted };
        let Some((number, grant)) = self.grants.iter().enumerate().find(|(_, grant)| grant.host == name) else {
            return Known::NotGranted;
        };
        let addresses: Vec<Address> = grant.fresh(now).collect();
        match grant.due(now) {
            Due::Now => Known::Ask(number),
            // A lookup under way for a connection: what is known is as good as a moment ago.
            Due::Asked if addresses.is_empty() => Known::Wait,
            _ if addresses.is_empty() => Known::Nothing,
            _ => Known::Addresses(addresses),
        }
    }

    /// The lookup of this name has begun.
    pub(super) fn asked(&mut self, number: usize, now: u64) {
        if let Some(lookup) = self.grants.get_mut(number).and_then(|grant| grant.lookup.as_mut()) {
            *lookup = Lookup::Asked { since: now };
        }
    }

    /// A lookup has ended; with nothing when it failed.
    pub(super) fn answered(&mut self, number: usize, found: &[Address], now: u64) {
        let Some(grant) = self.grants.get_mut(number) else { return };
        let Some(lookup) = grant.lookup.as_mut() else { return };
        *lookup = Lookup::Done { at: now };
        grant.addresses.retain(|(_, seen)| now.saturating_sub(*seen) < KEEP);
        for address in found {
            let address = Address { ip: plain(address.ip), scope: address.scope };
            if !believed(&grant.host, address.ip) {
                continue;
            }
            grant.addresses.retain(|(known, _)| *known != address);
            grant.addresses.push((address, now));
        }
        let surplus = grant.addresses.len().saturating_sub(MOST_ADDRESSES);
        grant.addresses.drain(..surplus);
    }

    /// Gives up lookups that take longer than [`DEADLINE`].
    pub(super) fn give_up(&mut self, now: u64) {
        for number in 0..self.grants.len() {
            if self.deadline(number).is_some_and(|at| at <= now) {
                self.answered(number, &[], now);
            }
        }
    }

    /// When the next lookup under way is given up, if one is.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        (0..self.grants.len()).filter_map(|number| self.deadline(number)).min()
    }

    fn deadline(&self, number: usize) -> Option<u64> {
        match self.grants[number].lookup {
            Some(Lookup::Asked { since }) => Some(since + DEADLINE),
            _ => None,
        }
    }
}

enum Due {
    Now,
    Asked,
    Not,
}

impl Grant {
    fn fresh(&self, now: u64) -> impl Iterator<Item = Address> {
        self.addresses.iter().filter(move |(_, seen)| now.saturating_sub(*seen) < KEEP).map(|(address, _)| *address)
    }

    fn due(&self, now: u64) -> Due {
        match self.lookup {
            Some(Lookup::Never) => Due::Now,
            Some(Lookup::Done { at }) if now.saturating_sub(at) >= REFRESH => Due::Now,
            Some(Lookup::Asked { .. }) => Due::Asked,
            _ => Due::Not,
        }
    }
}

/// A name in the form that is compared, if it can be one at all.
pub(super) fn normal(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let fits = !name.is_empty() && name.len() <= 253;
    let sound = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:%".contains(c));
    (fits && sound && !name.starts_with(['-', '.'])).then(|| name.to_ascii_lowercase())
}

fn literal(name: &str) -> Option<IpAddr> {
    name.parse::<IpAddr>().ok().map(plain)
}

/// Whether an answer for this name is taken. Whoever runs the servers of a name in the DNS could point it at this very computer or its link, where
/// other services trust whoever reaches them ("DNS rebinding"); names without a dot are the computer's own.
fn believed(name: &str, ip: IpAddr) -> bool {
    let own = !name.contains('.') || name.ends_with(".localhost");
    let special = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST || ip.is_unicast_link_local(),
    };
    let nobody = match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    !nobody && (own || !special)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, port: u16) -> Host {
        Host { host: host.into(), port }
    }

    fn to(ip: &str, port: u16) -> Target {
        let ip: IpAddr = ip.parse().unwrap();
        Target { ip: plain(ip), port, scope: 0, six: ip.is_ipv6() }
    }

    fn at(ip: &str) -> Address {
        Address { ip: ip.parse().unwrap(), scope: 0 }
    }

    #[test]
    fn addresses_are_decided_at_once() {
        let grants = Grants::new(&[host("192.0.2.1", 80), host("192.0.2.1", 443), host("[2001:DB8::1]", 80)]).unwrap();
        for (target, verdict) in [
            (to("192.0.2.1", 80), Verdict::Granted),
            (to("::ffff:192.0.2.1", 443), Verdict::Granted),
            (to("2001:db8::1", 80), Verdict::Granted),
            (to("2001:db8::1", 443), Verdict::Refused),
            (to("192.0.2.2", 80), Verdict::Refused),
            (to("192.0.2.1", 0), Verdict::Refused),
        ] {
            assert_eq!(grants.decide(&target, 0), verdict, "{target}");
        }
    }

    #[test]
    fn a_name_is_asked_for_once_per_interval() {
        let mut grants = Grants::new(&[host("Example.ORG.", 443)]).unwrap();
        assert_eq!(grants.decide(&to("192.0.2.1", 80), 0), Verdict::Refused, "another port needs no lookup");
        assert_eq!(grants.decide(&to("192.0.2.1", 443), 0), Verdict::Ask(vec![0]));
        grants.asked(0, 5);
        assert_eq!(grants.decide(&to("192.0.2.1", 443), 6), Verdict::Wait);
        assert_eq!(grants.known("example.org", 6), Known::Wait);
        grants.answered(0, &[at("192.0.2.1")], 10);
        assert_eq!(grants.decide(&to("192.0.2.1", 443), 11), Verdict::Granted);
        assert_eq!(grants.decide(&to("192.0.2.2", 443), 11), Verdict::Refused);
        assert_eq!(grants.decide(&to("192.0.2.2", 443), 10 + REFRESH), Verdict::Ask(vec![0]));
        assert_eq!(grants.known("EXAMPLE.org.", 11), Known::Addresses(vec![at("192.0.2.1")]));
        assert_eq!(grants.known("example.net", 11), Known::NotGranted);
    }

    #[test]
    fn an_address_stays_good_for_a_while_after_the_name_moved() {
        let mut grants = Grants::new(&[host("example.org", 443)]).unwrap();
        grants.answered(0, &[at("192.0.2.1")], 0);
        grants.answered(0, &[at("192.0.2.2")], REFRESH);
        assert_eq!(grants.decide(&to("192.0.2.1", 443), KEEP - 1), Verdict::Granted);
        grants.answered(0, &[at("192.0.2.2")], KEEP);
        assert_eq!(grants.decide(&to("192.0.2.1", 443), KEEP), Verdict::Refused);
    }

    #[test]
    fn a_lookup_that_hangs_is_given_up() {
        let mut grants = Grants::new(&[host("example.org", 443)]).unwrap();
        grants.asked(0, 100);
        assert_eq!(grants.next_deadline(), Some(100 + DEADLINE));
        grants.give_up(99 + DEADLINE);
        assert_eq!(grants.decide(&to("192.0.2.1", 443), 99 + DEADLINE), Verdict::Wait);
        grants.give_up(100 + DEADLINE);
        assert_eq!(grants.decide(&to("192.0.2.1", 443), 100 + DEADLINE), Verdict::Refused);
        assert_eq!(grants.known("example.org", 100 + DEADLINE), Known::Nothing);
    }

    #[test]
    fn names_of_others_cannot_point_at_this_computer() {
        let mut grants = Grants::new(&[host("example.org", 80), host("localhost", 80)]).unwrap();
        let inside = ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0", "::"].map(at);
        grants.answered(0, &inside, 0);
        grants.answered(1, &[], 0);
        for address in inside {
            assert_eq!(grants.decide(&to(&address.ip.to_string(), 80), 1), Verdict::Refused, "{address:?}");
        }
        grants.answered(1, &inside, 0);
        assert_eq!(grants.decide(&to("127.0.0.1", 80), 1), Verdict::Granted);
    }

    #[test]
    fn memory_is_bounded_whatever_the_servers_say() {
        let mut grants = Grants::new(&[host("example.org", 80)]).unwrap();
        for n in 0..=255u8 {
            grants.answered(0, &[at(&format!("192.0.2.{n}"))], 1);
        }
        let Known::Addresses(addresses) = grants.known("example.org", 2) else { panic!() };
        assert_eq!(addresses.len(), MOST_ADDRESSES);
    }

    #[test]
    fn hosts_that_are_none_are_refused_with_a_reason() {
        for bad in ["", ".", "a b", "--help", "a\n", "a/b", "ü", &"a".repeat(300), "a\0"] {
            assert!(Grants::new(&[host(bad, 80)]).unwrap_err().contains("neither"), "{bad:?}");
        }
        assert!(Grants::new(&[host("a", 0)]).unwrap_err().contains("port 0"));
        assert!(Grants::new(&vec![host("a", 1); MOST_HOSTS + 1]).is_err());
    }
}
