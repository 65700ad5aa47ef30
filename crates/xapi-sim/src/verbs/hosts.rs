//! Hosts: their addresses, emptying them, taking them out of the pool, and VMs that come from another pool.

use super::{power, vm, void};
use crate::{
    fault::{Fault, Result},
    model::NULL,
    store::Store,
};
use serde_json::{Value, json};

/// What a host must be told of to send a VM here. The session is one that nobody has.
pub(super) fn migrate_receive(store: &Store, host: &str, network: &str) -> Result<Value> {
    store.get("network", network)?;
    let address = store.text("host", host, "address")?;
    let session = crate::store::fresh();
    let service = |name: &str| format!("http://{address}/services/{name}?session_id={session}");
    Ok(json!({
        "SM": service("SM"), "host": host, "xenops": service("xenops"), "session_id": session, "master": format!("http://{address}/"),
    }))
}

fn residents(store: &Store, host: &str) -> Result<Vec<String>> {
    let mut all = store.list("host", host, "resident_VMs")?;
    all.retain(|vm| store.field("VM", vm, "is_control_domain").is_ok_and(|is| is != true));
    Ok(all)
}

/// Moves every VM elsewhere; nothing is moved if one cannot be.
pub(super) fn evacuate(store: &mut Store, host: &str) -> Result<Value> {
    let others: Vec<String> = store.rows("host").map(|(other, _)| other.clone()).filter(|other| other != host).collect();
    let mut moves = Vec::new();
    for vm in residents(store, host)? {
        let to = others.iter().find(|other| vm::reaches(store, &vm, other).is_ok());
        moves.push((vm, to.ok_or_else(|| Fault::new("HOST_NOT_ENOUGH_FREE_MEMORY", []))?.clone()));
    }
    for (vm, to) in moves {
        power::migrate(store, &vm, &to)?;
    }
    void()
}

/// Takes a host out of the pool, with its certificate and its ways to storage and networks.
pub(super) fn eject(store: &mut Store, host: &str) -> Result<Value> {
    store.get("host", host)?;
    if store.rows("pool").any(|(_, pool)| pool.fields.get("master").is_some_and(|master| master == host)) {
        return Err(Fault::internal("Xapi_pool.Cannot_eject_master"));
    }
    if let Some(vm) = residents(store, host)?.first() {
        return Err(Fault::new("HOST_HAS_RESIDENT_VMS", [host, vm]));
    }
    for class in ["PBD", "PIF", "Certificate", "host_cpu"] {
        let of_it: Vec<String> =
            store.rows(class).filter(|(_, row)| row.fields.get("host").is_some_and(|of| of == host)).map(|(one, _)| one.clone()).collect();
        of_it.iter().for_each(|one| store.remove(class, one));
    }
    store.remove("host", host);
    void()
}

/// Gives an interface of a host another address.
pub(super) fn reconfigure(store: &mut Store, pif: &str, [mode, ip, mask, gateway, dns]: [&str; 5]) -> Result<Value> {
    if mode == "Static" && (ip.is_empty() || mask.is_empty()) {
        let missing = if ip.is_empty() { "IP" } else { "netmask" };
        return Err(Fault::new("INVALID_IP_ADDRESS_SPECIFIED", [missing]));
    }
    let all = [("ip_configuration_mode", mode), ("IP", ip), ("netmask", mask), ("gateway", gateway), ("DNS", dns)];
    for (field, value) in all {
        store.set("PIF", pif, field, value)?;
    }
    let (host, management) = (store.text("PIF", pif, "host")?, store.field("PIF", pif, "management")?);
    if management == true && mode == "Static" && host != NULL {
        store.set("host", &host, "address", ip)?;
    }
    void()
}
