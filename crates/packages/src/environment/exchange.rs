//! An environment as one text, to be made again elsewhere: its description and its lock.

use super::{Description, Environment};
use crate::lock::Lock;
use serde::{Deserialize, Serialize};
use vmoon_core::{Code, Error, Result};

/// The version of the format that is written.
const FORMAT: u32 = 1;
/// The most of such a text that is read, bytes.
const LONGEST: usize = 16 << 20;

/// What an exported environment holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// What it is for.
    pub description: Description,
    /// What is in it.
    pub lock: Lock,
}

#[derive(Serialize, Deserialize)]
struct Text {
    format: u32,
    environment: Description,
    lock: toml::Table,
}

impl Environment {
    /// This environment as text.
    ///
    /// # Errors
    /// [`Code::EnvironmentDamaged`], [`Code::FileFailed`].
    pub fn export(&self) -> Result<String> {
        Exported { description: self.description()?, lock: self.lock()? }.to_toml()
    }
}

impl Exported {
    /// It as text.
    ///
    /// # Errors
    /// [`Code::Internal`].
    pub fn to_toml(&self) -> Result<String> {
        let bad = "an environment has no TOML form";
        let lock = self.lock.to_toml()?.parse::<toml::Table>().map_err(|error| Error::internal(bad).source(error))?;
        toml::to_string(&Text { format: FORMAT, environment: self.description.clone(), lock })
            .map_err(|error| Error::internal(bad).source(error))
    }

    /// Reads such a text, which may come from anybody.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`] with what is wrong.
    pub fn from_toml(text: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::new(Code::PackageInvalid, format!("this is no exported environment: {why}")).hint("vmoon env export writes one")
        };
        if text.len() > LONGEST {
            return Err(bad(format!("it has more than {LONGEST} bytes")));
        }
        let read: Text = toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
        if read.format != FORMAT {
            return Err(bad(format!("its format is {}, and this vmoon reads {FORMAT}", read.format)));
        }
        let lock = toml::to_string(&read.lock).map_err(|error| bad(error.to_string()))?;
        let lock = Lock::from_toml(&lock)?;
        for server in &read.environment.servers {
            server.check()?;
        }
        if lock.lua != read.environment.lua {
            return Err(bad(format!("it is for Lua {} and its lock for {}", read.environment.lua, lock.lua)));
        }
        Ok(Self { description: read.environment, lock })
    }
}
