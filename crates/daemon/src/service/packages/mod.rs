//! Packages and environments, as the API asks for them. The work itself blocks and is done by `packages` on threads that may; here it is begun,
//! watched and cancelled, and machines are told of it.

mod apply;
mod evaluator;
mod work;

use super::Service;
use crate::start::Tools;
use apply::Applying;
use evaluator::OneShot;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use vmoon_api::{requests::*, views::*};
use vmoon_core::{
    Code, Error, OperationId, Result,
    ability::UsedEnvironment,
    operation::Progress,
    package::{CacheInfo, EnvironmentInfo, FoundRock, HistoryEntry, PackagePlan, ProfileInfo, RockInfo, ServerInfo},
};
use vmoon_packages::{
    LuaVersion,
    build::Launcher,
    facade::{Config, Packages, Work},
};
use vmoon_sys::stop::Stop;

/// Evaluates by this program, which is vmoon.
pub(crate) fn evaluator(vmoon: PathBuf) -> impl vmoon_packages::Evaluator {
    OneShot::new(vmoon)
}

/// The packages of a state directory, made with these tools; touches nothing.
pub(crate) fn packages(state: &Path, tools: &Tools) -> Arc<Packages> {
    Arc::new(Packages::new(Config {
        state: state.to_owned(),
        cache: tools.cache.join("rocks"),
        evaluator: Arc::new(OneShot::new(tools.vmoon.clone())),
        confine: Arc::new(Launcher { exe: tools.vmoon.clone(), verb: vmoon_driver_lua::host::LAUNCHER.into() }),
    }))
}

/// What the service has for packages.
pub(crate) struct Workshop {
    packages: Arc<Packages>,
    /// What changes an environment now, by the environment's name.
    busy: Mutex<HashMap<String, (OperationId, Stop)>>,
    /// What gives machines environments now.
    applying: Mutex<HashMap<OperationId, Arc<Applying>>>,
}

impl Workshop {
    /// The workshop of a state directory; touches nothing.
    pub(crate) fn new(state: &Path, tools: &Tools) -> Arc<Self> {
        Arc::new(Self { packages: packages(state, tools), busy: Mutex::default(), applying: Mutex::default() })
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<String, (OperationId, Stop)>> {
        // Nothing that can panic runs while the lock is held.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn applying(&self) -> MutexGuard<'_, HashMap<OperationId, Arc<Applying>>> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks an operation to stop; whether it runs and has not taken effect yet.
    pub(super) fn cancel(&self, operation: OperationId) -> bool {
        if let Some(applying) = self.applying().get(&operation).cloned() {
            return applying.cancel();
        }
        let found = self.busy().values().find(|(id, _)| *id == operation).map(|(_, stop)| stop.clone());
        found.inspect(Stop::stop).is_some()
    }

    /// Asks everything to stop.
    fn cancel_all(&self) {
        let all: Vec<Stop> = self.busy().values().map(|(_, stop)| stop.clone()).collect();
        all.iter().for_each(Stop::stop);
        let all: Vec<Arc<Applying>> = self.applying().values().cloned().collect();
        for one in all {
            one.cancel();
        }
    }
}

/// A question that changes nothing: no progress is told, nobody cancels it.
fn question(offline: Option<bool>) -> Work {
    Work { offline: offline.unwrap_or(false), ..Work::default() }
}

impl Service {
    /// Does something that blocks, on a thread that may.
    async fn with_packages<T: Send + 'static>(&self, work: impl FnOnce(&Packages) -> Result<T> + Send + 'static) -> Result<T> {
        let packages = self.workshop.packages.clone();
        let done = tokio::task::spawn_blocking(move || work(&packages)).await;
        done.unwrap_or_else(|error| Err(Error::internal("work on packages panicked").source(error)))
    }

    /// Asks everything that changes environments to stop; nothing that was begun leaves a trace.
    pub(crate) fn stop_changes(&self) {
        self.workshop.cancel_all();
    }

    /// What running machines use, with their names.
    async fn used(&self) -> Result<Vec<(String, UsedEnvironment)>> {
        let mut all = Vec::new();
        for entry in self.context.connections.all() {
            let Some(environments) = entry.driver.environments() else { continue };
            for (handle, used) in environments.used().await? {
                let name = self.context.machines().iter().find(|m| m.handle().as_ref() == Some(&handle)).map(|m| m.view().name.clone());
                all.push((name.unwrap_or_else(|| handle.0.clone()), used));
            }
        }
        Ok(all)
    }

    /// Says which machines use environments.
    async fn with_machines(&self, mut environments: Vec<EnvironmentInfo>) -> Result<Vec<EnvironmentInfo>> {
        let used = self.used().await?;
        for environment in &mut environments {
            let mut machines: Vec<String> =
                used.iter().filter(|(_, one)| one.name == environment.name).map(|(name, _)| name.clone()).collect();
            machines.sort();
            machines.dedup();
            environment.machines = machines;
        }
        Ok(environments)
    }

    async fn with_its_machines(&self, environment: EnvironmentInfo) -> Result<EnvironmentInfo> {
        let mut one = self.with_machines(vec![environment]).await?;
        one.pop().ok_or_else(|| Error::internal("an environment was lost"))
    }

    pub(super) async fn environments(&self) -> Result<Vec<EnvironmentInfo>> {
        let all = self.with_packages(Packages::environments).await?;
        self.with_machines(all).await
    }

    pub(super) async fn environment(&self, request: EnvironmentRef) -> Result<EnvironmentInfo> {
        let shown = self.with_packages(move |packages| packages.environment(&packages.name(&request.environment)?)).await?;
        self.with_its_machines(shown).await
    }

    pub(super) async fn make_environment(&self, request: CreateEnvironment) -> Result<EnvironmentInfo> {
        let lua = self.lua_for(request.lua.as_deref(), request.machine.as_deref()).await?;
        self.with_packages(move |packages| packages.create(&request.name, lua, request.dry_run)).await
    }

    /// For which Lua an environment is made.
    async fn lua_for(&self, lua: Option<&str>, machine: Option<&str>) -> Result<LuaVersion> {
        match (lua, machine) {
            (Some(lua), _) => lua.parse(),
            (None, Some(machine)) => self.lua_of(machine).await,
            (None, None) => Ok(LuaVersion::V54),
        }
    }

    /// The same for a change that may make its environment.
    async fn made_for(&self, make: Option<MakeEnvironment>) -> Result<Option<LuaVersion>> {
        match make {
            Some(make) => self.lua_for(make.lua.as_deref(), make.machine.as_deref()).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn drop_environment(&self, request: EnvironmentRef) -> Result<Nothing> {
        let name = self.environment_name(&request.environment).await?;
        if let Some((operation, _)) = self.workshop.busy().get(&name) {
            return Err(busy(&name, *operation));
        }
        let applied = self.workshop.applying().iter().find(|(_, one)| one.environment == name).map(|(operation, _)| *operation);
        if let Some(operation) = applied {
            return Err(busy(&name, operation));
        }
        let mut users: Vec<String> =
            self.used().await?.into_iter().filter(|(_, one)| one.name == name).map(|(machine, _)| machine).collect();
        users.extend(self.waiting_for(&name).await?);
        users.sort();
        users.dedup();
        if !users.is_empty() {
            let machines = users.join(", ");
            return Err(Error::new(Code::EnvironmentInUse, format!("machines use the environment {name}: {machines}"))
                .hint("delete them, or give them another one: vmoon env apply OTHER MACHINE"));
        }
        self.with_packages(move |packages| packages.remove(&name)).await?;
        Ok(Nothing {})
    }

    /// The machines that would use an environment at their next start.
    async fn waiting_for(&self, name: &str) -> Result<Vec<String>> {
        let mut users = Vec::new();
        for machine in self.context.machines() {
            let (Some(handle), Some(entry)) = (machine.handle(), self.context.connections.get(machine.connection)) else { continue };
            let Some(environments) = entry.driver.environments() else { continue };
            // One whose record cannot be read, or that is just being deleted, uses nothing.
            if environments.of(&handle).await.is_ok_and(|wants| wants.environment.as_deref() == Some(name)) {
                users.push(machine.view().name.clone());
            }
        }
        Ok(users)
    }

    pub(super) async fn choose_environment(&self, request: EnvironmentRef) -> Result<EnvironmentInfo> {
        let chosen = self.with_packages(move |packages| packages.choose(&request.environment)).await?;
        self.with_its_machines(chosen).await
    }

    async fn environment_name(&self, text: &str) -> Result<String> {
        let text = text.to_owned();
        self.with_packages(move |packages| packages.name(&text)).await
    }

    pub(super) async fn plan_change(&self, request: ChangePackages) -> Result<PackagePlan> {
        let make = self.made_for(request.make).await?;
        let work = Work { offline: request.offline, make, without: request.without, ..Work::default() };
        self.with_packages(move |packages| packages.plan(&packages.name(&request.environment)?, &request.change, &work)).await
    }

    pub(super) async fn rocks(&self, request: ListPackages) -> Result<Vec<RockInfo>> {
        let newer = request.newer.unwrap_or(false);
        self.with_packages(move |packages| packages.rocks(&packages.name(&request.environment)?, newer, &question(request.offline))).await
    }

    pub(super) async fn lock(&self, request: EnvironmentRef) -> Result<LockView> {
        let lock = self.with_packages(move |packages| packages.lock(&packages.name(&request.environment)?)).await?;
        Ok(LockView { lock })
    }

    pub(super) async fn export(&self, request: EnvironmentRef) -> Result<LockView> {
        let lock = self.with_packages(move |packages| packages.export(&packages.name(&request.environment)?)).await?;
        Ok(LockView { lock })
    }

    pub(super) async fn verify(&self, request: EnvironmentRef) -> Result<VerifyView> {
        self.with_packages(move |packages| {
            let environment = packages.name(&request.environment)?;
            let verified = packages.verify(&environment)?;
            Ok(VerifyView { environment, generation: verified.generation, files: verified.files, differences: verified.differences })
        })
        .await
    }

    pub(super) async fn history(&self, request: EnvironmentRef) -> Result<Vec<HistoryEntry>> {
        self.with_packages(move |packages| packages.history(&packages.name(&request.environment)?)).await
    }

    pub(super) async fn search(&self, request: SearchPackages) -> Result<Vec<FoundRock>> {
        self.with_packages(move |packages| {
            packages.search(&packages.name(&request.environment)?, &request.query, &question(request.offline))
        })
        .await
    }

    pub(super) async fn package(&self, request: PackageRef) -> Result<FoundRock> {
        self.with_packages(move |packages| {
            packages.package(&packages.name(&request.environment)?, &request.package, &question(request.offline))
        })
        .await
    }

    pub(super) async fn profiles(&self) -> Result<Vec<ProfileInfo>> {
        self.with_packages(Packages::profiles).await
    }

    pub(super) async fn servers(&self, request: ListServers) -> Result<Vec<ServerInfo>> {
        self.with_packages(move |packages| packages.servers(packages.names(request.environment.as_deref())?.as_deref())).await
    }

    pub(super) async fn server_change(&self, request: ChangeServers) -> Result<Vec<ServerInfo>> {
        self.with_packages(move |packages| {
            packages.change_servers(packages.names(request.environment.as_deref())?.as_deref(), &request.change)
        })
        .await
    }

    pub(super) async fn cache(&self, clear: bool) -> Result<CacheInfo> {
        self.with_packages(move |packages| if clear { packages.clear_cache() } else { packages.cache() }).await
    }
}

/// Somebody else changes it.
fn busy(name: &str, operation: OperationId) -> Error {
    Error::new(Code::EnvironmentBusy, format!("another operation changes the environment {name}"))
        .hint(format!("wait for it: vmoon op wait {operation}"))
        .detail(serde_json::json!({ "operation": operation }))
}

/// Where an operation's progress goes; the newest counts.
type Told = tokio::sync::watch::Sender<Progress>;
