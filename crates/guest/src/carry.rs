//! Environments of packages and files in guests. What is carried and how is `vmoon-remote`'s; here is which environment a machine is to use, kept because a guest can
//! lose what it was given: it is put back to a snapshot, or made anew.

use crate::{
    Guests, Machine,
    enter::{Inside, Places},
    one::One,
    settings::Wanted,
};
use std::sync::Arc;
use vmoon_core::{
    Code, Error, Result,
    ability::{Nobody, UsedEnvironment},
    name::escape,
};
use vmoon_remote::over::{Account, no_environments};

impl Guests {
    /// Enters a machine for its files and environments. It stays entered as long as the account lives.
    ///
    /// # Errors
    /// As [`Guests::connection`].
    pub async fn account(&self, machine: &Machine<'_>, places: &dyn Places) -> Result<Account> {
        let inside = self.connection(machine, places).await?;
        let (files, carrier) = (inside.entered.files.clone(), inside.entered.carrier.clone());
        Ok(Account { files, carrier, hold: Arc::new(inside) })
    }

    /// Whether there are environments that guests can be given.
    pub fn has_environments(&self) -> bool {
        self.0.config.environments.is_some()
    }

    /// Looks whether there is an environment of that name.
    ///
    /// # Errors
    /// [`Code::EnvironmentNotFound`]; [`Code::DriverUnsupported`] where there are none at all.
    pub async fn look_for(&self, environment: &str) -> Result<()> {
        self.0.config.environments.as_ref().ok_or_else(no_environments)?.find(environment).await.map(drop)
    }

    /// Looks whether what is to be changed can be had, as far as it names an environment.
    ///
    /// # Errors
    /// As [`Guests::look_for`].
    pub async fn check(&self, wanted: &Wanted) -> Result<()> {
        match wanted.environment() {
            Some(environment) => self.look_for(environment).await,
            None => Ok(()),
        }
    }

    /// The Lua sessions of a machine are to use this environment, beginning with the next one. Nothing if the machine is not known.
    ///
    /// # Errors
    /// Those of keeping it.
    pub fn want(&self, key: &str, environment: &str) -> Result<()> {
        let Some(one) = self.find(key) else { return Ok(()) };
        one.record().environment = Some(environment.to_owned());
        self.keep(&one)
    }

    /// The environment that the Lua sessions of a machine are to use.
    pub fn wanted(&self, key: &str) -> Option<String> {
        self.find(key)?.record().environment.clone()
    }

    /// An environment was carried into a machine.
    pub fn carried(&self, key: &str, used: &UsedEnvironment) {
        if let Some(one) = self.find(key) {
            self.has_carried(&one, used);
        }
    }

    fn has_carried(&self, one: &One, used: &UsedEnvironment) {
        {
            let mut record = one.record();
            record.environment = Some(used.name.clone());
            record.carried = Some(used.clone());
        }
        // What could not be kept is found out again there; the log has why.
        let _ = self.keep(one);
    }

    /// What the machines use, as far as it is known without entering any.
    pub fn used(&self) -> Vec<(String, UsedEnvironment)> {
        let keys: Vec<String> = self.lock().iter().flatten().map(|(key, _)| key.clone()).collect();
        keys.into_iter().filter_map(|key| Some((self.find(&key)?.record().carried.clone()?, key))).map(|(used, key)| (key, used)).collect()
    }

    /// Before a Lua session begins: carries there what it is to begin with, if that is not there already.
    pub(crate) async fn bring(&self, one: &One, machine: &Machine<'_>, inside: &Inside) -> Result<()> {
        let (wanted, carried) = {
            let record = one.record();
            (record.environment.clone(), record.carried.is_some())
        };
        let (Some(carrier), true) = (&inside.entered.carrier, wanted.is_some() || carried) else { return Ok(()) };
        let seen = inside.entered.guest.look().await?;
        let there = seen.environments.last().map(|used| used.environment.name.as_str());
        // What lives began with what it has. Without Lua nothing begins, and that is told by who begins it.
        if there == wanted.as_deref() || seen.lives || seen.lua.is_none() {
            return Ok(());
        }
        let Some(wanted) = wanted else {
            carrier.none().await?;
            one.record().carried = None;
            return self.keep(one);
        };
        let name = escape(machine.name);
        let switched = carrier.switch(&wanted, false, &Nobody).await.map_err(|error| match error.code() {
            Code::DriverUnreachable => error,
            code => {
                let hint = format!("its sessions are to begin with the environment {wanted}; take another: vmoon env apply OTHER {name}; or none: vmoon set {name} env=");
                Error::new(code, error.message().to_owned()).hint(match error.hint_text() {
                    Some(text) => format!("{text}; {hint}"),
                    None => hint,
                })
            }
        })?;
        tracing::info!(machine = machine.name, environment = wanted, "packages were carried into the guest");
        self.has_carried(one, &switched.environment);
        Ok(())
    }
}
