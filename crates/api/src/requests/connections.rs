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

/// Calls something of the hypervisor's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallRaw {
    /// On which connection, by name or id.
    pub connection: String,
    /// What, as the hypervisor calls it: `VM.get_record`.
    pub method: String,
    /// Its arguments, without a session: text, numbers and truths plainly, the rest in JSON.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Answer with a task at once, to be followed.
    #[serde(default)]
    pub background: bool,
    /// How long it may take, milliseconds; 10 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Follows a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FollowRaw {
    /// On which connection, by name or id.
    pub connection: String,
    /// The hypervisor's name of it.
    pub task: String,
    /// The progress that is known already; it is answered when there is more. At once if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<f64>,
    /// How long to wait for more, milliseconds, at most a minute; half a minute if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Names a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawTaskRef {
    /// On which connection, by name or id.
    pub connection: String,
    /// The hypervisor's name of it.
    pub task: String,
}
