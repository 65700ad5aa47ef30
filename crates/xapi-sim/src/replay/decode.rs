//! Records as they were answered: read by the table of the data model and by the client's own types, and written again.

use super::wire::Exchange;
use crate::{
    model::{Model, Type},
    values::check,
    wire::xml,
};
use serde_json::Value;
use vmoon_xapi::records;

/// What was read and written again.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Answers of calls.
    pub answers: usize,
    /// Records in them.
    pub records: usize,
    /// Fields of those.
    pub fields: usize,
    /// Fields that the table has not.
    pub unknown: Vec<String>,
    /// What could not be read, or is not the same after it was written.
    pub wrong: Vec<String>,
}

impl Decoded {
    pub(super) fn add(&mut self, other: Decoded) {
        self.answers += other.answers;
        self.records += other.records;
        self.fields += other.fields;
        self.unknown.extend(other.unknown);
        self.wrong.extend(other.wrong);
    }

    /// Reads an answer of a recording.
    pub(super) fn answer(&mut self, exchange: &Exchange) {
        let method = exchange.method();
        let Some(answer) = &exchange.answer else { return };
        let Some(value) = answer.value() else { return };
        let is_xml = answer.text().trim_start().starts_with('<');
        let result = if is_xml { value.get("Value") } else { value.get("result") };
        let (Some(result), Ok(known)) = (result.filter(|result| !result.is_null()), Model::get().method(&method)) else { return };
        self.answers += 1;
        let ty = if known.asynchronous { Type::Ref("task".into()) } else { known.result };
        self.typed(&method, &ty, result);
        // Written as XML and read again it is the same, integers as text.
        let written = xml::value(result, &ty, Model::get());
        match xml::read_value(&written)
            .and_then(|again| xml::read_value(&xml::value(&again, &ty, Model::get())).map(|third| again == third))
        {
            Some(true) => {}
            _ => self.wrong.push(format!("{method}: it is another when it was written as XML and read")),
        }
    }

    fn typed(&mut self, place: &str, ty: &Type, value: &Value) {
        match (ty, value) {
            (Type::Record(class), Value::Object(record)) => self.record(class, record),
            (Type::Set(of), Value::Array(all)) => all.iter().for_each(|one| self.typed(place, of, one)),
            (Type::Map(_, of), Value::Object(all)) => all.values().for_each(|one| self.typed(place, of, one)),
            // Events carry records.
            (Type::Any, Value::Object(batch)) => {
                for event in batch.get("events").and_then(Value::as_array).into_iter().flatten() {
                    let class = event["class"].as_str().and_then(crate::sim::class_named);
                    if let (Some(class), Some(record)) = (class, event["snapshot"].as_object()) {
                        self.record(class, record);
                    }
                }
            }
            (Type::Any | Type::Void, _) => {}
            (ty, value) => {
                if check(ty, Model::get(), value).is_err() {
                    self.wrong.push(format!("{place}: {value} is no {ty}"));
                }
            }
        }
    }

    fn record(&mut self, class: &str, record: &serde_json::Map<String, Value>) {
        self.records += 1;
        let model = Model::get();
        let Some(known) = model.classes.get(class) else { return };
        for (name, value) in record {
            let Some(field) = known.field(name) else {
                self.unknown.push(format!("{class}.{name}"));
                continue;
            };
            self.fields += 1;
            match check(&field.ty, model, value) {
                // Numbers in XML are text; as values they are the same.
                Ok(again) if again == *value || is_in_text(value, &again) => {}
                Ok(again) => self.wrong.push(format!("{class}.{name}: {value} became {again}")),
                Err(fault) => self.wrong.push(format!("{class}.{name}: {value}: {}", fault.0.join(" "))),
            }
        }
        let value = Value::Object(record.clone());
        if let Err(error) = ours(class, value) {
            self.wrong.push(format!("{class}: our own type cannot read it: {error}"));
        }
    }
}

/// Whether the text is that number.
fn is_in_text(text: &Value, number: &Value) -> bool {
    let written = number.to_string();
    text.as_str() == Some(written.as_str())
}

/// Reads a record by the client's type for its class, if there is one.
fn ours(class: &str, value: Value) -> Result<(), serde_json::Error> {
    use serde_json::from_value;
    match class {
        "VM" => from_value::<records::Vm>(value).map(drop),
        "VM_guest_metrics" => from_value::<records::VmGuestMetrics>(value).map(drop),
        "host" => from_value::<records::Host>(value).map(drop),
        "pool" => from_value::<records::Pool>(value).map(drop),
        "SR" => from_value::<records::Sr>(value).map(drop),
        "VDI" => from_value::<records::Vdi>(value).map(drop),
        "VBD" => from_value::<records::Vbd>(value).map(drop),
        "VIF" => from_value::<records::Vif>(value).map(drop),
        "network" => from_value::<records::Network>(value).map(drop),
        "console" => from_value::<records::Console>(value).map(drop),
        _ => Ok(()),
    }
}
