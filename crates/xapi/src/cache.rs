//! A copy of records, changed by events. Pure: what is read and when is in [`watch`](crate::watch).
//!
//! A record is kept as XAPI wrote it and is decoded when somebody looks at it, for what he looks at: most of its fields are never asked for, and as a tree of values
//! a thousand VMs take many times as long to read, and as much memory.

use crate::error::{Error, Result};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// A record, not decoded yet: its text, which was found to be JSON when it came. Those of one answer share its bytes.
#[derive(Clone)]
pub struct Record(Bytes);

impl Record {
    /// The part of an answer that is this text.
    pub(crate) fn within(answer: &Bytes, text: &str) -> Self {
        Self(answer.slice_ref(text.as_bytes()))
    }

    /// Decodes it, or those fields of it that the type has.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it is of another shape.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.0).map_err(|error| Error::protocol(format!("a record of another shape: {error}")))
    }

    /// The whole of it.
    pub fn value(&self) -> Value {
        // It was JSON when it came.
        serde_json::from_slice(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({})", self.0.escape_ascii())
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text: Box<RawValue> = Deserialize::deserialize(deserializer)?;
        Ok(Self(Bytes::from(Box::<str>::from(text).into_boxed_bytes())))
    }
}

impl From<&Value> for Record {
    fn from(value: &Value) -> Self {
        // The keys of its maps are text.
        Self(value.to_string().into())
    }
}

impl PartialEq for Record {
    /// Whether both say the same; in which order their fields come does not count.
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.value() == other.value()
    }
}

/// One event of `event.from`. Events say what an object is now: those of one object are coalesced.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// The class, in lower case whatever was asked for.
    pub class: String,
    /// `add`, `mod` or `del`.
    pub operation: String,
    /// The object.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The whole record; none for `del`.
    #[serde(default)]
    pub snapshot: Option<Record>,
}

/// An answer of `event.from`.
#[derive(Clone, Debug, Deserialize)]
pub struct Batch {
    /// What happened.
    #[serde(default)]
    pub events: Vec<Event>,
    /// From where to go on.
    pub token: String,
    /// How many objects of each class there are. A slow reader may have missed a `del`: XAPI keeps only the last few hundred of each class (`db_cache_types.ml`).
    #[serde(default)]
    pub valid_ref_counts: BTreeMap<String, Value>,
}

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added,
    /// It is another.
    Changed,
    /// It is gone.
    Removed,
}

/// One change of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The class, in lower case.
    pub class: String,
    /// The object.
    pub reference: String,
    /// What happened to it.
    pub what: What,
}

/// The copy: records by class, in lower case, and reference.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    records: HashMap<String, HashMap<String, Record>>,
}

impl Cache {
    /// The records of a class.
    pub fn class(&self, class: &str) -> impl Iterator<Item = (&str, &Record)> {
        self.records.get(&class.to_lowercase()).into_iter().flatten().map(|(reference, record)| (reference.as_str(), record))
    }

    /// One record.
    pub fn get(&self, class: &str, reference: &str) -> Option<&Record> {
        self.records.get(&class.to_lowercase())?.get(reference)
    }

    /// How many records of a class there are.
    pub fn count(&self, class: &str) -> usize {
        self.records.get(&class.to_lowercase()).map_or(0, HashMap::len)
    }

    /// Replaces all records of a class; what changed by that.
    pub fn replace(&mut self, class: &str, records: HashMap<String, Record>) -> Vec<Change> {
        let class = class.to_lowercase();
        let old = self.records.insert(class.clone(), HashMap::new()).unwrap_or_default();
        let mut changes = Vec::new();
        let mut say = |reference: &String, what| changes.push(Change { class: class.clone(), reference: reference.clone(), what });
        for (reference, record) in &records {
            match old.get(reference) {
                None => say(reference, What::Added),
                Some(before) if before != record => say(reference, What::Changed),
                Some(_) => {}
            }
        }
        for reference in old.keys().filter(|reference| !records.contains_key(*reference)) {
            say(reference, What::Removed);
        }
        self.records.insert(class, records);
        changes
    }

    /// Obeys events; what changed. Those of classes that are not kept, and of operations that are not known, are passed over.
    pub fn apply(&mut self, events: Vec<Event>) -> Vec<Change> {
        let mut changes = Vec::new();
        for event in events {
            let class = event.class.to_lowercase();
            let Some(records) = self.records.get_mut(&class) else { continue };
            let what = match (event.operation.as_str(), event.snapshot) {
                ("del", _) => records.remove(&event.reference).map(|_| What::Removed),
                ("add" | "mod", Some(record)) => match records.get_mut(&event.reference) {
                    None => {
                        records.insert(event.reference.clone(), record);
                        Some(What::Added)
                    }
                    Some(before) => {
                        let before = std::mem::replace(before, record);
                        (records.get(&event.reference) != Some(&before)).then_some(What::Changed)
                    }
                },
                _ => None,
            };
            changes.extend(what.map(|what| Change { class, reference: event.reference, what }));
        }
        changes
    }

    /// Which kept classes have not as many records as XAPI says they have: a deletion was missed.
    pub fn astray(&self, counts: &BTreeMap<String, Value>) -> Vec<String> {
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let wrong = |(class, count): (&String, &Value)| {
            let class = class.to_lowercase();
            let kept = self.records.get(&class)?.len() as u64;
            (number(count)? != kept).then_some(class)
        };
        counts.iter().filter_map(wrong).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(class: &str, operation: &str, reference: &str, record: Value) -> Event {
        let snapshot = (!record.is_null()).then(|| Record::from(&record));
        Event { class: class.into(), operation: operation.into(), reference: reference.into(), snapshot }
    }

    fn records(all: &[(&str, Value)]) -> HashMap<String, Record> {
        all.iter().map(|(reference, record)| ((*reference).to_owned(), Record::from(record))).collect()
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        let mut all: Vec<String> = changes.iter().map(|c| format!("{:?} {} {}", c.what, c.class, c.reference)).collect();
        all.sort();
        all
    }

    #[test]
    fn events_change_the_copy_and_nothing_is_told_twice() {
        let mut cache = Cache::default();
        let first = records(&[("a", json!({"n": 1})), ("b", json!({"n": 2}))]);
        assert_eq!(shown(&cache.replace("VM", first.clone())), ["Added vm a", "Added vm b"]);
        assert!(cache.replace("VM", first).is_empty());
        let changes = cache.apply(vec![
            event("vm", "mod", "a", json!({"n": 3})),
            event("vm", "mod", "a", json!({"n": 3})),
            event("vm", "del", "b", Value::Null),
            event("vm", "del", "never", Value::Null),
            event("vm", "add", "c", json!({})),
            event("sr", "add", "x", json!({})),
            event("vm", "frobnicate", "d", json!({})),
            event("vm", "add", "e", Value::Null),
        ]);
        assert_eq!(shown(&changes), ["Added vm c", "Changed vm a", "Removed vm b"]);
        assert_eq!(cache.count("VM"), 2);
        assert_eq!(cache.get("vm", "a").map(Record::value), Some(json!({"n": 3})));
        // A restart sends everything again: only what is different is told.
        let again = records(&[("a", json!({"n": 4})), ("c", json!({}))]);
        assert_eq!(shown(&cache.replace("vm", again)), ["Changed vm a"]);
    }

    #[test]
    fn a_record_is_the_same_in_another_order_and_is_read_for_what_is_wanted() {
        let of = |text: &str| serde_json::from_str::<Record>(text).unwrap();
        assert_eq!(of(r#"{"a": 1, "b": [2]}"#), of(r#"{"b":[2],"a":1}"#));
        assert_ne!(of(r#"{"a": 1}"#), of(r#"{"a": "1"}"#));
        #[derive(Deserialize)]
        struct Part {
            b: Vec<i64>,
        }
        assert_eq!(of(r#"{"a": {"deep": [null]}, "b": [2]}"#).read::<Part>().unwrap().b, [2]);
        assert!(of(r#"{"b": 2}"#).read::<Part>().is_err());
    }

    #[test]
    fn a_missed_deletion_is_found_by_counting() {
        let mut cache = Cache::default();
        cache.replace("VM", records(&[("a", json!({}))]));
        let counts = |text: &str| serde_json::from_str::<BTreeMap<String, Value>>(text).unwrap();
        assert!(cache.astray(&counts(r#"{"vm": 1, "sr": 9}"#)).is_empty());
        assert!(cache.astray(&counts(r#"{"vm": "1"}"#)).is_empty());
        assert_eq!(cache.astray(&counts(r#"{"VM": 0}"#)), ["vm"]);
        assert!(cache.astray(&counts(r#"{"vm": "many"}"#)).is_empty(), "what cannot be read says nothing");
    }
}
