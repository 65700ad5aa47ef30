//! Reads fields of a rockspec's tables and remembers every mistake.

use super::{InstallEntry, Module, NativeModule, value::parts};
use crate::constraint::Dependency;
use serde_json::{Map, Value};
use std::{cell::RefCell, rc::Rc, str::FromStr};
use vmoon_core::{Error, name::escape};

/// More mistakes than these are counted, not listed.
const MAX_PROBLEMS: usize = 12;

/// One table of a rockspec, with the path that leads to it and the mistakes found so far.
pub(super) struct Fields<'a> {
    value: Option<&'a Value>,
    root: Option<&'a Map<String, Value>>,
    path: String,
    problems: Rc<RefCell<Vec<String>>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(globals: &'a Map<String, Value>) -> Self {
        Self { value: None, root: Some(globals), path: String::new(), problems: Rc::default() }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let all = self.problems.borrow();
        let mut shown: Vec<String> = all.iter().take(MAX_PROBLEMS).cloned().collect();
        if all.len() > MAX_PROBLEMS {
            shown.push(format!("and {} more", all.len() - MAX_PROBLEMS));
        }
        shown
    }

    pub(super) fn problem(&self, problem: String) {
        self.problems.borrow_mut().push(escape(&problem).chars().take(200).collect());
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        match self.root {
            Some(root) => root.get(name),
            None => self.value?.as_object()?.get(name),
        }
    }

    fn below(&self, name: &str, value: Option<&'a Value>) -> Self {
        Self { value, root: None, path: self.at(name), problems: Rc::clone(&self.problems) }
    }

    /// The table of this name; an empty one where it is missing.
    pub(super) fn table(&self, name: &str) -> Fields<'a> {
        let value = self.get(name).filter(|value| {
            let is_table = value.is_object() || value.is_array();
            if !is_table {
                self.problem(format!("{} is no table", self.at(name)));
            }
            is_table
        });
        self.below(name, value)
    }

    /// Text; a number is taken as it is written, as Lua does where it wants text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                self.problem(format!("{} is no text", self.at(name)));
                None
            }
        }
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(flag) => Some(*flag),
            _ => {
                self.problem(format!("{} is neither true nor false", self.at(name)));
                None
            }
        }
    }

    pub(super) fn required(&self, name: &str) -> Option<String> {
        let text = self.text(name).filter(|text| !text.is_empty());
        if text.is_none() {
            self.problem(format!("{} is missing", self.at(name)));
        }
        text
    }

    pub(super) fn parsed<T: FromStr<Err = Error>>(&self, name: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: Error| self.problem(format!("{}: {}", self.at(name), error.message()))).ok()
    }

    /// A relative path that stays in the source.
    fn checked_path(&self, name: &str, text: &str) -> Option<String> {
        let outside = text.starts_with('/') || text.split('/').any(|part| part == "..") || text.bytes().any(|b| b.is_ascii_control());
        if outside || text.is_empty() {
            self.problem(format!("{}: \"{text}\" is not a path inside the source", self.at(name)));
            return None;
        }
        Some(text.to_owned())
    }

    pub(super) fn path(&self, name: &str) -> Option<String> {
        self.text(name).and_then(|text| self.checked_path(name, &text))
    }

    fn list_of(&self, name: &str, value: &Value) -> Vec<String> {
        // One text stands for a list of one where a list is asked for.
        if let Value::String(text) = value {
            return vec![text.clone()];
        }
        let (list, _) = parts(value);
        let mut texts = Vec::new();
        for value in list {
            match value {
                Value::String(text) => texts.push(text.clone()),
                Value::Number(number) => texts.push(number.to_string()),
                _ => self.problem(format!("{} has an entry that is no text", self.at(name))),
            }
        }
        texts
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.get(name).map(|value| self.list_of(name, value)).unwrap_or_default()
    }

    pub(super) fn paths(&self, name: &str) -> Vec<String> {
        self.texts(name).iter().filter_map(|text| self.checked_path(name, text)).collect()
    }

    pub(super) fn dependencies(&self, name: &str) -> Vec<Dependency> {
        let table = self.table(name);
        let Some(value) = table.value else { return Vec::new() };
        self.list_of(name, value).iter().filter_map(|text| self.parsed(name, text)).collect()
    }

    /// Named entries that are tables.
    pub(super) fn entries(&self) -> Vec<(String, Fields<'a>)> {
        let Some(value) = self.value else { return Vec::new() };
        parts(value).1.into_iter().map(|(name, value)| (name.to_owned(), self.below(name, Some(value)))).collect()
    }

    /// Every entry, with its name if it has one.
    pub(super) fn values(&self) -> Vec<(Option<&'a str>, &'a Value)> {
        let Some(value) = self.value else { return Vec::new() };
        let (list, named) = parts(value);
        let named = named.into_iter().map(|(name, value)| (Some(name), value));
        list.into_iter().map(|value| (None, value)).chain(named).collect()
    }

    /// Named entries that are text; other ones, which only the program of this kind of build knows, are left out.
    pub(super) fn named_texts(&self) -> Vec<(String, String)> {
        let texts = self.values().into_iter().filter_map(|(name, value)| Some((name?.to_owned(), value.as_str()?.to_owned())));
        texts.collect()
    }

    /// Everything but these.
    pub(super) fn without(&self, known: &[&str]) -> Map<String, Value> {
        let Some(Value::Object(all)) = self.value else { return Map::new() };
        all.iter().filter(|(name, _)| !known.contains(&name.as_str())).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Files of `build.install`.
    pub(super) fn files(&self, name: &str) -> Vec<InstallEntry> {
        let table = self.table(name);
        let mut files = Vec::new();
        for (key, value) in table.values() {
            let Some(file) = value.as_str() else {
                self.problem(format!("{} has an entry that is no text", table.path));
                continue;
            };
            let key = match key {
                Some(key) => match table.checked_path("name", key) {
                    Some(key) => Some(key),
                    None => continue,
                },
                None => None,
            };
            if let Some(file) = table.checked_path("file", file) {
                files.push(InstallEntry { name: key, file });
            }
        }
        files
    }

    /// One entry of `build.modules`, as `luarocks/build/builtin.lua` reads it.
    pub(super) fn module(&self, name: Option<&str>, value: &Value) -> Option<(String, Module)> {
        let at = |text: &str| format!("modules.{text}");
        if let Value::String(file) = value {
            let file = self.checked_path(&at(name.unwrap_or("?")), file)?;
            let name = match name {
                Some(name) => self.module_name(name)?,
                None => self.module_name(&name_of_file(&file))?,
            };
            let module = match file.rsplit_once('.').map(|(_, end)| end) {
                Some("lua") => Module::Lua(file),
                _ => Module::Native(NativeModule { sources: vec![file], ..NativeModule::default() }),
            };
            return Some((name, module));
        }
        let Some(name) = name else {
            self.problem("modules has a C module without a name".into());
            return None;
        };
        let name = self.module_name(name)?;
        let (list, _) = parts(value);
        let fields = self.below(&at(&name), Some(value));
        let sources = if list.is_empty() { fields.paths("sources") } else { fields.checked_list("sources", value) };
        if sources.is_empty() {
            self.problem(format!("{} has no sources", fields.path));
            return None;
        }
        let native = NativeModule {
            sources,
            defines: fields.texts("defines"),
            incdirs: fields.texts("incdirs"),
            libdirs: fields.texts("libdirs"),
            libraries: fields.texts("libraries"),
        };
        Some((name, Module::Native(native)))
    }

    fn checked_list(&self, name: &str, value: &Value) -> Vec<String> {
        self.list_of(name, value).iter().filter_map(|text| self.checked_path(name, text)).collect()
    }

    /// A module's name becomes a path: no part of it may leave the tree.
    fn module_name(&self, name: &str) -> Option<String> {
        let parts_fit = name.split('.').all(|part| !part.is_empty());
        if !parts_fit || name.contains('/') || name.bytes().any(|b| b.is_ascii_control()) || name.len() > 200 {
            self.problem(format!("modules: \"{name}\" cannot be the name of a module"));
            return None;
        }
        Some(name.to_owned())
    }
}

/// `src/a/b.lua` is module `src.a.b`; an `init.lua` is its folder (`path_to_module` in `luarocks/path.lua`).
fn name_of_file(file: &str) -> String {
    let stem = file.trim_start_matches("./");
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    let stem = stem.strip_suffix("/init").unwrap_or(stem);
    stem.replace('/', ".")
}
