//! Where an SSH connection leads, as people write it: `user@host`, `user@host:port`, `user@[::1]:port`, `ssh://…`.

use std::{fmt, str::FromStr};
use vmoon_core::{Code, Error};

/// A host and how to log in there; what is not said comes from `~/.ssh/config` or the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The login name.
    pub user: Option<String>,
    /// A name, an address, or an alias of `~/.ssh/config`. Never empty, no white space, no leading dash.
    pub host: String,
    /// The TCP port.
    pub port: Option<u16>,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            Error::new(Code::Usage, format!("\"{}\" is no SSH target: {why}", text.escape_debug()))
                .hint("write user@host, user@host:port or user@[address]:port")
        };
        let rest = text.strip_prefix("ssh://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (host, port) = if let Some(inner) = place.strip_prefix('[') {
            let (host, after) = inner.split_once(']').ok_or_else(|| bad("the bracket is not closed"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(bad("only a port may follow the bracket")),
            }
        } else if place.matches(':').count() == 1 {
            place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)))
        } else {
            (place, None) // an address of version 6 without a port
        };
        if user.is_some_and(|user| user.is_empty() || user.starts_with('-') || user.contains(char::is_control)) {
            return Err(bad("the user's name is empty or odd"));
        }
        if host.is_empty() || host.starts_with('-') || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@[]".contains(c)) {
            return Err(bad("the host's name is empty or odd"));
        }
        let port = match port {
            Some(port) => {
                Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| bad("the port is no number from 1 to 65535"))?)
            }
            None => None,
        };
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match (self.host.contains(':'), self.port) {
            (false, None) => f.write_str(&self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for (text, user, host, port) in [
            ("h", None, "h", None),
            ("u@h", Some("u"), "h", None),
            ("u@h:2222", Some("u"), "h", Some(2222)),
            ("ssh://u@h:22/", Some("u"), "h", Some(22)),
            ("a@b@h", Some("a@b"), "h", None),
            ("::1", None, "::1", None),
            ("u@[fe80::1%eth0]:22", Some("u"), "fe80::1%eth0", Some(22)),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.user.as_deref(), target.host.as_str(), target.port), (user, host, port), "{text}");
            assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }
        let long = "h:".to_owned() + &"9".repeat(300);
        for odd in ["", "@h", "u@", "-oProxyCommand=x", "u@-h", "h:0", "h:65536", "h:x", "[::1", "[::1]22", "a b", "h\n", "u@h/x", &long] {
            assert_eq!(odd.parse::<Target>().unwrap_err().code(), Code::Usage, "{odd:?}");
        }
    }
}
