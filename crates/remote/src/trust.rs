//! Whether a host is who it says: pinned fingerprints first, else the files of known hosts. Nothing is trusted on first use, and
//! nothing is written here: whoever asks shows the fingerprint, and pins it if it is confirmed.

use russh::keys::{HashAlg, PublicKey, known_hosts::known_host_keys_path};
use std::path::PathBuf;
use vmoon_core::{Code, Error, Result};

/// What is known of hosts before they are asked.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Fingerprints, `SHA256:…`. If there are any, the host's key must have one of them, whatever the files say.
    pub pins: Vec<String>,
    /// Files in the form of `~/.ssh/known_hosts`, hashed names included. Missing files are empty.
    pub known_hosts: Vec<PathBuf>,
}

/// Which key a host has shown, as `SHA256:…`.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

impl Trust {
    /// The keys that the files have for a host.
    pub(crate) fn recorded(&self, host: &str, port: u16) -> Vec<(PathBuf, usize, PublicKey)> {
        let mut all = Vec::new();
        for file in &self.known_hosts {
            // A line that cannot be read is as good as none: the key is then not known, which is refused.
            for (line, key) in known_host_keys_path(host, port, file).unwrap_or_default() {
                all.push((file.clone(), line, key));
            }
        }
        all
    }

    /// Checks the key that the host has proven to have.
    ///
    /// # Errors
    /// [`Code::ConnectionUntrusted`]; its detail has `host`, `fingerprint`, `algorithm` and, if another key was expected,
    /// `expected`.
    pub(crate) fn check(&self, host: &str, port: u16, key: &PublicKey) -> Result<()> {
        let shown = fingerprint(key);
        let place = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
        let detail = |expected: Option<&str>| {
            let mut detail = serde_json::json!({ "host": place, "fingerprint": shown, "algorithm": key.algorithm().as_str() });
            if let Some(expected) = expected {
                detail["expected"] = expected.into();
            }
            detail
        };
        let changed = |expected: &str, source: &str| {
            Error::new(
                Code::ConnectionUntrusted,
                format!("the key of {place} has changed: it shows {shown}, but {source} says {expected}; somebody may be listening in"),
            )
            .hint("find out why from whoever runs the host; only then confirm the new fingerprint")
            .detail(detail(Some(expected)))
        };
        if !self.pins.is_empty() {
            if self.pins.contains(&shown) {
                return Ok(());
            }
            return Err(changed(&self.pins.join(" or "), "what was confirmed before"));
        }
        let recorded = self.recorded(host, port);
        if recorded.iter().any(|(_, _, known)| known.key_data() == key.key_data()) {
            return Ok(());
        }
        if let Some((file, line, known)) = recorded.first() {
            return Err(changed(&fingerprint(known), &format!("{}:{line}", file.display())));
        }
        Err(Error::new(Code::ConnectionUntrusted, format!("the key of {place} is not known; its fingerprint is {shown}"))
            .hint("compare it with what the host's console or its owner says, then confirm it")
            .detail(detail(None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    #[test]
    fn unknown_known_changed_and_pinned_keys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        std::fs::write(&file, format!("# mine\nh.example {ONE}\n[h.example]:2222 {TWO} comment\ngarbage\n")).unwrap();
        let (one, two): (PublicKey, PublicKey) = (ONE.parse().unwrap(), TWO.parse().unwrap());
        let trust = Trust { pins: vec![], known_hosts: vec![dir.path().join("missing"), file] };
        trust.check("h.example", 22, &one).unwrap();
        trust.check("h.example", 2222, &two).unwrap();
        let changed = trust.check("h.example", 22, &two).unwrap_err();
        assert_eq!(changed.code(), Code::ConnectionUntrusted);
        assert!(changed.message().contains(&fingerprint(&one)) && changed.message().contains(&fingerprint(&two)), "{changed}");
        let unknown = trust.check("other", 22, &one).unwrap_err();
        assert_eq!(unknown.detail_value().unwrap()["fingerprint"], fingerprint(&one));
        assert!(unknown.detail_value().unwrap().get("expected").is_none());
        let pinned = Trust { pins: vec![fingerprint(&two)], ..trust };
        pinned.check("other", 22, &two).unwrap();
        // A pin is stricter than the files.
        assert!(pinned.check("h.example", 22, &one).is_err());
    }
}
