//! What all machines use, in one answer.

use super::Service;
use crate::session::activity;
use std::collections::HashMap;
use vmoon_api::views::{MachineUsage, UsageView};
use vmoon_core::{
    Result,
    driver::{Handle, Usage},
    machine::State,
};

impl Service {
    pub(super) async fn all_usage(&self) -> Result<UsageView> {
        let machines = self.context.machines();
        let mut used: HashMap<Handle, Usage> = HashMap::new();
        for entry in self.context.connections.all() {
            let handles: Vec<Handle> = machines
                .iter()
                .filter(|machine| {
                    let view = machine.view();
                    machine.connection == entry.id && !matches!(view.state, State::Stopped | State::Gone | State::Creating)
                })
                .filter_map(|machine| machine.handle())
                .collect();
            if !handles.is_empty() {
                used.extend(entry.driver.usage(&handles).await.into_iter().map(|usage| (usage.handle.clone(), usage)));
            }
        }
        let at_us = activity::now_us();
        let mut list: Vec<MachineUsage> = machines
            .iter()
            .map(|machine| {
                let view = machine.view();
                let usage = machine.handle().and_then(|handle| used.remove(&handle));
                let mut row = MachineUsage {
                    id: machine.id,
                    name: view.name.clone(),
                    connection: view.connection.clone(),
                    state: view.state,
                    pid: usage.as_ref().and_then(|usage| usage.pid),
                    cpu_us: usage.as_ref().map(|usage| usage.cpu_us),
                    memory_bytes: usage.map(|usage| usage.memory_bytes),
                    commands: 0,
                    busy: 0,
                    queued: 0,
                    last_error: None,
                };
                for session in machine.sessions().iter().filter(|session| !session.ended()) {
                    let live = session.live.borrow();
                    row.commands += session.activity.commands();
                    row.busy += u32::from(live.busy.is_some());
                    row.queued += live.queued;
                    row.last_error = session.activity.last_error().or(row.last_error);
                }
                row
            })
            .collect();
        list.sort_by(|a, b| (&a.connection, &a.name, a.id).cmp(&(&b.connection, &b.name, b.id)));
        Ok(UsageView { at_us, machines: list })
    }
}
