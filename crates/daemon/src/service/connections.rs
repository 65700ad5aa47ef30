//! Connections, as the API asks for them.

use super::Service;
use crate::{
    connections::{Access, Entry},
    store::About,
};
use std::{sync::Arc, time::Duration};
use vmoon_api::{
    requests::{AddConnection, LoginConnection, Password, RemoveConnection},
    views::{ConnectionView, TestView},
};
use vmoon_core::{
    Code, ConnectionId, Error, Result,
    connection::{Connection, ConnectionState, LOCAL, SecretPlace},
    driver::{Driver, Found},
    event::EventKind,
    name::{self, escape},
};
use vmoon_sys::{
    random,
    records::Records,
    secrets::{Secret, Secrets},
};

/// How long a connection may take to answer when it is tried.
const TRY: Duration = Duration::from_secs(30);
/// How long a list that is under way is waited for after a login.
const SETTLE: Duration = Duration::from_secs(10);
/// The key under which the store keeps the default connection.
pub(crate) const DEFAULT: &str = "default_connection";

/// Lists the machines of a connection, in bounded time.
async fn list(driver: &dyn Driver, name: &str) -> Result<Vec<Found>> {
    tokio::time::timeout(TRY, driver.list()).await.unwrap_or_else(|_| {
        Err(Error::new(Code::DriverUnreachable, format!("{name} did not answer within {} s", TRY.as_secs()))
            .hint("check the address, and whether something on the way drops packets"))
    })
}

fn exists(name: &str) -> Error {
    Error::new(Code::ConnectionExists, format!("a connection named {name} exists already"))
        .hint(format!("choose another name, or remove it: vmoon connection rm {name}"))
}

fn secret(password: Option<Password>) -> Result<Option<Secret>> {
    password.map(|password| Secret::new(password.expose().as_bytes())).transpose()
}

impl Service {
    /// The daemon ends.
    pub(crate) async fn close(&self) {
        self.context.connections.close(&self.context).await;
    }

    pub(super) fn secrets(&self) -> Secrets {
        Secrets::new(self.context.state.join("secrets"))
    }

    pub(super) fn connection_view(&self, entry: &Entry) -> ConnectionView {
        let machines = self.context.machines_of(entry.id).len() as u64;
        entry.view(machines, self.context.connections.default() == Some(entry.id))
    }

    pub(super) fn connections(&self) -> Vec<ConnectionView> {
        self.context.connections.all().iter().map(|entry| self.connection_view(entry)).collect()
    }

    pub(super) async fn connect(&self, request: AddConnection) -> Result<ConnectionView> {
        name::check(&request.name)?;
        let taken = || self.context.connections.all().iter().any(|entry| entry.name == request.name);
        if taken() {
            return Err(exists(&request.name));
        }
        let id = ConnectionId::from_uuid(random::uuid());
        let secret = secret(request.password)?;
        let mut connection = Connection::new(id, request.name.clone(), request.kind, request.uri);
        (connection.user, connection.identity, connection.fingerprint) = (request.user, request.identity, request.fingerprint);
        connection.secret = match (&secret, request.store.unwrap_or(true)) {
            (None, _) => SecretPlace::None,
            (Some(_), true) => SecretPlace::Stored,
            (Some(_), false) => SecretPlace::Memory,
        };
        let access = Access::new(secret.clone(), connection.fingerprint.clone());
        let driver = self.context.connections.make(&connection, access.clone())?;
        // What does not answer now, or does not let us in, is not kept.
        list(&*driver, &connection.name).await?;
        self.leads_elsewhere(&*driver, &connection).await?;
        if let (Some(secret), SecretPlace::Stored) = (&secret, connection.secret) {
            self.secrets().put(id, secret)?;
        }
        let stored = connection.clone();
        let kept = self
            .context
            .store
            .run(move |tx| {
                if tx.connections()?.iter().any(|other| other.name == stored.name) {
                    return Ok(false);
                }
                tx.put_connection(&stored)?;
                let about = About { connection: Some(stored.id), ..About::default() };
                tx.event(EventKind::ConnectionAdded, about, format!("connection {} was added", stored.name))?;
                Ok(true)
            })
            .await;
        if !matches!(kept, Ok(true)) {
            self.secrets().remove(id)?;
        }
        if !kept? {
            return Err(exists(&request.name));
        }
        let entry = Entry::new(connection, driver, access);
        self.context.connections.add(&self.context, entry.clone());
        self.settled(&entry).await;
        Ok(self.connection_view(&entry))
    }

    /// Refuses a second name for what a connection leads to already: every machine there would be shown twice. What cannot be told is let pass.
    async fn leads_elsewhere(&self, driver: &dyn Driver, connection: &Connection) -> Result<()> {
        let ask = async |driver: &dyn Driver| tokio::time::timeout(SETTLE, driver.identity()).await.ok().flatten();
        let Some(identity) = ask(driver).await else { return Ok(()) };
        for other in self.context.connections.all().iter().filter(|other| other.kind == connection.kind) {
            if ask(&*other.driver).await.as_ref() == Some(&identity) {
                let text = format!("connection {} leads to the same machines already", other.name);
                return Err(Error::new(Code::ConnectionExists, text)
                    .hint(format!("use it, or remove it first: vmoon connection rm {}", other.name)));
            }
        }
        Ok(())
    }

    /// Waits for the first list of a connection, but not for ever.
    async fn settled(&self, entry: &Entry) {
        let mut live = entry.follow();
        let up = live.wait_for(|live| live.state != ConnectionState::Reconnecting);
        // What is shown then is what is known.
        let _ = tokio::time::timeout(SETTLE, up).await;
    }

    pub(super) async fn try_connection(&self, text: &str) -> Result<TestView> {
        let entry = self.context.connections.find(text)?;
        let began = tokio::time::Instant::now();
        let found = list(&*entry.driver, &entry.name).await;
        let took_us = began.elapsed().as_micros() as u64;
        // Its state follows what was seen.
        entry.resynchronise();
        let found = found?;
        let checks = entry.driver.probe().await;
        Ok(TestView { connection: self.connection_view(&entry), machines: found.len() as u64, took_us, checks })
    }

    /// Gives a connection a new secret, or another fingerprint to accept. What does not let us in is not kept.
    pub(super) async fn login(&self, request: LoginConnection) -> Result<ConnectionView> {
        let entry = self.context.connections.find(&request.connection)?;
        if !self.context.connections.makes(&entry.connection().kind) {
            return Err(Error::new(Code::Usage, format!("{} is this computer: nobody logs in to it", name::escape(&request.connection)))
                .hint("connections to other hosts: vmoon connection list"));
        }
        let before = entry.access();
        let new = secret(request.password)?;
        let mut connection = entry.connection();
        connection.fingerprint = request.fingerprint.or(connection.fingerprint);
        if new.is_some() {
            let keep = request.store.unwrap_or(connection.secret != SecretPlace::Memory);
            connection.secret = if keep { SecretPlace::Stored } else { SecretPlace::Memory };
        }
        let access = Access::new(new.clone().or_else(|| before.secret()), connection.fingerprint.clone());
        let driver = self.context.connections.make(&connection, access.clone())?;
        list(&*driver, &connection.name).await?;
        match (&new, connection.secret) {
            (Some(secret), SecretPlace::Stored) => self.secrets().put(entry.id, secret)?,
            (Some(_), _) => self.secrets().remove(entry.id)?,
            (None, _) => {}
        }
        let stored = connection.clone();
        self.context.store.run(move |tx| tx.put_connection(&stored)).await?;
        let entry = Entry::new(connection, driver, access);
        self.context.connections.replace(&self.context, entry.clone()).await?;
        self.settled(&entry).await;
        Ok(self.connection_view(&entry))
    }

    pub(super) async fn disconnect(&self, request: RemoveConnection) -> Result<ConnectionView> {
        let entry = self.context.connections.find(&request.connection)?;
        if entry.name == LOCAL {
            return Err(Error::new(Code::Usage, "the connection to this computer is always there"));
        }
        let machines = self.context.machines_of(entry.id);
        let ours: Vec<String> = machines.iter().filter(|m| m.ours).map(|m| escape(&m.view().name)).collect();
        if !ours.is_empty() && !request.force {
            let more = if ours.len() > 5 { ", …" } else { "" };
            return Err(Error::new(
                Code::ConnectionInUse,
                format!(
                    "{} machines that vmoon has made live on {}: {}{more}",
                    ours.len(),
                    entry.name,
                    ours[..ours.len().min(5)].join(", ")
                ),
            )
            .hint(format!("delete them first, or leave them there and forget them: vmoon connection rm {} --force", entry.name)));
        }
        let view = self.connection_view(&entry);
        self.context.connections.remove(&entry).await;
        // Also those that its task has found while it ended.
        for machine in self.context.machines_of(entry.id) {
            machine.drop_record().await;
        }
        entry.driver.close().await;
        let (id, name) = (entry.id, entry.name.clone());
        self.context
            .store
            .run(move |tx| {
                tx.delete_connection(id)?;
                if tx.setting(DEFAULT)?.is_some_and(|default| default == id.to_string()) {
                    tx.put_setting(DEFAULT, None)?;
                }
                let about = About { connection: Some(id), ..About::default() };
                tx.event(EventKind::ConnectionGone, about, format!("connection {name} was removed"))
            })
            .await?;
        if self.context.connections.default() == Some(id) {
            self.context.connections.set_default(None);
        }
        self.secrets().remove(id)?;
        // How its machines are entered.
        Records::new(crate::drivers::guests_dir(&self.context.state).join(id.to_string())).clear()?;
        Ok(view)
    }

    pub(super) async fn prefer(&self, text: &str) -> Result<ConnectionView> {
        let entry = self.context.connections.find(text)?;
        let id = entry.id;
        self.context.store.run(move |tx| tx.put_setting(DEFAULT, Some(&id.to_string()))).await?;
        self.context.connections.set_default(Some(id));
        Ok(self.connection_view(&entry))
    }

    /// The connection a new machine goes to, and the kind it gets: what is named, then the default, then this computer.
    pub(super) fn connection_for(&self, name: Option<&str>, kind: &str) -> Result<Arc<Entry>> {
        let connections = &self.context.connections;
        if let Some(name) = name {
            let found = connections.find(name)?;
            if kind.is_empty() || found.kind == kind {
                return Ok(found);
            }
            let name = escape(name);
            return Err(Error::new(Code::SpecInvalid, format!("{name} makes machines of kind {}, not {}", found.kind, escape(kind))));
        }
        let preferred = connections.default().and_then(|id| connections.get(id));
        if kind.is_empty() {
            return preferred.map_or_else(|| connections.find(LOCAL), Ok);
        }
        let of_kind: Vec<Arc<Entry>> = connections.all().into_iter().filter(|entry| entry.kind == kind).collect();
        match of_kind.as_slice() {
            [] => Err(Error::new(Code::SpecInvalid, format!("no connection makes machines of kind \"{}\"", escape(kind)))
                .hint(format!("kinds that can be made here: {}", self.kinds().join(", ")))),
            [only] => Ok(only.clone()),
            many => preferred
                .filter(|entry| entry.kind == kind)
                .or_else(|| many.iter().find(|entry| entry.name == LOCAL).cloned())
                .ok_or_else(|| {
                    let names: Vec<&str> = many.iter().map(|entry| entry.name.as_str()).collect();
                    let text = format!("{} connections make machines of kind {kind}: {}", many.len(), names.join(", "));
                    Error::new(Code::NameAmbiguous, text).hint("say which: --on CONNECTION, or CONNECTION:NAME")
                }),
        }
    }

    pub(super) fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.context.connections.all().iter().map(|entry| entry.kind.clone()).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }
}
