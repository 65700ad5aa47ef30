//! Rocks servers: what they are called, where they are, and which addresses are accepted.

use serde::{Deserialize, Serialize};
use vmoon_core::{Code, Error, Result, name};

/// The public server.
pub const PUBLIC: &str = "https://luarocks.org";

/// One rocks server of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// What people call it; a name as machines have.
    pub name: String,
    /// `https://…`, `file:///…`, `builtin:`, or `http://` to this computer; to others only if [`Server::insecure`].
    pub url: String,
    /// Whether plain HTTP to another computer was asked for in so many words.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

/// Which server of a list, counted from 0 in the order they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u16);

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TLS.
    Https,
    /// Plain HTTP.
    Http,
    /// A directory.
    File,
    /// The rocks inside vmoon.
    Builtin,
}

impl Server {
    /// A server of this name and address, checked; a slash at the end of the address is dropped.
    ///
    /// # Errors
    /// `name.invalid`; [`Code::Usage`] for an address that is none, has credentials, a query or a fragment, or is plain HTTP to another computer.
    pub fn new(name: &str, url: &str, insecure: bool) -> Result<Self> {
        let server = Self { name: name.to_owned(), url: url.trim_end_matches('/').to_owned(), insecure };
        server.check()?;
        Ok(server)
    }

    /// Checks name and address; see [`Server::new`].
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn check(&self) -> Result<()> {
        name::check(&self.name)?;
        let scheme = self.scheme()?;
        if scheme == Scheme::Http && !self.insecure && !is_loopback(host(&self.url)) {
            return Err(Error::new(Code::Usage, format!("{} would be reached without encryption", self.shown()))
                .hint("use https://, or say that this is meant with --insecure"));
        }
        Ok(())
    }

    /// How it is reached.
    ///
    /// # Errors
    /// [`Code::Usage`] for an address that is none.
    pub fn scheme(&self) -> Result<Scheme> {
        let bad = |why: &str| {
            Err(Error::new(Code::Usage, format!("{} is not the address of a rocks server: {why}", self.shown()))
                .hint("addresses are https://…, file:///… or http://127.0.0.1…"))
        };
        let url = self.url.as_str();
        if url.bytes().any(|b| b.is_ascii_control() || b == b' ' || b == b'\\') || !url.is_ascii() {
            return bad("it has characters that no address has");
        }
        if url == "builtin:" {
            return Ok(Scheme::Builtin);
        }
        if let Some(path) = url.strip_prefix("file://") {
            return if path.starts_with('/') { Ok(Scheme::File) } else { bad("a path after file:// begins with a slash") };
        }
        let scheme = match url.split_once("://") {
            Some(("https", _)) => Scheme::Https,
            Some(("http", _)) => Scheme::Http,
            _ => return bad("it does not begin with https://, http:// or file:///"),
        };
        if host(url).is_empty() {
            return bad("it names no computer");
        }
        if url.contains(['?', '#']) {
            return bad("it has a query or a fragment");
        }
        if authority(url).contains('@') {
            return bad("it has a user or password, which would be stored and shown");
        }
        Ok(scheme)
    }

    /// The address of a file on it.
    pub fn file(&self, name: &str) -> String {
        if self.url.ends_with(':') { format!("{}{name}", self.url) } else { format!("{}/{name}", self.url) }
    }

    fn shown(&self) -> String {
        let url = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        // What stands before an @ may be a secret.
        let shown = if url.split('/').next().is_some_and(|a| a.contains('@')) { "the address" } else { &self.url };
        name::escape(shown).chars().take(100).collect()
    }
}

fn authority(url: &str) -> &str {
    url.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or("")
}

/// The host of an address, without port and brackets.
fn host(url: &str) -> &str {
    let authority = authority(url);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or("");
    }
    host.rsplit_once(':').map_or(host, |(host, _)| host)
}

/// Whether a host is this computer. Names other than `localhost` may be anything, so they are not.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_accepted_by_what_they_protect() {
        for (url, insecure, ok) in [
            ("https://luarocks.org/", false, true),
            ("https://example.org:8443/rocks", false, true),
            ("http://127.0.0.1:8080", false, true),
            ("http://[::1]:8080/x", false, true),
            ("http://localhost", false, true),
            ("http://example.org", false, false),
            ("http://example.org", true, true),
            ("http://127.0.0.1.example.org", false, false),
            ("http://127.0.0.1@example.org", false, false),
            ("https://user:secret@example.org", false, false),
            ("https://example.org/?a=b", false, false),
            ("file:///srv/rocks", false, true),
            ("file://srv/rocks", false, false),
            ("builtin:", false, true),
            ("https://", false, false),
            ("ftp://example.org", false, false),
            ("https://example.org/\n", false, false),
            ("", false, false),
        ] {
            let result = Server::new("s", url, insecure);
            assert_eq!(result.is_ok(), ok, "{url}: {result:?}");
            if let Err(error) = result {
                assert!(!error.message().contains("secret"), "{error}");
            }
        }
        assert_eq!(Server::new("../x", PUBLIC, false).unwrap_err().code(), Code::NameInvalid);
        assert_eq!(Server::new("s", "https://luarocks.org/", false).unwrap().file("manifest"), "https://luarocks.org/manifest");
    }
}
