//! Hosts and what they hold, as the API asks for it: what there is, moving machines, what becomes of disks.

use super::{
    Service,
    abilities::{handle, lacks, within},
};
use crate::machine::{Machine, Work};
use std::sync::Arc;
use vmoon_api::{
    requests::{MachineRequest, MigrateMachine},
    views::{ConnectionDetails, WorkView},
};
use vmoon_core::{
    Code, Error, Result,
    hosts::{DiskFate, Migrate, Place},
    machine::{Request, State},
    name::escape,
};

/// How long moving may take if nothing is said, milliseconds: memory goes over the network.
const MIGRATION_MS: u64 = 30 * 60 * 1000;

fn migrate(machine: &Machine) -> Result<&dyn Migrate> {
    machine.driver.migrate().ok_or_else(|| lacks(machine, "be moved to another host"))
}

/// The host that is meant, by id or name.
fn host<'a>(places: &'a [Place], wanted: &str) -> Result<&'a Place> {
    if let Some(place) = places.iter().find(|place| place.id == wanted) {
        return Ok(place);
    }
    let mut named = places.iter().filter(|place| place.name == wanted);
    match (named.next(), named.next()) {
        (Some(place), None) => Ok(place),
        (Some(_), Some(_)) => {
            let ids: Vec<&str> = places.iter().filter(|place| place.name == wanted).map(|place| place.id.as_str()).collect();
            Err(Error::new(Code::NameAmbiguous, format!("several hosts are named {}: {}", escape(wanted), ids.join(", ")))
                .hint("give one of these ids"))
        }
        _ => {
            let names: Vec<String> = places.iter().map(|place| escape(&place.name)).collect();
            Err(Error::new(Code::HostNotFound, format!("no host is named \"{}\"", escape(wanted)))
                .hint(format!("there are: {}", names.join(", "))))
        }
    }
}

impl Service {
    pub(super) async fn connection_details(&self, text: &str) -> Result<ConnectionDetails> {
        let entry = self.context.connections.find(text)?;
        let connection = self.connection_view(&entry);
        let (inventory, inventory_error) = match entry.driver.inventories() {
            None => (None, None),
            Some(inventories) => match within("asking for the inventory", inventories.inventory()).await {
                Ok(inventory) => (Some(inventory), None),
                // How the connection does is worth telling all the same.
                Err(error) => (None, Some(error.to_record())),
            },
        };
        Ok(ConnectionDetails { connection, inventory, inventory_error })
    }

    pub(super) async fn places(&self, text: &str) -> Result<Vec<Place>> {
        let machine = self.machine(text)?;
        within("asking for hosts", migrate(&machine)?.places(&handle(&machine)?)).await
    }

    pub(super) async fn migrate(&self, request: MigrateMachine) -> Result<WorkView> {
        let machine = self.machine(&request.machine)?;
        let view = machine.view();
        let name = escape(&view.name);
        let places = within("asking for hosts", migrate(&machine)?.places(&handle(&machine)?)).await?;
        let place = host(&places, &request.host)?;
        if view.state == State::Stopped {
            return Err(Error::new(Code::MachineStopped, format!("{name} does not run, so there is nothing to move"))
                .hint("a machine that is off is on no host; start it"));
        }
        if let Some(why) = place.refusal.as_ref().filter(|_| !place.here) {
            return Err(Error::new(Code::DriverFailed, format!("{name} cannot run on {}: {}", escape(&place.name), escape(why))));
        }
        let from = places.iter().find(|place| place.here).map(|place| format!(" from {}", escape(&place.name))).unwrap_or_default();
        let steps = if place.here {
            vec![format!("{name} is on {} already", escape(&place.name))]
        } else {
            vec![format!("{name} is moved{from} to {} while it runs", escape(&place.name))]
        };
        let deadline = request.deadline_ms.unwrap_or(MIGRATION_MS);
        self.work(&machine, Work::Migrate(place.id.clone()), steps, Vec::new(), request.dry_run, Some(deadline)).await
    }

    /// Decides what becomes of a machine's disks, if it is to be deleted.
    pub(super) async fn decide_disks(&self, machine: &Arc<Machine>, request: &MachineRequest) -> Result<()> {
        self.disks(machine, request, false).await.map(drop)
    }

    /// The same, only said.
    pub(super) async fn fate_of_disks(&self, machine: &Arc<Machine>, request: &MachineRequest) -> Result<Vec<String>> {
        self.disks(machine, request, true).await
    }

    async fn disks(&self, machine: &Arc<Machine>, request: &MachineRequest, dry_run: bool) -> Result<Vec<String>> {
        if !matches!(request.request, Request::Delete | Request::DeleteForce) {
            return match request.disks {
                Some(_) => Err(Error::new(Code::Usage, "disks are decided about when a machine is deleted")),
                None => Ok(Vec::new()),
            };
        }
        let (disks, known) = (machine.driver.disks(), machine.handle());
        match (disks, known, request.disks) {
            (None, _, Some(_)) => Err(lacks(machine, "keep or lose their disks as you say")),
            (Some(disks), Some(handle), fate) => {
                let decided = within("asking for its disks", disks.decide(&handle, fate.unwrap_or_default(), dry_run)).await;
                match (decided, fate) {
                    (Err(error), Some(DiskFate::All | DiskFate::Keep)) => Err(error),
                    // What is always so needs no answer: the delete itself tells what is wrong.
                    (Err(_), _) => Ok(Vec::new()),
                    (said, _) => said,
                }
            }
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_id_or_by_a_name_of_one_alone() {
        let place = |name: &str, id: &str| Place { name: name.into(), id: id.into(), here: false, refusal: None };
        let places = [place("a", "1"), place("twice", "2"), place("twice", "3"), place("1", "4")];
        assert_eq!(host(&places, "a").unwrap().id, "1");
        assert_eq!(host(&places, "1").unwrap().id, "1", "ids come first");
        assert_eq!(host(&places, "3").unwrap().name, "twice");
        assert_eq!(host(&places, "twice").unwrap_err().code(), Code::NameAmbiguous);
        assert_eq!(host(&places, "x\n").unwrap_err().code(), Code::HostNotFound);
    }
}
