//! Giving a machine another environment: an operation, because it may have to be sent there. The driver knows what the machine may read; here its session is told.

use super::work::{DEADLINE, LONGEST};
use crate::{connections::Entry, service::Service};
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};
use vmoon_api::{
    Data,
    requests::{ApplyEnvironment, Eval},
    views::{AppliedView, BegunView, CommandState},
};
use vmoon_core::{
    Code, Error, OperationId, Result,
    ability::{Effect, Environments, Follow, Nobody},
    driver::{Handle, unsupported},
    name::escape,
    operation::{OpRecord, Progress},
};
use vmoon_packages::LuaVersion;
use vmoon_sys::random;

/// A machine that is just given an environment: how far it is, and whether it may still be given up.
pub(super) struct Applying {
    pub(super) environment: String,
    stage: AtomicU8,
    told: watch::Sender<Progress>,
    cancelled: Notify,
}

/// Stages of an [`Applying`].
const GOING: u8 = 0;
const TAKES_EFFECT: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Applying {
    fn new(environment: String) -> Self {
        Self { environment, stage: AtomicU8::new(GOING), told: watch::Sender::new(Progress::default()), cancelled: Notify::new() }
    }

    fn becomes(&self, stage: u8) -> bool {
        self.stage.compare_exchange(GOING, stage, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Gives it up, unless it takes effect already.
    pub(super) fn cancel(&self) -> bool {
        let given_up = self.becomes(GIVEN_UP);
        if given_up {
            self.cancelled.notify_one();
        }
        given_up
    }
}

impl Follow for Applying {
    fn progress(&self, progress: Progress) {
        self.told.send_replace(progress);
    }

    fn commit(&self) -> Result<()> {
        if self.becomes(TAKES_EFFECT) { Ok(()) } else { Err(Error::new(Code::Cancelled, "given up")) }
    }
}

/// The place of an operation among those that run: free when this is dropped.
struct Place {
    service: Service,
    id: OperationId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.service.workshop.applying().remove(&self.id);
    }
}

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
        let lua = Self::ability(&entry)?.lua(&handle).await?;
        let lua = lua.ok_or_else(|| {
            Error::new(Code::SpecInvalid, format!("which version of Lua {} runs cannot be told from its interpreter's name", escape(&name)))
                .hint("say it: vmoon env create NAME --lua VERSION")
        })?;
        lua.parse()
    }

    pub(in crate::service) async fn would_apply(&self, request: ApplyEnvironment) -> Result<AppliedView> {
        let name = self.environment_name(&request.environment).await?;
        self.apply(&name, &request.machine, None).await
    }

    pub(in crate::service) async fn begin_apply(&self, request: ApplyEnvironment) -> Result<BegunView> {
        let name = self.environment_name(&request.environment).await?;
        let machine = self.machine(&request.machine)?;
        // What cannot be at all is refused before anything is begun.
        Self::ability(&self.user(&request.machine)?.0)?;
        let allowed = request.deadline_ms.map_or(DEADLINE, Duration::from_millis).min(LONGEST);
        let id = OperationId::from_uuid(random::uuid());
        let applying = Arc::new(Applying::new(name.clone()));
        self.workshop.applying().insert(id, applying.clone());
        let place = Place { service: self.clone(), id };
        let what = format!("apply to {}", escape(&machine.view().name));
        let record = self.begins(id, (name, machine.id), what, allowed).await?;
        let this = self.clone();
        // It goes on whether or not the client is still there.
        drop(tokio::spawn(async move { this.see_to(place, record, applying, allowed).await }));
        Ok(BegunView { operation: id })
    }

    /// Does it, tells how far it is, and gives it up when that is wanted and it has not taken effect yet.
    async fn see_to(self, place: Place, mut record: OpRecord, applying: Arc<Applying>, allowed: Duration) {
        let told = applying.told.subscribe();
        let machine = record.machine.to_string();
        let work = async {
            tokio::select! {
                biased;
                result = self.apply(&applying.environment, &machine, Some(&applying)) => result,
                () = applying.cancelled.notified() => Err(Error::new(Code::Cancelled, "given up")),
            }
        };
        let stop = || {
            applying.cancel();
        };
        let (result, late) = self.followed(&mut record, work, told, allowed, stop).await;
        drop(place);
        let result = result.and_then(|view| {
            let value = serde_json::to_value(view).map_err(|error| Error::internal("what came of it cannot be written").source(error));
            value.map(Some)
        });
        self.ended(record, result, late).await;
    }

    /// Gives a machine an environment; without anybody who follows it only says what it would do.
    async fn apply(&self, name: &str, machine: &str, follow: Option<&Applying>) -> Result<AppliedView> {
        let (entry, handle, called) = self.user(machine)?;
        let dry_run = follow.is_none();
        let follow = follow.map_or(&Nobody as &dyn Follow, |follow| follow);
        let switched = Self::ability(&entry)?.switch(&handle, name, dry_run, follow).await?;
        let (asked, machine) = (machine, called);
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
        let Some((code, arguments)) = switched.evaluate.filter(|_| !dry_run) else { return Ok(view) };
        let eval = Eval {
            session: self.machine(asked)?.id.to_string(),
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
