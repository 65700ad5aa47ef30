//! Rows with generations: which objects there are, when each was made and last changed, and which are gone. From that events follow, exactly as the real one makes
//! them: what happened to an object between two looks is one event.

use crate::{
    fault::{Fault, Result},
    images::Images,
    model::{Model, NULL},
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// How many deletions of a class are remembered: who looks more rarely misses some (`db_cache_types.ml` keeps between 256 and 512).
const REMEMBERED: usize = 512;

/// A field of one class that refers to an object of another, which lists it: `VBD.VM` and `VM.VBDs`.
const RELATIONS: &[(&str, &str, &str, &str)] = &[
    ("VBD", "VM", "VM", "VBDs"),
    ("VBD", "VDI", "VDI", "VBDs"),
    ("VIF", "VM", "VM", "VIFs"),
    ("VIF", "network", "network", "VIFs"),
    ("VDI", "SR", "SR", "VDIs"),
    ("VDI", "snapshot_of", "VDI", "snapshots"),
    ("VM", "snapshot_of", "VM", "snapshots"),
    ("VM", "parent", "VM", "children"),
    ("VM", "resident_on", "host", "resident_VMs"),
    ("console", "VM", "VM", "consoles"),
    ("PBD", "SR", "SR", "PBDs"),
    ("PBD", "host", "host", "PBDs"),
    ("PIF", "host", "host", "PIFs"),
    ("PIF", "network", "network", "PIFs"),
    ("Certificate", "host", "host", "certificates"),
    ("host_cpu", "host", "host", "host_CPUs"),
];

/// An object.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) fields: Map<String, Value>,
    made: u64,
    changed: u64,
}

#[derive(Clone, Debug, Default)]
struct Table {
    rows: BTreeMap<String, Row>,
    gone: VecDeque<(u64, String)>,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Happened {
    pub(crate) class: String,
    pub(crate) operation: &'static str,
    pub(crate) reference: String,
    /// The record; none if it is gone.
    pub(crate) record: Option<Value>,
    at: u64,
}

/// Everything there is.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) model: &'static Model,
    tables: BTreeMap<String, Table>,
    pub(crate) generation: u64,
    /// What is on disks.
    pub(crate) images: Arc<Images>,
}

/// A reference that nobody has.
pub(crate) fn fresh() -> String {
    format!("OpaqueRef:{}", uuid::Uuid::now_v7())
}

impl Store {
    pub(crate) fn new(model: &'static Model) -> Self {
        let tables = model.classes.keys().map(|class| (class.clone(), Table::default())).collect();
        Self { model, tables, generation: 1, images: Arc::default() }
    }

    fn next(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    fn table(&mut self, class: &str) -> &mut Table {
        self.tables.entry(class.to_owned()).or_default()
    }

    /// Makes an object with these fields, and the others at their defaults; its reference.
    pub(crate) fn insert(&mut self, class: &str, given: Map<String, Value>) -> String {
        let reference = fresh();
        self.insert_as(class, &reference, given);
        reference
    }

    /// The same under a reference that is known.
    pub(crate) fn insert_as(&mut self, class: &str, reference: &str, mut given: Map<String, Value>) {
        let at = self.next();
        let known = self.model.classes.get(class);
        let mut fields = Map::new();
        for field in known.map_or(&[][..], |class| &class.fields) {
            let value = given.remove(&field.name).unwrap_or_else(|| field.default.clone());
            fields.insert(field.name.clone(), value);
        }
        if fields.get("uuid").is_some_and(|uuid| uuid == "") {
            fields.insert("uuid".into(), uuid::Uuid::now_v7().to_string().into());
        }
        let parents = related(class, &fields);
        self.table(class).rows.insert(reference.to_owned(), Row { fields, made: at, changed: at });
        for (parent, at, list) in parents {
            self.list_in(&parent, &at, &list, reference, true);
        }
    }

    /// Puts an object back as it was, with all that it refers to and is listed in.
    pub(crate) fn restore(&mut self, class: &str, reference: &str, mut given: Map<String, Value>) {
        let at = self.next();
        let known = self.model.classes.get(class);
        for field in known.map_or(&[][..], |class| &class.fields) {
            given.entry(field.name.clone()).or_insert_with(|| field.default.clone());
        }
        self.table(class).rows.insert(reference.to_owned(), Row { fields: given, made: at, changed: at });
    }

    /// Removes an object; missing is fine.
    pub(crate) fn remove(&mut self, class: &str, reference: &str) {
        let at = self.next();
        let table = self.table(class);
        let Some(row) = table.rows.remove(reference) else { return };
        table.gone.push_back((at, reference.to_owned()));
        while table.gone.len() > REMEMBERED {
            table.gone.pop_front();
        }
        for (parent, at, list) in related(class, &row.fields) {
            self.list_in(&parent, &at, &list, reference, false);
        }
    }

    fn list_in(&mut self, class: &str, reference: &str, field: &str, child: &str, there: bool) {
        let at = self.next();
        let Some(row) = self.table(class).rows.get_mut(reference) else { return };
        let Some(all) = row.fields.get_mut(field).and_then(Value::as_array_mut) else { return };
        all.retain(|one| one != child);
        if there {
            all.push(child.into());
        }
        row.changed = at;
    }

    /// An object.
    ///
    /// # Errors
    /// `HANDLE_INVALID`.
    pub(crate) fn get(&self, class: &str, reference: &str) -> Result<&Row> {
        self.tables.get(class).and_then(|table| table.rows.get(reference)).ok_or_else(|| Fault::handle(class, reference))
    }

    pub(crate) fn rows(&self, class: &str) -> impl Iterator<Item = (&String, &Row)> {
        self.tables.get(class).into_iter().flat_map(|table| &table.rows)
    }

    /// A field of an object; null if it has no such field.
    pub(crate) fn field(&self, class: &str, reference: &str, name: &str) -> Result<Value> {
        Ok(self.get(class, reference)?.fields.get(name).cloned().unwrap_or_default())
    }

    /// The same as text.
    pub(crate) fn text(&self, class: &str, reference: &str, name: &str) -> Result<String> {
        Ok(self.field(class, reference, name)?.as_str().unwrap_or_default().to_owned())
    }

    /// The same as a list of references.
    pub(crate) fn list(&self, class: &str, reference: &str, name: &str) -> Result<Vec<String>> {
        let value = self.field(class, reference, name)?;
        Ok(value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect())
    }

    /// Changes a field; what refers to it follows.
    ///
    /// # Errors
    /// `HANDLE_INVALID`.
    pub(crate) fn set(&mut self, class: &str, reference: &str, name: &str, value: impl Into<Value>) -> Result<()> {
        let value = value.into();
        let at = self.next();
        let row = self.table(class).rows.get_mut(reference).ok_or_else(|| Fault::handle(class, reference))?;
        let before = row.fields.insert(name.to_owned(), value.clone());
        row.changed = at;
        for (_, _, parent, list) in RELATIONS.iter().filter(|(child, field, ..)| *child == class && *field == name) {
            if let Some(old) = before.as_ref().and_then(Value::as_str) {
                self.list_in(parent, old, list, reference, false);
            }
            if let Some(new) = value.as_str() {
                self.list_in(parent, new, list, reference, true);
            }
        }
        Ok(())
    }

    /// Says that an object has changed, though it has not; the token of just before.
    ///
    /// # Errors
    /// `HANDLE_INVALID`.
    pub(crate) fn touch(&mut self, class: &str, reference: &str) -> Result<String> {
        let before = self.token();
        let at = self.next();
        let row = self.table(class).rows.get_mut(reference).ok_or_else(|| Fault::handle(class, reference))?;
        row.changed = at;
        Ok(before)
    }

    /// Where events go on from.
    pub(crate) fn token(&self) -> String {
        format!("{:020},{:020}", self.generation, 0)
    }

    /// What has happened since a generation to what is wanted, in order.
    pub(crate) fn since(&self, from: u64, wants: impl Fn(&str, &str) -> bool) -> Vec<Happened> {
        let mut all = Vec::new();
        for (class, table) in &self.tables {
            let class = class.to_lowercase();
            for (reference, row) in table.rows.iter().filter(|(_, row)| row.changed > from) {
                if wants(&class, reference) {
                    let operation = if row.made > from { "add" } else { "mod" };
                    let record = Some(Value::Object(row.fields.clone()));
                    all.push(Happened { class: class.clone(), operation, reference: reference.clone(), record, at: row.changed });
                }
            }
            for (at, reference) in table.gone.iter().filter(|(at, _)| *at > from) {
                // From the beginning nothing is gone yet.
                if from > 0 && wants(&class, reference) {
                    all.push(Happened { class: class.clone(), operation: "del", reference: reference.clone(), record: None, at: *at });
                }
            }
        }
        all.sort_by_key(|happened| happened.at);
        all
    }

    /// How many objects of each class there are, by its name in lower case.
    pub(crate) fn counts(&self) -> Map<String, Value> {
        self.tables.iter().map(|(class, table)| (class.to_lowercase(), table.rows.len().into())).collect()
    }

    /// Forgets deletions, as a server does of which too much was asked.
    pub(crate) fn forget_deletions(&mut self) {
        for table in self.tables.values_mut() {
            table.gone.clear();
        }
    }
}

/// Where an object with these fields is listed: class, reference, field.
fn related(class: &str, fields: &Map<String, Value>) -> Vec<(String, String, String)> {
    let of = |(_, field, parent, list): &(&str, &str, &str, &str)| {
        let at = fields.get(*field)?.as_str().filter(|at| *at != NULL)?;
        Some((parent.to_string(), at.to_owned(), list.to_string()))
    };
    RELATIONS.iter().filter(|(child, ..)| *child == class).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn told(store: &Store, from: u64) -> Vec<String> {
        let all = store.since(from, |class, _| matches!(class, "vm" | "vbd"));
        all.iter().map(|h| format!("{} {}", h.operation, h.class)).collect()
    }

    #[test]
    fn what_refers_is_listed_where_it_refers_to() {
        let mut store = Store::new(Model::get());
        let vm = store.insert("VM", map(json!({"name_label": "a"})));
        let other = store.insert("VM", Map::new());
        let vbd = store.insert("VBD", map(json!({"VM": vm})));
        assert_eq!(store.list("VM", &vm, "VBDs").unwrap(), [vbd.as_str()]);
        store.set("VBD", &vbd, "VM", other.clone()).unwrap();
        assert!(store.list("VM", &vm, "VBDs").unwrap().is_empty());
        assert_eq!(store.list("VM", &other, "VBDs").unwrap(), [vbd.as_str()]);
        store.remove("VBD", &vbd);
        assert!(store.list("VM", &other, "VBDs").unwrap().is_empty());
        assert_eq!(store.get("VBD", &vbd).unwrap_err().0, ["HANDLE_INVALID", "VBD", &vbd]);
    }

    #[test]
    fn events_between_two_looks_are_one() {
        let mut store = Store::new(Model::get());
        let start = store.generation;
        let vm = store.insert("VM", Map::new());
        store.set("VM", &vm, "name_label", "b").unwrap();
        assert_eq!(told(&store, start), ["add vm"]);
        let seen = store.generation;
        store.set("VM", &vm, "name_label", "c").unwrap();
        store.set("VM", &vm, "name_label", "d").unwrap();
        assert_eq!(told(&store, seen), ["mod vm"]);
        let vbd = store.insert("VBD", map(json!({"VM": vm})));
        store.remove("VBD", &vbd);
        store.remove("VM", &vm);
        assert_eq!(told(&store, seen), ["del vbd", "del vm"]);
        assert_eq!(told(&store, 0), Vec::<String>::new());
        store.forget_deletions();
        assert_eq!(told(&store, seen), Vec::<String>::new());
        assert_eq!(store.counts()["vm"], 0);
    }
}
