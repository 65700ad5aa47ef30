//! XML-RPC, with XAPI's habits: integers are decimal text, the answer is always a struct with `Status`, never a fault.

use crate::{
    fault::Fault,
    model::{Model, Type},
};
use quick_xml::{Reader, escape::escape, events::Event};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// How deep values may lie in each other.
const DEEPEST: usize = 64;

/// A call as it came; what cannot be read is answered by a page.
pub(crate) fn read(body: &[u8]) -> Option<(String, Vec<Value>)> {
    let tree = tree(std::str::from_utf8(body).ok()?)?;
    let call = tree.child("methodCall")?;
    let method = call.child("methodName")?.text.trim().to_owned();
    let params = match call.child("params") {
        None => Vec::new(),
        Some(params) => params.children.iter().map(|param| param.child("value").and_then(Node::value)).collect::<Option<Vec<_>>>()?,
    };
    Some((method, params))
}

/// A `<value>` that stands alone.
pub(crate) fn read_value(text: &str) -> Option<Value> {
    tree(text)?.child("value")?.value()
}

/// The elements of a document.
fn tree(text: &str) -> Option<Node> {
    let mut reader = Reader::from_str(text);
    let mut tree = Node::default();
    let mut stack: Vec<Node> = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => {
                if stack.len() > DEEPEST * 4 {
                    return None;
                }
                stack.push(Node::named(tag.name().as_ref()));
            }
            Event::Empty(tag) => {
                let node = Node::named(tag.name().as_ref());
                stack.last_mut().unwrap_or(&mut tree).children.push(node);
            }
            Event::Text(text) => {
                stack.last_mut().unwrap_or(&mut tree).text.push_str(&text);
            }
            Event::GeneralRef(name) => {
                let found = match name.resolve_char_ref().ok()? {
                    Some(c) => c.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&name)?.to_owned(),
                };
                stack.last_mut()?.text.push_str(&found);
            }
            Event::CData(data) => stack.last_mut()?.text.push_str(&data),
            Event::End(_) => {
                let node = stack.pop()?;
                stack.last_mut().unwrap_or(&mut tree).children.push(node);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    stack.is_empty().then_some(tree)
}

#[derive(Debug, Default)]
struct Node {
    name: String,
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|child| child.name == name)
    }

    /// What a `<value>` says.
    fn value(&self) -> Option<Value> {
        let Some(inner) = self.children.first() else { return Some(Value::String(self.text.clone())) };
        Some(match inner.name.as_str() {
            "string" | "dateTime.iso8601" | "base64" => Value::String(inner.text.clone()),
            "int" | "i4" | "i8" => inner.text.trim().parse::<i64>().ok()?.into(),
            "double" => inner.text.trim().parse::<f64>().ok()?.into(),
            "boolean" => (inner.text.trim() == "1").into(),
            "nil" => Value::Null,
            "array" => {
                let data = inner.child("data")?;
                Value::Array(data.children.iter().map(Node::value).collect::<Option<Vec<_>>>()?)
            }
            "struct" => {
                let member = |node: &Node| Some((node.child("name")?.text.clone(), node.child("value")?.value()?));
                Value::Object(inner.children.iter().map(member).collect::<Option<Map<_, _>>>()?)
            }
            _ => return None,
        })
    }
}

/// The answer to a call.
pub(crate) fn answer(result: Result<(Value, Type), Fault>, bare: bool, model: &Model) -> Vec<u8> {
    let mut out = String::from("<?xml version=\"1.0\"?><methodResponse><params><param>");
    match result {
        // One method answers as plain XML-RPC does.
        Ok((result, ty)) if bare => out.push_str(&value(&result, &ty, model)),
        Ok((result, ty)) => {
            out.push_str("<value><struct><member><name>Status</name><value>Success</value></member><member><name>Value</name>");
            out.push_str(&value(&result, &ty, model));
            out.push_str("</member></struct></value>");
        }
        Err(Fault(words)) => {
            out.push_str("<value><struct><member><name>Status</name><value>Failure</value></member><member><name>ErrorDescription</name><value><array><data>");
            for word in words {
                let _ = write!(out, "<value>{}</value>", escape(word));
            }
            out.push_str("</data></array></value></member></struct></value>");
        }
    }
    out.push_str("</param></params></methodResponse>");
    out.into_bytes()
}

/// A value of this type as a `<value>`.
pub(crate) fn value(value: &Value, ty: &Type, model: &Model) -> String {
    let mut out = String::new();
    write(&mut out, value, ty, model);
    out
}

fn write(out: &mut String, value: &Value, ty: &Type, model: &Model) {
    out.push_str("<value>");
    match value {
        Value::Null => {}
        Value::Bool(flag) => {
            let _ = write!(out, "<boolean>{}</boolean>", u8::from(*flag));
        }
        Value::Number(number) if *ty == Type::Float || !(number.is_i64() || number.is_u64()) => {
            let _ = write!(out, "<double>{}</double>", number.as_f64().unwrap_or_default());
        }
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) if *ty == Type::Time => {
            let _ = write!(out, "<dateTime.iso8601>{}</dateTime.iso8601>", escape(text.as_str()));
        }
        Value::String(text) => out.push_str(&escape(text.as_str())),
        Value::Array(all) => {
            let of = if let Type::Set(of) = ty { of } else { &Type::Any };
            out.push_str("<array><data>");
            for one in all {
                write(out, one, of, model);
            }
            out.push_str("</data></array>");
        }
        Value::Object(all) => {
            out.push_str("<struct>");
            // An event names the class of its record.
            let class = all.get("class").and_then(Value::as_str).and_then(crate::sim::class_named);
            for (name, one) in all {
                let of = match (ty, name.as_str(), class) {
                    (Type::Map(_, of), ..) => (**of).clone(),
                    (Type::Record(class), ..) => field_type(model, class, name),
                    (Type::Any, "snapshot", Some(class)) => Type::Record(class.to_owned()),
                    _ => Type::Any,
                };
                let _ = write!(out, "<member><name>{}</name>", escape(name.as_str()));
                write(out, one, &of, model);
                out.push_str("</member>");
            }
            out.push_str("</struct>");
        }
    }
    out.push_str("</value>");
}

fn field_type(model: &Model, class: &str, name: &str) -> Type {
    model.classes.get(class).and_then(|class| class.field(name)).map_or(Type::Any, |field| field.ty.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn calls_are_read() {
        let text = "<?xml version=\"1.0\"?><methodCall><methodName>VM.x</methodName><params><param><value><string>a &amp; &lt;b&gt; &#233;</string></value></param>\
            <param><value>plain</value></param><param><value><int>7</int></value></param><param><value><boolean>1</boolean></value></param>\
            <param><value><struct><member><name>k</name><value><array><data><value><double>1.5</double></value></data></array></value></member></struct></value></param>\
            </params></methodCall>";
        let (method, params) = read(text.as_bytes()).unwrap();
        assert_eq!(method, "VM.x");
        assert_eq!(Value::Array(params), json!(["a & <b> é", "plain", 7, true, {"k": [1.5]}]));
        for bad in [
            "",
            "<methodCall><oops>",
            "<methodCall/>",
            "<a>&bomb;</a>",
            "<methodCall><methodName>x</methodName><params><param/></params></methodCall>",
        ] {
            assert!(read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(read("<a>".repeat(100_000).as_bytes()).is_none());
    }

    #[test]
    fn answers_have_integers_as_text_and_times_as_times() {
        let model = Model::get();
        let record = json!({"name_label": "a<b>", "memory_static_max": 1024, "is_a_template": true, "snapshot_time": "19700101T00:00:00Z", "HVM_shadow_multiplier": 1.0});
        let out = value(&record, &Type::Record("VM".into()), model);
        for part in [
            "<value>a&lt;b&gt;</value>",
            "<value>1024</value>",
            "<boolean>1</boolean>",
            "<dateTime.iso8601>19700101T00:00:00Z<",
            "<double>1</double>",
        ] {
            assert!(out.contains(part), "{part}: {out}");
        }
        let failed = String::from_utf8(answer(Err(Fault::new("X", ["&"])), false, model)).unwrap();
        assert!(failed.contains("Failure") && failed.contains("<value>&amp;</value>"));
    }
}
