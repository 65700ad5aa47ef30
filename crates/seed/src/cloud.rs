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
        if !self.packages.is_empty() {
            parts.push(format!("packages {}", self.packages.join(", ")));
        }
        if let Some(file) = &self.user_data {
            parts.push(format!("user-data from {file}"));
        }
        format!("a cloud-init seed: {}", parts.join(", "))
    }

    /// The configuration that follows from the settings.
    fn config(&self) -> Value {
        let mut config = Map::new();
        config.insert("hostname".into(), self.hostname.clone().into());
        match &self.user {
            Some(user) => {
                let user = json!({
                    "name": user, "shell": "/bin/bash", "lock_passwd": true,
                    "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": self.ssh_keys,
                });
                config.insert("users".into(), json!([user]));
            }
            None if !self.ssh_keys.is_empty() => {
                config.insert("ssh_authorized_keys".into(), json!(self.ssh_keys));
            }
            None => {}
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
    pub(crate) fn files(&self, id: MachineId, user_data: Option<Vec<u8>>) -> Vec<File> {
        let meta = json!({ "instance-id": id, "local-hostname": self.hostname });
        let ours = format!("#cloud-config\n{:#}\n", self.config()).into_bytes();
        let meta = File { name: "meta-data", content: format!("{meta:#}\n").into_bytes() };
        match user_data {
            Some(theirs) => vec![meta, File { name: "user-data", content: theirs }, File { name: "vendor-data", content: ours }],
            None => vec![meta, File { name: "user-data", content: ours }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn files(cloud: &Cloud, user_data: Option<&[u8]>) -> Vec<(&'static str, String)> {
        let id = MachineId::from_uuid(Uuid::from_u128(7));
        let text = |file: File| (file.name, String::from_utf8(file.content).unwrap());
        cloud.files(id, user_data.map(<[u8]>::to_vec)).into_iter().map(text).collect()
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
}
