//! VMs as files: XVA, a tar of `ova.xml`, which has the records as a value of XML-RPC with references of its own, and of the disks in pieces.

use super::{Query, by_uuid, named};
use crate::{
    fault::{Fault, Result},
    model::{Model, NULL, Type},
    store::Store,
    values::check,
    verbs,
    wire::xml,
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, io::Read as _};

/// The name of the records in the tar.
const RECORDS: &str = "ova.xml";
/// The length of a piece of a disk.
const PIECE: u64 = 1 << 20;

/// A tar that cannot be read is one that is cut off, as far as XAPI tells.
fn failed(_: &std::io::Error) -> Fault {
    Fault::new("IMPORT_ERROR_PREMATURE_EOF", [])
}

/// A VM that is off as a file.
pub(super) fn export(store: &Store, query: &Query, with_disks: bool) -> Result<Vec<u8>> {
    let vms = if query.get("all").is_some_and(|all| all == "true") && !with_disks {
        let is = |row: &crate::store::Row, field: &str| row.fields.get(field) == Some(&true.into());
        let wanted = store.rows("VM").filter(|(_, row)| !is(row, "is_default_template") && !is(row, "is_control_domain"));
        wanted.map(|(vm, _)| vm.clone()).collect()
    } else {
        vec![named(store, "VM", query)?]
    };
    for vm in vms.iter().filter(|_| with_disks) {
        let state = store.text("VM", vm, "power_state")?;
        if !matches!(state.as_str(), "Halted" | "Suspended") {
            return Err(Fault::new("VM_BAD_POWER_STATE", [vm, "Halted, Suspended", &state]));
        }
    }
    if query.get("use_compression").is_some_and(|how| how != "false") {
        return Err(Fault::new("NOT_IMPLEMENTED", ["compressed exports"]));
    }
    let objects = belongings(store, vms)?;
    let ids: BTreeMap<&str, String> =
        objects.iter().enumerate().map(|(n, (_, reference))| (reference.as_str(), format!("Ref:{n}"))).collect();
    let mut listed = Vec::new();
    for (class, reference) in &objects {
        let mut snapshot = Value::Object(store.get(class, reference)?.fields.clone());
        rename(&mut snapshot, &ids);
        listed.push(json!({"class": class, "id": ids[reference.as_str()], "snapshot": snapshot}));
    }
    let whole = json!({
        "version": {"hostname": "localhost", "date": verbs::now(), "product_version": "8.3.0", "product_brand": "vmoon xapi-sim", "build_number": "sim",
            "xapi_major": "0", "xapi_minor": "0", "export_vsn": "2"},
        "objects": listed,
    });
    let mut tar = tar::Builder::new(Vec::new());
    put(&mut tar, RECORDS, xml::value(&whole, &Type::Any, Model::get()).as_bytes())?;
    for (_, vdi) in objects.iter().filter(|(class, _)| *class == "VDI" && with_disks) {
        let size = store.field("VDI", vdi, "virtual_size")?.as_u64().unwrap_or_default();
        let last = size.div_ceil(PIECE).saturating_sub(1);
        // What was never written is left out, but for the first and the last piece.
        let mut pieces = store.images.pieces(vdi, PIECE).map_err(|error| failed(&error))?;
        pieces.extend([0, last]);
        pieces.sort_unstable();
        pieces.dedup();
        for n in pieces {
            let length = PIECE.min(size.saturating_sub(n * PIECE)) as usize;
            let piece = store.images.read(vdi, n * PIECE, length).map_err(|error| failed(&error))?;
            put(&mut tar, &format!("{}/{n:08}", ids[vdi.as_str()]), &piece)?;
        }
    }
    tar.into_inner().map_err(|error| failed(&error))
}

/// VMs with what belongs to them, in an order in which it can be made again.
fn belongings(store: &Store, vms: Vec<String>) -> Result<Vec<(&'static str, String)>> {
    let mut objects = Vec::new();
    let mut add = |class, reference: String| {
        if reference != NULL && !objects.iter().any(|(_, known)| *known == reference) {
            objects.push((class, reference));
        }
    };
    for vm in vms {
        for vbd in store.list("VM", &vm, "VBDs")? {
            let vdi = store.text("VBD", &vbd, "VDI")?;
            if vdi != NULL && store.text("VBD", &vbd, "type")? == "Disk" {
                add("SR", store.text("VDI", &vdi, "SR")?);
                add("VDI", vdi);
            }
            add("VBD", vbd);
        }
        for vif in store.list("VM", &vm, "VIFs")? {
            add("network", store.text("VIF", &vif, "network")?);
            add("VIF", vif);
        }
        add("VM", vm);
    }
    Ok(objects)
}

fn put(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o400);
    tar.append_data(&mut header, name, bytes).map_err(|error| failed(&error))
}

/// Puts other names in the place of references.
fn rename(value: &mut Value, names: &BTreeMap<&str, String>) {
    match value {
        Value::String(text) => {
            if let Some(name) = names.get(text.as_str()) {
                text.clone_from(name);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| rename(one, names)),
        Value::Object(all) => all.values_mut().for_each(|one| rename(one, names)),
        _ => {}
    }
}

/// Makes the VMs of a file; their references, as a task's result.
pub(super) fn import(store: &mut Store, query: &Query, body: &Bytes, with_disks: bool) -> Result<String> {
    let mut archive = tar::Archive::new(&body[..]);
    let (mut records, mut pieces) = (None, Vec::<(String, u64, Vec<u8>)>::new());
    for entry in archive.entries().map_err(|error| failed(&error))? {
        let mut entry = entry.map_err(|error| failed(&error))?;
        let name = entry.path().map_err(|error| failed(&error))?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(|error| failed(&error))?;
        if name == RECORDS {
            records = Some(content);
        } else if let Some((id, number)) = name.split_once('/').and_then(|(id, number)| Some((id.to_owned(), number.parse().ok()?))) {
            pieces.push((id, number, content));
        }
    }
    let wrong = || Fault::new("IMPORT_ERROR_UNEXPECTED_FILE", [RECORDS, "what cannot be read"]);
    let records =
        records.and_then(|content| String::from_utf8(content).ok()).ok_or_else(|| Fault::new("IMPORT_ERROR_PREMATURE_EOF", []))?;
    let whole = xml::read_value(&records).ok_or_else(wrong)?;
    let objects = whole.get("objects").and_then(Value::as_array).ok_or_else(wrong)?;
    let of = |wanted: &str| {
        let found = objects.iter().filter(move |object| object["class"] == wanted);
        found.filter_map(|object| Some((object["id"].as_str()?.to_owned(), object["snapshot"].as_object()?))).collect::<Vec<_>>()
    };
    let restore = query.get("restore").is_some_and(|restore| restore == "true");
    let sr = repository(store, query)?;
    if query.get("dry_run").is_some_and(|dry| dry == "true") {
        return Ok("<value><array><data></data></array></value>".into());
    }
    let mut made: BTreeMap<String, String> = BTreeMap::new();
    for (id, network) in of("network") {
        let uuid = network.get("uuid").and_then(Value::as_str).unwrap_or_default();
        let first = || store.rows("network").next().map(|(reference, _)| reference.clone());
        made.extend(by_uuid(store, "network", uuid).or_else(first).map(|known| (id, known)));
    }
    for (id, record) in of("VDI").into_iter().filter(|_| with_disks) {
        let mut fields = typed("VDI", record);
        fields.insert("SR".into(), sr.clone().into());
        let vdi = verbs::create_disk(store, &Value::Object(fields))?.as_str().unwrap_or_default().to_owned();
        let size = store.field("VDI", &vdi, "virtual_size")?.as_u64().unwrap_or_default();
        for (_, number, piece) in pieces.iter().filter(|(of, _, piece)| *of == id && piece.iter().any(|byte| *byte != 0)) {
            let at = number.saturating_mul(PIECE);
            if at.saturating_add(piece.len() as u64) > size {
                return Err(Fault::new("IMPORT_ERROR_UNEXPECTED_FILE", [&id, "a piece beyond the end of its disk"]));
            }
            store.images.write(&vdi, size, at, piece).map_err(|error| failed(&error))?;
        }
        made.insert(id, vdi);
    }
    let mut vms = Vec::new();
    for (id, record) in of("VM") {
        let mut fields = typed("VM", record);
        if !restore {
            fields.insert("uuid".into(), "".into());
        }
        let vm = store.insert("VM", fields);
        verbs::refresh(store, &vm)?;
        vms.push(Value::from(vm.clone()));
        made.insert(id, vm);
    }
    for (class, peer) in [("VBD", "VDI"), ("VIF", "network")] {
        for (_, record) in of(class) {
            let known = |field: &str| record.get(field).and_then(Value::as_str).and_then(|id| made.get(id)).cloned();
            let Some(vm) = known("VM") else { continue };
            let mut fields = typed(class, record);
            fields.insert("VM".into(), vm.into());
            fields.insert(peer.into(), known(peer).unwrap_or_else(|| NULL.into()).into());
            for (field, value) in [("uuid", json!("")), ("currently_attached", json!(false))] {
                fields.insert(field.into(), value);
            }
            if class == "VIF" && !restore {
                fields.remove("MAC");
                fields.insert("MAC".into(), verbs::new_mac().into());
            }
            store.insert(class, fields);
        }
    }
    Ok(xml::value(&Value::Array(vms), &Type::Any, Model::get()))
}

/// Where the disks go.
fn repository(store: &Store, query: &Query) -> Result<String> {
    if let Some(asked) = query.get("sr_id") {
        return match store.get("SR", asked) {
            Ok(_) => Ok(asked.clone()),
            Err(_) => by_uuid(store, "SR", asked).ok_or_else(|| Fault::new("UUID_INVALID", ["sr", asked])),
        };
    }
    let default = store.rows("pool").next().and_then(|(_, pool)| pool.fields.get("default_SR")?.as_str().map(str::to_owned));
    default.filter(|sr| sr != NULL).ok_or_else(|| Fault::new("DEFAULT_SR_NOT_FOUND", [NULL]))
}

/// The fields that a new object takes over from a record: those of their types, and no reference, which would be of another pool.
fn typed(class: &str, record: &Map<String, Value>) -> Map<String, Value> {
    let model = Model::get();
    let mut fields = Map::new();
    for field in model.classes.get(class).map_or(&[][..], |known| &known.fields) {
        let refers = match &field.ty {
            Type::Ref(_) => true,
            Type::Set(of) => matches!(**of, Type::Ref(_)),
            Type::Map(key, _) => matches!(**key, Type::Ref(_)),
            _ => false,
        };
        if let Some(value) = record.get(&field.name).filter(|_| !refers).and_then(|value| check(&field.ty, model, value).ok()) {
            fields.insert(field.name.clone(), value);
        }
    }
    fields
}
