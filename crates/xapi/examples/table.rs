//! Makes `src/model/model.txt` from the published data model of XAPI (`xenapi.json`): names, types and releases, and none of its sentences.
//!
//! `cargo xtask xapi-table xenapi.json` runs it.

use serde_json::Value;
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The release in which something was published; empty if it never was.
fn since(item: &Value) -> &str {
    let of = |transition: &&Value| text(&transition["transition"]) == "published";
    list(&item["lifecycle"]["transitions"]).iter().find(of).map_or("", |transition| text(&transition["release"]))
}

/// The arguments of a constructor, those that must be given with a star, from the sentence that lists them.
fn arguments(message: &Value) -> Option<String> {
    let said = text(&message["description"]);
    let rest = said.split_once("constructor args are: ")?.1;
    Some(rest.split_once(" (*")?.0.split(", ").map(str::trim).collect::<Vec<_>>().join(","))
}

fn class(out: &mut String, class: &Value) {
    let _ = writeln!(out, "{}", format!("class\t{}\t{}", text(&class["name"]), since(class)).trim_end());
    for field in list(&class["fields"]) {
        let default = field.get("default").map_or("-", text);
        let kind = text(&field["qualifier"]);
        let line = format!("field\t{}\t{kind}\t{}\t{default}\t{}", text(&field["name"]), text(&field["type"]), since(field));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for values in list(&class["enums"]) {
        let words: Vec<&str> = list(&values["values"]).iter().map(|value| text(&value["name"])).collect();
        let _ = writeln!(out, "enum\t{}\t{}", text(&values["name"]), words.join(","));
    }
    for message in list(&class["messages"]) {
        let name = text(&message["name"]);
        if message.get("implicit").and_then(Value::as_bool) == Some(true) {
            match name {
                "create" => drop(writeln!(out, "make\t{}", arguments(message).unwrap_or_default())),
                "destroy" | "get_by_name_label" | "get_all_records" => drop(writeln!(out, "has\t{name}")),
                _ => {}
            }
            continue;
        }
        let parameters = list(&message["params"]).iter().filter(|parameter| text(&parameter["type"]) != "session ref");
        let shown = |parameter: &Value| {
            let optional = if parameter["required"].as_bool() == Some(false) { "?" } else { "" };
            format!("{}={}{optional}", text(&parameter["name"]), text(&parameter["type"]))
        };
        let parameters: Vec<String> = parameters.map(shown).collect();
        let open = list(&message["params"]).iter().all(|parameter| text(&parameter["type"]) != "session ref");
        let result = list(&message["result"]).first().map_or("void", text);
        let session = if open { "open" } else { "session" };
        let line = format!("call\t{name}\t{}\t{session}\t{result}\t{}", since(message), parameters.join("\t"));
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn main() -> io::Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| io::Error::other("which file?"))?;
    let model: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut out = String::new();
    for one in list(&model) {
        class(&mut out, one);
    }
    io::stdout().write_all(out.as_bytes())
}
