//! The types of the data model, in its notation: `VM ref`, `enum vm_operations set`, `(string -> int) map`.

use serde_json::{Map, Value, json};
use std::fmt;

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
    /// Reads the data model's notation; what it does not know is [`Type::Any`].
    pub fn parse(text: &str) -> Self {
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
    pub fn zero(&self) -> Value {
        match self {
            Self::Void | Self::Text | Self::Word(_) => "".into(),
            Self::Int => 0.into(),
            Self::Float => json!(0.0),
            Self::Bool => false.into(),
            Self::Time => "19700101T00:00:00Z".into(),
            Self::Ref(_) => crate::value::NULL.into(),
            Self::Record(_) | Self::Map(..) | Self::Any => Value::Object(Map::new()),
            Self::Set(_) => Value::Array(Vec::new()),
        }
    }

    /// The default that the table names.
    pub(super) fn default(&self, text: &str) -> Value {
        match (self, text) {
            (_, "-" | "{}" | "Null" | "None" | "\"\"") => self.zero(),
            (Self::Int, text) => text.parse::<i64>().map_or_else(|_| self.zero(), Value::from),
            (Self::Float, text) => text.trim_end_matches('.').parse::<f64>().map_or_else(|_| self.zero(), Value::from),
            (Self::Bool, text) => (text == "true").into(),
            (Self::Text | Self::Word(_) | Self::Time | Self::Ref(_), text) => text.trim_matches('"').into(),
            _ => self.zero(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Void => f.write_str("void"),
            Self::Text => f.write_str("string"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Bool => f.write_str("bool"),
            Self::Time => f.write_str("datetime"),
            Self::Word(name) => write!(f, "enum {name}"),
            Self::Ref(class) => write!(f, "{class} ref"),
            Self::Record(class) => write!(f, "{class} record"),
            Self::Set(of) => write!(f, "{of} set"),
            Self::Map(key, value) => write!(f, "({key} -> {value}) map"),
            Self::Any => f.write_str("any"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_is_read_and_written() {
        for text in [
            "VM ref",
            "enum vm_operations set",
            "(string -> (string -> int) map) map",
            "VM ref set",
            "datetime",
            "(VM ref -> VM record) map",
        ] {
            assert_eq!(Type::parse(text).to_string(), text);
        }
        assert_eq!(Type::parse("<class> stream"), Type::Any);
        assert_eq!(Type::parse("enum vm_operations set").zero(), json!([]));
    }
}
