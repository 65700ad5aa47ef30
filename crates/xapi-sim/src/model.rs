//! The data model: which classes there are, what fields and calls they have, and of which types. Read from a table of names.

use crate::fault::{Fault, Result};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::OnceLock};

/// What XAPI says instead of a reference to nothing.
pub const NULL: &str = "OpaqueRef:NULL";

/// A type of the data model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing; an empty text on the wire.
    Void,
    /// Text.
    Text,
    /// 64 bits.
    Int,
    /// A number.
    Float,
    /// A truth.
    Bool,
    /// A time, as text.
    Time,
    /// A word of an enum.
    Word(String),
    /// A reference to an object of a class.
    Ref(String),
    /// A record of a class.
    Record(String),
    /// Several.
    Set(Box<Type>),
    /// Values by keys.
    Map(Box<Type>, Box<Type>),
    /// A structure that the data model does not describe.
    Any,
}

impl Type {
    /// Reads the data model's notation: `VM ref`, `enum x set`, `(string -> int) map`.
    fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some(of) = text.strip_suffix(" set") {
            return Self::Set(Box::new(Self::parse(of)));
        }
        if let Some(class) = text.strip_suffix(" ref") {
            return Self::Ref(class.into());
        }
        if let Some(class) = text.strip_suffix(" record") {
            return if class == "event" { Self::Any } else { Self::Record(class.into()) };
        }
        if let Some(inner) = text.strip_suffix(" map").and_then(|inner| inner.strip_prefix('(')?.strip_suffix(')')) {
            let (key, value) = inner.split_once(" -> ").unwrap_or((inner, "string"));
            return Self::Map(Box::new(Self::parse(key)), Box::new(Self::parse(value)));
        }
        if let Some(name) = text.strip_prefix("enum ") {
            return Self::Word(name.into());
        }
        match text {
            "void" => Self::Void,
            "string" => Self::Text,
            "int" => Self::Int,
            "float" => Self::Float,
            "bool" => Self::Bool,
            "datetime" => Self::Time,
            _ => Self::Any,
        }
    }

    /// What a field of this type holds before anything is said of it.
    fn zero(&self) -> Value {
        match self {
            Self::Void | Self::Text | Self::Word(_) => "".into(),
            Self::Int => 0.into(),
            Self::Float => json!(0.0),
            Self::Bool => false.into(),
            Self::Time => "19700101T00:00:00Z".into(),
            Self::Ref(_) => NULL.into(),
            Self::Record(_) | Self::Map(..) | Self::Any => Value::Object(Map::new()),
            Self::Set(_) => Value::Array(Vec::new()),
        }
    }

    /// The default that the table names.
    fn default(&self, text: &str) -> Value {
        match (self, text) {
            (_, "-" | "{}" | "Null" | "None" | "\"\"") => self.zero(),
            (Self::Int, text) => text.parse::<i64>().map_or_else(|_| self.zero(), Value::from),
            (Self::Float, text) => text.trim_end_matches('.').parse::<f64>().map_or_else(|_| self.zero(), Value::from),
            (Self::Bool, text) => (text == "true").into(),
            (Self::Text | Self::Word(_) | Self::Time | Self::Ref(_), text) => text.trim_matches('"').into(),
            _ => self.zero(),
        }
    }

    /// The value in the form that is kept, if it is of this type. XAPI is generous with numbers: text is taken for them, as in its XML.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` as XAPI has it.
    pub fn check(&self, model: &Model, value: &Value) -> Result<Value> {
        let wrong = |wanted: &str| Fault::internal(&format!("Failure(\"Expected {wanted}, got '{}'\")", shown(value)));
        match self {
            Self::Void => Ok("".into()),
            Self::Any => Ok(value.clone()),
            Self::Text | Self::Time => value.as_str().map(Value::from).ok_or_else(|| wrong("string")),
            Self::Ref(_) => value.as_str().map(Value::from).ok_or_else(|| wrong("string")),
            Self::Int => {
                let text = || value.as_str().and_then(|text| text.trim().parse::<i64>().ok());
                value.as_i64().or_else(text).map(Value::from).ok_or_else(|| wrong("int"))
            }
            Self::Float => {
                let text = || value.as_str().and_then(|text| text.trim().parse::<f64>().ok());
                value.as_f64().or_else(text).map(Value::from).ok_or_else(|| wrong("float"))
            }
            Self::Bool => value.as_bool().map(Value::from).ok_or_else(|| wrong("bool")),
            Self::Word(name) => {
                let word = value.as_str().ok_or_else(|| wrong("string"))?;
                let known = model.enums.get(name).is_none_or(|words| words.iter().any(|known| known == word));
                if known { Ok(word.into()) } else { Err(Fault::internal("Failure(\"Unknown tag/contents\")")) }
            }
            Self::Set(of) => {
                let all = value.as_array().ok_or_else(|| wrong("list"))?;
                all.iter().map(|one| of.check(model, one)).collect::<Result<Vec<_>>>().map(Value::Array)
            }
            Self::Map(_, of) => {
                let all = value.as_object().ok_or_else(|| wrong("dict"))?;
                let checked = all.iter().map(|(key, one)| Ok((key.clone(), of.check(model, one)?))).collect::<Result<Map<_, _>>>();
                checked.map(Value::Object)
            }
            Self::Record(_) => value.as_object().map(|_| value.clone()).ok_or_else(|| wrong("dict")),
        }
    }
}

/// A value as OCaml's rpc library prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "N".into(),
        Value::Bool(flag) => format!("B({flag})"),
        Value::Number(number) if number.is_i64() => format!("I({number})"),
        Value::Number(number) => format!("F({number})"),
        Value::String(text) => format!("S({text})"),
        Value::Array(all) => format!("[{}]", all.iter().map(shown).collect::<Vec<_>>().join(";")),
        Value::Object(all) => {
            format!("{{{}}}", all.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect::<Vec<_>>().join(";"))
        }
    }
}

/// Who may change a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// XAPI alone.
    Runtime,
    /// Whoever makes the object.
    Constructor,
    /// Everybody.
    Writable,
}

/// A field of a class.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Who may change it.
    pub access: Access,
    /// Its type.
    pub ty: Type,
    /// What it is before anything is said of it.
    pub default: Value,
}

/// A call that is not an accessor.
#[derive(Clone, Debug)]
pub struct Call {
    /// The release that had it first.
    pub since: String,
    /// Whether it wants a session.
    pub session: bool,
    /// What it answers.
    pub result: Type,
    /// What it wants after the session, and whether that may be left out.
    pub params: Vec<(Type, bool)>,
}

/// A class.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// Its fields, in order.
    pub fields: Vec<Field>,
    /// Its calls, by name.
    pub calls: BTreeMap<String, Call>,
    /// What its plain constructor takes, and what of that must be given; none if it has no such constructor.
    pub make: Option<Vec<(String, bool)>>,
    /// Whether it has a plain destructor.
    pub destroy: bool,
    /// Whether objects are found by name.
    pub by_name: bool,
    /// Whether all of them are listed.
    pub lists: bool,
}

impl Class {
    /// A field by name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// The data model.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Classes by name.
    pub classes: BTreeMap<String, Class>,
    /// The words of enums.
    pub enums: BTreeMap<String, Vec<String>>,
}

impl Model {
    /// The one of the release this was made from.
    pub fn get() -> &'static Self {
        static MODEL: OnceLock<Model> = OnceLock::new();
        MODEL.get_or_init(|| Self::parse(include_str!("model.txt")))
    }

    fn parse(text: &str) -> Self {
        let mut model = Self::default();
        let mut name = String::new();
        for line in text.lines() {
            let mut parts = line.split('\t');
            let (Some(kind), Some(first)) = (parts.next(), parts.next()) else { continue };
            if kind == "class" {
                name = first.to_owned();
            }
            let class = model.classes.entry(name.clone()).or_default();
            match kind {
                "field" => {
                    let access = match parts.next() {
                        Some("RW") => Access::Writable,
                        Some("RO/constructor") => Access::Constructor,
                        _ => Access::Runtime,
                    };
                    let ty = Type::parse(parts.next().unwrap_or("string"));
                    let default = ty.default(parts.next().unwrap_or("-"));
                    class.fields.push(Field { name: first.to_owned(), access, ty, default });
                }
                "enum" => {
                    let words = parts.next().unwrap_or_default().split(',').map(str::to_owned).collect();
                    model.enums.insert(first.to_owned(), words);
                }
                "make" => {
                    let one = |text: &str| (text.trim_end_matches('*').to_owned(), text.ends_with('*'));
                    class.make = Some(first.split(',').filter(|text| !text.is_empty()).map(one).collect());
                }
                "has" => match first {
                    "destroy" => class.destroy = true,
                    "get_by_name_label" => class.by_name = true,
                    _ => class.lists = true,
                },
                "call" => {
                    let since = parts.next().unwrap_or_default().to_owned();
                    let session = parts.next() == Some("session");
                    let result = Type::parse(parts.next().unwrap_or("void"));
                    let one = |text: &str| (Type::parse(text.trim_end_matches('?')), text.ends_with('?'));
                    let params = parts.filter(|text| !text.is_empty()).map(one).collect();
                    class.calls.insert(first.to_owned(), Call { since, session, result, params });
                }
                _ => {}
            }
        }
        model
    }

    /// The class of that name.
    ///
    /// # Errors
    /// `MESSAGE_METHOD_UNKNOWN` of this method.
    pub fn class(&self, name: &str, method: &str) -> Result<&Class> {
        self.classes.get(name).ok_or_else(|| Fault::new("MESSAGE_METHOD_UNKNOWN", [method]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let model = Model::get();
        assert_eq!(model.classes.len(), 72);
        assert_eq!(model.classes.values().map(|class| class.fields.len()).sum::<usize>(), 922);
        let vm = &model.classes["VM"];
        assert_eq!(vm.field("power_state").unwrap().default, "Halted");
        assert_eq!(vm.field("snapshot_of").unwrap().default, NULL);
        assert_eq!(vm.field("HVM_shadow_multiplier").unwrap().default, 1.0);
        let start = &vm.calls["start"];
        assert_eq!(start.params, [(Type::Ref("VM".into()), false), (Type::Bool, false), (Type::Bool, false)]);
        assert!(!model.classes["session"].calls["login_with_password"].session);
        let vbd = model.classes["VBD"].make.as_ref();
        assert!(vbd.is_none() || vbd.unwrap().contains(&("bootable".into(), true)));
    }

    #[test]
    fn values_are_checked_and_refused_as_xapi_does() {
        let model = Model::get();
        let no = |ty: &str, value: Value| Type::parse(ty).check(model, &value).unwrap_err().0.join(" ");
        assert_eq!(no("bool", "notabool".into()), "INTERNAL_ERROR Failure(\"Expected bool, got 'S(notabool)'\")");
        assert_eq!(no("string", Value::Null), "INTERNAL_ERROR Failure(\"Expected string, got 'N'\")");
        assert!(no("enum vm_power_state", "Dreaming".into()).contains("Unknown tag"));
        assert_eq!(Type::parse("int").check(model, &"42".into()).unwrap(), 42);
        let map = Type::parse("(string -> (string -> int) map) map");
        assert_eq!(map.check(model, &json!({"a": {"b": "1"}})).unwrap(), json!({"a": {"b": 1}}));
        assert_eq!(Type::parse("enum vm_operations set").zero(), json!([]));
    }
}
