//! From a template to a VM: copied, then provisioned.

use super::{snapshots, vm, void};
use crate::{
    fault::{Fault, Result},
    model::NULL,
    store::Store,
};
use quick_xml::{Reader, events::Event};
use serde_json::{Value, json};

/// How disks are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In the same repository, sharing what is equal.
    Clone,
    /// In full, perhaps elsewhere.
    Copy,
}

pub(super) fn copy(store: &mut Store, of: &str, name: &str, sr: Option<&str>, kind: Kind) -> Result<Value> {
    // A running VM cannot be cloned; a snapshot of it can.
    let wanted: &[&str] = if kind == Kind::Clone { &["halted", "suspended"] } else { &["halted", "suspended", "paused"] };
    if store.field("VM", of, "is_a_template")? != true {
        vm::must_be(store, of, wanted)?;
    }
    vm::not_blocked(store, of, if kind == Kind::Clone { "clone" } else { "copy" })?;
    let template = store.field("VM", of, "is_default_template")? == true;
    let base = store.text("VM", of, "name_label")?;
    let mut fields = snapshots::like(store, of)?;
    fields.insert("name_label".into(), name.into());
    fields.insert("is_a_snapshot".into(), false.into());
    fields.insert("snapshot_of".into(), NULL.into());
    fields.insert("parent".into(), NULL.into());
    fields.insert("power_state".into(), "Halted".into());
    if let Some(config) = fields.get_mut("other_config").and_then(Value::as_object_mut) {
        config.remove("default_template");
        if template {
            config.insert("base_template_name".into(), base.into());
        }
    }
    let made = store.insert("VM", fields);
    snapshots::copy_devices(store, of, &made, sr, false)?;
    vm::refresh(store, &made)?;
    Ok(made.into())
}

/// A disk that a template describes.
struct Described {
    device: String,
    size: i64,
    sr: String,
    bootable: bool,
}

fn described(text: &str) -> Result<Vec<Described>> {
    let bad = || Fault::internal("Failure(\"the description of disks cannot be read\")");
    let mut reader = Reader::from_str(text);
    let mut all = Vec::new();
    loop {
        match reader.read_event().map_err(|_| bad())? {
            Event::Eof => return Ok(all),
            Event::Start(tag) | Event::Empty(tag) if tag.name().as_ref() == "disk" => {
                let mut disk = Described { device: String::new(), size: 0, sr: String::new(), bootable: false };
                for attribute in tag.attributes() {
                    let attribute = attribute.map_err(|_| bad())?;
                    let value = attribute.value.into_owned();
                    match attribute.key.as_ref() {
                        "device" => disk.device = value,
                        "size" => disk.size = value.parse().map_err(|_| bad())?,
                        "sr" => disk.sr = value,
                        "bootable" => disk.bootable = value == "true",
                        _ => {}
                    }
                }
                all.push(disk);
            }
            _ => {}
        }
    }
}

/// Makes the disks that the template describes. Nothing is undone if that fails in the middle, and it is no template any more by then: so does the real one.
pub(super) fn provision(store: &mut Store, of: &str) -> Result<Value> {
    if store.field("VM", of, "is_a_template")? != true {
        return Err(Fault::new("PROVISION_ONLY_ALLOWED_ON_TEMPLATE", []));
    }
    vm::not_blocked(store, of, "provision")?;
    store.set("VM", of, "is_a_template", false)?;
    vm::refresh(store, of)?;
    let config = store.field("VM", of, "other_config")?;
    let disks = config.get("disks").and_then(Value::as_str).unwrap_or_default().to_owned();
    for disk in described(&disks)? {
        let wanted = |(_, row): &(&String, &crate::store::Row)| row.fields.get("uuid").is_some_and(|uuid| *uuid == disk.sr.as_str());
        let found = store.rows("SR").find(wanted).map(|(reference, _)| reference.clone());
        let sr = found.ok_or_else(|| Fault::new("UUID_INVALID", ["sr", &disk.sr]))?;
        let vdi = super::disks::create(
            store,
            &json!({
                "name_label": disk.device, "SR": sr, "virtual_size": disk.size, "type": "user", "sharable": false, "read_only": false, "other_config": {},
            }),
        )?;
        super::devices::create_vbd(
            store,
            &json!({
                "VM": of, "VDI": vdi, "userdevice": disk.device, "bootable": disk.bootable, "mode": "RW", "type": "Disk", "empty": false,
                "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
            }),
        )?;
    }
    if let Value::Object(mut config) = config {
        config.remove("disks");
        store.set("VM", of, "other_config", config)?;
    }
    void()
}
