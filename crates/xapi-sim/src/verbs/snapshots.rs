//! Snapshots: VMs that are of another one, with copies of its disks.

use super::{disks, now, power, vm, void};
use crate::{
    fault::{Fault, Result},
    model::NULL,
    sim::Sim,
    store::Store,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Copies the disks and interfaces of one VM to another.
pub(super) fn copy_devices(store: &mut Store, from: &str, to: &str, sr: Option<&str>, snapshot: bool) -> Result<()> {
    for vbd in store.list("VM", from, "VBDs")? {
        let mut fields = store.get("VBD", &vbd)?.fields.clone();
        let vdi = store.text("VBD", &vbd, "VDI")?;
        // A disc in a drive is shared, a disk is copied.
        if vdi != NULL && store.text("VBD", &vbd, "type")? == "Disk" {
            fields.insert("VDI".into(), disks::copy(store, &vdi, sr, snapshot)?);
        }
        fields.insert("uuid".into(), "".into());
        fields.insert("VM".into(), to.into());
        fields.insert("currently_attached".into(), false.into());
        store.insert("VBD", fields);
    }
    for vif in store.list("VM", from, "VIFs")? {
        let mut fields = store.get("VIF", &vif)?.fields.clone();
        fields.insert("uuid".into(), "".into());
        fields.insert("VM".into(), to.into());
        fields.insert("currently_attached".into(), false.into());
        store.insert("VIF", fields);
    }
    Ok(())
}

/// The fields of a VM that another one like it starts with.
pub(super) fn like(store: &Store, from: &str) -> Result<serde_json::Map<String, Value>> {
    let mut fields = store.get("VM", from)?.fields.clone();
    for (name, value) in [
        ("uuid", json!("")),
        ("VBDs", json!([])),
        ("VIFs", json!([])),
        ("consoles", json!([])),
        ("snapshots", json!([])),
        ("children", json!([])),
        ("guest_metrics", json!(NULL)),
        ("resident_on", json!(NULL)),
        ("domid", json!(-1)),
        ("current_operations", json!({})),
        ("is_default_template", json!(false)),
    ] {
        fields.insert(name.to_owned(), value);
    }
    Ok(fields)
}

pub(crate) fn snapshot(store: &mut Store, of: &str, name: &str, memory: bool) -> Result<Value> {
    vm::not_blocked(store, of, if memory { "checkpoint" } else { "snapshot" })?;
    if memory {
        vm::must_be(store, of, &["running"])?;
        vm::has_place_for_memory(store, of)?;
    }
    let mut fields = like(store, of)?;
    for (field, value) in [
        ("name_label", json!(name)),
        ("is_a_snapshot", json!(true)),
        ("is_a_template", json!(true)),
        ("snapshot_of", json!(of)),
        ("snapshot_time", json!(now())),
        ("power_state", json!(if memory { "Suspended" } else { "Halted" })),
    ] {
        fields.insert(field.to_owned(), value);
    }
    let made = store.insert("VM", fields);
    copy_devices(store, of, &made, None, true)?;
    vm::refresh(store, &made)?;
    // The VM goes on from it.
    store.set("VM", of, "parent", made.clone())?;
    Ok(made.into())
}

/// Goes back: what the VM has is replaced by copies of what the snapshot has, so every reference to its disks changes.
pub(super) fn revert(sim: &Arc<Sim>, store: &mut Store, snapshot: &str) -> Result<Value> {
    if store.field("VM", snapshot, "is_a_snapshot")? != true {
        return Err(Fault::new("VM_REVERT_FAILED", [snapshot, "it is no snapshot"]));
    }
    let of = store.text("VM", snapshot, "snapshot_of")?;
    store.get("VM", &of)?;
    if vm::state(store, &of)? != "halted" {
        power::hard_shutdown(store, &of)?;
    }
    for vbd in store.list("VM", &of, "VBDs")? {
        let (vdi, kind) = (store.text("VBD", &vbd, "VDI")?, store.text("VBD", &vbd, "type")?);
        store.remove("VBD", &vbd);
        if vdi != NULL && kind == "Disk" && store.list("VDI", &vdi, "VBDs")?.is_empty() {
            disks::destroy(store, &vdi)?;
        }
    }
    for vif in store.list("VM", &of, "VIFs")? {
        store.remove("VIF", &vif);
    }
    copy_devices(store, snapshot, &of, None, false)?;
    store.images.copy_memory(snapshot, &of).map_err(|error| Fault::internal(&error.to_string()))?;
    for field in ["memory_static_max", "memory_static_min", "memory_dynamic_max", "memory_dynamic_min", "VCPUs_max", "VCPUs_at_startup"] {
        let value = store.field("VM", snapshot, field)?;
        store.set("VM", &of, field, value)?;
    }
    store.set("VM", &of, "parent", snapshot)?;
    // One with memory leaves it suspended; resuming is another call.
    if vm::state(store, snapshot)? == "suspended" {
        store.set("VM", &of, "power_state", "Suspended")?;
    }
    vm::refresh(store, &of)?;
    sim.wake();
    void()
}
