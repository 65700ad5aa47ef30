//! VMs at rest: made, resized, destroyed, and what is allowed to be done with them.

use super::void;
use crate::{
    engine,
    fault::{Fault, Result},
    machines::rests,
    model::NULL,
    store::Store,
};
use serde_json::{Value, json};

/// The state of a VM in the words of errors.
pub(crate) fn state(store: &Store, vm: &str) -> Result<String> {
    Ok(store.text("VM", vm, "power_state")?.to_lowercase())
}

/// Refuses unless the VM is in one of these states.
pub(super) fn must_be(store: &Store, vm: &str, wanted: &[&str]) -> Result<()> {
    let now = state(store, vm)?;
    if wanted.contains(&now.as_str()) { Ok(()) } else { Err(Fault::new("VM_BAD_POWER_STATE", [vm, &wanted.join(", "), &now])) }
}

/// Refuses what is not for templates.
pub(super) fn no_template(store: &Store, vm: &str, verb: &str) -> Result<()> {
    if store.field("VM", vm, "is_a_template")? == true { Err(Fault::new("VM_IS_TEMPLATE", [vm, verb])) } else { Ok(()) }
}

/// Refuses what somebody has blocked.
pub(super) fn not_blocked(store: &Store, vm: &str, verb: &str) -> Result<()> {
    match store.field("VM", vm, "blocked_operations")?.get(verb).and_then(Value::as_str) {
        Some(why) => Err(Fault::new("OPERATION_BLOCKED", [vm, why])),
        None => Ok(()),
    }
}

/// Whether tools in the guest answer, which polite requests need.
pub(super) fn has_tools(store: &Store, vm: &str) -> Result<bool> {
    let metrics = store.text("VM", vm, "guest_metrics")?;
    Ok(store
        .field("VM_guest_metrics", &metrics, "PV_drivers_version")
        .is_ok_and(|version| version.as_object().is_some_and(|v| !v.is_empty())))
}

/// Says what may be done now.
pub(crate) fn refresh(store: &mut Store, vm: &str) -> Result<()> {
    let template = store.field("VM", vm, "is_a_template")? == true;
    let tools = has_tools(store, vm)?;
    let mut allowed = vec!["export", "metadata_export"];
    match state(store, vm)?.as_str() {
        _ if template => allowed.extend(["clone", "copy", "destroy", "provision", "changing_VCPUs", "changing_static_range"]),
        "halted" => {
            allowed.extend([
                "start",
                "start_on",
                "clone",
                "copy",
                "snapshot",
                "destroy",
                "make_into_template",
                "changing_VCPUs",
                "changing_static_range",
            ]);
        }
        "running" => {
            allowed.extend(["pause", "hard_shutdown", "hard_reboot", "snapshot", "pool_migrate"]);
            if tools {
                allowed.extend(["clean_shutdown", "clean_reboot"]);
            }
            if tools && rests(store, vm) {
                allowed.extend(["suspend", "checkpoint"]);
            }
        }
        "paused" => allowed.extend(["unpause", "hard_shutdown", "snapshot"]),
        "suspended" => allowed.extend(["resume", "resume_on", "hard_shutdown", "snapshot", "copy"]),
        _ => {}
    }
    allowed.sort_unstable();
    store.set("VM", vm, "allowed_operations", json!(allowed))
}

pub(super) fn create(store: &mut Store, record: &Value) -> Result<Value> {
    let fields = engine::given(store, "VM", record)?;
    let vm = store.insert("VM", fields);
    store.set("VM", &vm, "power_state", "Halted")?;
    refresh(store, &vm)?;
    Ok(vm.into())
}

/// Removes it with its devices. Its disks and snapshots stay.
pub(super) fn destroy(store: &mut Store, vm: &str) -> Result<Value> {
    must_be(store, vm, &["halted", "suspended"]).or_else(|fault| {
        // Snapshots keep the word of what they are of.
        if store.field("VM", vm, "is_a_snapshot")? == true { Ok(()) } else { Err(fault) }
    })?;
    not_blocked(store, vm, "destroy")?;
    if store.field("VM", vm, "is_default_template")? == true {
        return Err(Fault::new("VM_IS_TEMPLATE", [vm, "destroy"]));
    }
    for (list, class) in [("VBDs", "VBD"), ("VIFs", "VIF"), ("consoles", "console")] {
        for device in store.list("VM", vm, list)? {
            store.remove(class, &device);
        }
    }
    let metrics = store.text("VM", vm, "guest_metrics")?;
    store.remove("VM_guest_metrics", &metrics);
    store.remove("VM", vm);
    store.images.remove_memory(vm);
    void()
}

/// Static minimum and maximum, dynamic minimum and maximum, bytes.
pub(super) fn memory_limits(store: &mut Store, vm: &str, [low, high, floor, ceiling]: [i64; 4]) -> Result<Value> {
    must_be(store, vm, &["halted"])?;
    if !(0 <= low && low <= floor && floor <= ceiling && ceiling <= high) {
        return Err(Fault::new("MEMORY_CONSTRAINT_VIOLATION_ORDER", []));
    }
    for (field, value) in [
        ("memory_static_min", low),
        ("memory_static_max", high),
        ("memory_dynamic_min", floor),
        ("memory_dynamic_max", ceiling),
        ("memory_target", ceiling),
    ] {
        store.set("VM", vm, field, value)?;
    }
    void()
}

/// One of the limits, or both of a range: the order must hold afterwards.
pub(super) fn memory_limit(store: &mut Store, vm: &str, verb: &str, [first, second]: [i64; 2]) -> Result<Value> {
    let number = |field: &str| store.field("VM", vm, field).map(|value| value.as_i64().unwrap_or_default());
    let mut all =
        [number("memory_static_min")?, number("memory_static_max")?, number("memory_dynamic_min")?, number("memory_dynamic_max")?];
    match verb {
        "set_memory_static_min" => all[0] = first,
        "set_memory_static_max" => all[1] = first,
        "set_memory_dynamic_min" => all[2] = first,
        "set_memory_dynamic_max" => all[3] = first,
        "set_memory_static_range" => all[..2].copy_from_slice(&[first, second]),
        _ => all[2..].copy_from_slice(&[first, second]),
    }
    memory_limits(store, vm, all)
}

/// Refuses where there is no repository for the memory of suspended VMs.
pub(super) fn has_place_for_memory(store: &Store, vm: &str) -> Result<()> {
    let pool = store.rows("pool").next().map(|(reference, _)| reference.clone()).unwrap_or_default();
    if store.text("pool", &pool, "suspend_image_SR")? == NULL && store.text("VM", vm, "suspend_SR")? == NULL {
        return Err(Fault::new("VM_NO_SUSPEND_SR", [vm]));
    }
    Ok(())
}

/// Refuses a host that does not reach every disk.
pub(super) fn reaches(store: &Store, vm: &str, host: &str) -> Result<()> {
    for vbd in store.list("VM", vm, "VBDs")? {
        let vdi = store.text("VBD", &vbd, "VDI")?;
        if vdi == NULL {
            continue;
        }
        let sr = store.text("VDI", &vdi, "SR")?;
        let plugged = |(_, pbd): (&String, &crate::store::Row)| {
            let is = |field: &str, wanted: &Value| pbd.fields.get(field) == Some(wanted);
            is("SR", &sr.as_str().into()) && is("host", &host.into()) && is("currently_attached", &true.into())
        };
        if !store.rows("PBD").any(plugged) {
            return Err(Fault::new("VM_REQUIRES_SR", [vm, &sr]));
        }
    }
    Ok(())
}

pub(super) fn processors(store: &mut Store, vm: &str, most: Option<i64>, start: Option<i64>) -> Result<Value> {
    must_be(store, vm, &["halted"])?;
    let number = |field: &str| store.field("VM", vm, field).map(|value| value.as_i64().unwrap_or(1));
    let (new_most, new_start) = (most.map_or_else(|| number("VCPUs_max"), Ok)?, start.map_or_else(|| number("VCPUs_at_startup"), Ok)?);
    if !(0 < new_start && new_start <= new_most) {
        let wrong = most.or(start).unwrap_or_default().to_string();
        return Err(Fault::new("INVALID_VALUE", ["VCPU values must satisfy: 0 < VCPUs_at_startup ≤ VCPUs_max", &wrong]));
    }
    store.set("VM", vm, "VCPUs_max", new_most)?;
    store.set("VM", vm, "VCPUs_at_startup", new_start)?;
    void()
}

/// Numbers of devices that nothing has.
pub(super) fn free_devices(store: &Store, vm: &str, list: &str, class: &str, field: &str) -> Result<Value> {
    let mut taken = Vec::new();
    for device in store.list("VM", vm, list)? {
        taken.push(store.text(class, &device, field)?);
    }
    Ok((0..16).map(|n| n.to_string()).filter(|n| !taken.contains(n)).map(Value::from).collect::<Vec<_>>().into())
}

pub(super) fn assert_valid(store: &Store, vm: &str, verb: &str) -> Result<Value> {
    not_blocked(store, vm, verb)?;
    if store.list("VM", vm, "allowed_operations")?.iter().any(|allowed| allowed == verb) {
        return void();
    }
    Err(Fault::new("VM_BAD_POWER_STATE", [vm, "another", &state(store, vm)?]))
}
