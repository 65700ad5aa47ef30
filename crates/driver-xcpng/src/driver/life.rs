//! Starting, stopping, deleting.

use super::pool::Pool;
use crate::tags;
use serde_json::Value;
use std::{future::pending, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use vmoon_core::{Code, Error, Result};
use vmoon_xapi::{records::PowerState, task};

/// How long XAPI may take to start a VM, or to end it.
const LONG: Duration = Duration::from_secs(300);
/// XAPI gives a guest so long to obey a polite request.
const POLITE: Duration = Duration::from_secs(1200);
/// How long a refusal of a polite request may take; after that it is under way.
const REFUSAL: Duration = Duration::from_secs(3);

impl Pool {
    /// Does something as a task and waits for its end.
    pub(super) async fn run(&self, what: &str, method: &str, params: Vec<Value>) -> Result<Option<Value>> {
        self.run_telling(what, method, params, |_| {}).await
    }

    /// The same, telling how much is done, 0 to 1.
    pub(super) async fn run_telling(
        &self,
        what: &str,
        method: &str,
        params: Vec<Value>,
        progress: impl FnMut(f64) + Send,
    ) -> Result<Option<Value>> {
        let client = self.client()?;
        match task::run(&client, method, params, LONG, progress, pending()).await {
            Ok(task::End::Done(value)) => Ok(Some(value)),
            Ok(task::End::Vanished) => Ok(None),
            Err(error) => Err(self.failed(what, error)),
        }
    }

    pub(super) async fn start(&self, uuid: &str) -> Result<()> {
        let (reference, vm) = self.known(uuid).await?;
        match vm.power_state {
            PowerState::Running | PowerState::Paused => return Ok(()),
            PowerState::Suspended => return self.change(uuid, "VM.resume", PowerState::Running, "resume the VM").await,
            _ => {}
        }
        match self.run("start the VM", "VM.start", vec![reference.into(), false.into(), false.into()]).await {
            // Somebody was quicker.
            Err(error) if error.code() == Code::MachineState && self.is(uuid, &PowerState::Running).await => Ok(()),
            other => other.map(drop),
        }
    }

    async fn is(&self, uuid: &str, state: &PowerState) -> bool {
        self.vm(uuid).await.is_ok_and(|found| found.is_some_and(|(_, vm)| vm.power_state == *state))
    }

    /// Brings a VM into a state by a call, unless it is in it.
    pub(super) async fn change(&self, uuid: &str, method: &str, state: PowerState, what: &str) -> Result<()> {
        let (reference, vm) = self.known(uuid).await?;
        if vm.power_state == state {
            return Ok(());
        }
        let mut params = vec![Value::from(reference)];
        if method == "VM.resume" {
            params.extend([false.into(), false.into()]);
        }
        match self.run(what, method, params).await {
            Err(error) if error.code() == Code::MachineState && self.is(uuid, &state).await => Ok(()),
            other => other.map(drop),
        }
    }

    /// Asks the guest. Returns when it was asked; what it refuses at once is told.
    pub(super) async fn ask_to_stop(self: &Arc<Self>, uuid: &str) -> Result<()> {
        let Some((reference, vm)) = self.vm(uuid).await? else { return Ok(()) };
        match vm.power_state {
            PowerState::Halted => return Ok(()),
            PowerState::Suspended | PowerState::Paused => {
                return Err(
                    Error::new(Code::MachineState, "a VM that does not run cannot be asked to stop").hint("resume it, or stop --force")
                );
            }
            _ => {}
        }
        let client = self.client()?;
        let (tell, told) = oneshot::channel();
        // It goes on in XAPI whatever becomes of us; this follows it so that the task is cleared away.
        drop(tokio::spawn(async move {
            let ended = task::run(&client, "VM.clean_shutdown", vec![reference.into()], POLITE, |_| {}, pending()).await;
            let _ = tell.send(ended);
        }));
        match timeout(REFUSAL, told).await {
            Ok(Ok(Err(error))) => match self.failed("ask the VM to stop", error) {
                error if error.code() == Code::MachineState && self.is(uuid, &PowerState::Halted).await => Ok(()),
                error => Err(error),
            },
            _ => Ok(()),
        }
    }

    pub(super) async fn force_off(&self, uuid: &str) -> Result<()> {
        let Some((reference, vm)) = self.vm(uuid).await? else { return Ok(()) };
        if vm.power_state == PowerState::Halted {
            return Ok(());
        }
        match self.run("end the VM", "VM.hard_shutdown", vec![reference.into()]).await {
            Err(error) if error.code() == Code::MachineState && self.is(uuid, &PowerState::Halted).await => Ok(()),
            Err(error) if error.code() == Code::MachineBroken => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes a VM. With one of ours go its snapshots and the disks that we made; of another's VM every disk stays.
    pub(super) async fn delete(&self, uuid: &str) -> Result<()> {
        let Some((reference, vm)) = self.vm(uuid).await? else { return Ok(()) };
        if !vm.is_a_template {
            self.force_off(uuid).await?;
        }
        let owner = tags::owner(&vm);
        let disks = if owner.is_some() { self.own_disks(&vm).await? } else { Vec::new() };
        let snapshots = if owner.is_some() { vm.snapshots.clone() } else { Vec::new() };
        match self.call("delete the VM", "VM.destroy", vec![reference.into()]).await {
            Err(error) if error.code() == Code::MachineBroken => {}
            other => drop(other?),
        }
        for snapshot in snapshots {
            self.remove_snapshot(snapshot.as_str()).await?;
        }
        for disk in disks {
            self.remove_disk(&disk).await?;
        }
        match owner {
            Some(id) => self.sweep_disks(id, None).await,
            None => Ok(()),
        }
    }
}
