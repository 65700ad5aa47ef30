//! What the API shows of a machine.

use crate::store::MachineRow;
use vmoon_api::views::MachineView;
use vmoon_core::{
    driver::{Abilities, Driver},
    operation::OpRecord,
};

pub(super) fn view(row: &MachineRow, connection: &str, driver: &dyn Driver, op: Option<&OpRecord>) -> MachineView {
    MachineView {
        id: row.id,
        name: row.name.clone(),
        connection: connection.into(),
        kind: row.spec.as_ref().map_or_else(|| driver.info().kind, |spec| spec.kind.clone()),
        state: row.status.state,
        operation: op.map(|op| op.id),
        doing: op.map(|op| op.verb),
        generation: row.generation,
        created_ms: row.created_ms,
        since_ms: row.since_ms,
        exit: row.exit.clone(),
        spec: row.spec.clone(),
        abilities: row.handle.as_ref().map(|handle| Abilities::of(driver, handle)).unwrap_or_default(),
        expired: None,
        last_error: row.last_error.clone(),
        facts: None,
        sessions: None,
    }
}
