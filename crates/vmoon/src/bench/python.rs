//! The Python library beside us: one child per section, which measures itself and answers in JSON.

use super::{
    child::{self, Child},
    report::Column,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The program that measures the library.
const PROGRAM: &str = include_str!("python.py");
/// How long one section may take.
const LIMIT: Duration = Duration::from_secs(900);

/// An interpreter that has the library.
pub(super) struct Python {
    exe: PathBuf,
    lua: String,
    dir: String,
    version: String,
}

impl Python {
    /// Finds it and asks which release of the library it has.
    ///
    /// # Errors
    /// Why it cannot be measured.
    pub(super) fn find(program: &str, lua: &str, dir: &Path) -> Result<Self, String> {
        let exe = child::find(program).ok_or_else(|| format!("there is no program {program}"))?;
        let mut python = Self { exe, lua: lua.to_owned(), dir: dir.to_string_lossy().into_owned(), version: String::new() };
        let found = python.measure("probe", &json!({}))?;
        python.version = found.as_str().unwrap_or_default().to_owned();
        Ok(python)
    }

    /// The library's release.
    pub(super) fn version(&self) -> String {
        format!("pylua-bioxen-vm-lib {}", self.version)
    }

    /// The interpreter.
    pub(super) fn exe(&self) -> &Path {
        &self.exe
    }

    /// Measures one section.
    ///
    /// # Errors
    /// Why it could not be measured.
    pub(super) fn measure(&self, section: &str, parameters: &Value) -> Column {
        let parameters = parameters.to_string();
        let child = Child::spawn(&self.exe, &["-c", PROGRAM, section, &self.dir, &self.lua, &parameters], &[]);
        let text = child.and_then(|child| child.finish(LIMIT)).map_err(|error| format!("the Python program: {}", error.chain()))?;
        let answer: Value = serde_json::from_slice(&text).map_err(|_| "the Python program gave no answer".to_owned())?;
        match (&answer["figures"], &answer["error"]) {
            (Value::Null, Value::String(error)) => Err(error.clone()),
            (Value::Null, _) => Err("the Python program gave no figures".to_owned()),
            (figures, _) => Ok(figures.clone()),
        }
    }
}
