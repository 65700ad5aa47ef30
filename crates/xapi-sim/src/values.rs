//! Values as they come: whether they are of the type that is wanted, and refused in XAPI's words.

use crate::fault::{Fault, Result};
use serde_json::{Map, Value};
use vmoon_xapi::model::{Model, Type};

/// The value in the form that is kept, if it is of this type. XAPI is generous with numbers: text is taken for them, as in its XML.
///
/// # Errors
/// `INTERNAL_ERROR` as XAPI has it.
pub(crate) fn check(ty: &Type, model: &Model, value: &Value) -> Result<Value> {
    let wrong = |wanted: &str| Fault::internal(&format!("Failure(\"Expected {wanted}, got '{}'\")", shown(value)));
    match ty {
        Type::Void => Ok("".into()),
        Type::Any => Ok(value.clone()),
        Type::Text | Type::Time => value.as_str().map(Value::from).ok_or_else(|| wrong("string")),
        Type::Ref(_) => value.as_str().map(Value::from).ok_or_else(|| wrong("string")),
        Type::Int => {
            let text = || value.as_str().and_then(|text| text.trim().parse::<i64>().ok());
            value.as_i64().or_else(text).map(Value::from).ok_or_else(|| wrong("int"))
        }
        Type::Float => {
            let text = || value.as_str().and_then(|text| text.trim().parse::<f64>().ok());
            value.as_f64().or_else(text).map(Value::from).ok_or_else(|| wrong("float"))
        }
        Type::Bool => value.as_bool().map(Value::from).ok_or_else(|| wrong("bool")),
        Type::Word(name) => {
            let word = value.as_str().ok_or_else(|| wrong("string"))?;
            let known = model.enums.get(name).is_none_or(|words| words.iter().any(|known| known == word));
            if known { Ok(word.into()) } else { Err(Fault::internal("Failure(\"Unknown tag/contents\")")) }
        }
        Type::Set(of) => {
            let all = value.as_array().ok_or_else(|| wrong("list"))?;
            all.iter().map(|one| check(of, model, one)).collect::<Result<Vec<_>>>().map(Value::Array)
        }
        Type::Map(_, of) => {
            let all = value.as_object().ok_or_else(|| wrong("dict"))?;
            let checked = all.iter().map(|(key, one)| Ok((key.clone(), check(of, model, one)?))).collect::<Result<Map<_, _>>>();
            checked.map(Value::Object)
        }
        Type::Record(_) => value.as_object().map(|_| value.clone()).ok_or_else(|| wrong("dict")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_checked_and_refused_as_xapi_does() {
        let model = Model::get();
        let no = |ty: &str, value: Value| check(&Type::parse(ty), model, &value).unwrap_err().0.join(" ");
        assert_eq!(no("bool", "notabool".into()), "INTERNAL_ERROR Failure(\"Expected bool, got 'S(notabool)'\")");
        assert_eq!(no("string", Value::Null), "INTERNAL_ERROR Failure(\"Expected string, got 'N'\")");
        assert!(no("enum vm_power_state", "Dreaming".into()).contains("Unknown tag"));
        assert_eq!(check(&Type::parse("int"), model, &"42".into()).unwrap(), 42);
        let map = Type::parse("(string -> (string -> int) map) map");
        assert_eq!(check(&map, model, &json!({"a": {"b": "1"}})).unwrap(), json!({"a": {"b": 1}}));
    }
}
