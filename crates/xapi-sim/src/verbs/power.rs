//! VMs that run, or are made to. What the guest of one without a machine would do is done here.

use super::{now, vm, void};
use crate::{
    fault::{Fault, Result},
    machines::{has_machine, rests, words},
    model::NULL,
    sim::{Sim, fields},
    store::Store,
};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};

fn host(store: &Store, wanted: Option<&str>) -> Result<String> {
    match wanted.filter(|wanted| *wanted != NULL) {
        Some(wanted) => store.get("host", wanted).map(|_| wanted.to_owned()),
        None => {
            let enabled = |(_, row): &(&String, &crate::store::Row)| row.fields.get("enabled") == Some(&true.into());
            let found = store.rows("host").find(enabled).map(|(reference, _)| reference.clone());
            found.ok_or_else(|| Fault::new("NO_HOSTS_AVAILABLE", []))
        }
    }
}

/// Makes it run on a host, with devices, a console and a guest that tells of itself soon.
fn run(sim: &Arc<Sim>, tools: Duration, store: &mut Store, of: &str, at: &str) -> Result<()> {
    for (list, class) in [("VBDs", "VBD"), ("VIFs", "VIF")] {
        for device in store.list("VM", of, list)? {
            let empty = class == "VBD" && store.field(class, &device, "empty")? == true;
            store.set(class, &device, "currently_attached", !empty)?;
        }
    }
    let address = store.text("host", at, "address")?;
    let machine = has_machine(store, of);
    for protocol in ["vt100", "rfb"] {
        let uuid = uuid::Uuid::now_v7().to_string();
        let location = format!("https://{address}/console?uuid={uuid}");
        store.insert("console", fields(json!({"VM": of, "protocol": protocol, "location": location, "uuid": uuid})));
    }
    let metrics = store.insert("VM_guest_metrics", fields(json!({"last_updated": now(), "live": true})));
    store.set("VM", of, "guest_metrics", metrics)?;
    store.set("VM", of, "resident_on", at)?;
    let domain = store.generation as i64;
    store.set("VM", of, "domid", domain)?;
    store.set("VM", of, "power_state", "Running")?;
    vm::refresh(store, of)?;
    if machine {
        // It tells of itself when it is ready.
        return Ok(());
    }
    if tools.is_zero() {
        return tell(store, of, domain, Some(&made_up(domain)));
    }
    let (sim, of) = (sim.clone(), of.to_owned());
    drop(tokio::spawn(async move {
        super::rest(tools).await;
        let mut state = sim.state();
        // It may have been stopped meanwhile.
        let _ = tell(&mut state.store, &of, domain, Some(&made_up(domain)));
        drop(state);
        sim.wake();
    }));
    Ok(())
}

/// The address of a guest that is not there.
fn made_up(domain: i64) -> String {
    format!("10.64.{}.{}", domain / 250 % 250, domain % 250 + 2)
}

/// What tools in the guest tell: that they are there, and the addresses of its interfaces, of which the first has this one.
pub(crate) fn tell(store: &mut Store, of: &str, domain: i64, address: Option<&str>) -> Result<()> {
    if store.field("VM", of, "domid")? != domain {
        return Ok(());
    }
    let words = words(store, of);
    let has = |word: &str| words.iter().any(|one| one == word);
    if has("none") {
        return Ok(());
    }
    let metrics = store.text("VM", of, "guest_metrics")?;
    let mut networks = Map::new();
    for vif in store.list("VM", of, "VIFs")?.iter().filter(|_| !has("mute")) {
        let device = store.text("VIF", vif, "device")?;
        let other = if device == "0" { address.map(str::to_owned) } else { Some(format!("10.65.{device}.{}", domain % 250 + 2)) };
        // Only the first interface of a machine leads anywhere.
        let Some(address) = other.filter(|_| device == "0" || !has_machine(store, of)) else { continue };
        networks.insert(format!("{device}/ip"), address.clone().into());
        networks.insert(format!("{device}/ipv4/0"), address.into());
        networks.insert(format!("{device}/ipv6/0"), "fe80::1".into());
    }
    store.set("VM_guest_metrics", &metrics, "networks", networks)?;
    store.set("VM_guest_metrics", &metrics, "PV_drivers_version", json!({"major": "1", "minor": "0", "micro": "0", "build": "1"}))?;
    store.set("VM_guest_metrics", &metrics, "os_version", json!({"name": "Debian GNU/Linux 12 (bookworm)", "distro": "debian"}))?;
    store.set("VM_guest_metrics", &metrics, "last_updated", now())?;
    vm::refresh(store, of)
}

/// Takes everything away that it had while it ran.
pub(crate) fn halt(store: &mut Store, of: &str, word: &str) -> Result<()> {
    for (list, class) in [("VBDs", "VBD"), ("VIFs", "VIF")] {
        for device in store.list("VM", of, list)? {
            store.set(class, &device, "currently_attached", false)?;
        }
    }
    for console in store.list("VM", of, "consoles")? {
        store.remove("console", &console);
    }
    let metrics = store.text("VM", of, "guest_metrics")?;
    store.remove("VM_guest_metrics", &metrics);
    store.set("VM", of, "guest_metrics", NULL)?;
    store.set("VM", of, "resident_on", NULL)?;
    store.set("VM", of, "domid", -1)?;
    store.set("VM", of, "power_state", word)?;
    vm::refresh(store, of)
}

pub(super) fn start(sim: &Arc<Sim>, tools: Duration, store: &mut Store, of: &str, at: Option<&str>, paused: bool) -> Result<Value> {
    vm::no_template(store, of, "start")?;
    vm::must_be(store, of, &["halted"])?;
    vm::not_blocked(store, of, "start")?;
    let at = host(store, at)?;
    // What it had in memory when it was suspended is gone: it was ended since.
    store.images.remove_memory(of);
    vm::reaches(store, of, &at)?;
    run(sim, tools, store, of, &at)?;
    if paused { pause(store, of) } else { void() }
}

pub(super) fn pause(store: &mut Store, of: &str) -> Result<Value> {
    vm::must_be(store, of, &["running"])?;
    store.set("VM", of, "power_state", "Paused")?;
    vm::refresh(store, of)?;
    void()
}

pub(super) fn unpause(store: &mut Store, of: &str) -> Result<Value> {
    vm::must_be(store, of, &["paused"])?;
    store.set("VM", of, "power_state", "Running")?;
    vm::refresh(store, of)?;
    void()
}

pub(crate) fn polite(store: &Store, of: &str, verb: &str) -> Result<()> {
    vm::must_be(store, of, &["running"])?;
    vm::not_blocked(store, of, verb)?;
    if verb == "suspend" {
        can_rest(store, of)?;
    }
    if vm::has_tools(store, of)? { Ok(()) } else { Err(Fault::new("VM_LACKS_FEATURE", [of])) }
}

/// Refuses to keep the memory of what cannot be suspended.
pub(crate) fn can_rest(store: &Store, of: &str) -> Result<()> {
    if rests(store, of) { Ok(()) } else { Err(Fault::new("VM_LACKS_FEATURE", [of])) }
}

pub(super) fn clean(store: &mut Store, of: &str, verb: &str) -> Result<Value> {
    polite(store, of, verb)?;
    halt(store, of, "Halted")?;
    void()
}

pub(super) fn hard_shutdown(store: &mut Store, of: &str) -> Result<Value> {
    vm::must_be(store, of, &["paused", "suspended", "running"])?;
    vm::not_blocked(store, of, "hard_shutdown")?;
    halt(store, of, "Halted")?;
    void()
}

/// Politely where that can be done, else by force.
pub(super) fn shutdown(store: &mut Store, of: &str) -> Result<Value> {
    match clean(store, of, "clean_shutdown") {
        Err(fault) if fault.0[0] == "VM_LACKS_FEATURE" => hard_shutdown(store, of),
        other => other,
    }
}

pub(super) fn reboot(sim: &Arc<Sim>, tools: Duration, store: &mut Store, of: &str, politely: bool) -> Result<Value> {
    if politely {
        polite(store, of, "clean_reboot")?;
    } else {
        vm::must_be(store, of, &["running", "paused"])?;
    }
    let at = store.text("VM", of, "resident_on")?;
    halt(store, of, "Halted")?;
    run(sim, tools, store, of, &at)?;
    void()
}

/// What a guest does to itself: it runs on, in another life.
pub(crate) fn again(sim: &Arc<Sim>, store: &mut Store, of: &str) -> Result<()> {
    let at = store.text("VM", of, "resident_on")?;
    halt(store, of, "Halted")?;
    run(sim, Duration::ZERO, store, of, &at)
}

pub(crate) fn suspend(store: &mut Store, of: &str) -> Result<Value> {
    polite(store, of, "suspend")?;
    vm::has_place_for_memory(store, of)?;
    halt(store, of, "Suspended")?;
    void()
}

/// `resume` and `resume_on`, whose second parameter is a host.
pub(super) fn resume(sim: &Arc<Sim>, tools: Duration, store: &mut Store, of: &str, method: &str, params: &[Value]) -> Result<Value> {
    vm::must_be(store, of, &["suspended"])?;
    let elsewhere = method.ends_with("_on");
    let at = host(store, params.get(1).and_then(Value::as_str).filter(|_| elsewhere))?;
    vm::reaches(store, of, &at)?;
    run(sim, tools, store, of, &at)?;
    if params.get(if elsewhere { 2 } else { 1 }) == Some(&true.into()) { pause(store, of) } else { void() }
}

/// Refuses unless the host is enabled and reaches every disk of the VM.
pub(super) fn can_boot(store: &Store, of: &str, at: &str) -> Result<Value> {
    store.get("VM", of)?;
    if store.field("host", at, "enabled")? != true {
        return Err(Fault::new("HOST_DISABLED", [at]));
    }
    vm::reaches(store, of, at)?;
    void()
}

pub(super) fn migrate(store: &mut Store, of: &str, at: &str) -> Result<Value> {
    vm::must_be(store, of, &["running"])?;
    vm::not_blocked(store, of, "pool_migrate")?;
    let at = host(store, Some(at))?;
    can_boot(store, of, &at)?;
    store.set("VM", of, "resident_on", at)?;
    void()
}
