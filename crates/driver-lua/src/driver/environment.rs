//! Environments of machines, as the daemon asks for them. What a running machine may read was decided at its start; so switching one is
//! telling its Lua where to look from now on.

use super::{Inner, LuaDriver, known, lives};
use crate::{environments, layout::Life};
use async_trait::async_trait;
use serde_json::Value;
use vmoon_confine::Profile;
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{Effect, Environments, Follow, Switched, UsedEnvironment, WantedEnvironment},
    driver::Handle,
    name::escape,
};
use vmoon_lua_wire::modules;

impl Inner {
    fn used(&self) -> Result<Vec<(Handle, UsedEnvironment)>> {
        let mut used = Vec::new();
        let entries = match std::fs::read_dir(self.layout.machines()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(used),
            Err(error) => return Err(Error::io("read the directory of machines", error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("read the directory of machines", error))?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<MachineId>().ok()) else { continue };
            // Frozen copies, which are beside the lives, go on from where they are, too.
            let dirs = std::fs::read_dir(self.layout.lives_dir(id)).into_iter().flatten().flatten();
            for life in dirs.map(|dir| Life { number: 0, dir: dir.path() }) {
                let environments = life.environments();
                // One that is being born has said what it uses before it exists.
                if !environments.is_empty() && life.exit().is_none() && life.meta()?.is_none_or(|meta| meta.process.is_alive()) {
                    used.extend(environments.into_iter().map(|environment| (Handle(id.to_string()), environment)));
                }
            }
        }
        Ok(used)
    }

    fn switch(&self, id: MachineId, name: &str, dry_run: bool) -> Result<Switched> {
        let _lock = lives::lock(&self.layout, id)?;
        let mut record = self.record(id)?;
        record.settings.env = Some(name.to_owned());
        let environment = environments::wanted(&record.settings, self.environments.as_deref())?
            .ok_or_else(|| Error::internal("an environment that was named is not wanted"))?;
        let used = UsedEnvironment { name: environment.name.clone(), generation: environment.generation, lua: environment.lua.clone() };
        let life = self.layout.lives(id)?.pop();
        let alive = match &life {
            Some(life) => matches!(lives::examine(id, life)?, lives::Vital::Alive(_)),
            None => false,
        };
        let Some(life) = life.filter(|_| alive) else {
            if !dry_run {
                self.layout.write(&record)?;
            }
            return Ok(Switched { environment: used, effect: Effect::NextStart, evaluate: None, steps: Vec::new() });
        };
        let before = life.environments();
        let profile = record.settings.confinement.profile;
        // A sealed one was granted the environment it was started with, and that cannot change while it runs.
        if profile == Profile::Sealed && !before.iter().any(|one| one.name == name) {
            let may = before.last().map_or_else(|| "no environment".to_owned(), |one| format!("only the environment {}", one.name));
            let why = format!("{} runs with the profile sealed and was granted {may} at its start", escape(&record.name));
            return Err(Error::new(Code::MachineRunning, why).hint("stop it, apply the environment, and start it again"));
        }
        let here = profile != Profile::Sealed;
        let modules = environment.modules(here).map_err(|why| Error::new(Code::SpecInvalid, why))?;
        let earlier: Vec<String> = before
            .iter()
            .filter(|one| one.lua == environment.lua)
            .filter_map(|one| {
                let tree = self.environments.as_ref()?.root().ok()?.join(&one.name).join("generations").join(one.generation.to_string());
                let modules = environments::Environment { tree, ..environment.clone() }.modules(false).ok()?;
                Some(format!("{};{}", modules.path, modules.cpath))
            })
            .collect();
        if !dry_run {
            // Before it is told, so that nobody takes the generation away.
            life.uses(&environment)?;
            self.layout.write(&record)?;
        }
        let arguments = [modules.path, modules.cpath, earlier.join(";")].map(Value::from).to_vec();
        Ok(Switched { environment: used, effect: Effect::Now, evaluate: Some((modules::SWITCH.to_owned(), arguments)), steps: Vec::new() })
    }
}

#[async_trait]
impl Environments for LuaDriver {
    async fn used(&self) -> Result<Vec<(Handle, UsedEnvironment)>> {
        self.blocking(Inner::used).await
    }

    async fn of(&self, handle: &Handle) -> Result<WantedEnvironment> {
        let id = known(handle)?;
        self.blocking(move |inner| {
            let settings = inner.record(id)?.settings;
            Ok(WantedEnvironment { lua: environments::lua_of(&settings.runtime).map(str::to_owned), environment: settings.env })
        })
        .await
    }

    async fn switch(&self, handle: &Handle, name: &str, dry_run: bool, follow: &dyn Follow) -> Result<Switched> {
        let (id, name) = (known(handle)?, name.to_owned());
        if !dry_run {
            follow.commit()?;
        }
        self.blocking(move |inner| inner.switch(id, &name, dry_run)).await
    }
}
