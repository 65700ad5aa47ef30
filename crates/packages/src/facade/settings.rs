//! What holds for all environments of a user: which one was chosen, and the rocks servers of those that have no list of their own. One small file,
//! replaced as a whole.

use crate::servers::{PUBLIC, Server};
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path};
use vmoon_core::{
    Code, Error, Result,
    name::escape,
    package::{DEFAULT_ENVIRONMENT, ServerChange, ServerInfo},
};
use vmoon_sys::durable;

/// Its name, in the state directory.
const FILE: &str = "packages.toml";
/// The most servers of a list.
const MOST: usize = 64;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// The environment that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<String>,
    /// The list of servers, where it is not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<Server>>,
}

impl Settings {
    /// Reads it; a missing one says nothing.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] for one that is malformed, with the place.
    pub(super) fn read(state: &Path) -> Result<Self> {
        let path = state.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::io(format_args!("read {}", path.display()), error)),
        };
        let wrong =
            |why: String| Error::new(Code::ConfigInvalid, format!("{}: {why}", path.display())).hint("correct the file, or remove it");
        let settings: Self = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        for server in settings.servers.iter().flatten() {
            server.check().map_err(|error| wrong(error.message().to_owned()))?;
        }
        Ok(settings)
    }

    /// Writes it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&self, state: &Path) -> Result<()> {
        let text = toml::to_string(self).map_err(|error| Error::internal("the settings of packages have no form").source(error))?;
        durable::write(&state.join(FILE), text.as_bytes())
    }

    /// The environment that is meant where none is named.
    pub(super) fn chosen(&self) -> &str {
        self.environment.as_deref().unwrap_or(DEFAULT_ENVIRONMENT)
    }

    /// Chooses another.
    pub(super) fn choose(&mut self, name: &str) {
        self.environment = (name != DEFAULT_ENVIRONMENT).then(|| name.to_owned());
    }

    /// The servers, in the order they are asked.
    pub(super) fn servers(&self) -> Vec<Server> {
        self.servers.clone().unwrap_or_else(usual)
    }

    /// Changes the list.
    ///
    /// # Errors
    /// As [`changed`].
    pub(super) fn change(&mut self, change: &ServerChange) -> Result<()> {
        self.servers = match change {
            ServerChange::Reset => None,
            change => Some(changed(self.servers(), change)?),
        };
        Ok(())
    }
}

/// The list there is from the beginning: what is inside vmoon, then the public server.
fn usual() -> Vec<Server> {
    let server = |name: &str, url: &str| Server { name: name.to_owned(), url: url.to_owned(), insecure: false };
    vec![server("builtin", "builtin:"), server("luarocks", PUBLIC)]
}

/// A list of servers, changed.
///
/// # Errors
/// [`Code::Usage`] for an address that is none, a name that is taken or unknown, too many; `name.invalid`.
pub(super) fn changed(mut servers: Vec<Server>, change: &ServerChange) -> Result<Vec<Server>> {
    let unknown = |servers: &[Server], name: &str| {
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        let known = if names.is_empty() { "there are none".to_owned() } else { format!("there are: {}", names.join(", ")) };
        Error::new(Code::NotFound, format!("no rocks server is named \"{}\"", escape(name))).hint(known)
    };
    match change {
        ServerChange::Add { server, at } => {
            let new = Server::new(&server.name, &server.url, server.insecure)?;
            if let Some(same) = servers.iter().find(|one| one.name == new.name || one.url == new.url) {
                return Err(Error::new(Code::Usage, format!("there is the server {} ({}) already", same.name, same.url))
                    .hint("remove it first, or change the order: vmoon pkg server order"));
            }
            if servers.len() >= MOST {
                return Err(Error::new(Code::Usage, format!("a list has at most {MOST} servers")));
            }
            servers.insert(at.unwrap_or(servers.len()).min(servers.len()), new);
        }
        ServerChange::Remove { name } => {
            let at = servers.iter().position(|server| server.name == *name).ok_or_else(|| unknown(&servers, name))?;
            servers.remove(at);
        }
        ServerChange::Order { names } => {
            let mut first = Vec::new();
            for name in names {
                let at = servers.iter().position(|server| server.name == *name).ok_or_else(|| unknown(&servers, name))?;
                first.push(servers.remove(at));
            }
            first.append(&mut servers);
            servers = first;
        }
        ServerChange::Reset => {}
    }
    Ok(servers)
}

/// As everybody sees them.
pub(super) fn shown(servers: &[Server]) -> Vec<ServerInfo> {
    servers.iter().map(|one| ServerInfo { name: one.name.clone(), url: one.url.clone(), insecure: one.insecure }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str, url: &str, at: Option<usize>) -> ServerChange {
        ServerChange::Add { server: ServerInfo { name: name.into(), url: url.into(), insecure: false }, at }
    }

    fn names(servers: &[Server]) -> Vec<&str> {
        servers.iter().map(|server| server.name.as_str()).collect()
    }

    #[test]
    fn lists_are_changed_and_kept() {
        let state = tempfile::tempdir().unwrap();
        let mut settings = Settings::read(state.path()).unwrap();
        assert_eq!((names(&settings.servers()), settings.chosen()), (vec!["builtin", "luarocks"], "default"));
        settings.change(&add("ours", "https://rocks.example.org/", Some(0))).unwrap();
        settings.change(&ServerChange::Order { names: vec!["luarocks".into()] }).unwrap();
        settings.change(&ServerChange::Remove { name: "builtin".into() }).unwrap();
        settings.choose("work");
        settings.write(state.path()).unwrap();
        let read = Settings::read(state.path()).unwrap();
        assert_eq!((names(&read.servers()), read.chosen()), (vec!["luarocks", "ours"], "work"));
        assert_eq!(read, settings);
        settings.change(&ServerChange::Reset).unwrap();
        assert_eq!(settings.servers(), usual());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for change in [
            add("luarocks", "https://example.org", None),
            add("x", PUBLIC, None),
            add("x", "http://example.org", None),
            add("../x", "https://example.org", None),
            ServerChange::Remove { name: "nope".into() },
            ServerChange::Order { names: vec!["builtin".into(), "builtin".into()] },
        ] {
            assert!(changed(usual(), &change).is_err(), "{change:?}");
        }
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(FILE), "servers = [{ name = \"x\", url = \"ftp://y\" }]").unwrap();
        assert_eq!(Settings::read(state.path()).unwrap_err().code(), Code::ConfigInvalid);
    }
}
