//! What a user asks for: the specification of a machine.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long a machine lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Until it is deleted.
    #[default]
    Kept,
    /// Until the last writer of its sessions has gone: the machine of `vmoon run` without a program.
    Attached,
}

/// The specification of a machine: what the user wrote, kept as written.
///
/// `settings` belong to the driver, which checks them all at once in [`crate::driver::Driver::plan`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// The kind of machine, which is the name of its driver.
    pub kind: String,
    /// The driver's settings, by name.
    #[serde(default)]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Free labels to filter by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How long the machine lives.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// After so many seconds in which nothing used it (see [`crate::idle`]) it is stopped, or deleted if its lifetime is
    /// [`Lifetime::Attached`]; never if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
}

/// One problem of a specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where in the specification, for example `settings.memory`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// The error code, where it is more exact than `spec.invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<crate::Code>,
}

/// Every problem of a specification, found at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into(), code: None });
    }

    /// `value` if there is no problem.
    pub fn or<T>(self, value: T) -> Result<T, Problems> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Problems> for crate::Error {
    fn from(problems: Problems) -> Self {
        let code = match problems.0.as_slice() {
            [only] => only.code.unwrap_or(crate::Code::SpecInvalid),
            _ => crate::Code::SpecInvalid,
        };
        let list: Vec<String> = problems.0.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
        crate::Error::new(code, list.join("; ")).detail(serde_json::to_value(&problems.0).unwrap_or_default())
    }
}
