//! Keeps a copy of records up to date by events.
//!
//! A token is taken first, then the records, then events from that token: nothing falls between. After a new login, which is how a restart of XAPI shows, and
//! when XAPI does not know the token any more, everything is read again and only what is different is told. Where XAPI has fewer or more objects than the copy, a
//! deletion was missed and that class is read again.

use crate::{
    cache::{Batch, Cache, Change},
    client::Client,
    error::{Error, Result},
};
use serde_json::json;
use std::time::Duration;

/// How long XAPI holds an answer back while nothing happens.
const POLL: Duration = Duration::from_secs(55);
/// How much longer than that we wait.
const GRACE: Duration = Duration::from_secs(11);

/// A copy of some classes that follows what happens.
pub struct Watch {
    client: Client,
    classes: Vec<String>,
    cache: Cache,
    token: String,
    /// The login that the token belongs to.
    generation: u64,
}

impl Watch {
    /// Reads every record of these classes, named as in the data model (`VM`, `VM_guest_metrics`).
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn begin(client: Client, classes: &[&str]) -> Result<Self> {
        let classes = classes.iter().map(|class| (*class).to_owned()).collect();
        let mut this = Self { client, classes, cache: Cache::default(), token: String::new(), generation: 0 };
        this.read_all().await?;
        Ok(this)
    }

    /// What is known now.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Waits until something has changed, or for most of a minute; what has.
    ///
    /// # Errors
    /// As [`Client::call`]. The copy is then as it was, and the next call goes on from there: it reads everything again if it has to.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Vec<Change>> {
        if self.generation != self.client.session().await?.generation() {
            return self.read_all().await;
        }
        let params = vec![json!(self.classes), self.token.clone().into(), json!(POLL.as_secs_f64())];
        let batch = match self.client.hold::<Batch>("event.from", params, POLL + GRACE).await {
            Ok(batch) => batch,
            Err(error) if error.is("EVENT_FROM_TOKEN_PARSE_FAILURE") || error.is("EVENTS_LOST") || error.is("SESSION_INVALID") => {
                return self.read_all().await;
            }
            Err(error) => return Err(error),
        };
        // The session was renewed under our hands: XAPI may have been restarted, and its tokens mean something else.
        if self.generation != self.client.session().await?.generation() {
            return self.read_all().await;
        }
        let mut changes = self.cache.apply(batch.events);
        self.token = batch.token;
        for class in self.cache.astray(&batch.valid_ref_counts) {
            changes.extend(self.read_class(&class).await?);
        }
        Ok(changes)
    }

    async fn read_all(&mut self) -> Result<Vec<Change>> {
        let generation = self.client.session().await?.generation();
        let pools: Vec<String> = self.client.get("pool.get_all", vec![]).await?;
        let pool = pools.into_iter().next().ok_or_else(|| Error::protocol("there is no pool"))?;
        // The token of just before an event that changes nothing.
        let token: String = self.client.get("event.inject", vec!["pool".into(), pool.into()]).await?;
        let mut changes = Vec::new();
        for class in self.classes.clone() {
            changes.extend(self.read_class(&class).await?);
        }
        (self.token, self.generation) = (token, generation);
        Ok(changes)
    }

    async fn read_class(&mut self, class: &str) -> Result<Vec<Change>> {
        // Counts name classes in lower case, methods in the data model's.
        let named = self.classes.iter().find(|known| known.eq_ignore_ascii_case(class)).cloned().unwrap_or_else(|| class.to_owned());
        let records = self.client.records(&named).await?;
        Ok(self.cache.replace(&named, records))
    }
}
