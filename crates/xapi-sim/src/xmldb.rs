//! XAPI's database as the file `xapi-db.xml` that real hosts keep and hand out: read into rows, and written again.
//!
//! A row is an element whose attributes are columns. Some names have two underscores where the API has one, sets and maps are S-expressions, and spaces are
//! `%.` (`ocaml/database/db_xml.ml`, `xml_spaces.ml`, `string_marshall_helper.ml` of xen-api). What the API does not show is passed over.

use crate::{
    model::{Model, Type},
    store::Store,
};
use quick_xml::{Reader, escape::escape, events::Event};
use serde_json::{Map, Number, Value};
use std::{collections::BTreeMap, fmt::Write as _};

/// First parts of names that are followed by two underscores in the file.
const NESTED: &[&str] = &["API_version", "HVM", "PV", "VCPUs", "actions", "io", "memory", "name", "qos"];
/// Classes in which they are not.
const FLAT: &[(&str, &str)] = &[("pool", "name"), ("VM_guest_metrics", "PV")];
/// Columns that are the database's own.
const OWN: &[&str] = &["ref", "_ref", "__ctime", "__mtime"];
/// How deep sets and maps may lie in each other.
const DEEPEST: usize = 16;

/// What reading has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Rows of classes that are known.
    pub rows: usize,
    /// Columns that are fields of the API.
    pub columns: usize,
    /// Columns that are written again in other letters than they were read: class, column, before, after.
    pub different: Vec<[String; 4]>,
    /// Columns and tables that the API does not show, and how often.
    pub hidden: BTreeMap<String, usize>,
}

/// Reads a file into an empty store.
///
/// # Errors
/// Where the file is none, and which value is of another type than its field.
pub(crate) fn read(store: &mut Store, text: &str) -> Result<Read, String> {
    let mut reader = Reader::from_str(text);
    let (mut read, mut table, mut depth, mut whole) = (Read::default(), None::<String>, 0_usize, false);
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::DocType(_) => return Err("a DTD".into()),
            Event::Start(tag) | Event::Empty(tag) if tag.name().as_ref() == "row" => {
                let Some(class) = &table else { return Err("a row outside of a table".into()) };
                let mut columns = Vec::new();
                for attribute in tag.attributes() {
                    let attribute = attribute.map_err(|error| error.to_string())?;
                    let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
                    columns.push((attribute.key.as_ref().to_owned(), value.into_owned()));
                }
                row(store, class, &columns, &mut read)?;
            }
            Event::Start(tag) | Event::Empty(tag) if tag.name().as_ref() == "table" => {
                let name = tag.try_get_attribute("name").map_err(|error| error.to_string())?.ok_or("a table without a name")?;
                table = Some(name.value.into_owned());
            }
            Event::Start(tag) if tag.name().as_ref() == "database" => depth += 1,
            Event::End(tag) if tag.name().as_ref() == "database" => {
                depth = depth.checked_sub(1).ok_or("it ends before it begins")?;
                whole = depth == 0;
            }
            Event::Eof if whole => return Ok(read),
            Event::Eof => return Err("it is no database, or cut off".into()),
            _ => {}
        }
    }
}

fn row(store: &mut Store, table: &str, columns: &[(String, String)], read: &mut Read) -> Result<(), String> {
    let mut hide = |what: String| *read.hidden.entry(what).or_default() += 1;
    let Some(class) = store.model.classes.get(table) else {
        hide(table.to_owned());
        return Ok(());
    };
    let reference = columns.iter().find(|(name, _)| name == "ref").map(|(_, value)| value.clone()).ok_or("a row without a reference")?;
    let mut fields = Map::new();
    for (column, raw) in columns.iter().filter(|(column, _)| !OWN.contains(&column.as_str())) {
        let Some(field) = class.field(&column.replace("__", "_")) else {
            hide(format!("{table}.{column}"));
            continue;
        };
        let text = unspace(raw).ok_or_else(|| format!("{table}.{column}: an escape that is not known"))?;
        let value = decode(&field.ty, &text).ok_or_else(|| format!("{table}.{column}: \"{raw}\" is no {}", field.ty))?;
        let again = space(&encode(&field.ty, &value));
        // `0.` is how OCaml writes a float that is whole.
        let whole = field.ty == Type::Float && again == raw.trim_end_matches('.');
        if !(again == *raw || whole) || column_of(table, &field.name) != *column {
            read.different.push([table.to_owned(), column.clone(), raw.clone(), again]);
        }
        read.columns += 1;
        fields.insert(field.name.clone(), value);
    }
    read.rows += 1;
    store.restore(table, &reference, fields);
    Ok(())
}

/// Writes a store as such a file.
pub(crate) fn write(store: &Store) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<database><manifest>");
    for (key, value) in [("schema_major_vsn", 5), ("schema_minor_vsn", 909), ("generation_count", store.generation)] {
        let _ = write!(out, "<pair key=\"{key}\" value=\"{value}\"/>");
    }
    out.push_str("</manifest>");
    for (name, class) in &Model::get().classes {
        let _ = write!(out, "<table name=\"{name}\">");
        for (reference, row) in store.rows(name) {
            let _ = write!(out, "<row ref=\"{0}\" _ref=\"{0}\"", escape(reference.as_str()));
            for field in &class.fields {
                if let Some(value) = row.fields.get(&field.name) {
                    let text = space(&encode(&field.ty, value));
                    let _ = write!(out, " {}=\"{}\"", column_of(name, &field.name), escape(text.as_str()));
                }
            }
            out.push_str("/>");
        }
        out.push_str("</table>");
    }
    out.push_str("</database>");
    out
}

/// A field's name in the file.
fn column_of(class: &str, field: &str) -> String {
    let split = |first: &&&str| field.strip_prefix(**first)?.strip_prefix('_').filter(|_| !FLAT.contains(&(class, **first)));
    match NESTED.iter().find_map(|first| split(&first).map(|rest| (first, rest))) {
        Some((first, rest)) => format!("{first}__{rest}"),
        None => field.to_owned(),
    }
}

fn unspace(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '%' => match chars.next()? {
                '.' => ' ',
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                '%' => '%',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

fn space(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' => out.push_str("%."),
            '\t' => out.push_str("%t"),
            '\n' => out.push_str("%n"),
            '\r' => out.push_str("%r"),
            '%' => out.push_str("%%"),
            c => out.push(c),
        }
    }
    out
}

/// A value of this type from the text of a column.
fn decode(ty: &Type, text: &str) -> Option<Value> {
    Some(match ty {
        Type::Int => text.parse::<i64>().ok()?.into(),
        Type::Float => Number::from_f64(text.parse().ok()?)?.into(),
        Type::Bool => text.parse::<bool>().ok()?.into(),
        Type::Set(of) => {
            let Expression::List(all) = Expression::parse(text)? else { return None };
            all.iter().map(|one| decode(of, one.text()?)).collect::<Option<Vec<_>>>()?.into()
        }
        Type::Map(_, of) => {
            let Expression::List(all) = Expression::parse(text)? else { return None };
            let pair = |one: &Expression| {
                let Expression::List(pair) = one else { return None };
                let [key, value] = pair.as_slice() else { return None };
                Some((key.text()?.to_owned(), decode(of, value.text()?)?))
            };
            Value::Object(all.iter().map(pair).collect::<Option<_>>()?)
        }
        _ => text.into(),
    })
}

/// The text of a column.
fn encode(ty: &Type, value: &Value) -> String {
    let quoted = |ty: &Type, value: &Value| format!("'{}'", encode(ty, value).replace('\\', "\\\\").replace('\'', "\\'"));
    match (ty, value) {
        (Type::Set(of), Value::Array(all)) => format!("({})", all.iter().map(|one| quoted(of, one)).collect::<Vec<_>>().join(" ")),
        (Type::Map(_, of), Value::Object(all)) => {
            let pair = |(key, value): (&String, &Value)| format!("({} {})", quoted(&Type::Text, &key.as_str().into()), quoted(of, value));
            format!("({})", all.iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        (Type::Float, value) => value.as_f64().unwrap_or_default().to_string(),
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    }
}

/// An S-expression: lists of lists and of texts in quotes.
enum Expression {
    Text(String),
    List(Vec<Expression>),
}

impl Expression {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let whole = Self::one(&mut rest, 0)?;
        rest.trim().is_empty().then_some(whole)
    }

    fn one(rest: &mut &str, depth: usize) -> Option<Self> {
        if depth > DEEPEST {
            return None;
        }
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('(') {
            *rest = after;
            let mut all = Vec::new();
            loop {
                *rest = rest.trim_start();
                if let Some(after) = rest.strip_prefix(')') {
                    *rest = after;
                    return Some(Self::List(all));
                }
                all.push(Self::one(rest, depth + 1)?);
            }
        }
        let after = rest.strip_prefix('\'')?;
        let (mut out, mut chars) = (String::new(), after.char_indices());
        loop {
            match chars.next()? {
                (_, '\\') => out.push(chars.next()?.1),
                (at, '\'') => {
                    *rest = &after[at + 1..];
                    return Some(Self::Text(out));
                }
                (_, c) => out.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_they_are_read() {
        for (ty, text, value) in [
            ("string", "a%.b%%c%n", json!("a b%c\n")),
            ("string set", "('a'%.'b\\'c')", json!(["a", "b'c"])),
            ("(string -> string) map", "(('k%.x'%.'v\\\\')%.('l'%.''))", json!({"k x": "v\\", "l": ""})),
            ("int", "-1", json!(-1)),
            ("float", "0.5", json!(0.5)),
            ("bool", "true", json!(true)),
            ("VM ref set", "()", json!([])),
        ] {
            let ty = Type::parse(ty);
            assert_eq!(decode(&ty, &unspace(text).unwrap()), Some(value.clone()), "{text}");
            assert_eq!(space(&encode(&ty, &value)), text);
        }
        for (ty, bad) in [
            ("string set", "('a"),
            ("string set", "'a'"),
            ("string set", "(a)"),
            ("int", "x"),
            ("bool", "yes"),
            ("(string -> string) map", "(('a'))"),
        ] {
            assert_eq!(decode(&Type::parse(ty), bad), None, "{bad}");
        }
        assert_eq!(decode(&Type::parse("string set"), &"(".repeat(100_000)), None);
        assert_eq!(unspace("a%"), None);
    }

    #[test]
    fn a_store_is_written_and_read_again() {
        let mut store = crate::seed::pool("10.9.0.1");
        let text = write(&store);
        let mut again = Store::new(Model::get());
        let read = read(&mut again, &text).unwrap();
        assert!(read.different.is_empty() && read.hidden.is_empty(), "{read:?}");
        assert!(read.rows > 10);
        for class in Model::get().classes.keys() {
            let rows =
                |store: &Store| store.rows(class).map(|(reference, row)| (reference.clone(), row.fields.clone())).collect::<Vec<_>>();
            assert_eq!(rows(&store), rows(&again), "{class}");
        }
        assert!(text.contains(" name__label=\"Debian%.Bookworm%.12\"") && text.contains(" name_label=\"sim\""));
        store.insert("VM", Map::new());
    }

    #[test]
    fn what_is_no_database_is_refused() {
        for bad in [
            "",
            "{}",
            "<database>",
            "<database><row ref=\"a\"/></database>",
            "<database><table name=\"VM\"><row uuid=\"a\"/></table></database>",
            "<database><table name=\"VM\"><row ref=\"a\" domid=\"x\"/></table></database>",
            "<database><table name=\"VM\"><row ref=\"a\" tags=\"(\"/></table></database>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><database></database>",
        ] {
            assert!(read(&mut Store::new(Model::get()), bad).is_err(), "{bad}");
        }
    }
}
