//! The content of disks, byte for byte.

use super::Query;
use crate::{
    fault::{Fault, Result},
    server::{Answer, streamed},
    store::Store,
};
use bytes::Bytes;
use hyper::Response;

fn disk(store: &Store, query: &Query) -> Result<(String, u64)> {
    let asked = query.get("vdi").map(String::as_str).unwrap_or_default();
    let vdi = match store.get("VDI", asked) {
        Ok(_) => asked.to_owned(),
        Err(fault) => super::by_uuid(store, "VDI", asked).ok_or(fault)?,
    };
    match query.get("format").map(String::as_str) {
        None | Some("raw") => {}
        Some(other) => return Err(Fault::new("NOT_IMPLEMENTED", [&format!("disks in the format {other}")])),
    }
    let size = store.field("VDI", &vdi, "virtual_size")?.as_u64().unwrap_or_default();
    Ok((vdi, size))
}

pub(super) fn export(store: &Store, query: &Query) -> Result<Response<Answer>> {
    let (vdi, size) = disk(store, query)?;
    let images = store.images.clone();
    Ok(streamed(size, move |at, length| images.read(&vdi, at, length)))
}

pub(super) fn import(store: &mut Store, query: &Query, body: Bytes) -> Result<()> {
    let (vdi, size) = disk(store, query)?;
    if body.len() as u64 > size {
        return Err(Fault::new("VDI_TOO_LARGE", [&vdi, &size.to_string()]));
    }
    store.images.write(&vdi, size, 0, &body).map_err(|error| Fault::internal(&error.to_string()))?;
    // What it says of itself follows.
    store.set("VDI", &vdi, "physical_utilisation", body.len())
}
