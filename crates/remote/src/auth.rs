//! Logging in: the agent's keys, key files, keyboard-interactive, password, in that order, as far as the server takes them.

use crate::{Secret, connect::Gate};
use russh::{
    MethodKind, MethodSet,
    client::{AuthResult, Handle, KeyboardInteractiveAuthResponse},
    keys::{
        PrivateKey, PrivateKeyWithHashAlg, PublicKey,
        agent::{AgentIdentity, client::AgentClient},
        decode_secret_key,
    },
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::timeout;
use vmoon_core::{Code, Error, Result};
use zeroize::Zeroizing;

/// How long the agent may take; it may ask its user.
const AGENT: Duration = Duration::from_secs(30);
/// How many of the agent's keys are tried: servers count attempts, and the usual limit is 6.
const AGENT_KEYS: usize = 4;
/// The longest key file, bytes.
const KEY_FILE: u64 = 1 << 20;

/// What can be shown to a server. All of it is optional.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// The socket of an SSH agent.
    pub agent: Option<PathBuf>,
    /// Private key files, tried in this order.
    pub identities: Vec<PathBuf>,
    /// Key files to try if no others are named; missing ones are passed over.
    pub usual_identities: Vec<PathBuf>,
    /// Private keys as text, in the form of OpenSSH or PEM; for machines we made.
    pub keys: Vec<Secret>,
    /// The passphrase of keys that need one.
    pub passphrase: Option<Secret>,
    /// The password of the login, also the answer to a keyboard-interactive question that is not shown.
    pub password: Option<Secret>,
    /// Of the agent's keys use only those whose public half lies beside a named key file.
    pub identities_only: bool,
}

/// One attempt after the other, and why each failed.
struct Attempts<'a> {
    handle: &'a mut Handle<Gate>,
    user: &'a str,
    left: MethodSet,
    notes: Vec<String>,
}

/// Logs in.
///
/// # Errors
/// [`Code::ConnectionAuth`] that says what was tried and what the server takes; [`Code::DriverUnreachable`] when the connection
/// was lost meanwhile.
pub(crate) async fn login(handle: &mut Handle<Gate>, user: &str, auth: &Auth, place: &str) -> Result<()> {
    let mut attempts = Attempts { handle, user, left: MethodSet::client_supported(), notes: Vec::new() };
    if attempts
        .run(auth)
        .await
        .map_err(|error| Error::new(Code::DriverUnreachable, format!("{place} has hung up during login")).source(error))?
    {
        return Ok(());
    }
    if attempts.notes.is_empty() {
        // Only to learn what it takes.
        if let Ok(AuthResult::Failure { remaining_methods, .. }) = attempts.handle.authenticate_none(user).await {
            attempts.left = remaining_methods;
        }
    }
    if attempts.handle.is_closed() {
        attempts.notes.push("the server has closed the connection".into());
    }
    let takes: Vec<&str> = attempts.left.iter().map(<&str>::from).collect();
    let tried = if attempts.notes.is_empty() { "there was nothing to try".to_owned() } else { attempts.notes.join("; ") };
    Err(Error::new(Code::ConnectionAuth, format!("{place} does not let {user} in: {tried}"))
        .hint(format!("the server takes: {}; give a key with --identity or a password with --password-stdin", takes.join(", "))))
}

impl Attempts<'_> {
    fn takes(&self, kind: MethodKind) -> bool {
        self.left.contains(&kind) && !self.handle.is_closed()
    }

    /// Whether the server is content; notes why not.
    fn done(&mut self, what: &str, result: AuthResult) -> bool {
        match result {
            AuthResult::Success => true,
            AuthResult::Failure { remaining_methods, partial_success } => {
                self.refused(what, remaining_methods, partial_success);
                false
            }
        }
    }

    fn refused(&mut self, what: &str, left: MethodSet, partial: bool) {
        // An empty set is what a lost connection leaves.
        if !left.is_empty() {
            self.left = left;
        }
        self.notes.push(if partial { format!("{what} is not enough by itself") } else { format!("{what} was refused") });
    }

    async fn run(&mut self, auth: &Auth) -> Result<bool, russh::Error> {
        let files = if auth.identities.is_empty() { &auth.usual_identities } else { &auth.identities };
        if self.takes(MethodKind::PublicKey) && (self.agent(auth, files).await? || self.files(auth, files).await?) {
            return Ok(true);
        }
        let Some(password) = &auth.password else { return Ok(false) };
        if self.takes(MethodKind::KeyboardInteractive) && self.interactive(password).await? {
            return Ok(true);
        }
        if self.takes(MethodKind::Password) {
            // Not zeroed any more once it is given away: russh keeps no second copy and drops this one after sending.
            let result = self.handle.authenticate_password(self.user, password.expose()).await?;
            return Ok(self.done("the password", result));
        }
        Ok(false)
    }

    async fn agent(&mut self, auth: &Auth, files: &[PathBuf]) -> Result<bool, russh::Error> {
        let Some(socket) = &auth.agent else { return Ok(false) };
        let asked = timeout(AGENT, async {
            let mut client = AgentClient::connect_uds(socket).await?;
            let identities = client.request_identities().await?;
            Ok::<_, russh::keys::Error>((client, identities))
        });
        let (mut client, identities) = match asked.await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => {
                self.notes.push("the agent does not answer".into());
                return Ok(false);
            }
        };
        let named: Vec<PublicKey> = files.iter().filter_map(|file| public_half(file)).collect();
        let mut keys: Vec<PublicKey> = identities
            .into_iter()
            .filter_map(|identity| match identity {
                AgentIdentity::PublicKey { key, .. } => Some(key),
                AgentIdentity::Certificate { .. } => None,
            })
            .collect();
        let is_named = |key: &PublicKey| named.iter().any(|named| named.key_data() == key.key_data());
        if auth.identities_only {
            keys.retain(|key| is_named(key));
        }
        // The named ones first: the server counts.
        keys.sort_by_key(|key| !is_named(key));
        for key in keys.into_iter().take(AGENT_KEYS) {
            let hash = if key.algorithm().is_rsa() { self.handle.best_supported_rsa_hash().await?.flatten() } else { None };
            let what = format!("the agent's key {}", crate::trust::fingerprint(&key));
            match timeout(AGENT, self.handle.authenticate_publickey_with(self.user, key, hash, &mut client)).await {
                Ok(Ok(result)) => {
                    if self.done(&what, result) {
                        return Ok(true);
                    }
                }
                Ok(Err(_)) | Err(_) => self.notes.push(format!("{what} could not be used: the agent did not sign")),
            }
            if !self.takes(MethodKind::PublicKey) {
                break;
            }
        }
        Ok(false)
    }

    async fn files(&mut self, auth: &Auth, files: &[PathBuf]) -> Result<bool, russh::Error> {
        let optional = auth.identities.is_empty();
        let mut keys = Vec::new();
        for (index, text) in auth.keys.iter().enumerate() {
            keys.push((format!("the given key {}", index + 1), text.clone()));
        }
        for file in files {
            let what = format!("the key {}", file.display());
            match read_key(file) {
                Ok(text) => keys.push((what, text)),
                Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => self.notes.push(format!("{what} could not be read ({error})")),
            }
        }
        for (what, text) in keys {
            if !self.takes(MethodKind::PublicKey) {
                break;
            }
            let passphrase = auth.passphrase.clone();
            // Deriving the key from a passphrase takes a good part of a second by design.
            let opened = tokio::task::spawn_blocking(move || open_key(&text, passphrase.as_ref())).await;
            let key = match opened {
                Ok(Ok(key)) => key,
                Ok(Err(why)) => {
                    self.notes.push(format!("{what} {why}"));
                    continue;
                }
                Err(_) => continue,
            };
            let hash = if key.algorithm().is_rsa() { self.handle.best_supported_rsa_hash().await?.flatten() } else { None };
            let result = self.handle.authenticate_publickey(self.user, PrivateKeyWithHashAlg::new(Arc::new(key), hash)).await?;
            if self.done(&what, result) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn interactive(&mut self, password: &Secret) -> Result<bool, russh::Error> {
        let mut reply = self.handle.authenticate_keyboard_interactive_start(self.user, None).await?;
        let mut given = false;
        // A server may ask as often as it likes; we do not play along for ever.
        for _ in 0..8 {
            match reply {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    self.refused("the answer to its question", remaining_methods, partial_success);
                    return Ok(false);
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    // A question whose answer is shown is not for a password, and one that comes again was answered wrongly.
                    let hidden = prompts.iter().filter(|prompt| !prompt.echo).count();
                    let fits = hidden == prompts.len() && hidden <= 1 && !(given && hidden == 1);
                    given |= hidden == 1;
                    let answers = if fits {
                        prompts.iter().map(|_| password.expose().to_owned()).collect()
                    } else {
                        vec![String::new(); prompts.len()]
                    };
                    if !fits {
                        self.notes.push("the server asks something that a password does not answer".into());
                    }
                    reply = self.handle.authenticate_keyboard_interactive_respond(answers).await?;
                }
            }
        }
        Ok(false)
    }
}

/// The public key that lies beside a private one.
fn public_half(file: &std::path::Path) -> Option<PublicKey> {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    let text = std::fs::read_to_string(name).ok().filter(|text| text.len() < KEY_FILE as usize)?;
    text.trim().parse().ok()
}

fn read_key(file: &std::path::Path) -> std::io::Result<Secret> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(file)?.take(KEY_FILE).read_to_string(&mut text)?;
    Ok(Secret::new(text.as_str()))
}

fn open_key(text: &Secret, passphrase: Option<&Secret>) -> Result<PrivateKey, &'static str> {
    if let Ok(key) = decode_secret_key(text.expose(), None)
        && !key.is_encrypted()
    {
        return Ok(key);
    }
    match passphrase {
        Some(passphrase) => {
            decode_secret_key(text.expose(), Some(passphrase.expose())).map_err(|_| "could not be opened with the passphrase")
        }
        None => Err("is no private key, or needs a passphrase"),
    }
}
