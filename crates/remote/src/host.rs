//! A host that is kept connected: one connection for everybody, made when it is needed, made again when it was lost.
//!
//! Who asks gets the living connection or an error within the route's times; nobody waits for ever. After a loss a task of its own tries
//! again, at growing and uneven distances, until it succeeds or until trying again cannot help; [`Link`] says how it stands.

use crate::{Connection, Route};
use std::{
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until},
};
use vmoon_core::{Error, Result, codes::Retry, error::ErrorRecord};
use vmoon_sys::{clock::now_ms, random};

/// The first distance between two attempts, and the longest.
const DISTANCES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How the connection to a host stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// Nobody has needed it yet.
    Idle,
    /// It lives.
    Connected,
    /// It was lost and is being made again.
    Reconnecting {
        /// When it was lost, milliseconds since the Unix epoch.
        since_ms: u64,
        /// Attempts so far.
        attempt: u32,
        /// Why the last one failed, or the connection was lost.
        why: String,
    },
    /// It was lost or never made, and is tried again only when somebody asks for it.
    Lost(ErrorRecord),
}

/// A host. Clones share it.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

/// A [`Host`] as long as others keep it.
#[derive(Clone, Default)]
pub struct WeakHost(Weak<Inner>);

impl WeakHost {
    /// The host, if it is still kept.
    pub fn upgrade(&self) -> Option<Host> {
        self.0.upgrade().map(Host)
    }
}

struct Inner {
    route: Route,
    /// Held while connecting: whoever comes meanwhile gets the same connection.
    current: Mutex<Option<Connection>>,
    link: watch::Sender<Link>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.0.route.target.name)
    }
}

impl Host {
    /// A host that is not connected yet.
    pub fn new(route: Route) -> Self {
        Self(Arc::new(Inner { route, current: Mutex::new(None), link: watch::Sender::new(Link::Idle) }))
    }

    /// The way there.
    pub fn route(&self) -> &Route {
        &self.0.route
    }

    /// How it stands, and every change of it.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.0.link.subscribe()
    }

    /// The living connection; makes one if there is none.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn connection(&self) -> Result<Connection> {
        let mut current = self.0.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        *current = None;
        let opened = Connection::open(&self.0.route).await;
        match opened {
            Ok(connection) => {
                *current = Some(connection.clone());
                self.0.link.send_replace(Link::Connected);
                drop(tokio::spawn(keeper(Arc::downgrade(&self.0), connection.clone())));
                Ok(connection)
            }
            Err(error) => {
                self.0.link.send_if_modified(|link| {
                    let lost = !matches!(link, Link::Reconnecting { .. });
                    if lost {
                        *link = Link::Lost(error.to_record());
                    }
                    lost
                });
                Err(error)
            }
        }
    }

    /// As [`Self::connection`], for a connection that leads through this host: boxed, because that one is made by the same function.
    pub(crate) fn on_the_way(&self) -> Pin<Box<dyn Future<Output = Result<Connection>> + Send + '_>> {
        Box::pin(self.connection())
    }

    /// A handle that does not keep it: once nobody else has the host, its connection ends.
    pub fn downgrade(&self) -> WeakHost {
        WeakHost(Arc::downgrade(&self.0))
    }

    /// Closes the connection, if there is one; the next who asks makes another.
    pub async fn close(&self) {
        let connection = self.0.current.lock().await.take();
        if let Some(connection) = connection {
            connection.close().await;
        }
    }
}

/// [`keep`], boxed because a connection that is made again gets a keeper, too.
fn keeper(host: Weak<Inner>, connection: Connection) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(keep(host, connection))
}

/// Waits for the end of a connection, then makes another.
async fn keep(host: Weak<Inner>, connection: Connection) {
    let mut why = connection.closed().await;
    drop(connection);
    let (since_ms, mut attempt) = (now_ms(), 0);
    loop {
        // Nobody needs the host any more, or it was closed on purpose, or somebody else was quicker.
        let Some(inner) = host.upgrade() else { return };
        let host_now = Host(inner);
        match host_now.0.current.lock().await.as_ref() {
            Some(current) if !current.is_closed() => return,
            None if attempt == 0 => {
                host_now.0.link.send_replace(Link::Idle);
                return;
            }
            _ => {}
        }
        host_now.0.link.send_replace(Link::Reconnecting { since_ms, attempt, why: why.clone() });
        if attempt > 0 {
            let until = Instant::now() + distance(attempt, random::number());
            drop(host_now);
            sleep_until(until).await;
        } else {
            drop(host_now);
        }
        let Some(inner) = host.upgrade() else { return };
        attempt += 1;
        match Host(inner.clone()).connection().await {
            // The new connection has a keeper of its own.
            Ok(_) => return,
            Err(error) if error.code().retry() == Retry::Never => {
                inner.link.send_replace(Link::Lost(error.to_record()));
                return;
            }
            Err(error) => why = Error::chain(&error),
        }
    }
}

/// How long to wait before this attempt: twice as long each time, of which a random half.
fn distance(attempt: u32, chance: u64) -> Duration {
    let full = DISTANCES.0.saturating_mul(1 << attempt.min(16).saturating_sub(1)).min(DISTANCES.1);
    full / 2 + full.mul_f64((chance % 1024) as f64 / 2048.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_grow_to_a_bound_and_differ() {
        for attempt in 1..100 {
            for chance in [0, 500, u64::MAX] {
                let distance = distance(attempt, chance);
                assert!(distance >= DISTANCES.0 / 2 && distance <= DISTANCES.1);
            }
        }
        assert!(distance(3, 0) < distance(3, 1023));
        assert!(distance(2, 1023) < distance(5, 0));
    }
}
