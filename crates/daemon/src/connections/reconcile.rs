//! Making our machines agree with what a driver has listed: what is new appears, what is gone goes, the rest is as seen.

use super::Entry;
use crate::{
    context::Context,
    machine::{Machine, Start, task::Task},
    store::{About, MachineRow},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::time::Instant;
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{Found, Handle, Observed, Sighting},
    event::EventKind,
    machine::{State, Status},
    name::escape,
};
use vmoon_sys::{clock::now_ms, random};

/// The longest foreign name that is kept, characters; a longer one is cut.
const LONGEST_NAME: usize = 255;

/// Compares the list, which was begun then, with what is known.
///
/// # Errors
/// Those of the store.
pub(super) async fn reconcile(context: &Arc<Context>, entry: &Arc<Entry>, found: Vec<Found>, begun: Instant) -> Result<()> {
    let known = context.machines_of(entry.id);
    let by_handle: HashMap<Handle, Arc<Machine>> = known.iter().filter_map(|machine| Some((machine.handle()?, machine.clone()))).collect();
    let mut seen: HashSet<MachineId> = HashSet::new();
    let mut fresh: HashMap<Handle, (MachineRow, Sighting)> = HashMap::new();
    for found in found {
        let tagged = found.id.and_then(|id| known.iter().find(|machine| machine.id == id)).cloned();
        match tagged.or_else(|| by_handle.get(&found.handle).cloned()) {
            Some(machine) => {
                if seen.insert(machine.id) {
                    machine.glimpse(found.sighting, begun, Some(shorten(found.name))).await;
                }
            }
            // Made by us meanwhile: its task knows better.
            None if found.id.is_some_and(|id| context.machine(id).is_some()) => {}
            None => {
                if let Some(status) = status(&found.sighting) {
                    let row = row(entry, &found.handle, found.name, status, &found.sighting);
                    fresh.entry(found.handle).or_insert((row, found.sighting));
                }
            }
        }
    }
    for machine in known.iter().filter(|machine| !seen.contains(&machine.id) && machine.handle().is_some()) {
        machine.glimpse(Sighting { observed: Observed::Missing, complete: false }, begun, None).await;
    }
    if !fresh.is_empty() && entry.turned_since(begun) {
        // Perhaps what we have just deleted: a newer list tells.
        entry.resynchronise();
        return Ok(());
    }
    add(context, entry, fresh.into_values().collect()).await
}

/// Nobody answers, or not as they should: the machines of the connection cannot be reached, or have to be asked one by one.
pub(super) async fn lost(context: &Arc<Context>, entry: &Arc<Entry>, error: &Error, begun: Instant) {
    let unreachable = !matches!(error.code(), Code::DriverFailed | Code::Internal | Code::WireMalformed);
    for machine in context.machines_of(entry.id) {
        if unreachable {
            machine.glimpse(Sighting { observed: Observed::Unreachable, complete: false }, begun, None).await;
        } else {
            machine.look();
        }
    }
}

async fn add(context: &Arc<Context>, entry: &Arc<Entry>, mut fresh: Vec<(MachineRow, Sighting)>) -> Result<()> {
    if fresh.is_empty() {
        return Ok(());
    }
    fresh.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let rows: Vec<MachineRow> = fresh.iter().map(|(row, _)| row.clone()).collect();
    context
        .store
        .run(move |tx| {
            for row in &rows {
                tx.put_machine(row)?;
                let about = About { machine: Some(row.id), connection: Some(row.connection), ..About::default() };
                tx.event(EventKind::MachineAdded, about, format!("{} was found", escape(&row.name)))?;
            }
            Ok(())
        })
        .await?;
    for (row, sighting) in fresh {
        let machine = Task::start(context.clone(), entry.clone(), row, Start::Found(sighting), Vec::new());
        context.add_machine(machine);
    }
    Ok(())
}

/// The stable status that a sighting of an unknown machine shows; nothing for one that is not there.
fn status(sighting: &Sighting) -> Option<Status> {
    let state = match &sighting.observed {
        Observed::Off(_) => State::Stopped,
        Observed::On(_) => State::Running,
        Observed::Paused => State::Paused,
        Observed::Suspended => State::Suspended,
        Observed::Unreachable => State::Lost,
        Observed::Missing => return None,
    };
    Some(Status { state, slot: None, fence: 0 })
}

fn row(entry: &Entry, handle: &Handle, name: String, status: Status, sighting: &Sighting) -> MachineRow {
    let now = now_ms();
    MachineRow {
        id: MachineId::from_uuid(random::uuid()),
        connection: entry.id,
        name: shorten(name),
        spec: None,
        plan: None,
        handle: Some(handle.clone()),
        status,
        operation: None,
        created_ms: now,
        since_ms: now,
        exit: match &sighting.observed {
            Observed::Off(exit) => exit.clone(),
            _ => None,
        },
        last_error: None,
        generation: 1,
        start_after: false,
    }
}

fn shorten(name: String) -> String {
    if name.chars().count() <= LONGEST_NAME { name } else { name.chars().take(LONGEST_NAME).collect() }
}
