//! Giving a machine another environment. The driver knows what the machine may read; here its session is told.

use crate::{connections::Entry, service::Service};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use vmoon_api::{
    Data,
    requests::{ApplyEnvironment, Eval},
    views::{AppliedView, CommandState},
};
use vmoon_core::{
    Code, Error, Result,
    ability::{Effect, Environments},
    driver::{Handle, unsupported},
    name::escape,
};
use vmoon_packages::LuaVersion;

/// How long a machine that is busy is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl Service {
    /// A machine that can have an environment: its connection and its handle.
    fn user(&self, text: &str) -> Result<(Arc<Entry>, Handle, String)> {
        let machine = self.machine(text)?;
        let view = machine.view();
        let entry = self.context.connections.get(machine.connection);
        let entry = entry.ok_or_else(|| Error::new(Code::ConnectionNotFound, format!("{} has no connection", escape(&view.name))))?;
        let handle = machine.handle().ok_or_else(|| Error::new(Code::MachineState, format!("{} is not made yet", escape(&view.name))))?;
        Ok((entry, handle, view.name.clone()))
    }

    fn ability(entry: &Entry) -> Result<&dyn Environments> {
        entry.driver.environments().ok_or_else(|| unsupported(&entry.kind, "use environments of packages"))
    }

    /// The Lua version whose packages a machine loads.
    pub(super) async fn lua_of(&self, machine: &str) -> Result<LuaVersion> {
        let (entry, handle, name) = self.user(machine)?;
        let wants = Self::ability(&entry)?.of(&handle).await?;
        let lua = wants.lua.ok_or_else(|| {
            Error::new(Code::SpecInvalid, format!("which version of Lua {} runs cannot be told from its interpreter's name", escape(&name)))
                .hint("say it: vmoon env create NAME --lua VERSION")
        })?;
        lua.parse()
    }

    pub(in crate::service) async fn apply(&self, request: ApplyEnvironment) -> Result<AppliedView> {
        let name = self.environment_name(&request.environment).await?;
        let (entry, handle, machine) = self.user(&request.machine)?;
        let switched = Self::ability(&entry)?.switch(&handle, &name, request.dry_run).await?;
        let shown = escape(&machine);
        let used = switched.environment;
        let mut view = AppliedView {
            machine: machine.clone(),
            environment: used.clone(),
            effect: switched.effect,
            loaded: Vec::new(),
            pending: false,
            steps: switched.steps,
        };
        view.steps.extend(match switched.effect {
            Effect::Now => vec![
                format!("{shown} finds modules in generation {} of {name} from now on", used.generation),
                "modules that it has loaded stay as they are".to_owned(),
            ],
            Effect::NextStart => vec![format!("{shown} starts with {name} from its next start on")],
        });
        let Some((code, arguments)) = switched.evaluate.filter(|_| !request.dry_run) else { return Ok(view) };
        let eval = Eval {
            session: self.machine(&request.machine)?.id.to_string(),
            code: Data(code.into_bytes()),
            args: Some(arguments),
            data: true,
            token: None,
            deadline_ms: None,
            wait_ms: Some(PATIENCE.as_millis() as u64),
        };
        let command = self.evaluate(eval).await?;
        if let Some(error) = command.error {
            let why = String::from_utf8_lossy(&error.message.0).into_owned();
            return Err(Error::new(Code::CommandFailed, format!("{shown} could not be switched while it runs: {}", escape(&why)))
                .hint("its program has changed what `package` is; the environment is used from its next start on"));
        }
        view.pending = command.state == CommandState::Running;
        let first = command.data.and_then(|values| values.into_iter().next());
        if let Some(Value::Array(names)) = first {
            view.loaded = names.into_iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        }
        Ok(view)
    }
}
