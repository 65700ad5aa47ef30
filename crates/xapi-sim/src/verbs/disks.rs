//! Disks: made, copied, resized, destroyed, each counted in its repository.

use super::{now, void};
use crate::{
    engine,
    fault::{Fault, Result},
    model::NULL,
    store::Store,
};
use serde_json::Value;

fn size(store: &Store, vdi: &str) -> Result<i64> {
    Ok(store.field("VDI", vdi, "virtual_size")?.as_i64().unwrap_or_default())
}

fn used(store: &Store, sr: &str, name: &str) -> i64 {
    store.field("SR", sr, name).ok().and_then(|value| value.as_i64()).unwrap_or_default()
}

/// Takes room, or gives it back.
fn take(store: &mut Store, sr: &str, bytes: i64) -> Result<()> {
    let (full, taken) = (used(store, sr, "physical_size"), used(store, sr, "virtual_allocation"));
    if bytes > 0 && full > 0 && taken + bytes > full {
        return Err(Fault::new("SR_FULL", [&bytes.to_string(), &(full - taken).to_string()]));
    }
    store.set("SR", sr, "virtual_allocation", taken + bytes)
}

pub(crate) fn create(store: &mut Store, record: &Value) -> Result<Value> {
    let mut fields = engine::given(store, "VDI", record)?;
    let sr = fields.get("SR").and_then(Value::as_str).unwrap_or_default().to_owned();
    store.get("SR", &sr)?;
    let bytes = fields.get("virtual_size").and_then(Value::as_i64).unwrap_or_default();
    if bytes <= 0 {
        return Err(Fault::new("VDI_INCOMPATIBLE_TYPE", ["", "a size above nothing is needed"]));
    }
    take(store, &sr, bytes)?;
    fields.insert("managed".into(), true.into());
    fields.insert("location".into(), uuid::Uuid::now_v7().to_string().into());
    Ok(store.insert("VDI", fields).into())
}

/// A copy of a disk, in the same repository or another.
pub(super) fn copy(store: &mut Store, vdi: &str, sr: Option<&str>, snapshot: bool) -> Result<Value> {
    let mut fields = store.get("VDI", vdi)?.fields.clone();
    let at = match sr.filter(|sr| *sr != NULL) {
        Some(sr) => sr.to_owned(),
        None => store.text("VDI", vdi, "SR")?,
    };
    store.get("SR", &at)?;
    take(store, &at, size(store, vdi)?)?;
    fields.insert("uuid".into(), "".into());
    fields.insert("SR".into(), at.into());
    fields.insert("VBDs".into(), Value::Array(Vec::new()));
    fields.insert("snapshots".into(), Value::Array(Vec::new()));
    fields.insert("is_a_snapshot".into(), snapshot.into());
    fields.insert("snapshot_of".into(), if snapshot { vdi } else { NULL }.into());
    if snapshot {
        fields.insert("snapshot_time".into(), now().into());
    }
    let made = store.insert("VDI", fields);
    store.images.copy(vdi, &made).map_err(|error| Fault::internal(&error.to_string()))?;
    Ok(made.into())
}

pub(super) fn resize(store: &mut Store, vdi: &str, bytes: i64) -> Result<Value> {
    let now = size(store, vdi)?;
    if bytes < now {
        return Err(Fault::new("SR_BACKEND_FAILURE_79", ["", "VDI Invalid size [opterr=shrinking not allowed]", ""]));
    }
    let sr = store.text("VDI", vdi, "SR")?;
    take(store, &sr, bytes - now)?;
    store.set("VDI", vdi, "virtual_size", bytes)?;
    void()
}

/// Removes a disk; also one that a VM at rest still names.
pub(super) fn destroy(store: &mut Store, vdi: &str) -> Result<Value> {
    for vbd in store.list("VDI", vdi, "VBDs")? {
        if store.field("VBD", &vbd, "currently_attached")? == true {
            return Err(Fault::new("VDI_IN_USE", [vdi, "destroy"]));
        }
    }
    let (sr, bytes) = (store.text("VDI", vdi, "SR")?, size(store, vdi)?);
    take(store, &sr, -bytes)?;
    store.remove("VDI", vdi);
    store.images.remove(vdi);
    void()
}
