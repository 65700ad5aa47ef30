//! Arguments that people write: text or JSON, made what a parameter takes.

use super::{Method, Model, Type, Wrong};
use serde_json::Value;

impl Model {
    /// The parameters of a call from what was written, all of them checked. What a parameter of text, of a word or a reference takes is written as it is, or in quotes of
    /// JSON; numbers and truths plainly; sets, maps and records in JSON.
    ///
    /// # Errors
    /// [`Wrong::Count`], and [`Wrong::Argument`] for each that is not of its type.
    pub fn arguments(&self, method: &Method, written: &[String]) -> Result<Vec<Value>, Vec<Wrong>> {
        let (least, most) = method.arity();
        if !(least..=most).contains(&written.len()) {
            return Err(vec![Wrong::Count { method: Box::new(method.clone()), given: written.len() }]);
        }
        let (mut values, mut wrong) = (Vec::new(), Vec::new());
        for (param, text) in method.params.iter().zip(written) {
            match self.value(&param.ty, text) {
                Ok(value) => values.push(value),
                Err(why) => wrong.push(Wrong::Argument { param: Box::new(param.clone()), why }),
            }
        }
        if wrong.is_empty() { Ok(values) } else { Err(wrong) }
    }

    fn value(&self, ty: &Type, text: &str) -> Result<Value, String> {
        let quoted = || serde_json::from_str::<String>(text).ok().filter(|_| text.starts_with('"'));
        match ty {
            Type::Text | Type::Time | Type::Ref(_) | Type::Void | Type::Word(_) => {
                let value = Value::String(quoted().unwrap_or_else(|| text.to_owned()));
                self.fits(ty, &value).map(|()| value)
            }
            Type::Int => {
                // Larger than what JSON's readers take exactly is text for XAPI, too.
                let number =
                    text.trim().trim_matches('"').parse::<i64>().map_err(|_| format!("\"{}\" is no integer", text.escape_debug()))?;
                Ok(number.into())
            }
            Type::Float => {
                let number = text.trim().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
                number.map(Value::Number).ok_or_else(|| format!("\"{}\" is no number", text.escape_debug()))
            }
            Type::Bool => match text.trim() {
                "true" | "1" | "yes" => Ok(true.into()),
                "false" | "0" | "no" => Ok(false.into()),
                _ => Err(format!("\"{}\" is neither true nor false", text.escape_debug())),
            },
            Type::Set(_) | Type::Map(..) | Type::Record(_) | Type::Any => {
                let value: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
                self.fits(ty, &value).map(|()| value)
            }
        }
    }

    /// Whether a value is of a type, as far as the data model says; XAPI takes numbers as text, too.
    fn fits(&self, ty: &Type, value: &Value) -> Result<(), String> {
        let wanted = |what: &str| Err(format!("{value} is no {what}"));
        match ty {
            Type::Any | Type::Void => Ok(()),
            Type::Text | Type::Time if value.is_string() => Ok(()),
            Type::Ref(_) => match value.as_str() {
                Some(text) if text.is_empty() || text.starts_with("OpaqueRef:") || text.starts_with("Ref:") => Ok(()),
                _ => wanted("reference: OpaqueRef:… is wanted, OpaqueRef:NULL for none"),
            },
            Type::Word(name) => match (value.as_str(), self.enums.get(name)) {
                (Some(word), Some(words)) if !words.iter().any(|known| known == word) => {
                    Err(format!("\"{word}\" is none of {}", words.join(", ")))
                }
                (Some(_), _) => Ok(()),
                (None, _) => wanted("word"),
            },
            Type::Int if value.is_i64() || value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()) => Ok(()),
            Type::Float if value.is_number() || value.as_str().is_some_and(|text| text.parse::<f64>().is_ok()) => Ok(()),
            Type::Bool if value.is_boolean() => Ok(()),
            Type::Set(of) => match value.as_array() {
                Some(all) => all.iter().try_for_each(|one| self.fits(of, one)),
                None => wanted("list"),
            },
            Type::Map(_, of) => match value.as_object() {
                Some(all) => all.values().try_for_each(|one| self.fits(of, one)),
                None => wanted("map"),
            },
            Type::Record(class) => {
                let Some(all) = value.as_object() else { return wanted("record") };
                let Some(known) = self.classes.get(class) else { return Ok(()) };
                for (name, one) in all {
                    // Fields that are not known may be known to a newer XAPI.
                    if let Some(field) = known.field(name) {
                        self.fits(&field.ty, one).map_err(|why| format!("{name}: {why}"))?;
                    }
                }
                Ok(())
            }
            other => wanted(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(name: &str, written: &[&str]) -> Result<Value, String> {
        let model = Model::get();
        let written: Vec<String> = written.iter().map(|text| (*text).to_owned()).collect();
        model
            .arguments(&model.method(name).unwrap(), &written)
            .map(Value::Array)
            .map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn arguments_are_written_plainly_or_in_json() {
        assert_eq!(made("VM.start", &["OpaqueRef:1", "false", "true"]).unwrap(), json!(["OpaqueRef:1", false, true]));
        assert_eq!(made("VM.set_name_label", &["OpaqueRef:1", "a \"b\" {"]).unwrap(), json!(["OpaqueRef:1", "a \"b\" {"]));
        assert_eq!(made("VM.set_name_label", &["OpaqueRef:1", "\"7\\n\""]).unwrap(), json!(["OpaqueRef:1", "7\n"]));
        assert_eq!(made("VM.set_memory_static_max", &["OpaqueRef:1", "9223372036854775807"]).unwrap(), json!(["OpaqueRef:1", i64::MAX]));
        assert_eq!(made("event.from", &["[\"VM\"]", "", "1.5"]).unwrap(), json!([["VM"], "", 1.5]));
        assert_eq!(made("VM.set_other_config", &["OpaqueRef:1", "{\"a\":\"b\"}"]).unwrap(), json!(["OpaqueRef:1", {"a": "b"}]));
    }

    #[test]
    fn what_does_not_fit_is_said_all_at_once() {
        let wrong = made("VM.start", &["web", "perhaps", "true"]).unwrap_err();
        assert!(wrong.contains("\"vm\" takes VM ref") && wrong.contains("\"start_paused\" takes bool"), "{wrong}");
        assert!(made("VM.set_tags", &["OpaqueRef:1", "{}"]).unwrap_err().contains("list"));
        assert!(made("VM.set_memory_static_max", &["OpaqueRef:1", "9223372036854775808"]).unwrap_err().contains("no integer"));
        assert!(made("VBD.set_mode", &["OpaqueRef:1", "RX"]).unwrap_err().contains("RO"));
        assert!(made("VDI.create", &[r#"{"virtual_size": "much"}"#]).unwrap_err().contains("virtual_size"));
        assert!(made("event.from", &["[\"VM\"]", "", "NaN"]).unwrap_err().contains("no number"));
        assert!(made("VM.start", &[]).unwrap_err().contains("0 are given"));
    }
}
