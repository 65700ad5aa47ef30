//! The settings by which a user says how a machine that exists is entered. Pure; nothing of them is ever written into the machine.

use crate::record::Record;
use serde_json::{Map, Value};
use std::path::PathBuf;
use vmoon_core::{
    ability::{Change, Effect},
    driver::Setting,
    name::{self, escape},
    spec::Problems,
};

/// The one that may also be said of a machine that is to be made.
pub const ENVIRONMENT: &str = "env";
/// The settings and what they do.
const KNOWN: [(&str, &str); 5] = [
    ("ssh-user", "who logs in for sessions inside the guest; empty: nobody"),
    ("ssh-port", "the port of its SSH server (22)"),
    ("ssh-identity", "a private key to log in with, the path of a file on this computer; empty: your agent and usual keys"),
    ("ssh-fingerprint", "the key its SSH server must show, SHA256:…, one or a list; empty: not known"),
    (ENVIRONMENT, "the environment of packages that Lua sessions in the guest begin with; empty: none"),
];
/// How many keys a host may have.
const FINGERPRINTS: usize = 8;

/// The settings and what they do, for a driver to add to its own. They concern machines that exist.
pub fn known() -> Vec<Setting> {
    KNOWN.iter().map(|(name, help)| Setting { name: (*name).into(), help: (*help).into() }).collect()
}

/// Whether a setting is one of these.
pub fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|(known, _)| *known == name)
}

/// What is to be changed: `Some(None)` takes back what was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    user: Option<Option<String>>,
    port: Option<Option<u16>>,
    identity: Option<Option<PathBuf>>,
    fingerprints: Option<Vec<String>>,
    environment: Option<Option<String>>,
}

/// An environment's name, as a setting.
///
/// # Errors
/// What it must be.
pub fn environment(value: &Value) -> Result<&str, &'static str> {
    value.as_str().filter(|text| name::check(text).is_ok()).ok_or("must be the name of an environment")
}

/// Whether this is how a key's fingerprint looks.
fn is_fingerprint(text: &str) -> bool {
    text.strip_prefix("SHA256:").is_some_and(|sum| sum.len() == 43 && sum.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b)))
}

fn is_user(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.starts_with('-') && !text.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':')
}

impl Wanted {
    /// Takes these settings out of others; adds every problem with them.
    pub fn take(settings: &mut Map<String, Value>, problems: &mut Problems) -> Self {
        let mut wanted = Self::default();
        for (name, _) in KNOWN {
            let Some(value) = settings.remove(name) else { continue };
            let empty = value.is_null() || value.as_str() == Some("");
            let mut bad = |what: &str| problems.add(format!("settings.{name}"), format!("must be {what}, or empty"));
            match name {
                "ssh-user" => match value.as_str().filter(|text| is_user(text)) {
                    Some(user) => wanted.user = Some(Some(user.to_owned())),
                    None if empty => wanted.user = Some(None),
                    None => bad("a login name"),
                },
                "ssh-port" => {
                    let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
                    match number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0) {
                        Some(port) => wanted.port = Some(Some(port).filter(|port| *port != 22)),
                        None if empty => wanted.port = Some(None),
                        None => bad("a port, 1 to 65535"),
                    }
                }
                "ssh-identity" => match value.as_str().filter(|text| text.starts_with('/') && !text.contains(char::is_control)) {
                    Some(path) => wanted.identity = Some(Some(path.into())),
                    None if empty => wanted.identity = Some(None),
                    None => bad("the absolute path of a private key"),
                },
                ENVIRONMENT => match environment(&value) {
                    Ok(name) => wanted.environment = Some(Some(name.to_owned())),
                    Err(_) if empty => wanted.environment = Some(None),
                    Err(_) => bad("the name of an environment"),
                },
                _ => {
                    let list: Option<Vec<String>> = match &value {
                        Value::String(text) => Some(vec![text.clone()]),
                        Value::Array(list) => list.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
                        _ => None,
                    };
                    match list.filter(|list| list.len() <= FINGERPRINTS && list.iter().all(|text| is_fingerprint(text))) {
                        Some(list) => wanted.fingerprints = Some(list),
                        None if empty => wanted.fingerprints = Some(Vec::new()),
                        None => bad("a fingerprint as ssh-keygen -l prints it, SHA256: and 43 characters, or a list of them"),
                    }
                }
            }
        }
        wanted
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The environment that is named anew.
    pub(crate) fn environment(&self) -> Option<&str> {
        self.environment.as_ref()?.as_deref()
    }

    /// The key file that is named anew.
    pub(crate) fn identity(&self) -> Option<&PathBuf> {
        self.identity.as_ref()?.as_ref()
    }

    /// Changes a record; what has changed, for people.
    pub(crate) fn apply(&self, record: &mut Record) -> Vec<Change> {
        let mut changes = Vec::new();
        let none = || "none".to_owned();
        let mut tell = |setting: &str, before: String, after: String| {
            if before != after {
                let what = format!("{setting} {} → {}", escape(&before), escape(&after));
                // A session that lives began with what it has.
                let effect = if setting == ENVIRONMENT { Effect::NextStart } else { Effect::Now };
                changes.push(Change { setting: setting.into(), what, effect });
            }
        };
        if let Some(user) = &self.user {
            tell("ssh-user", record.user.clone().unwrap_or_else(none), user.clone().unwrap_or_else(none));
            record.user.clone_from(user);
        }
        if let Some(port) = self.port {
            tell("ssh-port", record.port.unwrap_or(22).to_string(), port.unwrap_or(22).to_string());
            record.port = port;
        }
        if let Some(identity) = &self.identity {
            let show = |path: &Option<PathBuf>| path.as_ref().map_or_else(none, |path| path.display().to_string());
            tell("ssh-identity", show(&record.identity), show(identity));
            record.identity.clone_from(identity);
        }
        if let Some(fingerprints) = &self.fingerprints {
            let show = |all: &[String]| if all.is_empty() { none() } else { all.join(", ") };
            tell("ssh-fingerprint", show(&record.fingerprints), show(fingerprints));
            record.fingerprints.clone_from(fingerprints);
        }
        if let Some(environment) = &self.environment {
            tell(ENVIRONMENT, record.environment.clone().unwrap_or_else(none), environment.clone().unwrap_or_else(none));
            record.environment.clone_from(environment);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PRINT: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn take(value: Value) -> (Wanted, Problems, Map<String, Value>) {
        let (mut map, mut problems) = (value.as_object().cloned().unwrap(), Problems::default());
        let wanted = Wanted::take(&mut map, &mut problems);
        (wanted, problems, map)
    }

    #[test]
    fn settings_change_a_record_and_say_so() {
        let (wanted, problems, rest) =
            take(json!({"ssh-user": "ada", "ssh-port": "2222", "ssh-identity": "/k", "ssh-fingerprint": PRINT, "memory": "1G"}));
        assert!(problems.0.is_empty() && rest.len() == 1);
        let mut record = Record::default();
        let changes = wanted.apply(&mut record);
        let said: Vec<&str> = changes.iter().map(|change| change.what.as_str()).collect();
        let print = format!("ssh-fingerprint none → {PRINT}");
        assert_eq!(said, ["ssh-user none → ada", "ssh-port 22 → 2222", "ssh-identity none → /k", print.as_str()]);
        assert!(wanted.apply(&mut record).is_empty(), "nothing is left to change");
        let (named, problems, _) = take(json!({"env": "bio"}));
        assert!(problems.0.is_empty() && named.environment() == Some("bio"));
        assert_eq!(named.apply(&mut record)[0].what, "env none → bio");
        let (back, problems, _) = take(json!({"ssh-user": "", "ssh-port": 22, "ssh-identity": null, "ssh-fingerprint": [], "env": ""}));
        assert!(problems.0.is_empty());
        assert_eq!(back.apply(&mut record).len(), 5);
        assert!(record.is_empty());
    }

    #[test]
    fn nonsense_is_refused_all_at_once() {
        let (wanted, problems, _) =
            take(json!({"ssh-user": "-oProxyCommand=x", "ssh-port": 0, "ssh-identity": "k", "ssh-fingerprint": "MD5:1", "env": "../x"}));
        assert_eq!(problems.0.len(), 5);
        assert!(wanted.is_empty());
        for bad in [json!("a b"), json!("a\n"), json!(7), json!(["a"])] {
            assert_eq!(take(json!({ "ssh-user": bad })).1.0.len(), 1);
        }
        for bad in [json!(70000), json!("x"), json!(-1)] {
            assert_eq!(take(json!({ "ssh-port": bad })).1.0.len(), 1);
        }
    }
}
