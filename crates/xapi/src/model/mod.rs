//! The data model: which classes there are, what fields and calls they have, of which types, and since which release. Read from a table of names that
//! `cargo xtask xapi-table` makes from the published data model (of xapi 26.17).
//!
//! The client does not need it to speak to a host. It is what calls are checked against before they are sent by hand, in tests all of them, and what
//! the test server serves.

mod accessor;
mod argument;
mod method;
mod release;
mod types;

pub use accessor::{Accessor, Param};
pub use method::{Method, Wrong};
pub use release::Release;
pub use types::Type;

use serde_json::Value;
use std::{collections::BTreeMap, sync::OnceLock};

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
    /// The release that had it first.
    pub since: String,
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
    /// What it wants after the session.
    pub params: Vec<Param>,
}

/// A class.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// The release that had it first.
    pub since: String,
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
    /// The one of the release this was made from; read when it is first asked for.
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
                "class" => class.since = parts.next().unwrap_or_default().to_owned(),
                "field" => {
                    let access = match parts.next() {
                        Some("RW") => Access::Writable,
                        Some("RO/constructor") => Access::Constructor,
                        _ => Access::Runtime,
                    };
                    let ty = Type::parse(parts.next().unwrap_or("string"));
                    let default = ty.default(parts.next().unwrap_or("-"));
                    let since = parts.next().unwrap_or_default().to_owned();
                    class.fields.push(Field { name: first.to_owned(), access, ty, default, since });
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
                    let params = parts.filter(|text| !text.is_empty()).map(param).collect();
                    class.calls.insert(first.to_owned(), Call { since, session, result, params });
                }
                _ => {}
            }
        }
        model
    }
}

/// Reads `name=type`, with a `?` at the end if it may be left out.
fn param(text: &str) -> Param {
    let (name, ty) = text.split_once('=').unwrap_or(("", text));
    Param { name: name.to_owned(), ty: Type::parse(ty.trim_end_matches('?')), optional: ty.ends_with('?') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::NULL;

    #[test]
    fn the_table_is_whole() {
        let model = Model::get();
        assert_eq!(model.classes.len(), 72);
        assert_eq!(model.classes.values().map(|class| class.fields.len()).sum::<usize>(), 922);
        let vm = &model.classes["VM"];
        assert_eq!(vm.since, "rio");
        assert_eq!(vm.field("power_state").unwrap().default, "Halted");
        assert_eq!(vm.field("snapshot_of").unwrap().default, NULL);
        assert_eq!(vm.field("HVM_shadow_multiplier").unwrap().default, 1.0);
        let start: Vec<String> = vm.calls["start"].params.iter().map(|p| format!("{}: {}", p.name, p.ty)).collect();
        assert_eq!(start, ["vm: VM ref", "start_paused: bool", "force: bool"]);
        assert!(!model.classes["session"].calls["login_with_password"].session);
        let vbd = model.classes["VBD"].make.as_ref();
        assert!(vbd.is_some_and(|fields| fields.contains(&("bootable".into(), true))));
        // Every release is one that is known, so that they can be compared.
        let all = model.classes.values().flat_map(|class| {
            let fields = class.fields.iter().map(|field| &field.since);
            fields.chain(class.calls.values().map(|call| &call.since)).chain([&class.since])
        });
        let unknown: Vec<&String> = all.filter(|since| !since.is_empty() && Release::parse(since) == Release::parse("?")).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
