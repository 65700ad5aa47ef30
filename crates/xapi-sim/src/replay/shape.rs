//! The shape of an answer: which fields, of which types, which error with how many parameters. And which names stand for which.

use crate::model::{Model, Type};
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

/// References, uuids and tokens: those of the recording and those of here.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<String, String>,
    /// The last token that was told here: stands for one of the recording that was in an answer of which not all was kept.
    token: Option<String>,
}

/// The parts of a text that are names, by where they begin and end.
fn names_in(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let is_uuid = |at: usize| {
        let Some(part) = bytes.get(at..at + 36) else { return false };
        part.iter().enumerate().all(|(n, byte)| if matches!(n, 8 | 13 | 18 | 23) { *byte == b'-' } else { byte.is_ascii_hexdigit() })
    };
    // 20 digits, a comma, 20 digits.
    let is_token = |at: usize| {
        let Some(part) = bytes.get(at..at + 41) else { return false };
        part.iter().enumerate().all(|(n, byte)| if n == 20 { *byte == b',' } else { byte.is_ascii_digit() })
    };
    let (mut all, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let length = if is_token(at) {
            41
        } else if is_uuid(at) {
            36
        } else {
            at += 1;
            continue;
        };
        all.push((at, at + length));
        at += length;
    }
    all
}

impl Names {
    /// A text of the recording with the names of here.
    pub(super) fn here(&self, text: &str) -> String {
        let (mut out, mut done) = (String::with_capacity(text.len()), 0);
        for (start, end) in names_in(text) {
            out.push_str(&text[done..start]);
            let name = &text[start..end];
            let known = self.known.get(name).or(self.token.as_ref().filter(|_| name.contains(',')));
            out.push_str(known.map_or(name, String::as_str));
            done = end;
        }
        out.push_str(&text[done..]);
        out
    }

    /// Remembers a token that was told here.
    pub(super) fn token(&mut self, answer: &Value) {
        let told = answer["result"]["token"].as_str().or(answer["Value"]["token"].as_str());
        self.token = told.map(str::to_owned).or(self.token.take());
    }

    /// Two texts that say the same have their names in the same places.
    fn learn(&mut self, there: &str, here: &str) {
        let (a, b) = (names_in(there), names_in(here));
        if a.len() != b.len() {
            return;
        }
        for ((s, e), (t, f)) in a.into_iter().zip(b) {
            if e - s == f - t {
                self.known.insert(there[s..e].to_owned(), here[t..f].to_owned());
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth",
        Value::Number(number) if number.is_f64() => "a float",
        Value::Number(_) => "an integer",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Whether the keys of an object are data and not names of fields.
fn is_map(object: &Map<String, Value>) -> bool {
    object.keys().any(|key| key.starts_with("OpaqueRef:"))
}

/// Fields whose keys are data, too: those that are maps in some class. And what is no field.
fn has_any_keys(field: &str) -> bool {
    static MAPS: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let maps = MAPS.get_or_init(|| {
        let fields = Model::get().classes.values().flat_map(|class| &class.fields);
        fields.filter(|field| matches!(field.ty, Type::Map(..))).map(|field| field.name.as_str()).chain(["valid_ref_counts"]).collect()
    });
    maps.contains(field)
}

/// Compares, and says in `all` what is different, by its place.
pub(super) fn compare(place: &str, there: &Value, here: &Value, names: &mut Names, all: &mut Vec<String>) {
    match (there, here) {
        (Value::String(a), Value::String(b)) => names.learn(a, b),
        (Value::Object(a), Value::Object(b)) => objects(place, a, b, names, all),
        (Value::Array(a), Value::Array(b)) => lists(place, a, b, names, all),
        _ if kind(there) == kind(here) => {}
        _ => all.push(format!("{place}: {} there, {} here ({})", kind(there), kind(here), shown(here))),
    }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(120).collect()
}

fn objects(place: &str, there: &Map<String, Value>, here: &Map<String, Value>, names: &mut Names, all: &mut Vec<String>) {
    let last = place.rsplit('/').next().unwrap_or_default();
    if is_map(there) || is_map(here) {
        return records(place, there, here, names, all);
    }
    if has_any_keys(last) {
        return;
    }
    if let (Some(a), Some(b)) = (failure(there), failure(here)) {
        if a.first() != b.first() {
            all.push(format!("{place}: {} there, {} here", a.join(" "), b.join(" ")));
        } else if a.len() != b.len() {
            all.push(format!("{place}: {} with {} parameters there, {} here ({})", a[0], a.len() - 1, b.len() - 1, b.join(" ")));
        }
        return;
    }
    for field in there.keys().filter(|field| !here.contains_key(*field)) {
        all.push(format!("{place}/{field}: only there; here {}", shown(&Value::Object(here.clone()))));
    }
    for field in here.keys().filter(|field| !there.contains_key(*field)) {
        all.push(format!("{place}/{field}: only here"));
    }
    for (field, a) in there {
        if let Some(b) = here.get(field) {
            compare(&format!("{place}/{field}"), a, b, names, all);
        }
    }
}

/// The words of a failure, in any of its forms.
fn failure(object: &Map<String, Value>) -> Option<Vec<String>> {
    let words =
        |value: &Value| value.as_array().map(|all| all.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>());
    if let Some(description) = object.get("ErrorDescription") {
        return words(description);
    }
    match object.get("error")? {
        Value::Array(all) => words(&Value::Array(all.clone())),
        Value::Object(error) => {
            let mut whole = vec![error.get("message")?.as_str()?.to_owned()];
            whole.extend(words(error.get("data")?)?);
            Some(whole)
        }
        _ => None,
    }
}

/// Objects by reference: each is compared with the one of the same name, or with any.
fn records(place: &str, there: &Map<String, Value>, here: &Map<String, Value>, names: &mut Names, all: &mut Vec<String>) {
    let any = here.values().next();
    for (reference, a) in there {
        let known = here.get(&names.here(reference));
        let named = || here.iter().find(|(_, b)| b["name_label"] == a["name_label"] && !a["name_label"].is_null());
        let by_name = if known.is_none() { named() } else { None };
        if let Some((name, _)) = by_name {
            names.learn(reference, name);
        }
        match known.or(by_name.map(|(_, b)| b)) {
            Some(b) => compare(&format!("{place}/*"), a, b, names, all),
            // Values of another are not names of this one.
            None => match any {
                Some(b) => compare(&format!("{place}/*"), a, b, &mut Names::default(), all),
                None => {
                    all.push(format!("{place}: {} there, none here", there.len()));
                    return;
                }
            },
        }
    }
}

fn lists(place: &str, there: &[Value], here: &[Value], names: &mut Names, all: &mut Vec<String>) {
    let is_event = |value: &Value| value.get("operation").is_some() && value.get("class").is_some();
    if there.iter().any(is_event) {
        for a in there {
            let same = |b: &&Value| b["class"] == a["class"] && b["operation"] == a["operation"];
            let reference = names.here(a["ref"].as_str().unwrap_or_default());
            match here.iter().find(|b| b["ref"] == reference.as_str() && same(b)).or_else(|| here.iter().find(same)) {
                Some(b) => compare(&format!("{place}/{}", a["class"].as_str().unwrap_or_default()), a, b, &mut Names::default(), all),
                None => all.push(format!("{place}: no {} of {} here", a["operation"], a["class"])),
            }
        }
        return;
    }
    if there.len() == here.len() {
        for (a, b) in there.iter().zip(here) {
            compare(&format!("{place}/-"), a, b, names, all);
        }
    } else if let (Some(a), Some(b)) = (there.first(), here.first()) {
        compare(&format!("{place}/-"), a, b, &mut Names::default(), all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differences(there: Value, here: Value) -> Vec<String> {
        let mut all = Vec::new();
        compare("", &there, &here, &mut Names::default(), &mut all);
        all
    }

    #[test]
    fn shapes_are_compared_and_values_are_not() {
        assert!(differences(json!({"result": {"a": 1, "b": ["x"]}}), json!({"result": {"a": 2, "b": []}})).is_empty());
        assert_eq!(differences(json!({"a": 1}), json!({"a": "1"})).len(), 1);
        assert_eq!(differences(json!({"a": 1.5}), json!({"a": 1})).len(), 1);
        assert_eq!(differences(json!({"a": 1}), json!({"b": 1})).len(), 2);
        assert!(differences(json!({"other_config": {"a": "b"}}), json!({"other_config": {}})).is_empty());
        let failed = |words: &[&str]| json!({"error": {"code": 1, "message": words[0], "data": words[1..]}});
        assert!(differences(failed(&["X", "a"]), failed(&["X", "b"])).is_empty());
        assert_eq!(differences(failed(&["X", "a"]), failed(&["Y", "a"])).len(), 1);
        assert_eq!(differences(failed(&["X", "a"]), failed(&["X"])).len(), 1);
        assert_eq!(differences(failed(&["X", "a"]), json!({"result": ""})).len(), 2);
    }

    #[test]
    fn names_are_learned_where_they_stand() {
        let (a, b) = ("0198f0c2-0000-7000-8000-000000000001", "0198f0c2-0000-7000-8000-000000000002");
        let mut names = Names::default();
        compare(
            "",
            &json!({"result": format!("OpaqueRef:{a}")}),
            &json!({"result": format!("OpaqueRef:{b}")}),
            &mut names,
            &mut Vec::new(),
        );
        assert_eq!(names.here(&format!("x OpaqueRef:{a} y {a}")), format!("x OpaqueRef:{b} y {b}"));
        let (t, u) = ("00000000000000011687,00000000000000000000", "00000000000000000007,00000000000000000000");
        names.learn(t, u);
        assert_eq!(names.here(t), u);
    }
}
