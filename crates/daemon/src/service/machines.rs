//! Machines, as the API asks for them.

use super::{Service, idle, patience, quota::Place};
use crate::{
    connections::Entry,
    machine::{Machine, Start, task::Task},
    store::{About, MachineRow},
};
use std::{sync::Arc, time::Duration};
use vmoon_api::{
    requests::{CloneMachine, CreateMachine, MachineRequest, WaitMachine},
    views::{Answered, MachineView, PlanView, Share},
};
use vmoon_core::{
    Code, Error, MachineId, OperationId, Result,
    driver::{Check, Plan, Verdict, unsupported},
    event::EventKind,
    machine::{Answer, Phase, Request, Slot, State, Status, Verb},
    name::{self, escape},
    operation::OpRecord,
    spec::{Lifetime, MachineSpec},
};
use vmoon_sys::{clock::now_ms, random};

/// How long creating may take, unless the request says otherwise.
const CREATE_DEADLINE: Duration = Duration::from_secs(30 * 60);

impl Service {
    pub(super) fn all_machines(&self) -> Vec<MachineView> {
        let mut views: Vec<MachineView> = self.context.machines().iter().map(|m| m.view().as_ref().clone()).collect();
        views.sort_by(|a, b| (&a.connection, &a.name, a.id).cmp(&(&b.connection, &b.name, b.id)));
        views
    }

    /// What creating it would take; the request's kind is filled in where it says none.
    async fn planned(&self, request: &mut CreateMachine) -> Result<(Arc<Entry>, Plan)> {
        name::check(&request.name)?;
        let entry = self.connection_for(request.connection.as_deref(), &request.spec.kind)?;
        request.spec.kind.clone_from(&entry.kind);
        let facts = entry.driver.facts().await?;
        let plan = entry.driver.plan(&request.name, &request.spec, &facts).map_err(Error::from)?;
        if self.is_taken(&entry.name, &request.name) { Err(exists(&request.name)) } else { Ok((entry, plan)) }
    }

    pub(super) async fn plan(&self, mut request: CreateMachine) -> Result<PlanView> {
        let (_, mut plan) = self.planned(&mut request).await?;
        if request.start {
            plan.steps.push(format!("{} is started", request.name));
        }
        Ok(PlanView { name: plan.name, steps: plan.steps })
    }

    pub(super) async fn create(&self, mut request: CreateMachine) -> Result<Answered> {
        let (entry, plan) = self.planned(&mut request).await?;
        // From here to the store nothing else can take it.
        let place = self.ledger.create(&self.context, &request.spec, request.start)?;
        let this = self.clone();
        // From here on it happens whether or not the client is still there: a stored machine has a task.
        let work = tokio::spawn(async move { this.create_planned(request, entry, plan, place).await });
        work.await.map_err(|error| Error::internal("creating a machine panicked").source(error))?
    }

    /// Copies a running machine: a creation whose machine runs from its first moment.
    pub(super) async fn copy(&self, request: CloneMachine) -> Result<Answered> {
        name::check(&request.name)?;
        let original = self.machine(&request.machine)?;
        let view = original.view();
        let entry = self.context.connections.get(original.connection);
        let (Some(entry), Some(handle)) = (entry, original.handle()) else {
            return Err(Error::new(Code::MachineState, format!("{} is not made yet", escape(&view.name))));
        };
        // Of one that others made nobody wrote a specification.
        let mut spec = view.spec.clone().unwrap_or_else(|| MachineSpec { kind: entry.kind.clone(), ..MachineSpec::default() });
        let clones = entry.driver.clones().ok_or_else(|| unsupported(&entry.kind, "be copied while they run"))?;
        if self.is_taken(&view.connection, &request.name) {
            return Err(exists(&request.name));
        }
        let plan = clones.plan_with(&request.name, &handle, &request.settings).await?;
        spec.settings.extend(request.settings);
        // Nobody is attached to the copy, so it must not go when nobody is.
        let spec = MachineSpec { lifetime: Lifetime::Kept, ..spec };
        let place = self.ledger.create(&self.context, &spec, true)?;
        let request = CreateMachine {
            name: request.name,
            connection: Some(view.connection.clone()),
            spec,
            start: false,
            deadline_ms: request.deadline_ms,
        };
        let this = self.clone();
        let work = tokio::spawn(async move { this.create_planned(request, entry, plan, place).await });
        work.await.map_err(|error| Error::internal("copying a machine panicked").source(error))?
    }

    fn is_taken(&self, connection: &str, name: &str) -> bool {
        self.context.machines_named(name).iter().any(|m| {
            let view = m.view();
            view.connection == connection && view.spec.is_some()
        })
    }

    async fn create_planned(&self, request: CreateMachine, entry: Arc<Entry>, mut plan: Plan, place: Place) -> Result<Answered> {
        let warnings = plan.warnings();
        // Those were for whoever wanted to read them.
        plan.steps = Vec::new();
        let (id, operation) = (MachineId::from_uuid(random::uuid()), OperationId::from_uuid(random::uuid()));
        let allowed = request.deadline_ms.map_or(CREATE_DEADLINE, Duration::from_millis);
        let now = now_ms();
        let row = MachineRow {
            id,
            connection: entry.id,
            name: request.name,
            spec: Some(request.spec),
            plan: Some(plan),
            handle: None,
            status: Status {
                state: State::Creating,
                slot: Some(Slot { verb: Verb::Create, phase: Phase::InFlight, cancelled: false }),
                fence: 0,
            },
            operation: Some(operation),
            created_ms: now,
            since_ms: now,
            exit: None,
            last_error: None,
            generation: 1,
            start_after: request.start,
        };
        let record = OpRecord::new(operation, Verb::Create, id, now, allowed);
        // The id is stored before anything is created, so a crash leaves a findable orphan at worst.
        let (stored, op) = (row.clone(), record.clone());
        let undo = row.plan.as_ref().and_then(|plan| entry.driver.undo_of_create(id, plan));
        let taken = self
            .context
            .store
            .run(move |tx| {
                if tx.name_taken(stored.connection, &stored.name)? {
                    return Ok(true);
                }
                tx.put_machine(&stored)?;
                tx.put_operation(&op)?;
                if let Some(undo) = &undo {
                    tx.put_undo(op.id, undo)?;
                }
                let about = About { machine: Some(stored.id), operation: Some(op.id), ..About::default() };
                tx.event(EventKind::MachineAdded, about, format!("{} is being created", stored.name))?;
                tx.event(EventKind::OperationStarted, about, format!("create {}", stored.name))?;
                Ok(false)
            })
            .await?;
        if taken {
            return Err(exists(&row.name));
        }
        let start = Start::Create(record, allowed);
        let machine = Task::start(self.context.clone(), entry, row, start, Vec::new());
        let view = machine.view().as_ref().clone();
        self.context.add_machine(machine);
        place.stored(id);
        Ok(Answered { answer: Answer::Started { operation }, machine: view, warnings })
    }

    /// What somebody else made is deleted only by whoever says its name.
    pub(super) fn confirmed(&self, machine: &Machine, request: &MachineRequest) -> Result<()> {
        let deletes = matches!(request.request, Request::Delete | Request::DeleteForce);
        let view = machine.view();
        if !deletes || machine.ours || request.confirm.as_deref() == Some(view.name.as_str()) {
            return Ok(());
        }
        let name = escape(&view.name);
        Err(Error::new(Code::Usage, format!("{name} was not made by vmoon; to delete it for good its name has to be said"))
            .hint(format!("if you are sure: vmoon rm {} --yes={name}", machine.id))
            .detail(serde_json::json!({ "confirm": view.name })))
    }

    pub(super) async fn show(&self, text: &str) -> Result<MachineView> {
        let machine = self.machine(text)?;
        let mut view = machine.view().as_ref().clone();
        view.sessions = Some(machine.sessions().iter().map(|s| s.view()).collect());
        if let Some(handle) = machine.handle() {
            view.facts = Some(machine.driver.describe(&handle).await);
        }
        if let Some((seconds, lifetime)) = view.spec.as_ref().and_then(|spec| Some((spec.idle_seconds?, spec.lifetime)))
            && matches!(view.state, State::Stopping | State::Stopped)
        {
            let id = machine.id;
            let (events, _) = self.context.store.run(move |tx| tx.events(0, Some(id), super::events::LISTED)).await?;
            view.expired = idle::reason(&events, seconds, lifetime);
        }
        Ok(view)
    }

    pub(super) async fn wait(&self, request: WaitMachine) -> Result<MachineView> {
        let machine = match self.machine(&request.machine) {
            Ok(machine) => machine,
            Err(error) => return Err(error),
        };
        let mut views = machine.follow();
        let reached = |view: &MachineView| match request.until {
            Some(State::Gone) => false,
            Some(state) => view.state == state && view.operation.is_none(),
            None => request.generation.is_none_or(|known| view.generation > known),
        };
        let wait = async {
            // The sender goes when the machine is gone; what was published last is the answer then.
            let _ = views.wait_for(|view| reached(view)).await;
        };
        let _ = tokio::time::timeout(patience(request.timeout_ms, 30_000), wait).await;
        Ok(machine.view().as_ref().clone())
    }

    /// How much of the quotas is used.
    pub(super) fn quota_check(&self) -> Check {
        let quota = self.ledger.view(&self.context);
        let said = |share: Share| match share.limit {
            Some(limit) => format!("{} of {limit}", share.used),
            None => format!("{} (no quota)", share.used),
        };
        let full = |share: Share| share.limit.is_some_and(|limit| share.used >= limit);
        let is_full = full(quota.machines) || full(quota.running) || full(quota.memory);
        Check {
            requirement: "the quotas leave room".into(),
            verdict: if is_full { Verdict::Warn } else { Verdict::Ok },
            finding: format!(
                "machines {}, running {}, memory limits of those in bytes {}",
                said(quota.machines),
                said(quota.running),
                said(quota.memory)
            ),
            fix: if is_full { "stop or delete machines, or raise [quota] in config.toml".into() } else { String::new() },
        }
    }

    /// Machines that bear a tag of ours and are in no record: what a crash at the worst moment leaves.
    pub(super) async fn orphans(&self, entry: &Entry) -> Vec<Check> {
        if entry.driver.adopts() {
            // They are machines like any other there.
            return Vec::new();
        }
        let Ok(found) = entry.driver.list().await else { return Vec::new() };
        found
            .into_iter()
            .filter(|f| f.id.is_some_and(|id| self.context.machine(id).is_none()))
            .map(|f| Check {
                requirement: format!("every machine of {} is known", entry.name),
                verdict: Verdict::Warn,
                finding: format!("\"{}\" bears vmoon's tag and is in no record", escape(&f.name)),
                fix: "it may belong to another vmoon of yours; if not, delete it with the tools of its host".into(),
            })
            .collect()
    }
}

fn exists(name: &str) -> Error {
    Error::new(Code::MachineExists, format!("a machine named {name} exists already"))
        .hint(format!("choose another name, or delete it: vmoon rm {name}"))
}
