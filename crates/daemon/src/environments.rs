//! What drivers are told of environments: those that `packages` keeps in the state directory.

use std::path::PathBuf;
use vmoon_core::Result;
use vmoon_driver_lua::{Environment, Environments};
use vmoon_packages::current;

/// The environments of one state directory.
#[derive(Debug)]
pub(crate) struct Kept {
    state: PathBuf,
}

impl Kept {
    /// Those below `state`; touches nothing.
    pub(crate) fn new(state: PathBuf) -> Self {
        Self { state }
    }
}

impl Environments for Kept {
    fn root(&self) -> Result<PathBuf> {
        current::root(&self.state)
    }

    fn find(&self, name: &str) -> Result<Environment> {
        let found = current::find(&self.state, name)?;
        Ok(Environment { name: found.name, lua: found.lua, generation: found.generation, tree: found.tree, generations: found.generations })
    }
}
