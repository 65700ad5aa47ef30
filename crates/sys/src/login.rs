//! Who the user is, as other programs' files and sockets name them: the home directory, the login name, the key agent.

use std::{env, ffi::OsString, path::PathBuf};

/// What the environment says of the user. Nothing of it is checked: it only says where to look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `USER`, else `LOGNAME`.
    pub user: Option<String>,
    /// The socket of the SSH agent, `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
}

impl Login {
    /// What the environment of this process says.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| env::var_os(name))
    }

    fn from_lookup(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
        Self { home: path("HOME"), user: text("USER").or_else(|| text("LOGNAME")), agent: path("SSH_AUTH_SOCK") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_relative_values_say_nothing() {
        let login = |vars: &[(&str, &str)]| Login::from_lookup(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()));
        let full = login(&[("HOME", "/h"), ("USER", ""), ("LOGNAME", "ada"), ("SSH_AUTH_SOCK", "/run/agent")]);
        assert_eq!((full.home, full.user, full.agent), (Some("/h".into()), Some("ada".into()), Some("/run/agent".into())));
        assert_eq!(login(&[("HOME", "h"), ("SSH_AUTH_SOCK", "")]), Login::default());
    }
}
