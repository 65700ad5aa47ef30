//! Which layers hold a process, and where they do not: for `show` and `doctor`. Plain data.

use crate::rules::Layer;
use serde::{Deserialize, Serialize};
use std::{error, fmt};

/// How far one layer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum Status {
    /// All that it can do it does.
    On,
    /// It holds, but for what `missing` says.
    Partial {
        /// What it does not stop.
        missing: String,
    },
    /// It does not hold.
    Off {
        /// The kernel is too old, it was switched off, or the profile does without.
        why: String,
    },
}

impl Status {
    /// [`Status::Off`] for this reason.
    pub fn off(why: impl Into<String>) -> Self {
        Status::Off { why: why.into() }
    }

    /// [`Status::Partial`], lacking this.
    pub fn partial(missing: impl Into<String>) -> Self {
        Status::Partial { missing: missing.into() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::On => f.write_str("on"),
            Status::Partial { missing } => write!(f, "partial: {missing}"),
            Status::Off { why } => write!(f, "off: {why}"),
        }
    }
}

/// One layer and how far it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// The layer.
    pub layer: Layer,
    /// How far it holds.
    #[serde(flatten)]
    pub status: Status,
}

impl fmt::Display for LayerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {}", self.layer, self.status)
    }
}

/// What holds a process. Printed, it is one line for each layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Report {
    /// One entry for each layer that was looked at, in the order they are applied.
    pub layers: Vec<LayerStatus>,
}

impl Report {
    /// What is known of this layer.
    pub fn get(&self, layer: Layer) -> Option<&Status> {
        self.layers.iter().find(|entry| entry.layer == layer).map(|entry| &entry.status)
    }

    /// Notes how far a layer holds, in place of what was noted before.
    pub fn set(&mut self, layer: Layer, status: Status) {
        match self.layers.iter_mut().find(|entry| entry.layer == layer) {
            Some(entry) => entry.status = status,
            None => self.layers.push(LayerStatus { layer, status }),
        }
    }

    /// Whether all that was looked at holds in full.
    pub fn is_complete(&self) -> bool {
        self.layers.iter().all(|entry| entry.status == Status::On)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, entry) in self.layers.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            entry.fmt(f)?;
        }
        Ok(())
    }
}

/// Why a process could not be confined. Whoever gets it must end the process: part of the layers may hold already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    layer: Layer,
    sentence: String,
}

impl Error {
    pub(crate) fn new(layer: Layer, sentence: impl Into<String>) -> Self {
        Self { layer, sentence: sentence.into() }
    }

    /// The layer that could not be applied.
    pub fn layer(&self) -> Layer {
        self.layer
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not confine the process ({}): {}", self.layer, self.sentence)
    }
}

impl error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_line_for_each_layer_and_plain_json() {
        let mut report = Report::default();
        report.set(Layer::Landlock, Status::off("x"));
        report.set(Layer::Seccomp, Status::On);
        report.set(Layer::Landlock, Status::partial("truncation (before Linux 6.2)"));
        assert_eq!(report.to_string(), "landlock   partial: truncation (before Linux 6.2)\nseccomp    on");
        assert!(!report.is_complete());
        let json = serde_json::to_string(&report).expect("plain data");
        assert_eq!(
            json,
            r#"[{"layer":"landlock","status":"partial","missing":"truncation (before Linux 6.2)"},{"layer":"seccomp","status":"on"}]"#
        );
        assert_eq!(serde_json::from_str::<Report>(&json).expect("the same"), report);
    }
}
