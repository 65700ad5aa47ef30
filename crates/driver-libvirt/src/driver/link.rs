//! The connection to one libvirt: made when it is first needed, made again when it was lost, not tried more often than makes sense.

use super::{
    endpoint::Endpoint,
    errors::{Doing as _, failed},
};
use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};
use vmoon_core::{Error, Result, error::ErrorRecord};
use vmoon_libvirt_wire::{Client, Options};
use vmoon_sys::clock;

/// How long a call may take that only looks.
const LOOK: Duration = Duration::from_secs(8);
/// How long one may take that starts, saves or copies.
const WORK: Duration = Duration::from_secs(3600);
/// The first and the longest pause between tries.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A connection that heals.
pub(crate) struct Link {
    pub(crate) endpoint: Endpoint,
    state: Mutex<State>,
    /// Directories of pools in which libvirt was seen to find what we write there.
    shared: std::sync::Mutex<HashSet<String>>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    /// When the next try makes sense, why the last one failed, and how many have.
    failure: Option<(Instant, ErrorRecord, u32)>,
}

impl Link {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, state: Mutex::default(), shared: std::sync::Mutex::default() }
    }

    /// Whether libvirt is known to find in this directory what we write there.
    pub(crate) fn shares(&self, directory: &str) -> bool {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).contains(directory)
    }

    /// It has found something of ours in this directory.
    pub(crate) fn found_in(&self, directory: &str) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned());
    }

    /// A client that was alive a moment ago.
    ///
    /// # Errors
    /// Why there is none: of the last try, if that was a moment ago.
    pub(crate) async fn client(&self) -> Result<Client> {
        let mut state = self.state.lock().await;
        if let Some(client) = state.client.as_ref().filter(|client| client.ended().is_none()) {
            return Ok(client.clone());
        }
        state.client = None;
        if let Some((next, why, _)) = &state.failure
            && Instant::from_std(clock::instant()) < *next
        {
            return Err(Error::from(why.clone()));
        }
        let options = Options { deadline: LOOK, long_deadline: WORK, ..Options::default() };
        match Client::connect(self.endpoint.clone(), &self.endpoint.uri, options).await {
            Ok(client) => {
                tracing::info!(uri = %self.endpoint.uri, at = %vmoon_libvirt_wire::Connect::describe(&self.endpoint), "connected to libvirt");
                *state = State { client: Some(client.clone()), failure: None };
                Ok(client)
            }
            Err(error) => {
                let tries = state.failure.as_ref().map_or(0, |(_, _, tries)| *tries);
                let pause = BACK_OFF.0.saturating_mul(1 << tries.min(10)).min(BACK_OFF.1);
                let said = self.endpoint.said.last().await.map(|words| format!(" (ssh says: {words})")).unwrap_or_default();
                let error = failed(&format!("connect to {}{said}", self.endpoint.uri), error);
                state.failure = Some((Instant::from_std(clock::instant()) + pause, error.to_record(), tries + 1));
                Err(error)
            }
        }
    }

    /// Waits until a client is there, as long as it takes.
    pub(crate) async fn patiently(&self) -> Client {
        loop {
            if let Ok(client) = self.client().await {
                return client;
            }
            let next = self.state.lock().await.failure.as_ref().map(|(next, _, _)| *next);
            if let Some(next) = next {
                tokio::time::sleep_until(next).await;
            }
        }
    }

    /// Looks with a client; a connection that had been lost without anybody noticing is made again, once.
    ///
    /// # Errors
    /// Those of connecting and of the call.
    pub(crate) async fn with<T, F>(&self, what: &str, look: impl Fn(Client) -> F + Send) -> Result<T>
    where
        F: Future<Output = vmoon_libvirt_wire::Result<T>> + Send,
    {
        match look(self.client().await?).await {
            Err(vmoon_libvirt_wire::Error::Closed(_)) => look(self.client().await?).await.doing(what),
            result => result.doing(what),
        }
    }
}

/// A connection that several share.
pub(crate) type Shared = Arc<Link>;
