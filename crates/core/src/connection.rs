//! Connections: where machines live. `local` always exists.

use crate::{Code, ConnectionId, Error};
use serde::{Deserialize, Serialize};

/// The name of the connection to this computer, which always exists.
pub const LOCAL: &str = "local";

/// Where a driver finds its machines. It holds no secret: those are kept apart, under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its identifier.
    pub id: ConnectionId,
    /// Its name, unique among connections.
    pub name: String,
    /// The name of its driver: `lua`, `xcpng`, `libvirt`, `ssh` or `sim`.
    pub kind: String,
    /// Where it leads, in the driver's own form; empty for `local`.
    #[serde(default)]
    pub uri: String,
    /// As whom, where the URI does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The absolute path of a file with a private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The fingerprint of the other side that the user has accepted, `SHA256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Where its secret is.
    #[serde(default)]
    pub secret: SecretPlace,
}

impl Connection {
    /// One without any options.
    pub fn new(id: ConnectionId, name: impl Into<String>, kind: impl Into<String>, uri: impl Into<String>) -> Self {
        Self {
            id,
            name: name.into(),
            kind: kind.into(),
            uri: uri.into(),
            user: None,
            identity: None,
            fingerprint: None,
            secret: SecretPlace::None,
        }
    }
}

/// Where the secret of a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPlace {
    /// It has none.
    #[default]
    None,
    /// In a file of its own, so that the daemon reconnects unasked.
    Stored,
    /// In the daemon's memory only: after a restart the connection is locked.
    Memory,
}

/// What is known about the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// It answers.
    Up,
    /// It does not answer and is being tried again.
    Reconnecting,
    /// It does not answer and is not being tried.
    Down,
    /// It waits for a secret that was not stored.
    Locked,
}

impl ConnectionState {
    /// What a failure to list its machines says about a connection. What only the user can change is not tried again.
    pub fn after(error: &Error) -> Self {
        match error.code() {
            Code::ConnectionLocked => Self::Locked,
            Code::ConnectionAuth | Code::ConnectionPermission | Code::ConnectionUntrusted | Code::Usage | Code::DriverUnsupported => {
                Self::Down
            }
            _ => Self::Reconnecting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_an_older_store_has_no_secret() {
        let old = r#"{"id":"00000000-0000-0000-0000-000000000007","name":"a","kind":"sim"}"#;
        let connection: Connection = serde_json::from_str(old).unwrap();
        assert_eq!(connection, Connection::new(connection.id, "a", "sim", ""));
    }

    #[test]
    fn wrong_credentials_are_not_tried_again_and_again() {
        for (code, state) in [
            (Code::ConnectionAuth, ConnectionState::Down),
            (Code::ConnectionUntrusted, ConnectionState::Down),
            (Code::ConnectionLocked, ConnectionState::Locked),
            (Code::DriverUnreachable, ConnectionState::Reconnecting),
            (Code::Timeout, ConnectionState::Reconnecting),
        ] {
            assert_eq!(ConnectionState::after(&Error::new(code, "x")), state, "{code}");
        }
    }
}
