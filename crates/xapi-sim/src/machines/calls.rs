//! Calls that wait for a machine: polite requests, and those that keep what is in its memory.

use super::{
    Machines, Order, has_machine,
    life::{Ask, gone},
};
use crate::{
    fault::{Fault, Result},
    sim::{Answer, Sim, check_session},
    verbs::{power, snapshots, vm},
};
use serde_json::Value;
use std::{path::PathBuf, sync::Arc};
use tokio::{sync::oneshot, time::timeout};
use vmoon_xapi::model::Type;

fn failed(error: impl std::fmt::Display) -> Fault {
    Fault::internal(&error.to_string())
}

impl Machines {
    /// Tells the machine of a VM something and waits until that is done; an error if it does not run.
    async fn tell(&self, of: &str, order: Order, reboot: bool) -> Result<()> {
        let asleep = || failed("the machine of the VM does not run");
        let (asks, _) = self.ask(of).ok_or_else(asleep)?;
        let (done, answer) = oneshot::channel();
        asks.send(Ask { order, reboot, done }).await.map_err(|_| asleep())?;
        answer.await.map_err(|_| asleep())?.map_err(failed)
    }

    /// Does a call in place of the rows alone; nothing for the others.
    pub(crate) async fn instead(&self, sim: &Arc<Sim>, method: &str, params: &[Value]) -> Option<Result<Answer>> {
        let verb = method.strip_prefix("VM.")?;
        if !matches!(verb, "clean_shutdown" | "shutdown" | "clean_reboot" | "suspend" | "checkpoint" | "snapshot") {
            return None;
        }
        let of = params.get(1)?.as_str()?;
        {
            let state = sim.state();
            // What is wrong with the call is told as it is for others.
            check_session(&state, method, params).ok()?;
            let running = vm::state(&state.store, of).ok()?;
            if !has_machine(&state.store, of) || running != "running" {
                return None;
            }
            if matches!(verb, "clean_shutdown" | "shutdown" | "clean_reboot" | "suspend")
                && let Err(fault) = power::polite(&state.store, of, if verb == "shutdown" { "clean_shutdown" } else { verb })
            {
                // Without tools it is done by force, which is the rows' affair.
                return (verb != "shutdown").then_some(Err(fault));
            }
            if verb == "checkpoint"
                && let Err(fault) = power::can_rest(&state.store, of)
            {
                return Some(Err(fault));
            }
        }
        let void = || Ok(("".into(), Type::Void));
        Some(match verb {
            "clean_shutdown" | "clean_reboot" => match self.button(of, verb == "clean_reboot").await {
                Ok(()) => void(),
                Err(fault) => Err(fault),
            },
            "shutdown" => match self.button(of, false).await {
                Ok(()) => void(),
                Err(_) => return None,
            },
            "suspend" => self.suspend(sim, of).await.and_then(|()| void()),
            _ => self.keep(sim, of, params.get(2).and_then(Value::as_str).unwrap_or_default(), verb == "checkpoint").await,
        })
    }

    /// Presses the power button, and waits until the machine is gone.
    async fn button(&self, of: &str, reboot: bool) -> Result<()> {
        let (_, mut alive) = self.ask(of).ok_or_else(|| failed("the machine of the VM does not run"))?;
        self.tell(of, Order::Button, reboot).await?;
        let waited = timeout(self.patience, gone(&mut alive)).await;
        waited.map_err(|_| Fault::new("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", [of]))
    }

    async fn suspend(&self, sim: &Sim, of: &str) -> Result<()> {
        let file: PathBuf = sim.state().store.images.memory(of).map_err(failed)?;
        self.tell(of, Order::Save(file), false).await?;
        let done = power::suspend(&mut sim.state().store, of).map(drop);
        sim.wake();
        done
    }

    /// A snapshot of a machine that runs. It stands still meanwhile, so that disks and memory are of one moment.
    async fn keep(&self, sim: &Sim, of: &str, name: &str, memory: bool) -> Result<Answer> {
        let images = sim.state().store.images.clone();
        let file = images.memory(&format!("new-{of}")).map_err(failed)?;
        self.tell(of, if memory { Order::Save(file.clone()) } else { Order::Pause }, false).await?;
        let made = snapshots::snapshot(&mut sim.state().store, of, name, memory);
        sim.wake();
        let kept = match (&made, memory) {
            (Ok(made), true) => {
                let place = images.memory(made.as_str().unwrap_or_default()).map_err(failed)?;
                std::fs::rename(&file, place).map_err(failed)
            }
            _ => Ok(()),
        };
        self.tell(of, Order::Go, false).await?;
        kept?;
        Ok((made?, Type::Ref("VM".into())))
    }
}
