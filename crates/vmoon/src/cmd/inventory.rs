//! `vmoon connection show`: a connection, and what its hosts have to offer.

use super::list::word;
use crate::{ctx::Ctx, exit::Exit, out::time};
use vmoon_api::{
    Api as _,
    requests::ConnectionRef,
    views::{ConnectionDetails, ConnectionView},
};
use vmoon_core::{
    Result,
    hosts::{HostInfo, Inventory, NamedThing, StorageInfo},
};

/// Shows it.
pub(crate) async fn run(ctx: &Ctx, name: String) -> Result<Exit> {
    let request = ConnectionRef { connection: name };
    let details = ctx.daemon.ask(async |client| client.show_connection(request.clone()).await).await?;
    ctx.out.one(&details, &details.connection.name, &rows(&details))?;
    Ok(Exit::OK)
}

fn row(name: &str, value: String) -> (String, String) {
    (name.to_owned(), value)
}

/// What is known of a connection itself.
pub(super) fn connection_rows(view: &ConnectionView) -> Vec<(String, String)> {
    let mut rows = vec![
        row("name", view.name.clone()),
        row("kind", view.kind.clone()),
        row("state", word(&view.state)),
        row("uri", view.uri.clone()),
        row("machines", view.machines.to_string()),
    ];
    rows.extend(view.concerns.iter().map(|concern| row("warning", concern.clone())));
    rows.extend(view.error.as_ref().map(|error| row("error", format!("{} ({})", error.message, error.code))));
    rows
}

fn rows(details: &ConnectionDetails) -> Vec<(String, String)> {
    let view = &details.connection;
    let mut rows = connection_rows(view);
    rows.extend(view.user.as_ref().map(|user| row("user", user.clone())));
    rows.extend(view.fingerprint.as_ref().map(|text| row("fingerprint", text.clone())));
    rows.push(row("secret", word(&view.secret)));
    if let Some(error) = &details.inventory_error {
        rows.push(row("inventory", format!("not known: {} ({})", error.message, error.code)));
    }
    if let Some(inventory) = &details.inventory {
        rows.extend(offers(inventory));
    }
    rows
}

fn offers(inventory: &Inventory) -> Vec<(String, String)> {
    let mut rows: Vec<_> = inventory.hosts.iter().map(|host| row("host", one_host(host))).collect();
    for device in &inventory.devices {
        let mut text = format!("{} {} {}", device.host, device.address, device.name);
        if !device.note.is_empty() {
            text.push_str(&format!(", {}", device.note));
        }
        if !device.used_by.is_empty() {
            text.push_str(&format!(", used by {}", device.used_by.join(", ")));
        }
        rows.push(row(&word(&device.class), text));
    }
    rows.extend(inventory.storage.iter().map(|storage| row("storage", one_storage(storage))));
    for (name, things) in [("network", &inventory.networks), ("template", &inventory.templates), ("image", &inventory.images)] {
        rows.extend(things.iter().map(|thing| row(name, one_thing(thing))));
    }
    rows
}

fn one_host(host: &HostInfo) -> String {
    let mut parts = vec![host.name.clone()];
    let mut add = |text: String| {
        if !text.is_empty() {
            parts.push(text);
        }
    };
    add(host.address.clone());
    add(host.software.clone());
    add(host.cpus.map(|cpus| format!("{cpus} processors")).unwrap_or_default());
    add(match (host.memory_free_bytes, host.memory_bytes) {
        (Some(free), Some(all)) => format!("{} of {} free", time::bytes(free), time::bytes(all)),
        (None, Some(all)) => time::bytes(all),
        _ => String::new(),
    });
    if !host.enabled {
        add("disabled: no machine starts there".into());
    }
    add(host.note.clone());
    parts.join(", ")
}

fn one_storage(storage: &StorageInfo) -> String {
    let mut text = format!("{}, {}", storage.name, storage.kind);
    if let (Some(free), Some(size)) = (storage.free_bytes, storage.size_bytes) {
        text.push_str(&format!(", {} of {} free", time::bytes(free), time::bytes(size)));
    }
    for (is, what) in [(storage.shared, "shared"), (storage.default, "default")] {
        if is {
            text.push_str(&format!(", {what}"));
        }
    }
    text
}

fn one_thing(thing: &NamedThing) -> String {
    if thing.note.is_empty() { thing.name.clone() } else { format!("{}, {}", thing.name, thing.note) }
}
