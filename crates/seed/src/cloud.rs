//! What cloud-init reads from a NoCloud seed. Pure.
//!
//! Everything is written as JSON, which is YAML: nothing a user wrote can become structure. A user's own user-data stays as it
//! is; ours then becomes vendor-data, over which user-data has the last word.

use crate::iso::File;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use vmoon_core::MachineId;

/// What the seed says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cloud {
    /// Its host name.
    pub hostname: String,
    /// The user to make; without one the keys are for the image's own user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Lines of `authorized_keys`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// Packages of the distribution to install.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// The file whose content is the user-data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Whether the image gets an [`Entry`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub entered: bool,
}

/// What lets vmoon into the guest. It is made with the machine and stands in the image alone, never in a plan.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Who logs in: the user of [`Cloud::user`], or one that is made beside the image's own.
    pub user: &'a str,
    /// A line of his `authorized_keys`.
    pub key: &'a str,
    /// The private ed25519 key of its SSH server, as OpenSSH writes it.
    pub host_private: &'a str,
    /// The public half of that.
    pub host_public: &'a str,
}

/// The package that lets us talk to the guest.
const AGENT: &str = "qemu-guest-agent";

impl Cloud {
    pub(crate) fn sentence(&self) -> String {
        let mut parts = vec![format!("hostname {}", self.hostname)];
        if let Some(user) = &self.user {
            parts.push(format!("user {user}"));
        }
        match self.ssh_keys.len() {
            0 => {}
            1 => parts.push("1 SSH key".into()),
            keys => parts.push(format!("{keys} SSH keys")),
        }
        if self.entered {
            parts.push("vmoon's own key and a host key".into());
        }
        if !self.packages.is_empty() {
            parts.push(format!("packages {}", self.packages.join(", ")));
        }
        if let Some(file) = &self.user_data {
            parts.push(format!("user-data from {file}"));
        }
        format!("a cloud-init seed: {}", parts.join(", "))
    }

    /// The configuration that follows from the settings.
    fn config(&self, entry: Option<Entry<'_>>) -> Value {
        let mut config = Map::new();
        config.insert("hostname".into(), self.hostname.clone().into());
        let user = |name: &str, keys: &[&str]| {
            json!({
                "name": name, "shell": "/bin/bash", "lock_passwd": true,
                "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": keys,
            })
        };
        let mut keys: Vec<&str> = self.ssh_keys.iter().map(String::as_str).collect();
        match (&self.user, entry) {
            (Some(name), entry) => {
                keys.extend(entry.map(|entry| entry.key));
                config.insert("users".into(), json!([user(name, &keys)]));
            }
            // The image's own user stays, and the keys are for him.
            (None, Some(entry)) => {
                config.insert("users".into(), json!(["default", user(entry.user, &[entry.key])]));
            }
            (None, None) => {}
        }
        if self.user.is_none() && !self.ssh_keys.is_empty() {
            config.insert("ssh_authorized_keys".into(), json!(self.ssh_keys));
        }
        if let Some(entry) = entry {
            config.insert("ssh_keys".into(), json!({ "ed25519_private": entry.host_private, "ed25519_public": entry.host_public }));
        }
        if !self.packages.is_empty() {
            config.insert("package_update".into(), true.into());
            config.insert("packages".into(), json!(self.packages));
        }
        if self.packages.iter().any(|package| package == AGENT) {
            // Where installing it does not start it; a list of arguments, so no shell is between.
            config.insert("runcmd".into(), json!([["systemctl", "start", AGENT]]));
        }
        config.into()
    }

    /// The files of the seed.
    pub(crate) fn files(&self, id: MachineId, user_data: Option<Vec<u8>>, entry: Option<Entry<'_>>) -> Vec<File> {
        let meta = json!({ "instance-id": id, "local-hostname": self.hostname });
        let ours = format!("#cloud-config\n{:#}\n", self.config(entry)).into_bytes();
        let meta = File { name: "meta-data", content: format!("{meta:#}\n").into_bytes() };
        match user_data {
            Some(theirs) => vec![meta, File { name: "user-data", content: theirs }, File { name: "vendor-data", content: ours }],
            None => vec![meta, File { name: "user-data", content: ours }],
        }
    }
}

/// Makes a seed of ours that of another instance: cloud-init then takes the system for a new one, and sets up what belongs to the computer, its network cards
/// above all, once more. All else it says is as it was, host keys included. Ids are of one length, so nothing in the image moves. `false` if it is no such seed.
pub fn renew(image: &mut [u8], id: MachineId) -> bool {
    const KEY: &[u8] = b"\"instance-id\": \"";
    let id = id.to_string();
    let Some(at) = image.windows(KEY.len()).position(|part| part == KEY).map(|at| at + KEY.len()) else { return false };
    let old = image.get(at..at + id.len()).and_then(|old| std::str::from_utf8(old).ok());
    let known = old.is_some_and(|old| old.parse::<MachineId>().is_ok()) && image.get(at + id.len()) == Some(&b'"');
    if known {
        image[at..at + id.len()].copy_from_slice(id.as_bytes());
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn files(cloud: &Cloud, user_data: Option<&[u8]>) -> Vec<(&'static str, String)> {
        let id = MachineId::from_uuid(Uuid::from_u128(7));
        let text = |file: File| (file.name, String::from_utf8(file.content).unwrap());
        cloud.files(id, user_data.map(<[u8]>::to_vec), None).into_iter().map(text).collect()
    }

    #[test]
    fn hostile_values_stay_values() {
        let nasty = "x\n  - evil: \"yes\" # & <c>";
        let cloud = Cloud { hostname: "h".into(), user: Some(nasty.into()), ssh_keys: vec![nasty.into()], ..Cloud::default() };
        let files = files(&cloud, None);
        let config = files[1].1.strip_prefix("#cloud-config\n").unwrap();
        let read: Value = serde_json::from_str(config).unwrap();
        assert_eq!((read["users"][0]["name"].as_str(), read["users"][0]["ssh_authorized_keys"][0].as_str()), (Some(nasty), Some(nasty)));
    }

    #[test]
    fn a_users_own_data_has_the_last_word() {
        let cloud = Cloud { hostname: "h".into(), packages: vec![AGENT.into()], ..Cloud::default() };
        let files = files(&cloud, Some(b"#!/bin/true\n"));
        assert_eq!((files[1].0, files[1].1.as_str(), files[2].0), ("user-data", "#!/bin/true\n", "vendor-data"));
        assert!(files[2].1.contains("runcmd") && files[0].1.contains("\"local-hostname\": \"h\""));
    }
    #[test]
    fn a_seed_becomes_that_of_another_instance_and_stays_the_same_otherwise() {
        let [old, new] = [1, 2].map(|n| MachineId::from_uuid(Uuid::from_u128(n)));
        let seed = |id| crate::Seed::Cloud(Cloud { hostname: "h".into(), ..Cloud::default() }).image(id, None).unwrap();
        let mut image = seed(old);
        assert!(renew(&mut image, new) && image == seed(new));
        for strange in ["", "\"instance-id\": \"", "\"instance-id\": \"i-0123456789abcdef\" and so on, to be long enough"] {
            let mut image = strange.as_bytes().to_vec();
            assert!(!renew(&mut image, new) && image == strange.as_bytes());
        }
    }

    #[test]
    fn an_entry_is_a_user_of_its_own_unless_one_is_named() {
        let entry = Entry { user: "vmoon", key: "ssh-ed25519 K vmoon", host_private: "P\n", host_public: "ssh-ed25519 H" };
        let config = |cloud: Cloud| cloud.config(Some(entry));
        let named = config(Cloud { user: Some("ada".into()), ssh_keys: vec!["ssh-rsa U".into()], ..Cloud::default() });
        assert_eq!(
            named["users"],
            json!([{
                "name": "ada", "shell": "/bin/bash", "lock_passwd": true, "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": ["ssh-rsa U", "ssh-ed25519 K vmoon"],
            }])
        );
        assert_eq!(named["ssh_keys"], json!({"ed25519_private": "P\n", "ed25519_public": "ssh-ed25519 H"}));
        let unnamed = config(Cloud { ssh_keys: vec!["ssh-rsa U".into()], ..Cloud::default() });
        assert_eq!((&unnamed["users"][0], &unnamed["users"][1]["name"]), (&json!("default"), &json!("vmoon")));
        assert_eq!(unnamed["ssh_authorized_keys"], json!(["ssh-rsa U"]));
        assert!(Cloud { entered: true, ..Cloud::default() }.sentence().contains("own key"));
    }
}
