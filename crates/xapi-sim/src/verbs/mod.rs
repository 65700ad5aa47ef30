//! What does something, beyond reading and writing fields. What is not here is refused.

mod devices;
mod disks;
mod hosts;
pub(crate) mod power;
pub(crate) mod snapshots;
mod templates;
pub(crate) mod vm;

use crate::{
    fault::{Fault, Result},
    model::{Model, Type},
    sim::{Sim, State},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// The parameters of a call after the session, checked.
pub(crate) struct Params<'a>(&'a [Value]);

impl Params<'_> {
    fn text(&self, at: usize) -> &str {
        self.0.get(at).and_then(Value::as_str).unwrap_or_default()
    }

    fn int(&self, at: usize) -> i64 {
        self.0.get(at).and_then(Value::as_i64).unwrap_or_default()
    }
}

/// Nothing, as XAPI answers it.
fn void() -> Result<Value> {
    Ok("".into())
}

/// Does a call of the data model.
pub(crate) fn obey(sim: &Arc<Sim>, state: &mut State, method: &str, params: &[Value]) -> Result<Value> {
    let p = Params(params);
    let tools = state.tools;
    let store = &mut state.store;
    match method {
        "VM.clone" => templates::copy(store, p.text(0), p.text(1), None, templates::Kind::Clone),
        "VM.copy" => templates::copy(store, p.text(0), p.text(1), Some(p.text(2)), templates::Kind::Copy),
        "VM.provision" => templates::provision(store, p.text(0)),
        "VM.start" => power::start(sim, tools, store, p.text(0), None, params.get(1) == Some(&true.into())),
        "VM.start_on" => power::start(sim, tools, store, p.text(0), Some(p.text(1)), params.get(2) == Some(&true.into())),
        "VM.pause" => power::pause(store, p.text(0)),
        "VM.unpause" => power::unpause(store, p.text(0)),
        "VM.clean_shutdown" => power::clean(store, p.text(0), "clean_shutdown"),
        "VM.hard_shutdown" => power::hard_shutdown(store, p.text(0)),
        "VM.shutdown" => power::shutdown(store, p.text(0)),
        "VM.clean_reboot" => power::reboot(sim, tools, store, p.text(0), true),
        "VM.hard_reboot" => power::reboot(sim, tools, store, p.text(0), false),
        "VM.suspend" => power::suspend(store, p.text(0)),
        "VM.resume" | "VM.resume_on" => power::resume(sim, tools, store, p.text(0), method, params),
        "VM.power_state_reset" => power::hard_shutdown(store, p.text(0)),
        "VM.snapshot" => snapshots::snapshot(store, p.text(0), p.text(1), false),
        "VM.checkpoint" => snapshots::snapshot(store, p.text(0), p.text(1), true),
        "VM.revert" => snapshots::revert(sim, store, p.text(0)),
        "VM.set_memory_limits" => vm::memory_limits(store, p.text(0), [p.int(1), p.int(2), p.int(3), p.int(4)]),
        "VM.set_memory_static_min"
        | "VM.set_memory_static_max"
        | "VM.set_memory_dynamic_min"
        | "VM.set_memory_dynamic_max"
        | "VM.set_memory_static_range"
        | "VM.set_memory_dynamic_range" => vm::memory_limit(store, p.text(0), &method[3..], [p.int(1), p.int(2)]),
        "host.migrate_receive" => hosts::migrate_receive(store, p.text(0), p.text(1)),
        "host.evacuate" => hosts::evacuate(store, p.text(0)),
        "pool.eject" => hosts::eject(store, p.text(0)),
        "PIF.reconfigure_ip" => hosts::reconfigure(store, p.text(0), [p.text(1), p.text(2), p.text(3), p.text(4), p.text(5)]),
        "VM.set_memory" => vm::memory_limits(store, p.text(0), [p.int(1); 4]),
        "VM.set_VCPUs_max" => vm::processors(store, p.text(0), Some(p.int(1)), None),
        "VM.set_VCPUs_at_startup" => vm::processors(store, p.text(0), None, Some(p.int(1))),
        "VM.get_allowed_VBD_devices" => vm::free_devices(store, p.text(0), "VBDs", "VBD", "userdevice"),
        "VM.get_allowed_VIF_devices" => vm::free_devices(store, p.text(0), "VIFs", "VIF", "device"),
        "VM.get_possible_hosts" => Ok(Value::Array(store.rows("host").map(|(reference, _)| reference.as_str().into()).collect())),
        "VM.assert_operation_valid" => vm::assert_valid(store, p.text(0), p.text(1)),
        "VM.update_allowed_operations" => vm::refresh(store, p.text(0)).and_then(|()| void()),
        "VM.assert_can_boot_here" => power::can_boot(store, p.text(0), p.text(1)),
        "VM.pool_migrate" => power::migrate(store, p.text(0), p.text(1)),
        "VBD.plug" | "VIF.plug" => devices::plug(store, &method[..3], p.text(0), true),
        "VBD.unplug" | "VBD.unplug_force" | "VIF.unplug" | "VIF.unplug_force" => devices::plug(store, &method[..3], p.text(0), false),
        "VBD.insert" => devices::insert(store, p.text(0), p.text(1)),
        "VBD.eject" => devices::eject(store, p.text(0)),
        "VDI.clone" | "VDI.snapshot" => disks::copy(store, p.text(0), None, method == "VDI.snapshot"),
        "VDI.copy" => disks::copy(store, p.text(0), Some(p.text(1)), false),
        "VDI.resize" | "VDI.resize_online" => disks::resize(store, p.text(0), p.int(1)),
        "SR.scan" => store.get("SR", p.text(0)).map(|_| "".into()),
        "PIF.scan" | "host.enable" | "host.disable" => {
            if let Some(verb) = method.strip_prefix("host.") {
                store.set("host", p.text(0), "enabled", verb == "enable")?;
            } else {
                store.get("host", p.text(0))?;
            }
            void()
        }
        "host.get_servertime" => store.get("host", p.text(0)).map(|_| now().into()),
        "host.call_plugin" => Err(Fault::new("XENAPI_MISSING_PLUGIN", [p.text(1)])),
        "task.create" => {
            let fields = serde_json::json!({"name_label": p.text(0), "name_description": p.text(1), "status": "pending", "created": now()});
            Ok(store.insert("task", crate::sim::fields(fields)).into())
        }
        "task.destroy" => {
            store.get("task", p.text(0))?;
            store.remove("task", p.text(0));
            void()
        }
        "task.cancel" => {
            // What is done here is done at once: there is nothing to cancel any more.
            store.get("task", p.text(0)).map(|_| "".into())
        }
        "message.get_since" | "message.get_all_records" => Ok(Value::Object(serde_json::Map::new())),
        "message.get_all" => Ok(Value::Array(Vec::new())),
        _ => field_call(state, method, params),
    }
}

/// Calls that are accessors by another name: the data model lists those of fields with rules of their own among the calls.
fn field_call(state: &mut State, method: &str, params: &[Value]) -> Result<Value> {
    let unknown = || Fault::new("NOT_IMPLEMENTED", [method]);
    let (class, verb) = method.split_once('.').ok_or_else(unknown)?;
    let known = Model::get().classes.get(class).ok_or_else(unknown)?;
    let p = Params(params);
    let start = |prefix: &str| verb.strip_prefix(prefix).and_then(|name| known.field(name));
    if let Some(field) = start("add_to_").filter(|field| matches!(field.ty, Type::Map(..))) {
        let mut value = state.store.field(class, p.text(0), &field.name)?;
        let map = value.as_object_mut().ok_or_else(unknown)?;
        if map.contains_key(p.text(1)) {
            return Err(Fault::new("MAP_DUPLICATE_KEY", [class, &field.name, p.text(0), p.text(1)]));
        }
        map.insert(p.text(1).to_owned(), p.text(2).into());
        return state.store.set(class, p.text(0), &field.name, value).and_then(|()| void());
    }
    if let Some(field) = start("remove_from_").filter(|field| matches!(field.ty, Type::Map(..))) {
        let mut value = state.store.field(class, p.text(0), &field.name)?;
        if let Some(map) = value.as_object_mut() {
            map.remove(p.text(1));
        }
        return state.store.set(class, p.text(0), &field.name, value).and_then(|()| void());
    }
    if let (Some(field), [_, value]) = (start("set_"), params) {
        return state.store.set(class, p.text(0), &field.name, value.clone()).and_then(|()| void());
    }
    Err(unknown())
}

/// Accessors that do more than an accessor: constructors and destructors of devices and disks. Nothing for the others.
pub(crate) fn instead(_: &Arc<Sim>, state: &mut State, method: &str, params: &[Value]) -> Result<Option<Value>> {
    let p = Params(params);
    let record = params.first().cloned().unwrap_or_default();
    let store = &mut state.store;
    Ok(Some(match method {
        "VM.destroy" => vm::destroy(store, p.text(0))?,
        "VM.create" => vm::create(store, &record)?,
        "VBD.create" => devices::create_vbd(store, &record)?,
        "VBD.destroy" => devices::destroy(store, "VBD", p.text(0))?,
        "VIF.create" => devices::create_vif(store, &record)?,
        "VIF.destroy" => devices::destroy(store, "VIF", p.text(0))?,
        "VDI.create" => disks::create(store, &record)?,
        "VDI.destroy" => disks::destroy(store, p.text(0))?,
        "VM.set_is_a_template" => {
            store.set("VM", p.text(0), "is_a_template", params.get(1).cloned().unwrap_or_default())?;
            vm::refresh(store, p.text(0))?;
            "".into()
        }
        _ => return Ok(None),
    }))
}

pub(crate) use {devices::new_mac, disks::create as create_disk, vm::refresh};

/// The time, as XAPI writes it.
pub(crate) fn now() -> String {
    let seconds = vmoon_sys::clock::now_ms() / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let shifted = days as i64 + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Waits for so long.
pub(crate) async fn rest(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}
