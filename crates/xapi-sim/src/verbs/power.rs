//! VMs that run, or are made to. There is no machine behind them: what a guest would do is done here.

use super::{now, vm, void};
use crate::{
    fault::{Fault, Result},
    model::NULL,
    sim::{Sim, fields},
    store::Store,
};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};

/// A key of `other_config` that says what the guest is like: `none` has no tools, `mute` has tools that tell no address.
const GUEST: &str = "sim:guest";

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
    if tools.is_zero() {
        return tell(store, of, domain);
    }
    let (sim, of) = (sim.clone(), of.to_owned());
    drop(tokio::spawn(async move {
        super::rest(tools).await;
        let mut state = sim.state();
        // It may have been stopped meanwhile.
        let _ = tell(&mut state.store, &of, domain);
        drop(state);
        sim.wake();
    }));
    Ok(())
}

/// What tools in the guest tell: that they are there, and the addresses of its interfaces.
fn tell(store: &mut Store, of: &str, domain: i64) -> Result<()> {
    if store.field("VM", of, "domid")? != domain {
        return Ok(());
    }
    let config = store.field("VM", of, "other_config")?;
    let guest = config.get(GUEST).and_then(Value::as_str).unwrap_or_default();
    if guest == "none" {
        return Ok(());
    }
    let metrics = store.text("VM", of, "guest_metrics")?;
    let mut networks = Map::new();
    for (n, vif) in store.list("VM", of, "VIFs")?.iter().enumerate().filter(|_| guest != "mute") {
        let device = store.text("VIF", vif, "device")?;
        let address = format!("10.{}.{}.{}", 64 + n, domain / 250 % 250, domain % 250 + 2);
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
fn halt(store: &mut Store, of: &str, word: &str) -> Result<()> {
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

fn polite(store: &Store, of: &str, verb: &str) -> Result<()> {
    vm::must_be(store, of, &["running"])?;
    vm::not_blocked(store, of, verb)?;
    if vm::has_tools(store, of)? { Ok(()) } else { Err(Fault::new("VM_LACKS_FEATURE", [of])) }
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

pub(super) fn suspend(store: &mut Store, of: &str) -> Result<Value> {
    polite(store, of, "suspend")?;
    halt(store, of, "Suspended")?;
    void()
}

/// `resume` and `resume_on`, whose second parameter is a host.
pub(super) fn resume(sim: &Arc<Sim>, tools: Duration, store: &mut Store, of: &str, method: &str, params: &[Value]) -> Result<Value> {
    vm::must_be(store, of, &["suspended"])?;
    let elsewhere = method.ends_with("_on");
    let at = host(store, params.get(1).and_then(Value::as_str).filter(|_| elsewhere))?;
    run(sim, tools, store, of, &at)?;
    if params.get(if elsewhere { 2 } else { 1 }) == Some(&true.into()) { pause(store, of) } else { void() }
}

pub(super) fn migrate(store: &mut Store, of: &str, at: &str) -> Result<Value> {
    vm::must_be(store, of, &["running"])?;
    let at = host(store, Some(at))?;
    store.set("VM", of, "resident_on", at)?;
    void()
}
