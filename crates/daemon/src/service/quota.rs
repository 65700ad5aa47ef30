//! The quotas of the user: what may exist and what may run. A place is taken before anything is begun, so that two requests at
//! once cannot both have the last one.

use crate::{context::Context, settings::Quota};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};
use vmoon_api::views::{MachineView, QuotaView, Share};
use vmoon_core::{Code, Error, MachineId, Result, machine::State, size, spec::MachineSpec};

/// What was promised and does not show in the machines yet.
#[derive(Debug, Default)]
struct Promised {
    /// Machines that are being stored.
    machines: u64,
    /// Starts that are being asked for, with the memory of each.
    starts: u64,
    memory: u64,
    /// Machines that start as soon as they are created, while they are being created.
    follow: HashMap<MachineId, u64>,
}

/// The ledger.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    quota: Quota,
    promised: Mutex<Promised>,
}

/// A place that was taken; given back when dropped, since by then the machine itself shows that it is used.
#[derive(Debug)]
pub(super) struct Place {
    ledger: Arc<Ledger>,
    machine: bool,
    start: Option<u64>,
}

/// The memory limit of a machine, bytes.
fn limit(spec: Option<&MachineSpec>) -> Option<u64> {
    spec?.settings.get("memory")?.as_u64()
}

/// Whether a machine in this state takes a place among those that run.
fn runs(state: State) -> bool {
    !matches!(state, State::Creating | State::Stopped | State::Suspended | State::Broken | State::Gone)
}

const RAISE: &str = "or raise it in config.toml ([quota]) and restart the daemon; `vmoon daemon status` shows it";

fn over(what: &str, used: u64, allowed: u64, hint: &str) -> Error {
    Error::new(Code::QuotaExceeded, format!("the quota of {what} is used up: {used} of {allowed}"))
        .hint(format!("{hint}, {RAISE}"))
        .detail(serde_json::json!({ "quota": what, "used": used, "limit": allowed }))
}

impl Ledger {
    pub(super) fn new(quota: Quota) -> Arc<Self> {
        Arc::new(Self { quota, promised: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Promised> {
        // Nothing that can panic runs while the lock is held.
        self.promised.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What runs or was promised to: how many machines, and their limits in sum.
    fn running(context: &Context, promised: &mut Promised) -> (u64, u64) {
        let (mut count, mut memory) = (promised.starts, promised.memory);
        for machine in context.machines() {
            let view = machine.view();
            if machine.ours && runs(view.state) {
                count += 1;
                memory = memory.saturating_add(limit(view.spec.as_ref()).unwrap_or(0));
            }
        }
        // Once it is created, its own state says whether it runs.
        promised.follow.retain(|id, _| context.machine(*id).is_some_and(|machine| machine.view().state == State::Creating));
        (count + promised.follow.len() as u64, promised.follow.values().fold(memory, |sum, more| sum.saturating_add(*more)))
    }

    fn may_run(&self, context: &Context, promised: &mut Promised, spec: Option<&MachineSpec>) -> Result<u64> {
        let asked = limit(spec);
        if self.quota.memory.is_some() && asked.is_none() {
            return Err(Error::new(
                Code::QuotaExceeded,
                "with a quota of memory every machine needs a limit of its own, and this one has none",
            )
            .hint("create it with --memory SIZE"));
        }
        // No more can run than exist: most of the time nothing has to be counted.
        let machines = context.count() + promised.machines;
        if self.quota.memory.is_none() && machines < self.quota.running {
            return Ok(asked.unwrap_or(0));
        }
        let (count, memory) = Self::running(context, promised);
        if count >= self.quota.running {
            return Err(over("running machines", count, self.quota.running, "stop machines that are not needed: vmoon stop NAME"));
        }
        if let Some(allowed) = self.quota.memory
            && memory.saturating_add(asked.unwrap_or(0)) > allowed
        {
            let asked = asked.unwrap_or(0);
            let text = format!(
                "the quota of memory leaves no room: {} is asked for, running machines have {}, and {} is allowed in all",
                size::show(asked),
                size::show(memory),
                size::show(allowed)
            );
            return Err(Error::new(Code::QuotaExceeded, text)
                .hint(format!("give it less, or stop machines that are not needed: vmoon stop NAME, {RAISE}"))
                .detail(serde_json::json!({ "quota": "memory", "asked": asked, "used": memory, "limit": allowed })));
        }
        Ok(asked.unwrap_or(0))
    }

    /// A place for a new machine, and for its start if it is started.
    ///
    /// # Errors
    /// `quota.exceeded`.
    pub(super) fn create(self: &Arc<Self>, context: &Context, spec: &MachineSpec, start: bool) -> Result<Place> {
        let mut promised = self.lock();
        let machines = context.count() + promised.machines;
        if machines >= self.quota.machines {
            return Err(over("machines", machines, self.quota.machines, "delete machines that are not needed: vmoon rm NAME"));
        }
        let memory = start.then(|| self.may_run(context, &mut promised, Some(spec))).transpose()?;
        promised.machines += 1;
        promised.starts += u64::from(start);
        promised.memory += memory.unwrap_or(0);
        Ok(Place { ledger: self.clone(), machine: true, start: memory })
    }

    /// A place for the start of a machine; none is needed for one that runs.
    ///
    /// # Errors
    /// `quota.exceeded`.
    pub(super) fn start(self: &Arc<Self>, context: &Context, view: &MachineView) -> Result<Option<Place>> {
        // What somebody else made is no concern of ours.
        if runs(view.state) || view.spec.is_none() {
            return Ok(None);
        }
        let mut promised = self.lock();
        let memory = self.may_run(context, &mut promised, view.spec.as_ref())?;
        promised.starts += 1;
        promised.memory += memory;
        Ok(Some(Place { ledger: self.clone(), machine: false, start: Some(memory) }))
    }

    /// What is used of what there is.
    pub(super) fn view(&self, context: &Context) -> QuotaView {
        let mut promised = self.lock();
        let machines = context.count() + promised.machines;
        let (running, memory) = Self::running(context, &mut promised);
        QuotaView {
            machines: Share { used: machines, limit: Some(self.quota.machines) },
            running: Share { used: running, limit: Some(self.quota.running) },
            memory: Share { used: memory, limit: self.quota.memory },
        }
    }
}

impl Place {
    /// The machine is stored and findable; if it is to be started, that place is kept until its own state shows it.
    pub(super) fn stored(self, id: MachineId) {
        if let Some(memory) = self.start.filter(|_| self.machine) {
            self.ledger.lock().follow.insert(id, memory);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut promised = self.ledger.lock();
        promised.machines -= u64::from(self.machine);
        promised.starts -= u64::from(self.start.is_some());
        promised.memory -= self.start.unwrap_or(0);
    }
}
