//! What drivers are told of environments: those that `packages` keeps in the state directory.

use async_trait::async_trait;
use std::{fmt, path::PathBuf, sync::Arc};
use vmoon_core::{Error, Result, ability::UsedEnvironment};
use vmoon_driver_lua::{Environment, Environments};
use vmoon_driver_ssh::environment as remote;
use vmoon_packages::{current, facade::Packages};

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

/// The same environments, file by file, for hosts that they are carried to.
pub(crate) struct Carried(pub(crate) Arc<Packages>);

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carried")
    }
}

impl Carried {
    async fn ask<T: Send + 'static>(&self, work: impl FnOnce(&Packages) -> Result<T> + Send + 'static) -> Result<T> {
        let packages = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&packages)).await;
        done.unwrap_or_else(|error| Err(Error::internal("looking at an environment panicked").source(error)))
    }
}

#[async_trait]
impl remote::Environments for Carried {
    async fn find(&self, name: &str) -> Result<remote::Environment> {
        let name = name.to_owned();
        let found = self.ask(move |packages| packages.carried(&name)).await?;
        let file = |file: vmoon_packages::facade::CarriedFile| remote::TreeFile {
            path: file.path,
            sha256: file.sha256,
            size: file.size,
            rock: file.rock,
        };
        Ok(remote::Environment {
            used: UsedEnvironment { name: found.name, generation: found.generation, lua: found.lua },
            tree: found.tree,
            files: found.files.into_iter().map(file).collect(),
        })
    }

    async fn recipe(&self, environment: &remote::Environment, rock: &str) -> Result<remote::Recipe> {
        let (used, rock) = (environment.used.clone(), rock.to_owned());
        let recipe = self.ask(move |packages| packages.recipe(&used.name, used.generation, &rock)).await?;
        let module = |(path, arguments)| remote::RecipeModule { path, arguments };
        Ok(remote::Recipe { files: recipe.files, modules: recipe.modules.into_iter().map(module).collect() })
    }
}
