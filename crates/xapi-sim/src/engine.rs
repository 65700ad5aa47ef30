//! Accessors, for every class from the data model: `get_record`, `get_by_uuid`, `set_F`, `add_to_F`, ….

use crate::{
    fault::{Fault, Result},
    model::{Accessor, Field},
    store::{Row, Store},
    values::check,
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Obeys an accessor, with parameters of the right types.
pub(crate) fn obey(accessor: &Accessor<'_>, store: &mut Store, class: &str, params: &[Value]) -> Result<Value> {
    let text = |at: usize| params.get(at).and_then(Value::as_str).unwrap_or_default();
    let references = |found: Vec<&String>| Value::Array(found.into_iter().map(|one| one.as_str().into()).collect());
    let has = |row: &Row, field: &str, wanted: &str| row.fields.get(field).is_some_and(|value| value == wanted);
    match accessor {
        Accessor::All => Ok(references(store.rows(class).map(|(reference, _)| reference).collect())),
        Accessor::AllRecords => Ok(records(store.rows(class))),
        Accessor::AllRecordsWhere => {
            let query = Query::parse(text(0))?;
            Ok(records(store.rows(class).filter(|(_, row)| query.fits(row))))
        }
        Accessor::Record => Ok(Value::Object(store.get(class, text(0))?.fields.clone())),
        Accessor::ByUuid => {
            let found = store.rows(class).find(|(_, row)| has(row, "uuid", text(0)));
            found.map(|(reference, _)| reference.as_str().into()).ok_or_else(|| Fault::new("UUID_INVALID", [class, text(0)]))
        }
        Accessor::ByName => {
            Ok(references(store.rows(class).filter(|(_, row)| has(row, "name_label", text(0))).map(|(reference, _)| reference).collect()))
        }
        Accessor::Create => create(store, class, params.first().unwrap_or(&Value::Null)),
        Accessor::Destroy => {
            store.get(class, text(0))?;
            store.remove(class, text(0));
            Ok("".into())
        }
        Accessor::Get(field) => store.field(class, text(0), &field.name),
        Accessor::Set(field) => store.set(class, text(0), &field.name, params.get(1).cloned().unwrap_or_default()).map(|()| "".into()),
        Accessor::Add(field) => add(store, class, field, params),
        Accessor::Remove(field) => {
            let mut value = store.field(class, text(0), &field.name)?;
            match &mut value {
                Value::Object(map) => drop(map.remove(text(1))),
                Value::Array(all) => all.retain(|one| one != text(1)),
                _ => {}
            }
            store.set(class, text(0), &field.name, value).map(|()| "".into())
        }
    }
}

fn records<'a>(rows: impl Iterator<Item = (&'a String, &'a Row)>) -> Value {
    Value::Object(rows.map(|(reference, row)| (reference.clone(), Value::Object(row.fields.clone()))).collect())
}

/// Every record of a class, written where it is: to copy a thousand of them into a value first takes longer than everything else.
pub(crate) struct Records<'a> {
    pub(crate) store: &'a Store,
    pub(crate) class: &'a str,
}

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.store.rows(self.class).map(|(reference, row)| (reference, &row.fields)))
    }
}

fn add(store: &mut Store, class: &str, field: &Field, params: &[Value]) -> Result<Value> {
    let reference = params.first().and_then(Value::as_str).unwrap_or_default();
    let mut value = store.field(class, reference, &field.name)?;
    let key = params.get(1).and_then(Value::as_str).unwrap_or_default();
    match &mut value {
        Value::Object(map) => {
            if map.contains_key(key) {
                return Err(Fault::new("MAP_DUPLICATE_KEY", [class, &field.name, reference, key]));
            }
            map.insert(key.to_owned(), params.get(2).cloned().unwrap_or_default());
        }
        Value::Array(all) if !all.iter().any(|one| one == key) => all.push(key.into()),
        _ => {}
    }
    store.set(class, reference, &field.name, value).map(|()| "".into())
}

/// The fields that a record gives to a new object.
///
/// # Errors
/// `INTERNAL_ERROR` with the first field that is missing, or is of another type.
pub(crate) fn given(store: &Store, class: &str, record: &Value) -> Result<Map<String, Value>> {
    let model = store.model;
    let Some(known) = model.classes.get(class) else { return Ok(Map::new()) };
    let mut fields = Map::new();
    for (name, needed) in known.make.as_deref().unwrap_or_default() {
        match (record.get(name), known.field(name)) {
            (Some(value), Some(field)) => drop(fields.insert(name.clone(), check(&field.ty, model, value)?)),
            (None, _) if *needed => {
                return Err(Fault::internal(&format!("Server_helpers.Dispatcher_FieldNotFound(\"{name}\")")));
            }
            _ => {}
        }
    }
    Ok(fields)
}

fn create(store: &mut Store, class: &str, record: &Value) -> Result<Value> {
    let fields = given(store, class, record)?;
    Ok(store.insert(class, fields).into())
}

/// A query of `get_all_records_where`: `field "power_state" = "Halted" and not (field "is_a_template" = "true")`, as far as clients use it.
#[derive(Debug)]
enum Query {
    True,
    Is(String, String),
    Not(Box<Query>),
    And(Box<Query>, Box<Query>),
    Or(Box<Query>, Box<Query>),
}

impl Query {
    fn parse(text: &str) -> Result<Self> {
        let words = words(text).ok_or_else(|| Fault::internal("Failure(\"Parse error in query\")"))?;
        let mut rest = words.as_slice();
        let query = Self::either(&mut rest, 0);
        query.filter(|_| rest.is_empty()).ok_or_else(|| Fault::internal("Failure(\"Parse error in query\")"))
    }

    fn either(rest: &mut &[String], depth: u32) -> Option<Self> {
        let mut left = Self::both(rest, depth)?;
        while rest.first().is_some_and(|word| word == "or") {
            *rest = &rest[1..];
            left = Self::Or(Box::new(left), Box::new(Self::both(rest, depth)?));
        }
        Some(left)
    }

    fn both(rest: &mut &[String], depth: u32) -> Option<Self> {
        let mut left = Self::one(rest, depth)?;
        while rest.first().is_some_and(|word| word == "and") {
            *rest = &rest[1..];
            left = Self::And(Box::new(left), Box::new(Self::one(rest, depth)?));
        }
        Some(left)
    }

    fn one(rest: &mut &[String], depth: u32) -> Option<Self> {
        if depth > 64 {
            return None;
        }
        let (first, after) = rest.split_first()?;
        *rest = after;
        match first.as_str() {
            "true" => Some(Self::True),
            "not" => Some(Self::Not(Box::new(Self::one(rest, depth + 1)?))),
            "(" => {
                let inner = Self::either(rest, depth + 1)?;
                let (close, after) = rest.split_first()?;
                *rest = after;
                (close == ")").then_some(inner)
            }
            "field" => {
                let [name, equals, value, after @ ..] = *rest else { return None };
                *rest = after;
                let (name, value) = (name.strip_prefix('"')?, value.strip_prefix('"')?);
                (equals == "=").then(|| Self::Is(name.to_owned(), value.to_owned()))
            }
            _ => None,
        }
    }

    fn fits(&self, row: &Row) -> bool {
        match self {
            Self::True => true,
            Self::Is(field, wanted) => row.fields.get(&field.replace("__", "_")).is_some_and(|value| match value {
                Value::String(text) => text == wanted,
                Value::Bool(flag) => wanted.parse() == Ok(*flag),
                other => wanted.parse().is_ok_and(|number: i64| other.as_i64() == Some(number)),
            }),
            Self::Not(inner) => !inner.fits(row),
            Self::And(a, b) => a.fits(row) && b.fits(row),
            Self::Or(a, b) => a.fits(row) || b.fits(row),
        }
    }
}

/// The words of a query; quoted ones keep their first quote.
fn words(text: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => {
                let end = rest[1..].find('"')? + 1;
                all.push(rest[..end].to_owned());
                end + 1
            }
            '(' | ')' | '=' => {
                all.push(first.to_string());
                1
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "()=\"".contains(c)).unwrap_or(rest.len());
                all.push(rest[..end].to_owned());
                end
            }
        };
        rest = rest[end..].trim_start();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::json;

    fn call(store: &mut Store, method: &str, params: Value) -> Result<Value> {
        let (class, verb) = method.split_once('.').unwrap();
        let known = &Model::get().classes[class];
        obey(&Accessor::find(known, verb).expect(method), store, class, params.as_array().unwrap())
    }

    #[test]
    fn accessors_come_from_the_data_model() {
        let store = &mut Store::new(Model::get());
        let vm = store.insert("VM", json!({"name_label": "a", "power_state": "Halted"}).as_object().unwrap().clone());
        assert_eq!(call(store, "VM.get_name_label", json!([vm])).unwrap(), "a");
        call(store, "VM.set_name_label", json!([vm, "b"])).unwrap();
        assert_eq!(call(store, "VM.get_by_name_label", json!(["b"])).unwrap(), json!([vm]));
        call(store, "VM.add_tags", json!([vm, "x"])).unwrap();
        call(store, "VM.add_tags", json!([vm, "x"])).unwrap();
        assert_eq!(call(store, "VM.get_tags", json!([vm])).unwrap(), json!(["x"]));
        let uuid = call(store, "VM.get_uuid", json!([vm])).unwrap();
        assert_eq!(call(store, "VM.get_by_uuid", json!([uuid])).unwrap(), vm.as_str());
        assert_eq!(call(store, "VM.get_by_uuid", json!(["x"])).unwrap_err().0, ["UUID_INVALID", "VM", "x"]);
        let none = Accessor::find(&Model::get().classes["VM"], "set_uuid");
        assert!(none.is_none(), "{none:?}");
    }

    #[test]
    fn a_constructor_names_the_first_field_that_is_missing() {
        let store = &mut Store::new(Model::get());
        let missing = call(store, "VIF.create", json!([{"device": "0", "network": "n", "VM": "v"}])).unwrap_err();
        assert_eq!(missing.0, ["INTERNAL_ERROR", "Server_helpers.Dispatcher_FieldNotFound(\"MAC\")"]);
    }

    #[test]
    fn queries_are_obeyed_and_nonsense_is_refused() {
        let store = &mut Store::new(Model::get());
        for (name, template) in [("a", true), ("b", false)] {
            store.insert("VM", json!({"name_label": name, "is_a_template": template}).as_object().unwrap().clone());
        }
        let mut count = |query: &str| call(store, "VM.get_all_records_where", json!([query])).map(|found| found.as_object().unwrap().len());
        assert_eq!(count("true").unwrap(), 2);
        assert_eq!(count(r#"field "power_state" = "Halted" and field "is_a_template" = "false""#).unwrap(), 1);
        assert_eq!(count(r#"not (field "name__label"="a" or field "name__label"="b")"#).unwrap(), 0);
        for bad in ["", "field", "field \"a", "(true", "true true", &"(".repeat(9999)] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }
}
