//! Events, as the API asks for them: what is kept, then what comes.

use super::Service;
use async_trait::async_trait;
use std::collections::VecDeque;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use vmoon_api::{EventStream, requests::Events};
use vmoon_core::{Code, Error, MachineId, Result, event::Event};

/// How many events one answer holds: more than are ever kept.
pub(super) const LISTED: usize = 30_000;

/// The events from a number on: first those of the store, then those published.
struct Following {
    backlog: VecDeque<Event>,
    live: Receiver<Event>,
    last: u64,
    machine: Option<MachineId>,
}

fn gap() -> Error {
    Error::new(Code::EventsGap, "events were missed: they came faster than they were read, or are no longer kept")
        .hint("read the state anew and follow from now on")
}

#[async_trait]
impl EventStream for Following {
    async fn next(&mut self) -> Result<Event> {
        if let Some(event) = self.backlog.pop_front() {
            self.last = event.seq;
            return Ok(event);
        }
        loop {
            match self.live.recv().await {
                Ok(event) if event.seq <= self.last || self.machine.is_some_and(|id| event.machine != Some(id)) => {}
                Ok(event) => {
                    self.last = event.seq;
                    return Ok(event);
                }
                Err(RecvError::Lagged(_)) => return Err(gap()),
                Err(RecvError::Closed) => return Err(Error::new(Code::DaemonStopping, "the daemon is shutting down")),
            }
        }
    }
}

impl Service {
    fn machine_filter(&self, request: &Events) -> Result<Option<MachineId>> {
        request.machine.as_deref().map(|text| self.machine(text).map(|m| m.id)).transpose()
    }

    pub(super) async fn events(&self, request: Events) -> Result<Vec<Event>> {
        let machine = self.machine_filter(&request)?;
        let since = request.since.unwrap_or(0);
        let (events, forgotten) = self.context.store.run(move |tx| tx.events(since, machine, LISTED)).await?;
        if request.since.is_some() && since < forgotten { Err(gap()) } else { Ok(events) }
    }

    pub(super) async fn follow(&self, request: Events) -> Result<Box<dyn EventStream>> {
        let machine = self.machine_filter(&request)?;
        // Subscribed before the store is read, so that nothing falls between the two.
        let live = self.context.store.follow();
        let backlog = if request.since.is_some() { self.events(request).await?.into() } else { VecDeque::new() };
        Ok(Box::new(Following { backlog, live, last: 0, machine }))
    }
}
