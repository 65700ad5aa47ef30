//! Requests about connections, and the password that some of them bring.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A password or passphrase on its way to the daemon. Zeroed when dropped, and never printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes it over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Names a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionRef {
    /// Which, by name or id.
    pub connection: String,
}

/// Adds a connection. It is tried first; what does not answer, or does not let us in, is not kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddConnection {
    /// The kind of its machines.
    pub kind: String,
    /// Where it leads, in the form of its kind.
    pub uri: String,
    /// Its name.
    pub name: String,
    /// As whom, where the URI does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The absolute path of a file with a private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The password, or the passphrase of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// Whether to store the password (in a file that only this user can read), so that the daemon reconnects unasked; true if not
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<bool>,
    /// The fingerprint of the other side that is accepted, `SHA256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// Gives a connection another secret or fingerprint. It is tried first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginConnection {
    /// Which, by name or id.
    pub connection: String,
    /// As in [`AddConnection`]; the former one is kept if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// As in [`AddConnection`]; as before if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<bool>,
    /// As in [`AddConnection`]; the former one is kept if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// Removes a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveConnection {
    /// Which, by name or id.
    pub connection: String,
    /// Also if machines that vmoon has made live on it: they are forgotten.
    #[serde(default)]
    pub force: bool,
}
