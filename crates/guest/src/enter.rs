//! From a machine to a connection: its addresses are tried at once, a moment apart, and the first that lets us in is kept.

use crate::{
    Guests, MAIN, Machine,
    one::{One, Use},
    record::Who,
    unknown,
};
use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    net::IpAddr,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use vmoon_core::{
    Code, Error, Result,
    ability::{Ended, Program},
    name::escape,
};
use vmoon_remote::{
    Auth, Connection, Hop, Host, HostFiles, Link, Route, Target, Trust, WeakHost,
    environment::Carrier,
    guest::Guest,
    route::{Wish, resolve},
};

/// How long one address may take to let us in.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an address has before the next one is tried beside it.
const APART: Duration = Duration::from_millis(250);
/// The most addresses that are tried.
const MOST: usize = 8;
/// The usual port.
const PORT: u16 = 22;
/// Keys of the user that are tried, as `ssh` does, for machines that were not made by us.
const KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Where a machine's SSH server may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// An address or a name.
    pub host: String,
    /// The port, where it is not the machine's own: one of the host that leads into the machine.
    pub port: Option<u16>,
}

/// Tells where machines can be reached. A driver implements it.
#[async_trait]
pub trait Places: Send + Sync {
    /// Every place known now, the best first; none is not an error.
    async fn places(&self, key: &str) -> Result<Vec<Place>>;

    /// Why there are none, if that is known.
    async fn missing(&self, key: &str) -> Option<String> {
        let _ = key;
        None
    }

    /// The computer that these places are reached through, where they lead nowhere from here.
    fn gate(&self) -> Option<Gate> {
        None
    }
}

/// A computer that guests are reached through: that of their hypervisor. What is not said comes from `~/.ssh/config` or the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// A name, an address, or an alias of `~/.ssh/config`.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
    /// The login name.
    pub user: Option<String>,
    /// The file of a private key.
    pub identity: Option<PathBuf>,
}

/// A machine that was entered.
pub struct Entered {
    pub(crate) host: Host,
    pub(crate) guest: Guest,
    pub(crate) files: HostFiles,
    pub(crate) carrier: Option<Carrier>,
    who: Who,
    place: (String, u16),
}

impl Entered {
    /// Where that was, for people.
    pub fn place(&self) -> String {
        show(&self.place)
    }

    /// The Lua interpreter there, as far as it is known.
    pub fn lua(&self) -> Option<String> {
        self.guest.last_seen()?.lua
    }

    pub(crate) async fn close(&self) {
        self.host.close().await;
    }
}

fn show((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A connection that is in use as long as this lives.
pub struct Inside {
    connection: Connection,
    pub(crate) entered: Arc<Entered>,
    pub(crate) used: Use,
}

impl Deref for Inside {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Which places are tried, and in which order: those that can be routed first, those that lead nowhere from here not at all.
fn candidates(places: Vec<Place>, port: Option<u16>) -> Vec<(String, u16)> {
    let mut found: Vec<(u8, (String, u16))> = Vec::new();
    for place in places {
        let rank = match place.host.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => continue,
            // Of a port of the host the address may be the host's own.
            Ok(ip) if ip.is_loopback() && place.port.is_none() => continue,
            Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local() => continue,
            Ok(IpAddr::V4(ip)) if ip.is_link_local() => 1,
            _ => 0,
        };
        let place = (place.host, place.port.or(port).unwrap_or(PORT));
        if !found.iter().any(|(_, known)| *known == place) {
            found.push((rank, place));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, place)| place).take(MOST).collect()
}

/// The failure that tells most: somebody who answers before nobody who does, and the better place first.
fn telling(mut errors: Vec<(usize, Error)>) -> Option<Error> {
    let rank = |code| match code {
        Code::ConnectionAuth => 0,
        Code::ConnectionUntrusted => 1,
        Code::DriverFailed => 2,
        _ => 3,
    };
    errors.sort_by_key(|(place, error)| (rank(error.code()), *place));
    let (_, first) = errors.into_iter().next()?;
    Some(first)
}

/// The same error with what helps for a machine of that name.
fn helpful(error: Error, name: &str) -> Error {
    let name = escape(name);
    match error.code() {
        Code::ConnectionUntrusted => {
            let detail = error.detail_value().cloned().unwrap_or_default();
            let shown = detail.get("fingerprint").and_then(|shown| shown.as_str()).unwrap_or("SHA256:…").to_owned();
            let set = format!("vmoon set {name} ssh-fingerprint={shown}");
            error.hint(if detail.get("expected").is_some() {
                format!("only if the machine was installed anew, or you know why its key is another: {set}")
            } else {
                format!("compare it with what its console shows (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then: {set}")
            })
        }
        Code::ConnectionAuth => error.hint(format!("another login or key: vmoon set {name} ssh-user=USER ssh-identity=/path/of/key")),
        _ => error,
    }
}

/// Tries hosts, each a moment after the one before; the first that lets us in.
async fn first(hosts: &[Host]) -> Result<(usize, Connection), Vec<(usize, Error)>> {
    let mut trying = FuturesUnordered::new();
    let (mut next, mut errors) = (0, Vec::new());
    let mut soon = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(soon), if next < hosts.len() => {
                let (n, host) = (next, &hosts[next]);
                trying.push(async move { (n, host.connection().await) });
                next += 1;
                soon = Instant::now() + APART;
            }
            Some((n, tried)) = trying.next() => match tried {
                Ok(connection) => return Ok((n, connection)),
                Err(error) => {
                    errors.push((n, error));
                    soon = Instant::now();
                }
            },
            else => return Err(errors),
        }
    }
}

impl Guests {
    /// What is shown to a machine's server.
    fn auth(&self, (_, _, identity, own_key, _): &Who) -> Auth {
        let (login, mut auth) = (&self.0.config.login, Auth::default());
        auth.identities.extend(identity.clone());
        if *own_key {
            auth.identities.push(self.own_key());
            return auth;
        }
        auth.agent.clone_from(&login.agent);
        auth.identities_only = identity.is_some();
        if let Some(home) = login.home.as_deref().filter(|_| identity.is_none()) {
            auth.usual_identities = KEYS.iter().map(|name| home.join(".ssh").join(name)).collect();
        }
        auth
    }

    /// The way through a computer, which is connected: one connection for all guests behind it, as long as one of them is entered.
    async fn pass(&self, gate: &Gate) -> Result<Host> {
        let kept = self.passage().upgrade();
        let host = match kept {
            Some(host) => host,
            None => {
                let auth = Auth { identities: gate.identity.iter().cloned().collect(), ..Auth::default() };
                let target = Target { user: gate.user.clone(), host: gate.host.clone(), port: gate.port };
                let wish = Wish { target, user: None, auth, pins: Vec::new(), user_files: true };
                let host = Host::new(resolve(&wish, &self.0.config.login)?);
                *self.passage() = host.downgrade();
                host
            }
        };
        // Told apart from what the guest itself may refuse: none of that would help here.
        host.connection().await.map_err(|error| {
            let hint = error.hint_text().map(str::to_owned);
            let what = format!("guests of {} are reached through it, and it cannot be entered over SSH from here", escape(&gate.host));
            let hint =
                hint.unwrap_or_else(|| format!("what ssh {} needs: its key in ~/.ssh/known_hosts, and a key that lets you in", gate.host));
            Error::new(Code::DriverUnreachable, what).hint(hint).source(error)
        })?;
        Ok(host)
    }

    fn passage(&self) -> MutexGuard<'_, WeakHost> {
        self.0.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, name: &str, who: &Who, (host, port): (String, u16), through: Option<&Host>) -> Option<Route> {
        // The files of known hosts do not count: addresses of machines pass from one to the next.
        let trust = Trust { pins: who.4.clone(), known_hosts: Vec::new() };
        let hop = Hop { name: escape(name), host, port, user: who.0.clone()?, auth: self.auth(who), trust };
        Some(Route { connect: CONNECT, through: through.cloned(), ..Route::new(Vec::new(), hop) })
    }

    /// Enters a machine, or stays inside: one connection for everybody.
    ///
    /// # Errors
    /// [`Code::DriverUnsupported`] if nobody has said how; [`Code::GuestNoAddress`]; [`Code::DriverUnreachable`]; [`Code::ConnectionUntrusted`] with the
    /// fingerprint in its detail and what confirms it as its hint; [`Code::ConnectionAuth`].
    pub async fn connection(&self, machine: &Machine<'_>, places: &dyn Places) -> Result<Inside> {
        let one = self.find(machine.key).ok_or_else(|| unknown(machine.name))?;
        self.inside(&one, machine, places).await
    }

    pub(crate) async fn inside(&self, one: &Arc<One>, machine: &Machine<'_>, places: &dyn Places) -> Result<Inside> {
        let _alone = one.door.lock().await;
        let used = one.used();
        self.seen(one, machine.run);
        let who = one.record().who();
        if who.0.is_none() {
            return Err(unknown(machine.name));
        }
        let before = one.entered().filter(|entered| entered.who == who);
        if let Some(entered) = &before {
            let lives = *entered.host.link().borrow() == Link::Connected;
            if lives && let Ok(connection) = entered.host.connection().await {
                return Ok(Inside { connection, entered: entered.clone(), used });
            }
        }
        let name = escape(machine.name);
        let mut known = candidates(places.places(machine.key).await?, who.1);
        let nowhere = |more: &str| {
            Error::new(Code::GuestNoAddress, format!("no address of {name} is known yet{more}"))
                .hint("a guest agent or a lease tells it: see vmoon wait NAME --until ip")
        };
        // A guest that goes on after it was suspended is where it was, long before its tools say so.
        let last = one.record().place.clone().filter(|_| known.is_empty());
        known.extend(last.clone());
        if known.is_empty() {
            let why = places.missing(machine.key).await;
            return Err(nowhere(&why.map(|why| format!(": {why}")).unwrap_or_default()));
        }
        let through = match places.gate() {
            Some(gate) => Some(self.pass(&gate).await?),
            None => None,
        };
        let hosts: Vec<Host> = known
            .iter()
            .map(|place| match &before {
                // What was sent there and not answered is still known.
                Some(entered) if entered.place == *place => Some(entered.host.clone()),
                _ => self.route(machine.name, &who, place.clone(), through.as_ref()).map(Host::new),
            })
            .collect::<Option<_>>()
            .ok_or_else(|| unknown(machine.name))?;
        let turn = self.0.connecting.acquire().await.map_err(|error| Error::internal("nobody may connect").source(error))?;
        let tried = first(&hosts).await;
        drop(turn);
        let (n, connection) = tried.map_err(|errors| {
            let error = telling(errors).unwrap_or_else(|| Error::internal("no address was tried"));
            match &last {
                Some(last) if error.code() == Code::DriverUnreachable => {
                    nowhere(&format!(", and nobody answers where it was last, at {}", show(last))).source(error)
                }
                _ => helpful(error, machine.name),
            }
        })?;
        one.record().place = Some(known[n].clone());
        let entered = match before {
            Some(entered) if entered.place == known[n] => entered,
            _ => {
                let owner = format!("{}.{}", self.0.config.connection, machine.key);
                let guest = Guest::new(hosts[n].clone(), &owner, MAIN, None)?;
                let host = hosts[n].clone();
                let carrier = self.0.config.environments.clone().map(|all| Carrier::new(guest.clone(), all));
                Arc::new(Entered { files: HostFiles::new(host.clone()), carrier, host, guest, who, place: known[n].clone() })
            }
        };
        one.enter(entered.clone());
        Ok(Inside { connection, entered, used })
    }

    /// Runs a program in a machine as the user who logs in, and waits for its end.
    ///
    /// # Errors
    /// As [`Guests::connection`] and [`Connection::exec`].
    pub async fn exec(&self, machine: &Machine<'_>, program: &Program, places: &dyn Places) -> Result<Ended> {
        self.connection(machine, places).await?.exec(program).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_lead_nowhere_are_left_out_and_doubtful_ones_come_last() {
        let place = |host: &str, port| Place { host: host.into(), port };
        let all = vec![
            place("fe80::1", None),
            place("169.254.1.2", None),
            place("127.0.0.1", None),
            place("127.0.0.1", Some(2200)),
            place("10.0.0.7", None),
            place("10.0.0.7", None),
            place("2001:db8::7", None),
            place("0.0.0.0", None),
            place("vm.example", None),
        ];
        let found: Vec<String> = candidates(all, Some(23)).iter().map(show).collect();
        assert_eq!(found, ["127.0.0.1:2200", "10.0.0.7:23", "[2001:db8::7]:23", "vm.example:23", "169.254.1.2:23"]);
        assert_eq!(candidates((0..99).map(|n| place(&format!("10.0.0.{n}"), None)).collect(), None).len(), MOST);
    }

    #[test]
    fn the_error_that_tells_most_is_told_with_what_helps() {
        let error = |code| Error::new(code, "x");
        let told = telling(vec![
            (0, error(Code::DriverUnreachable)),
            (2, error(Code::ConnectionUntrusted)),
            (1, error(Code::ConnectionUntrusted).detail(serde_json::json!({"fingerprint": "SHA256:a"}))),
        ]);
        let told = helpful(told.unwrap(), "a\nb");
        assert!(told.hint_text().unwrap().ends_with("vmoon set a\\nb ssh-fingerprint=SHA256:a"), "{told:?}");
        assert!(telling(Vec::new()).is_none());
    }
}
