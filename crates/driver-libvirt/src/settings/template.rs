//! The templates: data that says what a kind of guest gets unless its user says otherwise. Pure.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::OnceLock};

/// The template of a machine that names none.
pub(crate) const DEFAULT: &str = "linux-cloud";

/// What is to be installed, as far as it changes the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guest {
    Linux,
    Windows,
}

/// One template.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Template {
    pub(crate) summary: String,
    pub(crate) guest: Guest,
    /// The folder of drivers on the virtio image.
    #[serde(default)]
    pub(crate) drivers: String,
    /// The edition in the installation image.
    #[serde(default)]
    pub(crate) edition: String,
    /// Settings, as a user would write them.
    pub(crate) settings: Map<String, Value>,
}

/// Every template by name.
pub(crate) fn all() -> &'static BTreeMap<String, Template> {
    static ALL: OnceLock<BTreeMap<String, Template>> = OnceLock::new();
    ALL.get_or_init(|| {
        // The file is part of the program; a test reads it.
        toml::from_str(include_str!("../templates/templates.toml")).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_read() {
        let names: Vec<&str> = all().keys().map(String::as_str).collect();
        assert_eq!(names, ["linux-cloud", "linux-desktop", "windows10", "windows11"]);
        assert!(all().contains_key(DEFAULT));
        for template in all().values() {
            assert!(!template.summary.is_empty());
            assert_eq!(template.guest == Guest::Windows, !template.drivers.is_empty() && !template.edition.is_empty());
        }
    }
}
